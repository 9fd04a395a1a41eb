//! What retention has deleted from the log: there the audit and the store have only each other.

use super::audit::{Became, Records};
use super::findings::Findings;
use super::plan::Plan;
use super::{NotChecked, Request, check_audit};
use crate::engines::Engines;
use chrono::{DateTime, TimeDelta, Utc};
use event_log::Offset;
use std::ops::Range;
use usage_store::conservation::{LogRange, StoredSpan};

/// A range that was only checked against the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    pub epoch: u16,
    pub offsets: Range<Offset>,
}

/// Checks the records of the period that the log no longer has, in this life of the topic and in earlier
/// ones. `without_log` are the places of the period's rows among them.
pub async fn check(
    engines: &mut Engines,
    request: &Request,
    plan: &Plan,
    spans: &[StoredSpan],
    without_log: Vec<(u16, Offset)>,
    findings: &mut Findings,
) -> Result<Vec<Gone>, NotChecked> {
    let mut epochs: Vec<u16> = spans
        .iter()
        .filter(|span| span.partition == plan.partition && span.epoch < engines.source.epoch)
        .map(|span| span.epoch)
        .collect();
    epochs.push(engines.source.epoch);
    epochs.dedup();
    let mut gone = Vec::new();
    for epoch in epochs {
        let current = epoch == engines.source.epoch;
        let rows = without_log.iter().filter(|(row, _)| *row == epoch).map(|(_, offset)| *offset);
        let rows: Vec<Offset> = rows.collect();
        if rows.is_empty() && !(current && plan.log_may_be_gone()) {
            continue;
        }
        let end = if current { plan.log.start } else { Offset::MAX };
        let Some(offsets) = extent(engines, request, (epoch, plan.partition), end, &rows).await?
        else {
            continue;
        };
        let range = LogRange { epoch, partition: plan.partition, offsets };
        let records = rows_of(engines, request, &range).await?;
        check_audit(engines, &records, super::now_and_ever(), findings).await?;
        gone.push(Gone { epoch, offsets: range.offsets });
    }
    Ok(gone)
}

fn inserted(request: &Request) -> Range<DateTime<Utc>> {
    let settle = TimeDelta::from_std(request.settle).unwrap_or(TimeDelta::MAX);
    request.period.start..request.period.end + settle
}

/// From the first to the last offset that the rows and the audit have of the period, before `end`.
async fn extent(
    engines: &mut Engines,
    request: &Request,
    (epoch, partition): (u16, u16),
    end: Offset,
    rows: &[Offset],
) -> Result<Option<Range<Offset>>, NotChecked> {
    let all = LogRange { epoch, partition, offsets: 0..end };
    let ranges = engines.store.audit_ranges(&engines.source.topic, &all, inserted(request)).await?;
    let of_audit =
        ranges.iter().flat_map(|range| [range.first, range.last.min(end.saturating_sub(1))]);
    let offsets = || of_audit.clone().chain(rows.iter().copied());
    Ok(offsets().min().zip(offsets().max()).map(|(first, last)| first..last + 1))
}

/// What the store has of a range whose records are gone: where it has nothing there was a repeat, or
/// nothing.
async fn rows_of(
    engines: &mut Engines,
    request: &Request,
    range: &LogRange,
) -> Result<Records, NotChecked> {
    let LogRange { epoch, partition, ref offsets } = *range;
    let length = offsets.end - offsets.start;
    let too_much =
        NotChecked::TooMuch { partition, records: length, needed: length, allowed: request.memory };
    if length > request.memory {
        return Err(too_much);
    }
    let Ok(length) = usize::try_from(length) else { return Err(too_much) };
    let mut became = vec![Became::Nothing; length];
    let mut mark = |offset: Offset, what: Became| {
        if let Ok(at) = usize::try_from(offset - offsets.start) {
            became[at] = what;
        }
    };
    let (store, topic) = (&engines.store, &engines.source.topic);
    store.stored_offsets(range, |offset| mark(offset, Became::Stored)).await?;
    store.stored_conflicts(range, None, |row| mark(row.offset, Became::Conflict)).await?;
    store.parked_offsets(topic, range, |offset| mark(offset, Became::Parked)).await?;
    Ok(Records { epoch, partition, first: offsets.start, became, log_is_gone: true })
}
