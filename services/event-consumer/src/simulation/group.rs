//! The coordinator of the consumer group: who owns what, who has to give it up, what is committed.

use super::prng::Prng;
use event_log::{Offset, PartitionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a member is told when it polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    Assign(Vec<PartitionId>),
    /// Some partitions, or all.
    Revoke(Option<Vec<PartitionId>>),
}

#[derive(Debug)]
pub(super) struct Group {
    incremental: bool,
    /// Member → which of its processes.
    joined: BTreeMap<usize, u64>,
    owned: BTreeMap<usize, BTreeSet<PartitionId>>,
    /// The members that a rebalance waits for.
    pending: Option<BTreeSet<usize>>,
    target: Vec<usize>,
    inboxes: BTreeMap<usize, VecDeque<Announcement>>,
    pub(super) committed: Vec<Option<Offset>>,
}

impl Group {
    pub(super) fn new(partitions: u16, incremental: bool) -> Self {
        Self {
            incremental,
            joined: BTreeMap::new(),
            owned: BTreeMap::new(),
            pending: None,
            target: vec![0; usize::from(partitions)],
            inboxes: BTreeMap::new(),
            committed: vec![None; usize::from(partitions)],
        }
    }

    pub(super) fn is_member(&self, slot: usize, incarnation: u64) -> bool {
        self.joined.get(&slot) == Some(&incarnation)
    }

    pub(super) fn joined(&self) -> Vec<usize> {
        self.joined.keys().copied().collect()
    }

    /// A process joins, in place of an earlier one of the same member. With a static name the
    /// member keeps its partitions.
    pub(super) fn join(&mut self, slot: usize, incarnation: u64, keeps: bool, prng: &mut Prng) {
        let known = self.joined.insert(slot, incarnation).is_some();
        self.inboxes.remove(&slot);
        if known && keeps && self.pending.is_none() {
            let owned = self.owned.get(&slot).into_iter().flatten().copied().collect();
            self.inboxes.entry(slot).or_default().push_back(Announcement::Assign(owned));
            return;
        }
        self.owned.remove(&slot);
        if let Some(pending) = &mut self.pending {
            pending.remove(&slot);
        }
        self.rebalance(prng);
    }

    /// A member leaves, or its session has ended.
    pub(super) fn leave(&mut self, slot: usize, prng: &mut Prng) {
        self.joined.remove(&slot);
        self.owned.remove(&slot);
        self.inboxes.remove(&slot);
        if let Some(pending) = &mut self.pending {
            pending.remove(&slot);
        }
        self.rebalance(prng);
    }

    pub(super) fn rebalance(&mut self, prng: &mut Prng) {
        let joined = self.joined();
        if joined.is_empty() {
            self.pending = Some(BTreeSet::new());
            return;
        }
        let mut pending = self.pending.take().unwrap_or_default();
        for (partition, target) in (0..).zip(&mut self.target) {
            let owner = self.owned.iter().find(|(_, owned)| owned.contains(&partition));
            let stays = prng.chance(500);
            *target =
                owner.filter(|_| stays).map_or_else(|| *prng.pick(&joined), |(slot, _)| *slot);
        }
        for slot in joined {
            let owned = self.owned.entry(slot).or_default();
            let lost: Vec<_> = owned
                .iter()
                .copied()
                .filter(|p| !self.incremental || self.target[usize::from(*p)] != slot)
                .collect();
            if !lost.is_empty() && pending.insert(slot) {
                let revoke = Announcement::Revoke(self.incremental.then_some(lost));
                self.inboxes.entry(slot).or_default().push_back(revoke);
            }
        }
        self.pending = Some(pending);
    }

    /// The topic has changed: every member gives up all it has and is told anew.
    pub(super) fn take_everything_back(&mut self) {
        let mut pending = BTreeSet::new();
        for slot in self.joined() {
            let inbox = self.inboxes.entry(slot).or_default();
            inbox.retain(|announcement| matches!(announcement, Announcement::Assign(_)));
            inbox.push_back(Announcement::Revoke(None));
            pending.insert(slot);
        }
        self.pending = Some(pending);
    }

    /// The next thing that a member is told. An assignment that was taken back is never told of.
    pub(super) fn next(&mut self, slot: usize) -> Option<Announcement> {
        let inbox = self.inboxes.entry(slot).or_default();
        let taken_back = matches!(
            (inbox.front(), inbox.get(1)),
            (Some(Announcement::Assign(_)), Some(Announcement::Revoke(None)))
        );
        if taken_back {
            inbox.clear();
            self.gave_up(slot, None);
            return None;
        }
        inbox.front().cloned()
    }

    /// A member has taken in what it was told last.
    pub(super) fn taken(&mut self, slot: usize) {
        if let Some(Announcement::Revoke(lost)) = self.inboxes.entry(slot).or_default().pop_front()
        {
            self.gave_up(slot, lost);
        }
    }

    fn gave_up(&mut self, slot: usize, lost: Option<Vec<PartitionId>>) {
        let owned = self.owned.entry(slot).or_default();
        match lost {
            None => owned.clear(),
            Some(lost) => owned.retain(|partition| !lost.contains(partition)),
        }
        if let Some(pending) = &mut self.pending {
            pending.remove(&slot);
        }
    }

    /// Gives out what nobody owns, once everybody has given up what was asked for. Those who get
    /// nothing are told so.
    pub(super) fn complete_if_ready(&mut self, prng: &mut Prng) {
        let joined = self.joined();
        if joined.is_empty() || self.pending.as_ref().is_none_or(|pending| !pending.is_empty()) {
            return;
        }
        self.pending = None;
        let mut given: BTreeMap<usize, Vec<PartitionId>> = BTreeMap::new();
        for (partition, target) in (0..).zip(&self.target) {
            if self.owned.values().any(|owned| owned.contains(&partition)) {
                continue;
            }
            let owner = if joined.contains(target) { *target } else { *prng.pick(&joined) };
            given.entry(owner).or_default().push(partition);
        }
        for slot in joined {
            let list = given.remove(&slot).unwrap_or_default();
            self.owned.entry(slot).or_default().extend(&list);
            self.inboxes.entry(slot).or_default().push_back(Announcement::Assign(list));
        }
    }

    /// Whether a commit of this process counts: it is the member, it owns the partitions, and it
    /// has taken in all that it was told.
    pub(super) fn may_commit(
        &self,
        (slot, incarnation): (usize, u64),
        next: &[(PartitionId, Offset)],
    ) -> bool {
        let owned = self.owned.get(&slot);
        self.is_member(slot, incarnation)
            && self.inboxes.get(&slot).is_none_or(VecDeque::is_empty)
            && next.iter().all(|(p, _)| owned.is_some_and(|owned| owned.contains(p)))
    }

    pub(super) fn committed(&self, partition: PartitionId) -> Option<Offset> {
        self.committed[usize::from(partition)]
    }
}
