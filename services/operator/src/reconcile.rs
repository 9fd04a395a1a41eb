//! Proves conservation for a period: what the log accepted is what the store bills, set aside or parked.

pub mod audit;
pub mod content;
pub mod copies;
pub mod findings;
pub mod gone;
pub mod partition;
pub mod period_keys;
pub mod plan;
pub mod report;
pub mod reused;
pub mod search;
pub mod table;
pub mod text;

use crate::engines::Engines;
use audit::Records;
use chrono::{DateTime, Utc};
use event_log::{EventLogReader, FetchedRecord, LogError, Offset};
use findings::{Check, Findings, Identity};
use partition::{Far, PartitionCheck, Results, Scope, Unreadable};
use plan::Plan;
use report::{PartitionReport, Report};
use service_kit::lifecycle::chain;
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;
use table::Table;
use tokio::task::block_in_place;
use usage_store::conservation::{FirstCopy, LogRange, Period, StoredSpan};
use usage_store::reused_ids::KEYS_MAX;
use usage_store::{Position, StoreError};

/// Most records that are read one by one because they stand outside of the period's part of the log.
const FAR_MAX: usize = 10_000;

/// What to prove.
#[derive(Clone, Debug)]
pub struct Request {
    /// Half-open, in time of acceptance.
    pub period: Range<DateTime<Utc>>,
    pub organization: Option<String>,
    /// How far acceptance, append and insert of an event may be apart.
    pub settle: Duration,
    pub horizon: Duration,
    /// Most memory for the records of one partition, and then for the keys of the search, in bytes.
    pub memory: u64,
    /// Most examples that are kept of one kind of finding.
    pub examples: usize,
}

/// Why nothing could be proved, neither the one nor the other.
#[derive(Debug, thiserror::Error)]
pub enum NotChecked {
    #[error("the period is not settled: {0}")]
    NotSettled(String),
    #[error(
        "the period has {records} records in partition {partition}, for which {needed} bytes of memory are needed and {allowed} are allowed; \
         take a shorter period, or raise --memory"
    )]
    TooMuch { partition: u16, records: u64, needed: u64, allowed: u64 },
    #[error("{0}")]
    Configuration(String),
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// Compares log, store and audit over the period. `now` is the present.
pub async fn reconcile(
    engines: &mut Engines,
    request: &Request,
    now: DateTime<Utc>,
) -> Result<Report, NotChecked> {
    reconcile_watched(engines, request, now, &|| ()).await
}

/// The same; `moved_on` is called again and again during the search for ids that came again, and after each
/// partition.
pub async fn reconcile_watched(
    engines: &mut Engines,
    request: &Request,
    now: DateTime<Utc>,
    moved_on: &(dyn Fn() + Sync),
) -> Result<Report, NotChecked> {
    let plans = plan::plan(engines, request, now)?;
    let period = Period {
        from: request.period.start,
        to: request.period.end,
        organization: request.organization.clone(),
    };
    let spans = engines.store.stored_spans(&period).await?;
    let mut results = Results {
        table: Table::new(request.period.clone()),
        findings: Findings::new(request.examples),
        unreadable: Unreadable::default(),
    };
    check_spans(&spans, engines.source.partition_count, &mut results.findings);
    // Before the search, which may take hours, and not after it.
    plans.iter().try_for_each(|plan| Budget::new(plan, request).check(0))?;
    let (store, findings) = (&engines.store, &mut results.findings);
    let searched = search::search(store, request, findings, moved_on).await?;
    let mut partitions = Vec::with_capacity(plans.len());
    for plan in &plans {
        plan.check_offsets(engines.source.epoch, &mut results.findings);
        let hidden = searched.hidden_in(plan.partition);
        let without_log = compare(engines, request, plan, hidden, &mut results).await?;
        let gone = gone::check(engines, request, plan, &spans, &without_log, &mut results.findings)
            .await?;
        partitions.push(PartitionReport::new(plan, gone));
        moved_on();
    }
    let unequal: Vec<_> = results
        .table
        .iter()
        .filter(|(_, _, line)| line.difference() == 0 && line.log_hash != line.store_hash)
        .map(|(organization, hour, _)| (organization.to_owned(), hour))
        .collect();
    for (organization, hour) in unequal {
        let nowhere = Position { epoch: engines.source.epoch, partition: 0, offset: 0 };
        let identity = Identity {
            organization_id: organization,
            transaction_scope: String::new(),
            transaction_id: String::new(),
        };
        let detail =
            format!("the hashes of the hour {} differ between log and bill", hour.to_rfc3339());
        results.findings.add_event(Check::ContentUnchanged, nowhere, Some(identity), detail);
    }
    name_examples(engines, &mut results.findings).await;
    Ok(Report::new(request, now, results, partitions, searched.beyond_horizon))
}

/// Rows of partitions that the topic does not have.
fn check_spans(spans: &[StoredSpan], partition_count: u16, findings: &mut Findings) {
    for span in spans.iter().filter(|span| span.partition >= partition_count) {
        let position =
            Position { epoch: span.epoch, partition: span.partition, offset: span.first };
        let detail = format!("{} rows of a partition that the topic does not have", span.rows);
        findings.add(Check::NothingElseBilled, position, detail);
    }
}

/// Compares one partition. Returns `(epoch, offset)` of the rows whose records the log no longer has.
async fn compare(
    engines: &mut Engines,
    request: &Request,
    plan: &Plan,
    hidden: BTreeSet<(u16, Offset, u64)>,
    results: &mut Results,
) -> Result<BTreeSet<(u16, Offset)>, NotChecked> {
    let scope = Scope {
        source: engines.source.clone(),
        partition: plan.partition,
        window: plan::window(request),
        offsets: plan.offsets.clone(),
        appended: plan.appended.clone(),
        log: plan.log.clone(),
        organization: request.organization.clone(),
        hidden,
    };
    let budget = Budget::new(plan, request);
    let mut check = PartitionCheck::new(&scope, results, request.memory - budget.fixed);
    read_rows(engines, &scope, &mut check).await?;
    budget.check(check.bytes_aside())?;
    read_records(engines.reader.as_mut(), &scope, &mut check, &budget)?;
    let keys = check.history_keys(KEYS_MAX + 1);
    if !keys.is_empty() {
        let (epoch, end) = (scope.source.epoch, scope.offsets.end);
        let keys = (keys.len() <= KEYS_MAX).then_some(&*keys);
        let row = |row: FirstCopy| check.history(&row);
        engines.store.first_copies(epoch, scope.partition, end, keys, row).await?;
    }
    if let Some(epoch) = check.later_epoch() {
        return Err(NotChecked::Configuration(format!(
            "partition {} has records or rows of topic epoch {epoch}, and this command is configured for {}; set --topic-epoch",
            scope.partition, scope.source.epoch
        )));
    }
    budget.check(check.bytes_aside())?;
    if check.settle() {
        for_each_record(engines.reader.as_mut(), &scope, |record| check.missing_record(record))?;
    }
    read_far(engines.reader.as_mut(), &scope, &mut check)?;
    let without_log = check.take_without_log();
    let records = check.finish();
    check_audit(engines, &records, now_and_ever(), &mut results.findings).await?;
    Ok(without_log)
}

fn now_and_ever() -> Range<DateTime<Utc>> {
    DateTime::UNIX_EPOCH
        ..DateTime::from_timestamp(10_000_000_000, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Compares what became of records with what the audit says.
async fn check_audit(
    engines: &mut Engines,
    records: &Records,
    inserted: Range<DateTime<Utc>>,
    findings: &mut Findings,
) -> Result<(), NotChecked> {
    let length = u64::try_from(records.became.len()).expect("a length fits 64 bits");
    let offsets = records.first..records.first + length;
    if offsets.is_empty() {
        return Ok(());
    }
    let range = LogRange { epoch: records.epoch, partition: records.partition, offsets };
    let ranges = engines.store.audit_ranges(&engines.source.topic, &range, inserted).await?;
    records.check(&ranges, findings);
    Ok(())
}

async fn read_rows(
    engines: &mut Engines,
    scope: &Scope,
    check: &mut PartitionCheck<'_>,
) -> Result<(), NotChecked> {
    let window = Period {
        from: scope.window.start,
        to: scope.window.end,
        organization: scope.organization.clone(),
    };
    let store = &engines.store;
    store.stored_events(scope.partition, &window, |row| check.row(&row)).await?;
    if check.far().len() > FAR_MAX {
        return Err(NotChecked::Configuration(format!(
            "more than {FAR_MAX} events of partition {} were appended long after their acceptance; raise --settle",
            scope.partition
        )));
    }
    let range = LogRange {
        epoch: scope.source.epoch,
        partition: scope.partition,
        offsets: scope.offsets.clone(),
    };
    let only = scope.organization.as_deref();
    store.stored_conflicts(&range, only, |row| check.conflict(&row)).await?;
    store.parked_offsets(&scope.source.topic, &range, |offset| check.parked(offset)).await?;
    Ok(())
}

fn read_records(
    reader: &mut dyn EventLogReader,
    scope: &Scope,
    check: &mut PartitionCheck<'_>,
    budget: &Budget,
) -> Result<(), NotChecked> {
    for_each_record(reader, scope, |record| check.record(record))?;
    budget.check(check.bytes_aside())
}

fn for_each_record(
    reader: &mut dyn EventLogReader,
    scope: &Scope,
    mut each: impl FnMut(&FetchedRecord<'_>),
) -> Result<(), NotChecked> {
    let mut next = scope.offsets.start;
    while next < scope.offsets.end {
        let scanned = block_in_place(|| reader.read(scope.partition, next, scope.offsets.end))?;
        scanned.records.iter().for_each(|record| each(&record));
        next = scanned.next;
    }
    Ok(())
}

fn read_far(
    reader: &mut dyn EventLogReader,
    scope: &Scope,
    check: &mut PartitionCheck<'_>,
) -> Result<(), NotChecked> {
    let far: Vec<Far> = check.far().collect();
    for far in far {
        let offset = far.offset;
        let scanned = block_in_place(|| reader.read(scope.partition, offset, offset + 1))?;
        check.far_record(far, scanned.records.iter().next().as_ref());
    }
    Ok(())
}

/// The memory that one partition may take.
struct Budget {
    partition: u16,
    records: u64,
    fixed: u64,
    allowed: u64,
}

impl Budget {
    fn new(plan: &Plan, request: &Request) -> Self {
        let records = plan.offsets.end - plan.offsets.start;
        let fixed = partition::bytes(records);
        Self { partition: plan.partition, records, fixed, allowed: request.memory }
    }

    fn check(&self, aside: u64) -> Result<(), NotChecked> {
        // Indexes of records have 32 bits.
        let fits = u32::try_from(self.records).is_ok();
        let needed = if fits { self.fixed.saturating_add(aside) } else { u64::MAX };
        if needed <= self.allowed {
            return Ok(());
        }
        let Self { partition, records, allowed, .. } = *self;
        Err(NotChecked::TooMuch { partition, records, needed, allowed })
    }
}

/// Finds out whose events the examples are. What cannot be found out stays open: a failure that was proved
/// is one, whether its examples have names or not.
async fn name_examples(engines: &mut Engines, findings: &mut Findings) {
    for example in findings.examples_mut().filter(|example| example.identity.is_none()) {
        match identity_of(engines, example.position).await {
            Ok(identity) => example.identity = identity,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "whose event an example is cannot be found out"
                );
                return;
            }
        }
    }
}

/// From the log, and if it does not have the event, from the store.
async fn identity_of(
    engines: &mut Engines,
    position: Position,
) -> Result<Option<Identity>, NotChecked> {
    let Engines { reader, store, source } = engines;
    let Position { epoch, partition, offset } = position;
    if epoch == source.epoch && partition < source.partition_count {
        let found = block_in_place(|| identity_at(reader.as_mut(), partition, offset))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    let found = store.event_at(position).await?;
    Ok(found.map(|(organization_id, transaction_scope, transaction_id)| Identity {
        organization_id,
        transaction_scope,
        transaction_id,
    }))
}

fn identity_at(
    reader: &mut dyn EventLogReader,
    partition: u16,
    offset: Offset,
) -> Result<Option<Identity>, LogError> {
    let log = reader.watermarks(partition)?;
    if !(log.low..log.high).contains(&offset) {
        return Ok(None);
    }
    let scanned = reader.read(partition, offset, offset + 1)?;
    let decoded = scanned.records.iter().next().and_then(|record| {
        let (event, _) = event_log::wire::decode(record.value).ok()?;
        Some(Identity {
            organization_id: event.organization_id.into_owned(),
            transaction_scope: event.transaction_scope.into_owned(),
            transaction_id: event.transaction_id.into_owned(),
        })
    });
    Ok(decoded)
}
