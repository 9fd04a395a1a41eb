use super::*;
use metering::{Quantity, identity::identity_hash};
use std::borrow::Cow;

const POSITION: Position = Position { epoch: 2, partition: 3, offset: 0x0102_0304_0506 };

fn push(rows: &mut EventRows, event: &UsageEvent<'_>) {
    rows.push(event, POSITION, IdentityHash([7; 16]), 0x1122_3344_5566_7788);
}

fn at(year: i32, month: u32) -> DateTime<Utc> {
    chrono::NaiveDate::from_ymd_opt(year, month, 1).unwrap().and_time(NaiveTime::MIN).and_utc()
}

#[test]
fn a_row_is_its_columns_in_the_order_of_the_insert() {
    let event = UsageEvent { value: Quantity::from_units(-1), ..UsageEvent::example() };
    let mut rows = EventRows::default();
    push(&mut rows, &event);
    let mut expected = Vec::new();
    for text in ["org_demo", "", "txn-0000001", "customer-1", "", "api_calls"] {
        expected.push(u8::try_from(text.len()).unwrap());
        expected.extend_from_slice(text.as_bytes());
    }
    expected.extend_from_slice(&1_795_262_400_000_i64.to_le_bytes());
    expected.push(0);
    expected.extend_from_slice(&[0xff; 16]);
    expected.push(22);
    expected.extend_from_slice(br#"{"region":"eu-west-1"}"#);
    expected.extend_from_slice(&1_795_262_400_000_i64.to_le_bytes());
    expected.extend_from_slice(&[7; 16]);
    expected.extend_from_slice(&[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    expected.extend_from_slice(&[2, 0, 3, 0, 6, 5, 4, 3, 2, 1, 0, 0]);
    assert_eq!((rows.len(), rows.byte_len()), (1, expected.len()));
    let encoded = rows.finish();
    assert_eq!(encoded.bytes, expected);
    assert_eq!((encoded.rows, encoded.hash()), (1, xxh3_64(&expected)));
}

#[test]
fn the_same_record_always_gives_the_same_bytes() {
    let encode = || {
        let mut rows = EventRows::with_capacity(1024);
        let event = UsageEvent::example();
        let mut key = Vec::new();
        event.write_identity_key(&mut key);
        rows.push(&event, POSITION, identity_hash(&key), event.payload_fingerprint());
        rows.finish().bytes
    };
    assert_eq!(encode(), encode());
}

#[test]
fn an_insert_takes_100_000_rows_and_not_one_more() {
    let event = UsageEvent::example();
    let mut rows = EventRows::default();
    while rows.has_room_for(&event) {
        push(&mut rows, &event);
    }
    assert_eq!(rows.len(), ROWS_MAX);
}

#[test]
fn an_insert_takes_100_months_and_not_one_more() {
    let mut rows = EventRows::default();
    let months = || (2000..).flat_map(|year| (1..=12).map(move |month| at(year, month)));
    for timestamp in months().take(MONTHS_MAX) {
        let event = UsageEvent { timestamp, ..UsageEvent::example() };
        assert!(rows.has_room_for(&event));
        push(&mut rows, &event);
    }
    let another =
        UsageEvent { timestamp: months().nth(MONTHS_MAX).unwrap(), ..UsageEvent::example() };
    assert!(!rows.has_room_for(&another));
    let last_instant = at(2000, 2) - chrono::TimeDelta::milliseconds(1);
    assert!(rows.has_room_for(&UsageEvent { timestamp: last_instant, ..UsageEvent::example() }));
}

#[test]
fn an_insert_takes_its_bytes_and_not_one_more() {
    let wide = "x".repeat(60_000);
    let event = |length: usize| UsageEvent {
        transaction_id: Cow::Borrowed(&wide[..length]),
        ..UsageEvent::example()
    };
    let mut rows = EventRows::default();
    while rows.has_room_for(&event(wide.len())) {
        push(&mut rows, &event(wide.len()));
    }
    let left = BYTES_MAX - rows.byte_len();
    let fits = left - encoded_len_max(&event(0));
    assert!(!rows.has_room_for(&event(fits + 1)));
    assert!(rows.has_room_for(&event(fits)));
    push(&mut rows, &event(fits));
    assert!(rows.byte_len() <= BYTES_MAX);
}

#[test]
#[should_panic(expected = "48 bits")]
fn an_offset_that_the_version_cannot_hold_is_refused() {
    let position = Position { offset: OFFSET_LIMIT, ..POSITION };
    EventRows::default().push(&UsageEvent::example(), position, IdentityHash([0; 16]), 0);
}

#[test]
fn the_years_1970_to_2299_are_stored() {
    assert_storable(at(1970, 1));
    assert_storable(at(2300, 1) - chrono::TimeDelta::milliseconds(1));
    for outside in [at(1970, 1) - chrono::TimeDelta::milliseconds(1), at(2300, 1)] {
        assert!(std::panic::catch_unwind(|| assert_storable(outside)).is_err());
    }
}
