//! What retention has deleted from the log: there the audit and the store have only each other.

use super::audit::{Became, Records};
use super::findings::{Check, Findings};
use super::plan::Plan;
use super::{NotChecked, Request, check_audit};
use crate::engines::Engines;
use chrono::{DateTime, TimeDelta, Utc};
use event_log::Offset;
use std::collections::BTreeSet;
use std::ops::Range;
use usage_store::Position;
use usage_store::conservation::{LogRange, StoredSpan};

/// How long after their acceptance a consumer that was behind may have decided records that are gone.
const BEHIND_MAX: TimeDelta = TimeDelta::days(7);

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
    without_log: &BTreeSet<(u16, Offset)>,
    findings: &mut Findings,
) -> Result<Vec<Gone>, NotChecked> {
    let (topic, partition) = (&engines.source.topic, plan.partition);
    let mut epochs = engines.store.audit_epochs(topic, partition, engines.source.epoch).await?;
    let of_rows = spans.iter().filter(|span| span.partition == partition).map(|span| span.epoch);
    epochs.extend(of_rows.filter(|epoch| *epoch < engines.source.epoch));
    epochs.push(engines.source.epoch);
    epochs.sort_unstable();
    epochs.dedup();
    let mut gone = Vec::new();
    for epoch in epochs {
        let current = epoch == engines.source.epoch;
        let rows = without_log.iter().filter(|(row, _)| *row == epoch).map(|(_, offset)| *offset);
        let rows: Vec<Offset> = rows.collect();
        if current && rows.is_empty() && !plan.log_may_be_gone() {
            continue;
        }
        let end = if current { plan.log.start } else { Offset::MAX };
        let place = (epoch, partition);
        let offsets = extent(engines, request, place, end, &rows).await?;
        let decided = decided(request);
        let gaps = engines.store.audit_gaps(&engines.source.topic, place, end, decided).await?;
        report_gaps(place, &gaps, offsets.as_ref(), findings);
        let Some(offsets) = offsets else { continue };
        let range = LogRange { epoch, partition, offsets };
        let records = rows_of(engines, request, &range).await?;
        check_audit(engines, &records, super::now_and_ever(), findings).await?;
        gone.push(Gone { epoch, offsets: range.offsets });
    }
    Ok(gone)
}

/// Reports the gaps of the audit outside of `extent`, within which they are found with the rows.
fn report_gaps(
    (epoch, partition): (u16, u16),
    gaps: &[Range<Offset>],
    extent: Option<&Range<Offset>>,
    findings: &mut Findings,
) {
    let extent = extent.cloned().unwrap_or(Offset::MAX..Offset::MAX);
    for gap in gaps {
        let outside = [gap.start..gap.end.min(extent.start), gap.start.max(extent.end)..gap.end];
        for Range { start, end } in outside.into_iter().filter(|part| !part.is_empty()) {
            let detail = format!(
                "neither the log nor the audit says anything of offsets {start} to {} ({} of them), which may be of the period",
                end - 1,
                end - start
            );
            let position = Position { epoch, partition, offset: start };
            findings.add(Check::AuditComplete, position, detail);
        }
    }
}

fn inserted(request: &Request) -> Range<DateTime<Utc>> {
    request.period.start..request.period.end + settle(request)
}

/// When the consumer may have decided the period's records.
fn decided(request: &Request) -> Range<DateTime<Utc>> {
    request.period.start - settle(request)..request.period.end + BEHIND_MAX
}

fn settle(request: &Request) -> TimeDelta {
    TimeDelta::from_std(request.settle).unwrap_or(TimeDelta::zero())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_reported_once_wherever_it_is() {
        let reported = |gap: Range<Offset>, extent: Option<Range<Offset>>| {
            let mut findings = Findings::new(9);
            report_gaps((1, 2), &[gap], extent.as_ref(), &mut findings);
            let found = findings.against(Check::AuditComplete).cloned().unwrap_or_default();
            found.examples.iter().map(|example| example.position.offset).collect::<Vec<_>>()
        };
        assert_eq!(reported(5..9, None), [5], "nothing else is known of the period");
        assert_eq!(reported(5..9, Some(9..20)), [5]);
        assert_eq!(reported(5..9, Some(2..5)), [5]);
        assert_eq!(reported(5..9, Some(6..7)), [5, 7]);
        assert!(reported(5..9, Some(5..9)).is_empty(), "found with the rows");
        assert_eq!(reported(5..9, Some(7..20)), [5]);
    }
}
