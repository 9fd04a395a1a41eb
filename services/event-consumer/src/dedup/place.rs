//! The order of positions in all logs that carried a topic's events, packed into 56 bits.

use event_log::Offset;

/// Offsets stay below this: a row's version in the store has 48 bits for them too.
pub const OFFSET_LIMIT: Offset = 1 << 48;

/// A position as the index holds it: an earlier place is an earlier record. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    pub const FIRST: Self = Self(0);
    /// Behind every place.
    pub const END: Self = Self(1 << 56);

    pub(super) const fn get(self) -> u64 {
        self.0
    }

    /// The place so many records earlier, or as far as there are any.
    pub(super) const fn back(self, records: u64) -> Self {
        Self(self.0.saturating_sub(records))
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// Turns positions into places, as seen from the epoch of the log that is being read.
///
/// Eight bits tell 254 earlier epochs apart; still older ones count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionOrder {
    epoch: u16,
}

impl PositionOrder {
    /// For a log whose records belong to `epoch`.
    pub const fn new(epoch: u16) -> Self {
        Self { epoch }
    }

    pub const fn epoch(self) -> u16 {
        self.epoch
    }

    /// The place of a record of the log that is being read.
    ///
    /// # Panics
    /// When the offset is at or beyond [`OFFSET_LIMIT`].
    pub fn current(self, offset: Offset) -> Place {
        assert!(offset < OFFSET_LIMIT, "an offset has at most 48 bits");
        Place((0xff << 48) | offset)
    }

    /// The place of a row of the store; `None` when it comes from a later epoch than the log's.
    pub fn stored(self, epoch: u16, offset: Offset) -> Option<Place> {
        let age = self.epoch.checked_sub(epoch)?.min(0xfe);
        Some(Place(((0xff - u64::from(age)) << 48) | (offset & (OFFSET_LIMIT - 1))))
    }

    /// Epoch and offset of a place.
    pub fn position(self, place: Place) -> (u16, Offset) {
        let age = u16::try_from(0xff - (place.0 >> 48)).expect("a place has 56 bits");
        (self.epoch.saturating_sub(age), place.0 & (OFFSET_LIMIT - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_epoch_then_offset() {
        let order = PositionOrder::new(300);
        let places = [
            order.stored(299, OFFSET_LIMIT - 1),
            order.stored(300, 0),
            Some(order.current(1)),
            Some(order.current(OFFSET_LIMIT - 1)),
        ];
        assert!(
            places.is_sorted()
                && places.iter().flatten().all(|p| *p > Place::FIRST && *p < Place::END),
            "{places:?}"
        );
        assert!(
            order.stored(0, 0) > Some(Place::FIRST),
            "the oldest place is not the mark of an empty slot"
        );
        assert_eq!(order.stored(301, 0), None);
        assert_eq!(order.position(order.current(77)), (300, 77));
        assert_eq!(order.stored(299, 5).map(|place| order.position(place)), Some((299, 5)));
    }

    #[test]
    #[should_panic(expected = "48 bits")]
    fn an_offset_beyond_the_limit_is_a_bug() {
        PositionOrder::new(1).current(OFFSET_LIMIT);
    }
}
