//! Writes ClickHouse's RowBinary, the columns of a row one after the other without names or types.

use chrono::{DateTime, Utc};
use metering::Quantity;

/// Longest length prefix of a string, in bytes.
pub(crate) const LENGTH_BYTES_MAX: usize = 10;

/// `String` and `LowCardinality(String)`: LEB128 length, then the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("seven bits"));
    out.extend_from_slice(bytes);
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// `DateTime64(3)`: milliseconds since 1970. Anything finer is cut; events carry nothing finer.
pub(crate) fn put_instant(out: &mut Vec<u8>, instant: DateTime<Utc>) {
    out.extend_from_slice(&instant.timestamp_millis().to_le_bytes());
}

/// `Nullable(Decimal(38, 12))`: one byte that says whether it is null, then the units.
pub(crate) fn put_quantity(out: &mut Vec<u8>, quantity: Option<Quantity>) {
    match quantity {
        Some(quantity) => {
            out.push(0);
            out.extend_from_slice(&quantity.units().to_le_bytes());
        }
        None => out.push(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_carry_their_length() {
        for (length, prefix) in
            [(0, &[0][..]), (127, &[127]), (128, &[0x80, 1]), (16_384, &[0x80, 0x80, 1])]
        {
            let mut out = Vec::new();
            put_bytes(&mut out, &vec![b'x'; length]);
            assert_eq!(&out[..prefix.len()], prefix);
            assert_eq!(out.len(), prefix.len() + length);
        }
    }

    #[test]
    fn no_quantity_is_null_and_not_zero() {
        let mut out = Vec::new();
        put_quantity(&mut out, None);
        put_quantity(&mut out, Some(Quantity::ZERO));
        put_quantity(&mut out, Quantity::from_units(-2));
        let mut expected = vec![1, 0];
        expected.extend_from_slice(&[0; 16]);
        expected.push(0);
        expected.push(0xfe);
        expected.extend_from_slice(&[0xff; 15]);
        assert_eq!(out, expected);
    }
}
