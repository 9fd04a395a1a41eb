//! Writes an event as JSON straight into the batch's buffer.

use super::{VERSION, YEARS};
use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use metering::{Quantity, UsageEvent, quantity};

/// Appends the value of `event`'s record to `out`.
pub fn encode(event: &UsageEvent<'_>, topic_epoch: u16, out: &mut Vec<u8>) {
    let UsageEvent {
        organization_id,
        transaction_scope,
        transaction_id,
        external_customer_id,
        external_subscription_id,
        code,
        timestamp,
        value,
        properties,
        accepted_at,
    } = event;
    out.extend_from_slice(b"{\"v\":");
    write_integer(u128::from(VERSION), out);
    out.extend_from_slice(b",\"topic_epoch\":");
    write_integer(u128::from(topic_epoch), out);
    write_text(b",\"organization_id\":", organization_id, out);
    if !transaction_scope.is_empty() {
        write_text(b",\"transaction_scope\":", transaction_scope, out);
    }
    write_text(b",\"transaction_id\":", transaction_id, out);
    write_text(b",\"external_customer_id\":", external_customer_id, out);
    if !external_subscription_id.is_empty() {
        write_text(b",\"external_subscription_id\":", external_subscription_id, out);
    }
    write_text(b",\"code\":", code, out);
    write_timestamp(b",\"timestamp\":", *timestamp, out);
    if let Some(quantity) = value {
        write_quantity(b",\"value\":", *quantity, out);
    }
    if properties.as_str() != "{}" {
        out.extend_from_slice(b",\"properties\":");
        out.extend_from_slice(properties.as_str().as_bytes());
    }
    write_timestamp(b",\"accepted_at\":", *accepted_at, out);
    out.push(b'}');
}

/// Copies runs of plain characters; only quotes, backslashes and control characters are escaped.
fn write_text(name: &[u8], text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut run_start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            continue;
        }
        out.extend_from_slice(&bytes[run_start..at]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.push(b"0123456789abcdef"[usize::from(control >> 4)]);
                out.push(b"0123456789abcdef"[usize::from(control & 0xf)]);
            }
        }
        run_start = at + 1;
    }
    out.extend_from_slice(&bytes[run_start..]);
    out.push(b'"');
}

/// RFC 3339 in UTC with milliseconds, `2026-11-21T12:00:00.000Z`.
fn write_timestamp(name: &[u8], at: DateTime<Utc>, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.push(b'"');
    match u32::try_from(at.year()).ok().filter(|_| YEARS.contains(&at.year())) {
        Some(year) => {
            write_digits::<4>(year, out);
            for (separator, part) in
                [(b'-', at.month()), (b'-', at.day()), (b'T', at.hour()), (b':', at.minute())]
            {
                out.push(separator);
                write_digits::<2>(part, out);
            }
            out.push(b':');
            write_digits::<2>(at.second(), out);
            out.push(b'.');
            // A leap second counts up to 1,999 ms in chrono; validation has already moved it on.
            write_digits::<3>(at.timestamp_subsec_millis().min(999), out);
            out.push(b'Z');
        }
        // Validation lets no such event through; readers park it with a reason.
        None => out.extend_from_slice(at.to_rfc3339_opts(SecondsFormat::Millis, true).as_bytes()),
    }
    out.push(b'"');
}

/// The canonical text of `Quantity`'s `Display`, without its allocation.
fn write_quantity(name: &[u8], quantity: Quantity, out: &mut Vec<u8>) {
    const SCALE: u128 = 10_u128.pow(quantity::FRACTION_DIGITS);
    out.extend_from_slice(name);
    out.push(b'"');
    if quantity.units() < 0 {
        out.push(b'-');
    }
    let units = quantity.units().unsigned_abs();
    write_integer(units / SCALE, out);
    let mut fraction = units % SCALE;
    if fraction != 0 {
        out.push(b'.');
        let mut place = SCALE / 10;
        while fraction != 0 {
            out.push(digit(fraction / place));
            fraction %= place;
            place /= 10;
        }
    }
    out.push(b'"');
}

fn write_integer(mut number: u128, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 39];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = digit(number % 10);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn write_digits<const WIDTH: usize>(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [b'0'; WIDTH];
    for place in digits.iter_mut().rev() {
        *place = digit(u128::from(number % 10));
        number /= 10;
    }
    debug_assert_eq!(number, 0, "the number has at most {WIDTH} digits");
    out.extend_from_slice(&digits);
}

fn digit(number: u128) -> u8 {
    debug_assert!(number < 10, "one digit");
    b"0123456789"[usize::try_from(number).unwrap_or(0)]
}
