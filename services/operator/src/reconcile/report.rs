//! The outcome of a proof, with the names that its JSON has. They never change; new ones may come.

use super::Request;
use super::findings::{Check, Example, Found};
use super::gone::Gone;
use super::partition::{Results, Unreadable};
use super::plan::Plan;
use super::table::Line;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

/// Everything that is known of a period.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub from: String,
    pub to: String,
    /// Only this organization was looked at; null means all.
    pub organization: Option<String>,
    pub checked_at: String,
    pub passed: bool,
    pub lines: Vec<LineReport>,
    pub total: LineReport,
    pub unreadable: UnreadableReport,
    pub checks: Vec<CheckReport>,
    /// Ids that were used again after the dedup horizon, and so are billed again. No failure: the contract
    /// says so, and a person decides.
    pub reused_beyond_horizon: FoundReport,
    pub partitions: Vec<PartitionReport>,
}

/// An organization in an hour, or the sum of all.
#[derive(Clone, Debug, Serialize)]
pub struct LineReport {
    /// Null in the sum.
    pub organization: Option<String>,
    /// Start of the hour of acceptance; null in the sum.
    pub hour: Option<String>,
    pub accepted: u64,
    pub billed: u64,
    pub repeats: u64,
    pub conflicts: u64,
    pub parked: u64,
    /// A decimal number as text: above zero when something is missing, below when there is too much.
    pub difference: String,
    pub billed_without_log: u64,
    /// The sum of the BLAKE3 hashes of the events modulo 2^256, in hexadecimal.
    pub log_hash: String,
    pub store_hash: String,
}

/// Records that are no events and say of no organization, by the time they were appended.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct UnreadableReport {
    pub accepted: u64,
    pub parked: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    pub name: &'static str,
    pub claim: &'static str,
    pub passed: bool,
    pub count: u64,
    pub examples: Vec<ExampleReport>,
    /// What to do; null when it passed.
    pub advice: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
pub struct FoundReport {
    pub count: u64,
    pub examples: Vec<ExampleReport>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ExampleReport {
    pub topic_epoch: u16,
    pub partition: u16,
    pub offset: u64,
    pub organization_id: Option<String>,
    pub transaction_scope: Option<String>,
    pub transaction_id: Option<String>,
    pub detail: String,
}

/// What was read of a partition: `[from, until)` of its offsets.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionReport {
    pub partition: u16,
    pub from: u64,
    pub until: u64,
    /// The next offset that the consumer has to read.
    pub committed: Option<u64>,
    /// Ranges that the log no longer has: checked against the audit and the store only.
    pub without_log: Vec<WithoutLog>,
}

#[derive(Clone, Debug, Serialize)]
pub struct WithoutLog {
    pub topic_epoch: u16,
    pub from: u64,
    pub until: u64,
}

impl Report {
    pub(super) fn new(
        request: &Request,
        now: DateTime<Utc>,
        results: Results,
        partitions: Vec<PartitionReport>,
        reused: Found,
    ) -> Self {
        let Results { table, findings, unreadable: Unreadable { accepted, parked } } = results;
        let line = |(organization, hour, line): (&str, DateTime<Utc>, &Line)| {
            LineReport::new(Some(organization.to_owned()), Some(instant(hour)), line)
        };
        let check = |check: Check| {
            let found = findings.against(check).cloned();
            let passed = found.is_none();
            let FoundReport { count, examples } = found.unwrap_or_default().into();
            let advice = (!passed).then(|| check.advice());
            CheckReport {
                name: check.code(),
                claim: check.claim(),
                passed,
                count,
                examples,
                advice,
            }
        };
        let total = table.total();
        Self {
            from: instant(request.period.start),
            to: instant(request.period.end),
            organization: request.organization.clone(),
            checked_at: instant(now),
            passed: findings.is_empty() && table.iter().all(|(_, _, line)| line.difference() == 0),
            lines: table.iter().map(line).collect(),
            total: LineReport::new(None, None, &total),
            unreadable: UnreadableReport { accepted, parked },
            checks: Check::ALL.map(check).into(),
            reused_beyond_horizon: reused.into(),
            partitions,
        }
    }
}

impl LineReport {
    fn new(organization: Option<String>, hour: Option<String>, line: &Line) -> Self {
        Self {
            organization,
            hour,
            accepted: line.accepted,
            billed: line.billed,
            repeats: line.repeats,
            conflicts: line.conflicts,
            parked: line.parked,
            difference: line.difference().to_string(),
            billed_without_log: line.billed_without_log,
            log_hash: line.log_hash.to_string(),
            store_hash: line.store_hash.to_string(),
        }
    }
}

impl PartitionReport {
    pub(super) fn new(plan: &Plan, gone: Vec<Gone>) -> Self {
        let without_log = gone.into_iter().map(|Gone { epoch, offsets }| WithoutLog {
            topic_epoch: epoch,
            from: offsets.start,
            until: offsets.end,
        });
        Self {
            partition: plan.partition,
            from: plan.offsets.start,
            until: plan.offsets.end,
            committed: plan.committed,
            without_log: without_log.collect(),
        }
    }
}

impl From<Found> for FoundReport {
    fn from(found: Found) -> Self {
        let Found { count, examples } = found;
        Self { count, examples: examples.into_iter().map(ExampleReport::from).collect() }
    }
}

impl From<Example> for ExampleReport {
    fn from(example: Example) -> Self {
        let Example { position, identity, detail } = example;
        let (organization_id, transaction_scope, transaction_id) = match identity {
            Some(identity) => (
                Some(identity.organization_id),
                Some(identity.transaction_scope),
                Some(identity.transaction_id),
            ),
            None => (None, None, None),
        };
        Self {
            topic_epoch: position.epoch,
            partition: position.partition,
            offset: position.offset,
            organization_id,
            transaction_scope,
            transaction_id,
            detail,
        }
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
