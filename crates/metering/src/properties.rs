//! The free-form part of an event: a JSON object, walked once to check its limits and fingerprint it.

use crate::Quantity;
use crate::json_text::{Kind, pointer_token, unescape};
use crate::rejection::{Fault, RejectionCode};
use std::borrow::Cow;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Longest text of `properties`, in bytes.
pub const BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of objects and arrays, `properties` itself being 1.
pub const DEPTH_MAX: usize = 16;
/// Most keys in `properties`, nested ones included.
pub const KEYS_MAX: usize = 256;
/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 256;
/// Largest decimal exponent of a number, that of an IEEE 754 double; queries read numbers as such.
const EXPONENT_MAX: usize = 308;
/// The first digits of the largest double, 1.7976931348623157e308. A number that begins with them
/// and goes on is rounded down to it.
const DOUBLE_MAX_DIGITS: &[u8; 17] = b"17976931348623157";

/// A checked JSON object and its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties<'a> {
    text: Cow<'a, str>,
    fingerprint: u64,
}

impl<'a> Properties<'a> {
    pub const EMPTY: Properties<'static> = Properties { text: Cow::Borrowed("{}"), fingerprint: 0 };

    /// Checks `text`, which is valid JSON without white space around it.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        Self::parse_and_get(text, None).map(|(properties, _)| properties)
    }

    /// As [`Self::parse`]; also returns the text of the top-level value named `wanted`.
    pub fn parse_and_get(
        text: &'a str,
        wanted: Option<&str>,
    ) -> Result<(Self, Option<&'a str>), Fault> {
        if Kind::of(text) != Kind::Object {
            let detail = format!(
                "`properties` is {}; send a JSON object or leave it out",
                Kind::of(text).name()
            );
            return Err(Fault::new(RejectionCode::InvalidType, "/properties", detail));
        }
        if text.len() > BYTES_MAX {
            let detail =
                format!("`properties` has {} bytes; at most {BYTES_MAX} are stored", text.len());
            return Err(Fault::new(RejectionCode::PropertiesTooLarge, "/properties", detail));
        }
        let mut walk = Walk { text, at: 0, keys: 0, wanted, found: None };
        let fingerprint = walk.object(1)?;
        Ok((Self { text: Cow::Borrowed(text), fingerprint }, walk.found))
    }

    /// The object as the producer wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Equal for objects with equal content: key order, white space and the writing of numbers do not count.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// A walk over text that is known to be valid JSON.
struct Walk<'a, 'w> {
    text: &'a str,
    at: usize,
    keys: usize,
    wanted: Option<&'w str>,
    found: Option<&'a str>,
}

impl<'a> Walk<'a, '_> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(b'}')
    }

    fn skip_space(&mut self) {
        while matches!(self.text.as_bytes().get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Enters the object at the cursor. The sum of member hashes does not depend on their order.
    fn object(&mut self, depth: usize) -> Result<u64, Fault> {
        self.at += 1;
        let mut key_hashes = Vec::new();
        let mut sum = 0_u64;
        loop {
            self.skip_space();
            match self.peek() {
                b'}' => break,
                b',' => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let key = self.key()?;
            let key_hash = xxh3_64(key.as_bytes());
            key_hashes.push(key_hash);
            self.skip_space();
            self.at += 1; // the colon
            self.skip_space();
            let start = self.at;
            let value_hash = self.value(depth)?;
            if depth == 1 && self.wanted == Some(key.as_ref()) {
                self.found = Some(&self.text[start..self.at]);
            }
            sum = sum.wrapping_add(xxh3_64_with_seed(&value_hash.to_le_bytes(), key_hash));
        }
        self.at += 1;
        key_hashes.sort_unstable();
        if key_hashes.windows(2).any(|pair| pair[0] == pair[1]) {
            let detail = "an object in `properties` has the same key twice; send each key once";
            return Err(Fault::new(RejectionCode::DuplicateProperty, "/properties", detail));
        }
        Ok(sum)
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Fault> {
        let key = self.string()?;
        self.keys += 1;
        if self.keys > KEYS_MAX {
            let detail = format!("`properties` has more than {KEYS_MAX} keys; send fewer");
            return Err(Fault::new(RejectionCode::TooManyProperties, "/properties", detail));
        }
        if key.len() > KEY_BYTES_MAX {
            let detail = format!(
                "a key in `properties` has {} bytes; at most {KEY_BYTES_MAX} are allowed",
                key.len()
            );
            return Err(Fault::new(RejectionCode::InvalidProperty, "/properties", detail));
        }
        Ok(key)
    }

    fn value(&mut self, depth: usize) -> Result<u64, Fault> {
        match self.peek() {
            b'{' | b'[' if depth == DEPTH_MAX => {
                let detail =
                    format!("`properties` nests deeper than {DEPTH_MAX} levels; flatten it");
                Err(Fault::new(RejectionCode::PropertiesTooDeep, "/properties", detail))
            }
            b'{' => Ok(self.object(depth + 1)?.wrapping_add(1)),
            b'[' => self.array(depth + 1),
            b'"' => Ok(xxh3_64_with_seed(self.string()?.as_bytes(), u64::from(b'"'))),
            _ => self.scalar(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<u64, Fault> {
        self.at += 1;
        let mut hash = u64::from(b'[');
        loop {
            self.skip_space();
            match self.peek() {
                b']' => break,
                b',' => self.at += 1,
                _ => hash = xxh3_64_with_seed(&self.value(depth)?.to_le_bytes(), hash),
            }
        }
        self.at += 1;
        Ok(hash)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        self.at += 1;
        while bytes[self.at] != b'"' {
            self.at += if bytes[self.at] == b'\\' { 2 } else { 1 };
        }
        self.at += 1;
        unescape(&self.text[start..self.at]).ok_or_else(|| {
            let detail =
                "a string in `properties` holds a lone surrogate escape; send valid Unicode";
            Fault::new(RejectionCode::InvalidString, "/properties", detail)
        })
    }

    /// A number, `true`, `false` or `null`.
    fn scalar(&mut self) -> Result<u64, Fault> {
        let rest = &self.text[self.at..];
        let end = rest.find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
        let scalar = &rest[..end];
        self.at += end;
        if Kind::of(scalar) != Kind::Number {
            return Ok(xxh3_64_with_seed(scalar.as_bytes(), u64::from(b't')));
        }
        if exceeds_64_bits(scalar) {
            let detail = "an integer in `properties` does not fit into 64 bits, which makes SQL read all properties of the event as empty; send it as a string";
            return Err(Fault::new(RejectionCode::InvalidProperty, "/properties", detail));
        }
        if let Ok(quantity) = Quantity::parse(scalar) {
            return Ok(xxh3_64_with_seed(&quantity.units().to_le_bytes(), u64::from(b'0')));
        }
        if exceeds_double(scalar) {
            let shown: String = scalar.chars().take(32).collect();
            let detail = format!(
                "the number {shown} in `properties` is too large for a double, which makes SQL read all properties of the event as empty; send a smaller one or a string"
            );
            return Err(Fault::new(RejectionCode::InvalidProperty, "/properties", detail));
        }
        Ok(xxh3_64_with_seed(scalar.as_bytes(), u64::from(b'e')))
    }
}

/// Whether a valid JSON number is written as an integer that neither `Int64` nor `UInt64` holds.
/// ClickHouse's JSON functions give up on the whole document then, without an error.
fn exceeds_64_bits(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let integer = digits.bytes().all(|byte| byte.is_ascii_digit());
    integer
        && digits.len() >= 19
        && number.parse::<u64>().is_err()
        && number.parse::<i64>().is_err()
}

/// Whether a valid JSON number may be too large for a double, told from its digits alone.
/// ClickHouse's JSON functions give up on the whole document then, without an error.
fn exceeds_double(number: &str) -> bool {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let integer_digits = mantissa.split('.').next().map_or(0, str::len);
    if exponent.starts_with('-') {
        return integer_digits > EXPONENT_MAX;
    }
    let exponent = exponent.trim_start_matches('+').trim_start_matches('0');
    let exponent = if exponent.is_empty() { "0" } else { exponent };
    // More than four digits is out of range whatever they are.
    let Some(exponent) = exponent.parse::<usize>().ok().filter(|_| exponent.len() <= 4) else {
        return true;
    };
    let power = integer_digits.saturating_sub(1) + exponent;
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).take(DOUBLE_MAX_DIGITS.len());
    power > EXPONENT_MAX || (power == EXPONENT_MAX && digits.gt(DOUBLE_MAX_DIGITS.iter().copied()))
}

/// The JSON Pointer of a top-level property, relative to the event.
pub fn pointer(name: &str) -> String {
    format!("/properties/{}", pointer_token(name))
}

#[cfg(test)]
mod tests;
