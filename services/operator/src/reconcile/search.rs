//! Searches the whole history of the table for ids of the period that have more than one row.
//!
//! A range of keys after the other, as many as the memory holds: those of the period's rows are kept, and
//! those of all other rows go past them. Only the keys that came again are looked at by their rows, and these
//! alone decide.

use super::findings::{Findings, Found};
use super::period_keys::{KEY_BYTES, PeriodKeys, halves, ranges};
use super::reused::ReusedIds;
use super::{NotChecked, Request, plan};
use event_log::{Offset, PartitionId};
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use tokio::task::block_in_place;
use usage_store::conservation::Period;
use usage_store::reused_ids::{KEYS_MAX, ReusedId, key_of};
use usage_store::{Position, UsageStore};

/// Keys after which a search has moved on: some seconds' worth.
const MOVED_ON_KEYS: u64 = 1 << 24;
/// Most rows that may be hidden by another one of their id, of 72 bytes each, beyond the memory of a request.
const HIDDEN_MAX: usize = 1_000_000;

/// What was found beside the failures.
#[derive(Debug)]
pub struct Searched {
    /// Ids that were used again after the horizon: the contract bills them again.
    pub beyond_horizon: Found,
    /// Where rows stand that are not billed, because another one of their id hides them, and their keys.
    pub hidden: BTreeSet<(Position, u64)>,
}

impl Searched {
    /// Epoch, offset and key of those in `partition`.
    pub fn hidden_in(&self, partition: PartitionId) -> BTreeSet<(u16, Offset, u64)> {
        let hidden = self.hidden.iter().filter(|(position, _)| position.partition == partition);
        hidden.map(|(position, key)| (position.epoch, position.offset, *key)).collect()
    }
}

/// Reports to `findings` what was billed twice. `moved_on` is called every few seconds while keys arrive, and
/// after each scan.
pub async fn search(
    store: &UsageStore,
    request: &Request,
    findings: &mut Findings,
    moved_on: &(dyn Fn() + Sync),
) -> Result<Searched, NotChecked> {
    let rows = store.stored_spans(&window(request)).await?.iter().map(|span| span.rows).sum();
    let room = room(request.memory, rows);
    let mut left = ranges(rows, room);
    left.reverse();
    let mut question = Question::new(store, request, findings);
    while let Some(range) = left.pop() {
        let Some(keys) = keys_that_came_again(store, request, &range, room, moved_on).await? else {
            // Hashes that are spread less evenly than hashes are.
            let [low, high] = halves(&range).expect("a range of one key is never overfull");
            left.extend([high, low]);
            continue;
        };
        for key in keys.came_again() {
            question.ask(key).await?;
            moved_on();
        }
    }
    question.end().await
}

/// The keys of the rows of the period that are in `range`, and have met all others. `None` when there are
/// more than `room`.
async fn keys_that_came_again(
    store: &UsageStore,
    request: &Request,
    range: &RangeInclusive<u64>,
    room: usize,
    moved_on: &(dyn Fn() + Sync),
) -> Result<Option<PeriodKeys>, NotChecked> {
    let window = window(request);
    let mut keys = PeriodKeys::new(range.clone(), room);
    let mut watch = Watch { taken: 0, moved_on };
    let push = |key, position| watch.after(|| keys.push(key, position));
    store.period_keys(&window, range, push).await?;
    moved_on();
    if keys.is_overfull() {
        return Ok(None);
    }
    block_in_place(|| keys.sort());
    let meet = |key| watch.after(|| keys.meet(key));
    store.other_keys(&window, range, meet).await?;
    moved_on();
    Ok(Some(keys))
}

/// The rows that are kept: those of the period, and of what is read around it.
fn window(request: &Request) -> Period {
    let Range { start: from, end: to } = plan::window(request);
    Period { from, to, organization: request.organization.clone() }
}

/// How many of `rows` are kept at a time: what `memory` holds, and no more than there are, with a little for
/// hashes that are spread unevenly and for rows that are stored meanwhile.
fn room(memory: u64, rows: u64) -> usize {
    let rows = rows.saturating_add(rows / 8).saturating_add(1000);
    usize::try_from((memory / KEY_BYTES).min(rows)).unwrap_or(usize::MAX).max(2)
}

/// Keys that are to be looked at by their rows.
struct Question<'a> {
    store: &'a UsageStore,
    period: Period,
    findings: &'a mut Findings,
    keys: Vec<u64>,
    reused: ReusedIds,
    hidden: BTreeSet<(Position, u64)>,
}

impl<'a> Question<'a> {
    fn new(store: &'a UsageStore, request: &Request, findings: &'a mut Findings) -> Self {
        let period = Period {
            from: request.period.start,
            to: request.period.end,
            organization: request.organization.clone(),
        };
        let reused = ReusedIds::new(request.horizon, request.examples);
        let keys = Vec::with_capacity(KEYS_MAX);
        Self { store, period, findings, keys, reused, hidden: BTreeSet::new() }
    }

    /// Looks at them once they are as many as a query may ask for.
    async fn ask(&mut self, key: u64) -> Result<(), NotChecked> {
        self.keys.push(key);
        if self.keys.len() == KEYS_MAX { self.look().await } else { Ok(()) }
    }

    async fn look(&mut self) -> Result<(), NotChecked> {
        let Self { store, period, findings, keys, reused, hidden } = self;
        let row = |row: ReusedId| {
            let key = key_of(&row.hash);
            let others = row.places.iter().filter(|place| **place != row.position);
            let others = others.map(|place| (*place, key));
            hidden.extend(others.take(HIDDEN_MAX + 1 - hidden.len()));
            if row.is_reused {
                reused.row(row, findings);
            }
        };
        store.reused_ids(period, keys, row).await?;
        keys.clear();
        if hidden.len() > HIDDEN_MAX {
            return Err(NotChecked::Configuration(format!(
                "more than {HIDDEN_MAX} rows of ids of the period are hidden by another row of their id; take a shorter period"
            )));
        }
        Ok(())
    }

    async fn end(mut self) -> Result<Searched, NotChecked> {
        if !self.keys.is_empty() {
            self.look().await?;
        }
        Ok(Searched { beyond_horizon: self.reused.beyond_horizon(), hidden: self.hidden })
    }
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
    fn the_memory_bounds_the_rows_that_are_kept() {
        assert_eq!(room(17_000, 1_000_000), 1000);
        assert_eq!(room(17_000 - 1, 1_000_000), 999);
        assert_eq!(room(1 << 30, 500), 1562);
        assert_eq!(room(0, 0), 2);
        // Of a day of 10,000 events/s.
        let rows = 864_000_000;
        assert_eq!(ranges(rows, room(1 << 30, rows)).len(), 15);
        assert_eq!(ranges(rows, room(16 << 30, rows)).len(), 1);
    }
}
