//! Which places can be forgotten at a given time.

use super::Place;
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

const SECONDS_PER_HOUR: i64 = 3600;

/// For each hour since which events are remembered, the earliest place of such an event.
#[derive(Debug, Default)]
pub(super) struct Ages {
    earliest: BTreeMap<i64, Place>,
    /// The hour and place that were noted last: nearly all events are of the same hour as the one before.
    last: Option<(i64, Place)>,
}

impl Ages {
    /// The ages of events that were noted in any order.
    pub(super) fn of(hours: &Hours) -> Self {
        let noted = (hours.first..).zip(&hours.earliest).filter(|(_, place)| **place < Place::END);
        Self { earliest: noted.map(|(hour, place)| (hour, *place)).collect(), last: None }
    }

    pub(super) fn note(&mut self, accepted_at: DateTime<Utc>, place: Place) {
        let hour = accepted_at.timestamp().div_euclid(SECONDS_PER_HOUR);
        if self.last.is_some_and(|(last, earliest)| last == hour && earliest <= place) {
            return;
        }
        let earliest = self.earliest.entry(hour).or_insert(place);
        *earliest = place.min(*earliest);
        self.last = Some((hour, *earliest));
    }

    /// The place before which every event was accepted before `at`, or up to an hour earlier than that.
    pub(super) fn advance(&mut self, at: DateTime<Utc>) -> Place {
        self.earliest = self.earliest.split_off(&at.timestamp().div_euclid(SECONDS_PER_HOUR));
        self.last = None;
        // With no later event there is no place to stop at; the next event will be one.
        self.earliest.values().min().copied().unwrap_or(Place::FIRST)
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        // A B-tree node is at least half full.
        self.earliest.len() * 2 * size_of::<(i64, Place)>()
    }
}

/// As [`Ages`], for many events that come in no order: an array of all hours there can be.
#[derive(Debug)]
pub(super) struct Hours {
    first: i64,
    /// `Place::END` where no event was noted.
    earliest: Vec<Place>,
}

impl Hours {
    /// For events accepted from `since` to `at`; later ones count as accepted at `at`.
    pub(super) fn new(since: DateTime<Utc>, at: DateTime<Utc>) -> Self {
        let hour = |at: DateTime<Utc>| at.timestamp().div_euclid(SECONDS_PER_HOUR);
        let first = hour(since);
        let hours = usize::try_from(hour(at) - first).unwrap_or(0) + 1;
        Self { first, earliest: vec![Place::END; hours] }
    }

    /// `hour` is counted from 1970.
    pub(super) fn note(&mut self, hour: u32, place: Place) {
        let last = self.earliest.len() - 1;
        let index = usize::try_from(i64::from(hour) - self.first).unwrap_or(0).min(last);
        self.earliest[index] = place.min(self.earliest[index]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::PositionOrder;

    fn hour(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(hours * SECONDS_PER_HOUR + 1, 0).unwrap()
    }

    #[test]
    fn only_places_before_every_later_event_are_released() {
        let order = PositionOrder::new(1);
        let mut ages = Ages::default();
        for (hours, offset) in [(10, 0), (10, 1), (11, 2), (10, 3), (12, 4), (11, 5)] {
            ages.note(hour(hours), order.current(offset));
        }
        assert_eq!(ages.advance(hour(9)), order.current(0));
        assert_eq!(ages.advance(hour(11)), order.current(2));
        assert_eq!(
            ages.advance(hour(12)),
            order.current(4),
            "offset 5 is newer than offset 4 although accepted before it"
        );
        assert_eq!(ages.advance(hour(13)), Place::FIRST, "nothing newer is known");
        ages.note(hour(13), order.current(6));
        assert_eq!(ages.advance(hour(13)), order.current(6));
    }

    #[test]
    fn events_may_be_noted_in_any_order() {
        let order = PositionOrder::new(1);
        let mut ages = Ages::default();
        for offset in [7, 3, 5] {
            ages.note(hour(20), order.current(offset));
        }
        assert_eq!(ages.advance(hour(20)), order.current(3));
    }

    #[test]
    fn hours_are_the_ages_of_the_same_events() {
        let order = PositionOrder::new(1);
        let mut hours = Hours::new(hour(10), hour(14));
        let mut ages = Ages::default();
        for (accepted, counts_as, offset) in
            [(12, 12, 7), (10, 10, 9), (12, 12, 3), (14, 14, 12), (99, 14, 11), (9, 10, 8)]
        {
            hours.note(accepted, order.current(offset));
            ages.note(hour(counts_as), order.current(offset));
        }
        assert_eq!(Ages::of(&hours).earliest, ages.earliest);
    }
}
