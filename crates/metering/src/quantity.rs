//! Exact quantities: a decimal with at most 26 integer and 12 fraction digits, held as an integer.
//!
//! The text of the request reaches the database digit for digit. Anything that would need rounding
//! is refused at the edge instead.

use std::fmt;

/// Digits after the decimal point that are stored, the scale of ClickHouse's `Decimal(38, 12)`.
pub const FRACTION_DIGITS: u32 = 12;
/// Digits before the decimal point that are accepted: 38 digits of `Decimal(38, 12)` less the fraction.
pub const INTEGER_DIGITS: u32 = 26;
/// Longest accepted text of a number, in bytes. Longer ones are refused before any arithmetic.
pub const TEXT_BYTES_MAX: usize = 128;

const SCALE: i128 = 10_i128.pow(FRACTION_DIGITS);
const LIMIT: i128 = 10_i128.pow(INTEGER_DIGITS + FRACTION_DIGITS);

/// An exact decimal, `units × 10⁻¹²`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity {
    units: i128,
}

/// Why a text is not a [`Quantity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("is not a decimal number")]
    NotANumber,
    #[error("has more than {INTEGER_DIGITS} digits before the decimal point")]
    TooManyIntegerDigits,
    #[error("has more than {FRACTION_DIGITS} digits after the decimal point")]
    TooManyFractionDigits,
}

impl Quantity {
    pub const ZERO: Self = Self { units: 0 };

    /// The quantity as a count of 10⁻¹², which is how ClickHouse stores a `Decimal(38, 12)`.
    pub const fn units(self) -> i128 {
        self.units
    }

    /// The quantity of `units × 10⁻¹²`, unless it has more than 26 integer digits.
    pub const fn from_units(units: i128) -> Option<Self> {
        if units > -LIMIT && units < LIMIT { Some(Self { units }) } else { None }
    }

    /// Reads the grammar of a JSON number, `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?`.
    ///
    /// Digits beyond the limits are accepted only when they are zeros, so no value is ever rounded.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(QuantityError::NotANumber);
        }
        let number = Number::split(text).ok_or(QuantityError::NotANumber)?;
        number.to_quantity()
    }
}

/// The parts of a decimal literal: `digits × 10^exponent`, where `digits` spans the point.
struct Number<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i32,
}

impl<'a> Number<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (integer, rest) = leading_digits(rest);
        if integer.is_empty() || (integer.len() > 1 && integer[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => match leading_digits(rest) {
                ([], _) => return None,
                split => split,
            },
            rest => (&rest[..0], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => parse_exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, integer, fraction, exponent })
    }

    /// Walks the digits once; the position of each one decides whether it may be other than zero.
    fn to_quantity(&self) -> Result<Quantity, QuantityError> {
        let integer_len =
            i32::try_from(self.integer.len()).map_err(|_| QuantityError::NotANumber)?;
        let mut units: i128 = 0;
        // Power of ten of the next digit: units, tens, hundreds … are 0, 1, 2 …; tenths are -1.
        let mut power = integer_len - 1 + self.exponent;
        for digit in self.integer.iter().chain(self.fraction) {
            let digit = i128::from(digit - b'0');
            if digit != 0 {
                if power >= INTEGER_DIGITS.cast_signed() {
                    return Err(QuantityError::TooManyIntegerDigits);
                }
                if power < -FRACTION_DIGITS.cast_signed() {
                    return Err(QuantityError::TooManyFractionDigits);
                }
                let place = (power + FRACTION_DIGITS.cast_signed()).unsigned_abs();
                units += digit * 10_i128.pow(place);
            }
            power -= 1;
        }
        debug_assert!(units < LIMIT, "each of 38 digits was placed once");
        Ok(Quantity { units: if self.negative { -units } else { units } })
    }
}

fn leading_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}

fn parse_exponent(bytes: &[u8]) -> Option<i32> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits.iter().fold(0, |n, d| n * 10 + i32::from(d - b'0'));
    Some(if negative { -magnitude } else { magnitude })
}

/// Canonical: no exponent, no trailing zeros, no negative zero; equal quantities print alike.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.units < 0 { "-" } else { "" };
        let (integer, fraction) =
            ((self.units / SCALE).unsigned_abs(), (self.units % SCALE).unsigned_abs());
        if fraction == 0 {
            return write!(f, "{sign}{integer}");
        }
        let digits = format!("{fraction:012}");
        write!(f, "{sign}{integer}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests;
