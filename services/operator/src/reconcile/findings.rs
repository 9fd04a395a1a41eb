//! What a proof asks, and what it found against it. Pure.

use std::collections::BTreeMap;
use usage_store::Position;

/// A question that a proof answers with pass or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    EveryEventBilled,
    NothingElseBilled,
    NothingBilledTwice,
    ContentUnchanged,
    ConflictsKept,
    RecordsParked,
    AuditComplete,
    AuditAgrees,
    OffsetsWithinLog,
}

impl Check {
    pub const ALL: [Self; 9] = [
        Self::EveryEventBilled,
        Self::NothingElseBilled,
        Self::NothingBilledTwice,
        Self::ContentUnchanged,
        Self::ConflictsKept,
        Self::RecordsParked,
        Self::AuditComplete,
        Self::AuditAgrees,
        Self::OffsetsWithinLog,
    ];

    /// A stable name for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::EveryEventBilled => "every_event_billed",
            Self::NothingElseBilled => "nothing_else_billed",
            Self::NothingBilledTwice => "nothing_billed_twice",
            Self::ContentUnchanged => "content_unchanged",
            Self::ConflictsKept => "conflicts_kept",
            Self::RecordsParked => "records_parked",
            Self::AuditComplete => "audit_complete",
            Self::AuditAgrees => "audit_agrees",
            Self::OffsetsWithinLog => "offsets_within_log",
        }
    }

    /// What holds when it passes.
    pub const fn claim(self) -> &'static str {
        match self {
            Self::EveryEventBilled => "Every accepted event is billed",
            Self::NothingElseBilled => "Nothing is billed that was not accepted",
            Self::NothingBilledTwice => "No event is billed twice within the dedup horizon",
            Self::ContentUnchanged => "What is billed is what was accepted, to the last digit",
            Self::ConflictsKept => "Every repeat that says something else is kept beside the bill",
            Self::RecordsParked => "Every record that is no event is kept, with its reason",
            Self::AuditComplete => "The audit speaks of every record",
            Self::AuditAgrees => "The audit's counts are those of the log and of the store",
            Self::OffsetsWithinLog => {
                "The consumer has committed nothing that the log does not have"
            }
        }
    }

    /// What to do when it fails.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::EveryEventBilled => {
                "run `tallymark replay --from TIME --to TIME` over the period: it stores what is missing; then reconcile again"
            }
            Self::NothingElseBilled => {
                "somebody else wrote to usage_events, or the log was replaced under the same epoch; find out who, before an invoice is sent"
            }
            Self::NothingBilledTwice => {
                "take one of the two out of the invoice, keep the earlier position, and report it: the consumer must not let this happen"
            }
            Self::ContentUnchanged => {
                "a row was changed after it was written; the log has what was accepted: restore the table's partition, then replay"
            }
            Self::ConflictsKept | Self::RecordsParked => {
                "run `tallymark replay` over the period: it writes these rows again"
            }
            Self::AuditComplete => {
                "run `tallymark replay` over the period: it stores and notes what was never read; if the records are gone, accept the loss as docs/operations.md says"
            }
            Self::AuditAgrees => {
                "compare the named range with the log; a replay does not change audit rows that are there"
            }
            Self::OffsetsWithinLog => {
                "the log lost records or was replaced; stop the consumer, restore the log or raise its epoch"
            }
        }
    }
}

/// Who an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub organization_id: String,
    pub transaction_scope: String,
    pub transaction_id: String,
}

/// One of the things that were found, as an example of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub position: Position,
    /// `None` when it is not an event, or cannot be found out.
    pub identity: Option<Identity>,
    pub detail: String,
}

/// What was found against one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub count: u64,
    pub examples: Vec<Example>,
}

/// What was found against all of them; of each kind only some examples are kept.
#[derive(Clone, Debug)]
pub struct Findings {
    found: BTreeMap<Check, Found>,
    examples_max: usize,
}

impl Findings {
    pub fn new(examples_max: usize) -> Self {
        Self { found: BTreeMap::new(), examples_max }
    }

    pub fn add(&mut self, check: Check, position: Position, detail: impl Into<String>) {
        self.add_event(check, position, None, detail);
    }

    pub fn add_event(
        &mut self,
        check: Check,
        position: Position,
        identity: Option<Identity>,
        detail: impl Into<String>,
    ) {
        let found = self.found.entry(check).or_default();
        found.count += 1;
        if found.examples.len() < self.examples_max {
            found.examples.push(Example { position, identity, detail: detail.into() });
        }
    }

    /// What was found against `check`; `None` when it passes.
    pub fn against(&self, check: Check) -> Option<&Found> {
        self.found.get(&check)
    }

    /// The examples, to fill in identities.
    pub fn examples_mut(&mut self) -> impl Iterator<Item = &mut Example> {
        self.found.values_mut().flat_map(|found| &mut found.examples)
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_some_are_shown() {
        let mut findings = Findings::new(2);
        for offset in 0..5 {
            let position = Position { epoch: 1, partition: 0, offset };
            findings.add(Check::AuditAgrees, position, "x");
        }
        let found = findings.against(Check::AuditAgrees).unwrap();
        assert_eq!((found.count, found.examples.len()), (5, 2));
        assert_eq!(findings.against(Check::AuditComplete), None);
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let mut codes: Vec<_> = Check::ALL.iter().map(|check| check.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Check::ALL.len());
        assert!(Check::ALL.is_sorted());
    }
}
