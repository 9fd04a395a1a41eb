//! The counts of each organization and hour. Pure.

use super::content::SetHash;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;
use std::ops::Range;

const HOUR_SECONDS: i64 = 3600;

/// What became of the records of one organization that were accepted in one hour (UTC).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Records in the log.
    pub accepted: u64,
    /// Billable rows whose records are in the log.
    pub billed: u64,
    /// Later copies that say the same as a billed event.
    pub repeats: u64,
    /// Later copies that say something else, kept beside the bill.
    pub conflicts: u64,
    /// Records that hold the event and cannot be taken, such as one with the key of another.
    pub parked: u64,
    /// Billable rows whose records the log has deleted: nothing is left to compare them with but the audit.
    pub billed_without_log: u64,
    /// Of the events to be billed, by the log.
    pub log_hash: SetHash,
    /// Of the billed rows.
    pub store_hash: SetHash,
}

impl Line {
    /// What is missing (above zero) or too much (below it).
    pub fn difference(&self) -> i128 {
        let became = [self.billed, self.repeats, self.conflicts, self.parked];
        i128::from(self.accepted) - became.into_iter().map(i128::from).sum::<i128>()
    }

    /// Adds another line to this one.
    pub fn add(&mut self, other: &Self) {
        let Self {
            accepted,
            billed,
            repeats,
            conflicts,
            parked,
            billed_without_log,
            log_hash,
            store_hash,
        } = other;
        self.accepted += accepted;
        self.billed += billed;
        self.repeats += repeats;
        self.conflicts += conflicts;
        self.parked += parked;
        self.billed_without_log += billed_without_log;
        self.log_hash.add_set(log_hash);
        self.store_hash.add_set(store_hash);
    }
}

/// Names a line of a [`Table`].
pub type LineId = usize;

/// The lines of a period.
#[derive(Clone, Debug)]
pub struct Table {
    period: Range<DateTime<Utc>>,
    ids: BTreeMap<String, BTreeMap<i64, LineId>>,
    lines: Vec<Line>,
}

impl Table {
    pub fn new(period: Range<DateTime<Utc>>) -> Self {
        Self { period, ids: BTreeMap::new(), lines: Vec::new() }
    }

    /// The line of an event; `None` when it was accepted outside of the period.
    pub fn line(&mut self, organization: &str, accepted_at: DateTime<Utc>) -> Option<LineId> {
        if !self.period.contains(&accepted_at) {
            return None;
        }
        let hour = accepted_at.timestamp().div_euclid(HOUR_SECONDS);
        if let Some(id) = self.ids.get(organization).and_then(|hours| hours.get(&hour)) {
            return Some(*id);
        }
        let id = self.lines.len();
        self.lines.push(Line::default());
        self.ids.entry(organization.to_owned()).or_default().insert(hour, id);
        Some(id)
    }

    pub fn at(&mut self, id: LineId) -> &mut Line {
        &mut self.lines[id]
    }

    /// Organization, start of the hour and counts, in this order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, DateTime<Utc>, &Line)> {
        self.ids.iter().flat_map(|(organization, hours)| {
            hours.iter().map(|(hour, id)| {
                let start = DateTime::from_timestamp(hour * HOUR_SECONDS, 0);
                (organization.as_str(), start.unwrap_or(DateTime::UNIX_EPOCH), &self.lines[*id])
            })
        })
    }

    /// The sum of all lines.
    pub fn total(&self) -> Line {
        let mut total = Line::default();
        self.lines.iter().for_each(|line| total.add(line));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_by_organization_and_hour_within_the_half_open_period() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let mut table = Table::new(at("2026-01-31T23:30:00Z")..at("2026-02-01T02:00:00Z"));
        assert_eq!(table.line("b", at("2026-01-31T23:29:59.999Z")), None);
        assert_eq!(table.line("b", at("2026-02-01T02:00:00Z")), None);
        let first = table.line("b", at("2026-01-31T23:30:00Z")).unwrap();
        table.at(first).accepted = 3;
        table.at(first).billed = 2;
        assert_eq!(table.line("b", at("2026-01-31T23:59:59.999Z")), Some(first));
        let last = table.line("a", at("2026-02-01T01:59:59.999Z")).unwrap();
        table.at(last).billed = 1;
        let found: Vec<_> =
            table.iter().map(|(o, hour, line)| (o, hour.to_rfc3339(), line.difference())).collect();
        assert_eq!(
            found,
            [
                ("a", "2026-02-01T01:00:00+00:00".to_owned(), -1),
                ("b", "2026-01-31T23:00:00+00:00".to_owned(), 1)
            ]
        );
        assert_eq!(table.total().difference(), 0);
    }
}
