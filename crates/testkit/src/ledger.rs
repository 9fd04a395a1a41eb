//! The oracle: what was accepted, kept apart from the pipeline, and compared with what can be billed.

use crate::event::Event;
use crate::sql::Reader;
use num_bigint::BigInt;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One line of text for each billable event: its id, then its payload as [`Event::payload`] writes it.
const PAYLOAD_SQL: &str = "SELECT transaction_id, concat(external_customer_id, '|', code, '|', toString(toUnixTimestamp64Milli(timestamp)), '|', \
    ifNull(toString(value), 'none')) FROM billable_events FORMAT TabSeparated";

const SUMS_SQL: &str = "SELECT code, toString(toUnixTimestamp(toStartOfHour(timestamp, 'UTC'))), toString(count()), \
    toString(sum(toDecimal256(ifNull(value, 0), 12))) FROM billable_events GROUP BY 1, 2 FORMAT TabSeparated";

/// Every event whose acceptance was confirmed, by transaction id, with the payload that was confirmed first.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    accepted: BTreeMap<String, Event>,
}

/// The differences between the ledger and the billing view; empty when every event counts exactly once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    pub missing: Vec<String>,
    pub extra: Vec<String>,
    pub doubled: Vec<String>,
    pub changed: Vec<String>,
    pub sums: Vec<String>,
}

impl Ledger {
    /// Notes that the API answered 2xx for `event`. The first confirmed payload of an id stays.
    pub fn accept(&mut self, event: &Event) {
        self.accepted.entry(event.transaction_id.clone()).or_insert_with(|| event.clone());
    }

    pub fn len(&self) -> usize {
        self.accepted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    pub fn merge(&mut self, other: Self) {
        other.accepted.values().for_each(|event| self.accept(event));
    }

    /// Compares with everything in the billing view.
    pub fn compare(&self, reader: &Reader) -> Result<Differences, String> {
        Ok(self.differences(&reader.query(PAYLOAD_SQL)?, &reader.query(SUMS_SQL)?))
    }

    /// Waits until the billing view holds exactly the ledger.
    ///
    /// # Panics
    /// When it does not in time, with the differences.
    #[track_caller]
    pub fn await_exactly_once(&self, reader: &Reader) {
        crate::wait::until("every accepted event is billed exactly once", || {
            match self.compare(reader)? {
                differences if differences == Differences::default() => Ok(()),
                differences => Err(differences.summary()),
            }
        });
    }

    fn differences(&self, rows: &str, sums: &str) -> Differences {
        let mut differences = Differences::default();
        let mut stored: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, payload) in rows.lines().filter_map(|line| line.split_once('\t')) {
            stored.entry(id).or_default().push(payload);
        }
        for (id, event) in &self.accepted {
            match stored.get(id.as_str()).map(Vec::as_slice) {
                None => differences.missing.push(id.clone()),
                Some([payload]) if *payload == event.payload() => {}
                Some([payload]) => differences
                    .changed
                    .push(format!("{id}: {payload} instead of {}", event.payload())),
                Some(copies) => differences.doubled.push(format!("{id}: {} copies", copies.len())),
            }
        }
        differences.extra.extend(
            stored.keys().filter(|id| !self.accepted.contains_key(**id)).map(|id| (*id).to_owned()),
        );
        let (expected, found) = (self.expected_sums(), parse_sums(sums));
        differences.sums.extend(
            expected
                .iter()
                .filter(|(key, sum)| found.get(*key) != Some(*sum))
                .map(|(key, sum)| format!("{key:?}: {:?} instead of {sum:?}", found.get(key))),
        );
        differences.sums.extend(
            found
                .keys()
                .filter(|key| !expected.contains_key(*key))
                .map(|key| format!("{key:?} should not be there")),
        );
        differences
    }

    /// Events and exact sum for each code and hour.
    fn expected_sums(&self) -> BTreeMap<(String, i64), (u64, BigInt)> {
        let mut sums: BTreeMap<_, (u64, BigInt)> = BTreeMap::new();
        for event in self.accepted.values() {
            let hour = event.timestamp_ms.div_euclid(3_600_000) * 3_600;
            let (count, sum) = sums.entry((event.code.to_owned(), hour)).or_default();
            *count += 1;
            *sum += event.value.unwrap_or(0);
        }
        sums
    }
}

fn parse_sums(text: &str) -> BTreeMap<(String, i64), (u64, BigInt)> {
    let parse = |line: &str| {
        let mut fields = line.split('\t');
        let key = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        Some((key, (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))
    };
    text.lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("not a row of sums: {line}")))
        .collect()
}

impl Differences {
    fn summary(&self) -> String {
        let mut text = String::new();
        for (what, list) in [
            ("missing", &self.missing),
            ("extra", &self.extra),
            ("doubled", &self.doubled),
            ("changed", &self.changed),
            ("wrong sums", &self.sums),
        ] {
            if !list.is_empty() {
                let shown: Vec<_> = list.iter().take(3).map(String::as_str).collect();
                write!(text, "{} {what} ({} …); ", list.len(), shown.join(", "))
                    .expect("writing to a string");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.accept(&Event::tokens("a", 3_600_000, 5));
        ledger.accept(&Event::tokens("b", 3_600_001, 7));
        ledger.accept(&Event::tokens("a", 9, 9));
        ledger
    }

    const A: &str = "a\tcustomer-1|tokens|3600000|5\n";
    const B: &str = "b\tcustomer-1|tokens|3600001|7\n";
    const SUMS: &str = "tokens\t3600\t2\t12\n";

    #[test]
    fn equal_books_have_no_differences() {
        assert_eq!(ledger().differences(&format!("{A}{B}"), SUMS), Differences::default());
    }

    #[test]
    fn each_kind_of_error_is_found() {
        let found = |rows: &str, sums: &str| ledger().differences(rows, sums);
        assert_eq!(found(A, SUMS).missing, ["b"]);
        assert_eq!(found(&format!("{A}{B}c\tx\n"), SUMS).extra, ["c"]);
        assert_eq!(found(&format!("{A}{B}{B}"), SUMS).doubled.len(), 1);
        assert_eq!(found(&format!("{A}{}", B.replace("|7", "|8")), SUMS).changed.len(), 1);
        assert_eq!(found(&format!("{A}{B}"), "tokens\t3600\t2\t13\n").sums.len(), 1);
        assert_eq!(found(&format!("{A}{B}"), &format!("{SUMS}tokens\t7200\t1\t1\n")).sums.len(), 1);
    }
}
