//! Searches the whole history of the table for ids of the period that were billed more than once.
//!
//! A range of keys after the other, as many as the memory holds: those of the period's billable rows are
//! kept, and those of all other rows go past them. Only the keys that came again are looked at by their
//! rows, and these alone decide.

use super::billed_keys::{BilledKeys, KEY_BYTES, halves, ranges};
use super::findings::Findings;
use super::reused::ReusedIds;
use super::{NotChecked, Request};
use tokio::task::block_in_place;
use usage_store::UsageStore;
use usage_store::conservation::{Period, StoredSpan};
use usage_store::reused_ids::KEYS_MAX;

/// Keys after which a search has moved on: some seconds' worth.
const MOVED_ON_KEYS: u64 = 1 << 24;

/// Reports to `findings` what was billed twice, and returns what was used again after the horizon.
/// `spans` are those of the period; `moved_on` is called every few seconds while keys arrive.
pub async fn reused_ids(
    store: &UsageStore,
    request: &Request,
    period: &Period,
    spans: &[StoredSpan],
    findings: &mut Findings,
    moved_on: &(dyn Fn() + Sync),
) -> Result<ReusedIds, NotChecked> {
    let rows = spans.iter().map(|span| span.rows).sum();
    let room = room(request.memory, rows);
    let mut reused = ReusedIds::new(request.horizon, request.examples);
    let mut in_question = Vec::with_capacity(KEYS_MAX);
    let mut left = ranges(rows, room);
    left.reverse();
    while let Some(range) = left.pop() {
        let mut keys = BilledKeys::new(range.clone(), room);
        let mut watch = Watch { taken: 0, moved_on };
        let push = |key| watch.after(|| keys.push(key));
        store.billed_keys(period, &range, push).await?;
        if keys.is_overfull() {
            // Hashes that are spread less evenly than hashes are.
            let [low, high] = halves(&range).expect("a range of one key is never overfull");
            left.extend([high, low]);
            continue;
        }
        block_in_place(|| keys.sort());
        let meet = |key| watch.after(|| keys.meet(key));
        store.other_keys(period, &range, meet).await?;
        for key in keys.came_again() {
            in_question.push(key);
            if in_question.len() == KEYS_MAX {
                store.reused_ids(period, &in_question, |row| reused.row(row, findings)).await?;
                in_question.clear();
                moved_on();
            }
        }
    }
    if !in_question.is_empty() {
        store.reused_ids(period, &in_question, |row| reused.row(row, findings)).await?;
    }
    Ok(reused)
}

/// How many keys are kept at a time: what `memory` holds, and no more than there are rows.
fn room(memory: u64, rows: u64) -> usize {
    usize::try_from((memory / KEY_BYTES).min(rows)).unwrap_or(usize::MAX).max(2)
}

/// Says from time to time that keys arrive.
struct Watch<'a> {
    taken: u64,
    moved_on: &'a (dyn Fn() + Sync),
}

impl Watch<'_> {
    fn after(&mut self, each: impl FnOnce()) {
        each();
        self.taken += 1;
        if self.taken.is_multiple_of(MOVED_ON_KEYS) {
            (self.moved_on)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_bounds_the_keys_that_are_kept() {
        assert_eq!(room(9000, 1_000_000), 1000);
        assert_eq!(room(9000 - 1, 1_000_000), 999);
        assert_eq!(room(1 << 30, 500), 500);
        assert_eq!(room(0, 0), 2);
        // With the default of 1 GiB, a day of 10,000 events/s takes eight ranges.
        assert_eq!(ranges(864_000_000, room(1 << 30, 864_000_000)).len(), 8);
    }
}
