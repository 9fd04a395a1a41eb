//! Decimals as integers of 10⁻¹², written and read without rounding; ratios for printing.

use num_bigint::BigInt;

/// Digits after the decimal point of a value.
pub const FRACTION_DIGITS: usize = 12;
const SCALE: u128 = 1_000_000_000_000;

/// Appends `units × 10⁻¹²` without trailing zeros, such as `-12.5`.
pub fn write(units: i128, out: &mut Vec<u8>) {
    if units < 0 {
        out.push(b'-');
    }
    let magnitude = units.unsigned_abs();
    write_integer(magnitude / SCALE, 1, out);
    let fraction = magnitude % SCALE;
    if fraction != 0 {
        out.push(b'.');
        write_integer(fraction, FRACTION_DIGITS, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Appends `number` in decimal with at least `width` digits, filled with zeros.
pub fn write_integer(mut number: u128, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 39];
    let mut start = digits.len();
    // Most numbers fit 64 bits, where a division is many times cheaper.
    while number > u128::from(u64::MAX) {
        start -= 1;
        digits[start] = ascii_digit(u64::try_from(number % 10).expect("a digit"));
        number /= 10;
    }
    let mut small = u64::try_from(number).expect("at most 64 bits are left");
    while small > 0 {
        start -= 1;
        digits[start] = ascii_digit(small % 10);
        small /= 10;
    }
    out.extend_from_slice(&digits[start.min(digits.len() - width)..]);
}

fn ascii_digit(digit: u64) -> u8 {
    b"0123456789"[usize::try_from(digit).expect("a digit")]
}

/// Reads what ClickHouse prints for a decimal; `None` when it is not one or has more than 12
/// fraction digits.
pub fn parse(text: &str) -> Option<BigInt> {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    let bare = integer.strip_prefix('-').unwrap_or(integer);
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if bare.is_empty()
        || !digits_only(bare)
        || !digits_only(fraction)
        || fraction.len() > FRACTION_DIGITS
    {
        return None;
    }
    format!("{integer}{fraction:0<FRACTION_DIGITS$}").parse().ok()
}

/// `numerator / denominator` with `digits` digits after the point, cut off; `-` for a division by zero.
pub fn ratio(numerator: u128, denominator: u128, digits: u32) -> String {
    if denominator == 0 {
        return "-".to_owned();
    }
    let scale = 10_u128.pow(digits);
    let scaled = numerator.saturating_mul(scale) / denominator;
    if digits == 0 {
        return scaled.to_string();
    }
    let width = usize::try_from(digits).expect("a handful of digits");
    format!("{}.{:0>width$}", scaled / scale, scaled % scale)
}

/// `123456` as `123,456`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(units: i128) -> String {
        let mut out = Vec::new();
        write(units, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_are_written_without_trailing_zeros() {
        assert_eq!(written(0), "0");
        assert_eq!(written(12_500_000_000_000), "12.5");
        assert_eq!(written(-1), "-0.000000000001");
        assert_eq!(written(10_i128.pow(38) - 1), format!("{}.{}", "9".repeat(26), "9".repeat(12)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for units in [0, 1, -1, 5_000_000_000_000, -10_i128.pow(37) - 7, 10_i128.pow(38) - 1] {
            assert_eq!(parse(&written(units)), Some(BigInt::from(units)), "{units}");
        }
    }

    #[test]
    fn what_is_no_decimal_is_not_read() {
        for text in ["", "-", ".", ".5", "1e5", "nan", "\\N", "1.0000000000001", "1 ", "+1", "1.-5"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn ratios_are_exact_to_the_digit() {
        assert_eq!(ratio(1_234_567, 1_000_000, 2), "1.23");
        assert_eq!(ratio(5, 1_000, 2), "0.00");
        assert_eq!(ratio(7, 2, 0), "3");
        assert_eq!(ratio(7, 0, 0), "-");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
