//! A decimal text read with big integers, by the grammar of a JSON number.

use num_bigint::BigInt;

/// Digits after the point of a stored quantity.
const FRACTION_DIGITS: i64 = 12;
/// Digits before the point of a stored quantity.
const INTEGER_DIGITS: u32 = 26;
/// Longest text of a quantity, in bytes.
const TEXT_BYTES_MAX: usize = 128;

/// What a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    NotANumber,
    /// A number, but not one that can be stored without rounding.
    Unstorable {
        /// The absolute value is 10^26 or more.
        too_large: bool,
        /// It is no multiple of 10^-12.
        too_fine: bool,
    },
    /// A count of 10^-12.
    Units(BigInt),
}

/// Reads `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?`.
pub fn read(text: &str) -> Reading {
    if text.len() > TEXT_BYTES_MAX {
        return Reading::NotANumber;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => match read_exponent(exponent) {
            Some(exponent) => (mantissa, exponent),
            None => return Reading::NotANumber,
        },
        None => (text, 0),
    };
    let (negative, unsigned) =
        mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (integer, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return Reading::NotANumber,
        Some(parts) => parts,
        None => (unsigned, ""),
    };
    let leading_zero = integer.len() > 1 && integer.starts_with('0');
    if integer.is_empty() || leading_zero || !is_digits(integer) || !is_digits(fraction) {
        return Reading::NotANumber;
    }
    let digits: BigInt = [integer, fraction].concat().parse().expect("digits are an integer");
    let shift =
        exponent + FRACTION_DIGITS - i64::try_from(fraction.len()).expect("at most 128 bytes");
    let scale = BigInt::from(10).pow(u32::try_from(shift.abs()).expect("a small exponent"));
    let (units, rest) = if shift >= 0 {
        (digits * scale, BigInt::ZERO)
    } else {
        (&digits / &scale, digits % scale)
    };
    let too_large = units >= limit();
    let too_fine = rest != BigInt::ZERO;
    if too_large || too_fine {
        return Reading::Unstorable { too_large, too_fine };
    }
    Reading::Units(if negative { -units } else { units })
}

/// The first count of 10^-12 that is too large.
pub fn limit() -> BigInt {
    BigInt::from(10).pow(INTEGER_DIGITS + 12)
}

fn read_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sane = (1..=3).contains(&digits.len()) && is_digits(digits);
    let magnitude: i64 = digits.parse().ok().filter(|_| sane)?;
    Some(if text.starts_with('-') { -magnitude } else { magnitude })
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
