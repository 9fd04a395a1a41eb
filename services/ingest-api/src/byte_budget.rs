//! A bound on the bytes that all requests hold together, so that no number of clients can exhaust memory.

use crate::metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be held at once, shared by all requests.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    used: AtomicUsize,
    max: usize,
}

/// The budget has no room; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

/// Bytes taken from a [`ByteBudget`], given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// An empty reservation, to be grown.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), bytes: 0 }
    }

    /// Whether `bytes` more could be taken now.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed).saturating_add(bytes) <= self.max
    }

    fn take(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        let max = self.max;
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= max)
        });
        taken.map(|_| ()).map_err(|_| BudgetExhausted)
    }
}

impl Reservation {
    /// Makes the reservation at least `bytes` large, at once or not at all.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), BudgetExhausted> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.take(more)?;
            self.bytes = bytes;
            metrics::bytes_in_flight().add(i64::try_from(more).unwrap_or(i64::MAX));
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        debug_assert!(before >= self.bytes, "only what was taken is given back");
        metrics::bytes_in_flight().sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_exactly_its_maximum() {
        let budget = ByteBudget::new(100);
        let mut first = budget.reserve();
        assert_eq!(first.grow_to(60), Ok(()));
        let mut second = budget.reserve();
        assert_eq!(second.grow_to(41), Err(BudgetExhausted));
        assert!(budget.has_room_for(40) && !budget.has_room_for(41));
        assert_eq!(second.grow_to(40), Ok(()));
        assert_eq!(first.grow_to(61), Err(BudgetExhausted));
        drop(second);
        assert_eq!(first.grow_to(100), Ok(()));
        drop(first);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reservation_never_shrinks_and_never_overflows() {
        let budget = ByteBudget::new(100);
        let mut reservation = budget.reserve();
        assert_eq!(reservation.grow_to(50), Ok(()));
        assert_eq!(reservation.grow_to(10), Ok(()));
        assert!(!budget.has_room_for(51));
        assert_eq!(reservation.grow_to(usize::MAX), Err(BudgetExhausted));
        assert!(!budget.has_room_for(usize::MAX));
    }
}
