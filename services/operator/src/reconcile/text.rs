//! The outcome as a table that a person in finance can read.

use super::report::{ExampleReport, LineReport, Report};
use std::fmt::Write as _;

const COLUMNS: [&str; 8] = [
    "organization",
    "hour (UTC)",
    "accepted",
    "billed",
    "repeats dropped",
    "conflicts set aside",
    "parked",
    "difference",
];

/// The table, the sums, the checks in words, and what to do.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    write_all(report, &mut out).expect("writing to a string");
    out
}

fn write_all(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, "Usage accepted from {} to {} (not included)", report.from, report.to)?;
    if let Some(organization) = &report.organization {
        writeln!(out, "Only organization {organization}")?;
    }
    writeln!(out)?;
    write_table(report, out)?;
    let unreadable = &report.unreadable;
    if unreadable.accepted > 0 || unreadable.parked > 0 {
        writeln!(
            out,
            "\nRecords that are no events and name no organization: {} in the log, {} parked",
            unreadable.accepted, unreadable.parked
        )?;
    }
    if report.total.billed_without_log > 0 {
        writeln!(
            out,
            "\n{} more events are billed whose records the log has deleted by its retention: those are checked\n\
             against the audit only, and are not in the table.",
            report.total.billed_without_log
        )?;
    }
    for partition in &report.partitions {
        for range in &partition.without_log {
            writeln!(
                out,
                "Checked against the audit only: partition {}, topic epoch {}, offsets {} to {}",
                partition.partition,
                range.topic_epoch,
                range.from,
                range.until - 1
            )?;
        }
    }
    writeln!(out)?;
    for check in &report.checks {
        if check.passed {
            writeln!(out, "PASS  {}", check.claim)?;
            continue;
        }
        writeln!(out, "FAIL  {}: {} found otherwise", check.claim, check.count)?;
        write_examples(&check.examples, check.count, out)?;
        writeln!(out, "      What to do: {}", check.advice.unwrap_or_default())?;
    }
    let reused = &report.reused_beyond_horizon;
    if reused.count > 0 {
        writeln!(
            out,
            "NOTE  {} ids were used again after the dedup horizon, and are billed again",
            reused.count
        )?;
        write_examples(&reused.examples, reused.count, out)?;
        writeln!(out, "      What to do: ask the producer whether these are new events")?;
    }
    let verdict =
        if report.passed { "PASSED: the bill is what was accepted." } else { "FAILED: see above." };
    writeln!(out, "\n{verdict}")
}

fn write_table(report: &Report, out: &mut String) -> std::fmt::Result {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(report.lines.iter().chain([&report.total]).map(cells));
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    for (number, row) in rows.iter().enumerate() {
        if number == 1 || number == rows.len() - 1 {
            let lines: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
            writeln!(out, "{}", lines.join("  "))?;
        }
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column < 2 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn cells(line: &LineReport) -> [String; COLUMNS.len()] {
    let hour = line.hour.as_deref().map(|hour| hour.get(..16).unwrap_or(hour).replace('T', " "));
    [
        line.organization.clone().unwrap_or_else(|| "Total".to_owned()),
        hour.unwrap_or_default(),
        line.accepted.to_string(),
        line.billed.to_string(),
        line.repeats.to_string(),
        line.conflicts.to_string(),
        line.parked.to_string(),
        line.difference.clone(),
    ]
}

fn write_examples(examples: &[ExampleReport], count: u64, out: &mut String) -> std::fmt::Result {
    for example in examples {
        let ExampleReport { topic_epoch, partition, offset, detail, .. } = example;
        let identity = match (&example.organization_id, &example.transaction_id) {
            (Some(organization), Some(id)) if !id.is_empty() => format!("{organization} {id}, "),
            (Some(organization), _) => format!("{organization}, "),
            _ => String::new(),
        };
        writeln!(
            out,
            "      {identity}epoch {topic_epoch}, partition {partition}, offset {offset}: {detail}"
        )?;
    }
    let shown = u64::try_from(examples.len()).unwrap_or(u64::MAX);
    if count > shown {
        writeln!(out, "      and {} more", count - shown)?;
    }
    Ok(())
}
