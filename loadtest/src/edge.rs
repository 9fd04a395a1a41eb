//! The events that systems get wrong: confusable identities, quantities at the limits, instants at borders.
//!
//! A share of the groups of four consecutive events is of one of these kinds. The properties of all of
//! them hold characters that JSON, SQL and tab-separated text escape.

use crate::event::{Aggregation, EventId, Run, below, index, mix};
use chrono::{DateTime, Datelike};

const GROUP: u64 = 4;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The oldest event; the API takes 35 days by default, and a run with its retries lasts less than one.
pub const AGE_MAX_DAYS: u32 = 34;
const TEN_TO_12: i128 = 1_000_000_000_000;
/// 26 digits before the point and 12 after it, all nines.
const LARGEST: i128 = 10_i128.pow(38) - 1;
/// The first integer that a 64-bit float cannot hold.
const BEYOND_FLOAT: i128 = (1 << 53) + 1;

/// Quantities in 10⁻¹² at which number formats change or end. The largest stands twice, so that the
/// sum of an hour goes beyond 38 digits.
const VALUES: [i128; 18] = [
    LARGEST,
    LARGEST,
    -LARGEST,
    LARGEST - (LARGEST % TEN_TO_12),
    TEN_TO_12 * TEN_TO_12,
    TEN_TO_12 * TEN_TO_12 - 1,
    TEN_TO_12 * TEN_TO_12 + 1,
    BEYOND_FLOAT * TEN_TO_12,
    -BEYOND_FLOAT * TEN_TO_12,
    BEYOND_FLOAT,
    ((1 << 63) - 1) * TEN_TO_12,
    (1 << 63) * TEN_TO_12,
    ((1 << 64) + 1) * TEN_TO_12,
    0,
    1,
    -1,
    TEN_TO_12 / 10,
    99_999_999_999_999_999_999,
];

/// What is special about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// An identity that joined texts would confuse with the three others of its group.
    Identity(Variant),
    Value,
    Instant,
}

/// How an identity of a group is split into scope and transaction id, from 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub group: u64,
    pub split: u8,
}

impl Variant {
    /// What scope and transaction id start with, after `load-` and the run's id in one of them.
    ///
    /// Joined by a hyphen the first three are one text (if an empty scope leaves out the hyphen), and
    /// joined by nothing the first and the last are. Two have the same transaction id.
    pub const SPLITS: [(Option<&str>, &str); 4] =
        [(None, "-s-x-"), (Some("-s"), "x-"), (Some(""), "s-x-"), (Some("-s-"), "x-")];

    pub fn parts(self) -> (Option<&'static str>, &'static str) {
        Self::SPLITS[usize::from(self.split)]
    }

    pub fn number(self) -> u64 {
        self.group.saturating_mul(GROUP).saturating_add(self.split.into())
    }
}

/// What is special about event `id`; nothing about most.
pub fn of(run: &Run, id: EventId) -> Option<Edge> {
    let group = id.number / GROUP;
    let noise = mix(mix(!run.seed) ^ mix(group ^ (u64::from(id.organization) << 48)));
    if run.edge_cases == 0 || below(noise, 10_000) >= run.edge_cases {
        return None;
    }
    let split = u8::try_from(id.number % GROUP).expect("one of four");
    match below(noise >> 32, 3) {
        0 => Some(Edge::Identity(Variant { group, split })),
        1 if sums(run).next().is_some() => Some(Edge::Value),
        _ => Some(Edge::Instant),
    }
}

/// Indices of the metrics that carry a quantity.
pub fn sums(run: &Run) -> impl Iterator<Item = usize> + '_ {
    let metrics = run.metrics.iter().enumerate();
    metrics.filter(|(_, metric)| metric.aggregation == Aggregation::Sum).map(|(i, _)| i)
}

pub fn value(noise: u64) -> i128 {
    VALUES[index(noise >> 20, VALUES.len())]
}

/// On a border between two hours, days, months, or days of a time zone that is off by half an hour, or
/// a millisecond beside it. The time of day is UTC.
pub fn instant_ms(started_at_ms: i64, noise: u64) -> i64 {
    let days_ago = i64::from(below(noise >> 24, AGE_MAX_DAYS)) * DAY_MS;
    let border = match below(noise >> 40, 4) {
        0 => {
            let hours_ago = i64::from(below(noise >> 24, AGE_MAX_DAYS * 24));
            floor(started_at_ms, HOUR_MS) - hours_ago * HOUR_MS
        }
        1 => floor(started_at_ms, DAY_MS) - days_ago,
        2 => month_start_ms(started_at_ms),
        _ => floor(started_at_ms + KOLKATA_MS, DAY_MS) - KOLKATA_MS - days_ago,
    };
    border + i64::from(below(noise >> 44, 3)) - 1
}

/// Asia/Kolkata is 5:30 hours ahead of UTC all year.
pub const KOLKATA_MS: i64 = 5 * HOUR_MS + HOUR_MS / 2;

fn floor(milliseconds: i64, unit: i64) -> i64 {
    milliseconds.div_euclid(unit) * unit
}

fn month_start_ms(milliseconds: i64) -> i64 {
    let at = DateTime::from_timestamp_millis(milliseconds).expect("an instant of this century");
    floor(milliseconds, DAY_MS) - i64::from(at.day0()) * DAY_MS
}

/// Moves the timestamp of a copy by hours, a day or a month, to another hour at least: into the past if
/// the API takes it there, else towards the present.
pub fn moved_ms(started_at_ms: i64, timestamp_ms: i64, noise: u64) -> i64 {
    let hours = i64::from(1 + below(noise >> 24, 3)) * HOUR_MS;
    let by = match below(noise >> 36, 4) {
        0 => DAY_MS,
        1 => 31 * DAY_MS,
        _ => hours,
    };
    let oldest = started_at_ms - i64::from(AGE_MAX_DAYS) * DAY_MS;
    if timestamp_ms - by >= oldest { timestamp_ms - by } else { timestamp_ms + hours }
}

/// The least that a copy can say differently.
pub fn changed_value(value: i128) -> i128 {
    if value > 0 { value - 1 } else { value + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::example_run;

    #[test]
    fn instants_are_within_what_the_api_takes() {
        let started = example_run().started_at_ms + 1_234_567;
        let mut borders = [false; 3];
        for noise in (0..5_000).map(mix) {
            let instant = instant_ms(started, noise);
            assert!(instant <= started + 1 && instant >= started - 34 * DAY_MS - 1, "{instant}");
            let beside = (instant + HOUR_MS / 2).rem_euclid(HOUR_MS / 2);
            let beside = beside.min(HOUR_MS / 2 - beside);
            assert!(beside <= 1, "{instant}");
            borders[0] |= instant == month_start_ms(started) - 1;
            borders[1] |= (instant + KOLKATA_MS).rem_euclid(DAY_MS) == DAY_MS - 1;
            borders[2] |= instant.rem_euclid(HOUR_MS) == HOUR_MS - 1;
            let moved = moved_ms(started, instant, noise);
            assert_ne!(moved.div_euclid(HOUR_MS), instant.div_euclid(HOUR_MS));
            assert!(moved <= started + 1 && moved >= started - 34 * DAY_MS - 1);
        }
        assert_eq!(borders, [true; 3]);
    }

    #[test]
    fn months_start_on_the_first() {
        // 2026-11-22T12:00:00Z.
        assert_eq!(month_start_ms(1_795_348_800_000), 1_793_491_200_000);
    }

    #[test]
    fn values_are_what_the_api_takes() {
        for value in VALUES {
            assert!(value.unsigned_abs() < 10_u128.pow(38));
            assert_ne!(changed_value(value), value);
            assert!(changed_value(value).unsigned_abs() < 10_u128.pow(38));
        }
    }

    #[test]
    fn edges_have_their_share_in_groups() {
        let run = Run { edge_cases: 100, ..example_run() };
        let edges = (0..400_000)
            .filter(|number| of(&run, EventId { organization: 0, number: *number }).is_some());
        let count = edges.count();
        assert!((3_000..5_000).contains(&count) && count.is_multiple_of(4), "{count}");
        let none = Run { edge_cases: 0, ..example_run() };
        assert!(
            (0..400_000).all(|number| of(&none, EventId { organization: 0, number }).is_none())
        );
    }
}
