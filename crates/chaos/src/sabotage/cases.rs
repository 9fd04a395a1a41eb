//! Each wrong behaviour, who was published with it, and what it must be found by.

use super::Scenario;
use fault_injection::Sabotage;

/// A wrong behaviour and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub sabotage: Sabotage,
    pub scenario: Scenario,
    /// The products that were published with it.
    pub published_by: &'static str,
    /// Kinds of findings, one of which has to be there; empty for a harmless change.
    pub expected: &'static [&'static str],
}

impl Case {
    const fn new(
        sabotage: Sabotage,
        scenario: Scenario,
        published_by: &'static str,
        expected: &'static [&'static str],
    ) -> Self {
        Self { sabotage, scenario, published_by, expected }
    }

    /// # Panics
    /// When the table has no such case.
    pub fn of(sabotage: Sabotage) -> Self {
        let found = CASES.iter().find(|case| case.sabotage == sabotage);
        *found.expect("every sabotage has a case")
    }
}

const LOST: &[&str] = &["missing"];
const DOUBLED: &[&str] = &["doubled"];
const WRONG: &[&str] = &["wrong_payload"];
const HARMLESS: &[&str] = &[];

/// Every sabotage.
pub const CASES: &[Case] = &[
    Case::new(Sabotage::AckOnEnqueue, Scenario::KillWithQueue, "OpenMeter, Lago", LOST),
    Case::new(Sabotage::AckOnPublishError, Scenario::FailedWrites, "FlexPrice", LOST),
    Case::new(Sabotage::CommitBeforeInsert, Scenario::KillWithBatch, "(common)", LOST),
    Case::new(Sabotage::CommitPastFailure, Scenario::RefusedInserts, "Lago, Vector", LOST),
    Case::new(Sabotage::SkipPoison, Scenario::Poison, "Meteroid", &["dead_letters"]),
    Case::new(Sabotage::AutoCommit, Scenario::KillWithBatch, "FlexPrice", LOST),
    Case::new(Sabotage::TokenWithoutContent, Scenario::CutAgain, "(common)", LOST),
    Case::new(
        Sabotage::TimestampInIdentity,
        Scenario::Traffic,
        "Lago, FlexPrice, bxb, Meteroid",
        DOUBLED,
    ),
    Case::new(Sabotage::LastWriteWins, Scenario::Traffic, "bxb", WRONG),
    Case::new(Sabotage::AdditiveView, Scenario::CutAgain, "Lago until 2025-12", &["wrong_total"]),
    Case::new(Sabotage::FilterBeforeFinal, Scenario::Traffic, "Meteroid", DOUBLED),
    Case::new(Sabotage::FinalPerPartition, Scenario::Traffic, "FlexPrice", DOUBLED),
    Case::new(Sabotage::SeenBeforeDurable, Scenario::KillWithBatch, "OpenMeter", LOST),
    Case::new(Sabotage::AmbiguousKey, Scenario::Traffic, "OpenMeter", LOST),
    Case::new(Sabotage::FloatQuantity, Scenario::Traffic, "Meteroid", WRONG),
    Case::new(Sabotage::ZeroWhenTooLarge, Scenario::Traffic, "Lago, bxb", WRONG),
    Case::new(Sabotage::RecordTimeIsEventTime, Scenario::Retention, "OpenMeter", LOST),
    Case::new(Sabotage::OffsetResetLatest, Scenario::KillAtFirstBatch, "(common)", LOST),
    Case::new(
        Sabotage::CacheWithoutRevocation,
        Scenario::Revocation,
        "(common)",
        &["accepted_after_revocation"],
    ),
    Case::new(Sabotage::DropAfterFailedInsert, Scenario::RefusedInserts, "Betterlytics", LOST),
    Case::new(Sabotage::RefusalIsRejection, Scenario::RefusedInserts, "Vector", LOST),
    Case::new(Sabotage::BoundedSeenSet, Scenario::Traffic, "OpenMeter", DOUBLED),
    Case::new(Sabotage::DedupWithinPeriod, Scenario::Traffic, "Meteroid", DOUBLED),
    Case::new(Sabotage::StaleIndex, Scenario::Rebalance, "(common)", DOUBLED),
    Case::new(Sabotage::KeepAfterRevoke, Scenario::Rebalance, "control", HARMLESS),
    Case::new(Sabotage::OneToken, Scenario::CutAgain, "control", HARMLESS),
    Case::new(Sabotage::NoIdempotence, Scenario::Rebalance, "control", HARMLESS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sabotage_has_one_case_that_knows_whether_it_is_harmless() {
        let of_cases: Vec<_> = CASES.iter().map(|case| case.sabotage).collect();
        assert_eq!(of_cases, Sabotage::ALL);
        for case in CASES {
            assert_eq!(case.expected.is_empty(), case.sabotage.is_harmless(), "{case:?}");
        }
    }

    #[test]
    fn every_scenario_is_there_for_a_case() {
        for scenario in Scenario::ALL {
            assert!(CASES.iter().any(|case| case.scenario == *scenario), "{scenario:?}");
        }
    }
}
