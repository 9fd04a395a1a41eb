use super::*;
use num_bigint::BigInt;
use proptest::prelude::*;

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(expected.to_owned()), "{text}");
}

#[track_caller]
fn refuse(text: &str, expected: QuantityError) {
    assert_eq!(Quantity::parse(text), Err(expected), "{text}");
}

#[test]
fn decimal_texts_keep_every_digit() {
    check("0", "0");
    check("-0", "0");
    check("-0.0e5", "0");
    check("12.50", "12.5");
    check("0.000000000001", "0.000000000001");
    check("9007199254740993.0", "9007199254740993");
    check("99999999999999999999999999.999999999999", "99999999999999999999999999.999999999999");
    check("-99999999999999999999999999.999999999999", "-99999999999999999999999999.999999999999");
    check("1e12", "1000000000000");
    check("1.5E+3", "1500");
    check("15e-1", "1.5");
    check("0e999", "0");
    check("100000000000000000000000000e-1", "10000000000000000000000000");
    check("1.0000000000000000", "1");
}

#[test]
fn digits_that_do_not_fit_are_refused_not_rounded() {
    refuse("100000000000000000000000000", QuantityError::TooManyIntegerDigits);
    refuse("1e26", QuantityError::TooManyIntegerDigits);
    refuse("1e999", QuantityError::TooManyIntegerDigits);
    refuse("0.0000000000001", QuantityError::TooManyFractionDigits);
    refuse("1e-13", QuantityError::TooManyFractionDigits);
}

#[test]
fn other_texts_are_not_numbers() {
    let long = "1".repeat(TEXT_BYTES_MAX + 1);
    let texts = [
        "", "-", "+1", "01", ".5", "5.", "1e", "1e+", "1e1000", "1e999999", "NaN", "Infinity",
        "0x10", "1_000", " 1", "1 ", "١", &long,
    ];
    for text in texts {
        refuse(text, QuantityError::NotANumber);
    }
    assert_eq!(
        Quantity::parse(&format!("{}.{}", "1".repeat(26), "0".repeat(101))).map(|_| ()),
        Ok(()),
        "128 bytes are read"
    );
}

proptest! {
    #[test]
    fn parse_and_display_are_inverse(units in -(LIMIT - 1)..LIMIT) {
        let quantity = Quantity::from_units(units).expect("within the limit");
        prop_assert_eq!(Quantity::parse(&quantity.to_string()), Ok(quantity));
    }

    /// The oracle is big-integer arithmetic over the digits, sharing nothing with the parser.
    #[test]
    fn parse_agrees_with_big_integers(negative: bool, integer in "(0|[1-9][0-9]{0,27})", fraction in "[0-9]{1,14}", exponent in -15i32..15) {
        let sign = if negative { "-" } else { "" };
        let text = format!("{sign}{integer}.{fraction}e{exponent}");
        let mut scaled: BigInt = format!("{sign}{integer}{fraction}").parse().unwrap();
        let shift = exponent - i32::try_from(fraction.len()).unwrap() + 12;
        let exact = if shift >= 0 {
            scaled *= BigInt::from(10).pow(shift.unsigned_abs());
            true
        } else {
            let divisor = BigInt::from(10).pow(shift.unsigned_abs());
            let exact = (&scaled % &divisor) == BigInt::ZERO;
            scaled /= divisor;
            exact
        };
        let fits = exact && scaled.magnitude() < BigInt::from(LIMIT).magnitude();
        match Quantity::parse(&text) {
            Ok(quantity) => prop_assert_eq!(BigInt::from(quantity.units()), scaled),
            Err(_) => prop_assert!(!fits, "{} should have been accepted", text),
        }
    }
}
