//! Exact counts and sums by organization, metric, customer, and hour or day; in the hourly view also by
//! subscription.

use crate::decimal;
use crate::edge::KOLKATA_MS;
use crate::event::{Facts, Run};
use num_bigint::BigInt;
use std::collections::HashMap;

/// What the time is cut into, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Of the hourly view, which keeps subscriptions apart.
    ViewHour,
    /// Added up from the billing view.
    Hour,
    /// Of Asia/Kolkata, added up from the billing view: it cannot be added up from hours.
    KolkataDay,
}

impl Period {
    pub const ALL: [Self; 3] = [Self::ViewHour, Self::Hour, Self::KolkataDay];

    /// Seconds since 1970 of the start of the period that an instant is in.
    fn start(self, timestamp_ms: i64) -> i64 {
        let (unit, offset) = match self {
            Self::ViewHour | Self::Hour => (3_600_000, 0),
            Self::KolkataDay => (86_400_000, KOLKATA_MS),
        };
        ((timestamp_ms + offset).div_euclid(unit) * unit - offset).div_euclid(1_000)
    }

    /// The subscription that the total of an event is kept by; `None` for all together.
    fn subscription(self, facts: &Facts) -> Option<u8> {
        match self {
            Self::ViewHour => facts.subscription,
            Self::Hour | Self::KolkataDay => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::ViewHour => "hour of usage_by_hour",
            Self::Hour => "hour of billable_events",
            Self::KolkataDay => "day of billable_events in Asia/Kolkata",
        }
    }
}

/// A row of a query for totals.
#[derive(Clone, Copy, Debug)]
pub struct TotalRow<'a> {
    pub organization: &'a str,
    pub code: &'a str,
    pub customer: &'a str,
    /// Empty for events that name none, and when all are added up.
    pub subscription: &'a str,
    /// Seconds since 1970.
    pub start: i64,
    pub events: u64,
    pub sum: &'a str,
}

/// Organization, metric, customer, subscription, start.
type Key = (u16, usize, u32, Option<u8>, i64);

/// The totals that are expected and were not found yet.
#[derive(Debug)]
pub struct Totals {
    period: Period,
    missing: HashMap<Key, (u64, BigInt)>,
}

impl Totals {
    pub fn new(period: Period) -> Self {
        Self { period, missing: HashMap::new() }
    }

    pub fn expect(&mut self, organization: u16, facts: &Facts) {
        let start = self.period.start(facts.timestamp_ms);
        let subscription = self.period.subscription(facts);
        let key = (organization, facts.metric, facts.customer, subscription, start);
        let (events, sum) = self.missing.entry(key).or_default();
        *events += 1;
        *sum += facts.value.unwrap_or(0);
    }

    /// What is wrong with a row, if anything. `organization` is the one that the row names.
    pub fn check(
        &mut self,
        run: &Run,
        organization: Option<u16>,
        row: TotalRow<'_>,
    ) -> Option<String> {
        let metric = run.metrics.iter().position(|metric| metric.code == row.code);
        let key = || {
            let customer = run.customer_of(row.customer)?;
            let subscription = run.subscription_of(row.customer, row.subscription)?;
            Some((organization?, metric?, customer, subscription, row.start))
        };
        let expected = key().and_then(|key| self.missing.remove(&key));
        let agrees = expected.as_ref().is_some_and(|(events, sum)| {
            *events == row.events && decimal::parse(row.sum).as_ref() == Some(sum)
        });
        if agrees {
            return None;
        }
        let (events, sum) = expected.unwrap_or_default();
        let period = self.period.name();
        Some(format!("{period}: {row:?}, expected {events} events and {sum} × 10⁻¹²"))
    }

    /// The periods that no row spoke of.
    pub fn rest(&self, run: &Run) -> impl Iterator<Item = String> {
        self.missing.keys().map(|(organization, metric, customer, subscription, start)| {
            format!(
                "{}: no row for {} of {} in organization {organization}, subscription {:?}, from {start} on",
                self.period.name(),
                run.metrics[*metric].code,
                run.customer_id(*customer),
                run.subscription_id(*customer, *subscription),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_a_zone_start_at_its_midnight() {
        // 2026-11-22T18:30:00Z is midnight of the 23rd in Kolkata.
        let midnight = 1_795_372_200_000;
        assert_eq!(Period::KolkataDay.start(midnight), 1_795_372_200);
        assert_eq!(Period::KolkataDay.start(midnight + 86_399_999), 1_795_372_200);
        assert_eq!(Period::KolkataDay.start(midnight - 1), 1_795_372_200 - 86_400);
        assert_eq!(Period::Hour.start(midnight), 1_795_370_400);
    }
}
