//! What known wrong behaviours make of who an event is and how much of it there is. Pure.

use chrono::Datelike as _;
use fault_injection::{Sabotage, sabotaged};
use metering::identity::identity_hash;
use metering::quantity::FRACTION_DIGITS;
use metering::{IdentityHash, Quantity, UsageEvent};

/// The first quantity that `Decimal(38, 26)` does not hold, in units of 10⁻¹².
const TOO_LARGE: i128 = 10_i128.pow(12 + FRACTION_DIGITS);

/// `identity`, as it is. It is that of `event`, whose key is `key`.
pub(super) fn identity(identity: IdentityHash, key: &[u8], event: &UsageEvent<'_>) -> IdentityHash {
    if sabotaged(Sabotage::TimestampInIdentity) {
        return with(key, event.timestamp.timestamp_millis());
    }
    if sabotaged(Sabotage::DedupWithinPeriod) {
        return with(
            key,
            i64::from(event.timestamp.year() * 12) + i64::from(event.timestamp.month0()),
        );
    }
    identity
}

fn with(key: &[u8], time: i64) -> IdentityHash {
    identity_hash(&[key, &time.to_le_bytes()].concat())
}

/// `quantity`, as it is.
pub(super) fn quantity(quantity: Quantity) -> Quantity {
    if sabotaged(Sabotage::FloatQuantity) {
        return through_float(quantity);
    }
    if sabotaged(Sabotage::ZeroWhenTooLarge) {
        return zero_when_too_large(quantity);
    }
    quantity
}

fn through_float(quantity: Quantity) -> Quantity {
    let float: f64 = quantity.to_string().parse().expect("a decimal number");
    Quantity::parse(&float.to_string()).unwrap_or(quantity)
}

fn zero_when_too_large(quantity: Quantity) -> Quantity {
    if quantity.units().abs() < TOO_LARGE { quantity } else { Quantity::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn without_a_sabotage_nothing_is_changed() {
        let event = UsageEvent::example();
        assert_eq!(identity(IdentityHash([7; 16]), b"key", &event), IdentityHash([7; 16]));
        assert_eq!(quantity(parsed("9007199254740993")), parsed("9007199254740993"));
    }

    #[test]
    fn a_float_loses_the_digits_it_has_no_room_for() {
        assert_eq!(through_float(parsed("0.1")), parsed("0.1"));
        assert_eq!(through_float(parsed("9007199254740993")), parsed("9007199254740992"));
    }

    #[test]
    fn a_quantity_that_does_not_fit_becomes_zero() {
        assert_eq!(zero_when_too_large(parsed("-999999999999.5")), parsed("-999999999999.5"));
        assert_eq!(zero_when_too_large(parsed("1000000000000")), Quantity::ZERO);
    }
}
