//! Quantities: the parser agrees with big integers, and the canonical text keeps the number.
#![no_main]

use fuzz::decimal::{self, Reading};
use libfuzzer_sys::fuzz_target;
use metering::Quantity;
use metering::quantity::QuantityError;
use num_bigint::BigInt;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        check_text(text);
    }
    if let Some(bytes) = data.first_chunk() {
        check_units(i128::from_le_bytes(*bytes));
    }
});

fn check_text(text: &str) {
    let parsed = Quantity::parse(text);
    match (decimal::read(text), parsed) {
        (Reading::Units(units), Ok(quantity)) => {
            assert_eq!(BigInt::from(quantity.units()), units, "{text}");
            check_canonical(quantity);
        }
        (Reading::NotANumber, Err(QuantityError::NotANumber)) => {}
        (Reading::Unstorable { too_large: true, .. }, Err(QuantityError::TooManyIntegerDigits))
        | (Reading::Unstorable { too_fine: true, .. }, Err(QuantityError::TooManyFractionDigits)) =>
            {}
        (expected, parsed) => panic!("{text}: {parsed:?} instead of {expected:?}"),
    }
    // Whatever is a quantity is a number in JSON too, so a client may send it without quotes.
    assert!(parsed.is_err() || fuzz::json::is_json(text), "{text} is no JSON number");
}

fn check_units(units: i128) {
    let fits = BigInt::from(units).magnitude() < decimal::limit().magnitude();
    let quantity = Quantity::from_units(units);
    assert_eq!(quantity.is_some(), fits, "{units}");
    quantity.into_iter().for_each(check_canonical);
}

/// The canonical text has no exponent, at most 26 and 12 digits, and nothing superfluous.
fn check_canonical(quantity: Quantity) {
    let text = quantity.to_string();
    assert_eq!(Quantity::parse(&text), Ok(quantity), "{text}");
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "1"));
    assert!((1..=26).contains(&integer.len()) && (1..=12).contains(&fraction.len()), "{text}");
    assert!(!fraction.ends_with('0') && text != "-0", "{text}");
    assert!([integer, fraction].concat().bytes().all(|byte| byte.is_ascii_digit()), "{text}");
}
