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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Request;
    use crate::reconcile::findings::{Check, Findings, Found, Identity};
    use crate::reconcile::partition::{Results, Unreadable};
    use crate::reconcile::table::Table;
    use chrono::{DateTime, Utc};
    use std::time::Duration;
    use usage_store::Position;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// One event of ten is missing.
    fn report() -> Report {
        let period = at("2026-11-21T10:00:00Z")..at("2026-11-21T12:00:00Z");
        let mut table = Table::new(period.clone());
        let line = table.line("org_acme", at("2026-11-21T11:30:00Z")).unwrap();
        table.at(line).accepted = 10;
        table.at(line).billed = 6;
        table.at(line).repeats = 2;
        table.at(line).conflicts = 1;
        let mut findings = Findings::new(1);
        let position = Position { epoch: 1, partition: 3, offset: 4711 };
        let identity = Identity {
            organization_id: "org_acme".to_owned(),
            transaction_scope: String::new(),
            transaction_id: "txn-42".to_owned(),
        };
        findings.add_event(Check::EveryEventBilled, position, Some(identity), "not billed");
        findings.add(Check::EveryEventBilled, position, "not shown");
        let unreadable = Unreadable { accepted: 1, parked: 1 };
        let request = Request {
            period,
            organization: None,
            settle: Duration::from_secs(300),
            horizon: Duration::from_secs(1),
            memory: 0,
            examples: 1,
        };
        let results = Results { table, findings, unreadable };
        Report::new(&request, at("2026-11-21T13:00:00Z"), results, Vec::new(), Found::default())
    }

    #[test]
    fn a_person_reads_the_counts_what_is_wrong_and_what_to_do() {
        let text = text(&report());
        let expected = [
            "Usage accepted from 2026-11-21T10:00:00Z to 2026-11-21T12:00:00Z (not included)",
            "org_acme      2026-11-21 11:00        10       6                2                    1       0           1",
            "Total                                 10       6                2                    1       0           1",
            "name no organization: 1 in the log, 1 parked",
            "FAIL  Every accepted event is billed: 2 found otherwise",
            "      org_acme txn-42, epoch 1, partition 3, offset 4711: not billed",
            "      and 1 more",
            "      What to do: run `tallymark replay",
            "PASS  Nothing is billed that was not accepted",
            "FAILED: see above.",
        ];
        for line in expected {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    /// Programs rely on these names; new ones may come.
    #[test]
    fn the_names_of_the_json_stay() {
        let json = serde_json::to_value(report()).unwrap();
        let names = |value: &serde_json::Value| -> String {
            let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
            names.join(" ")
        };
        assert_eq!(
            names(&json),
            "checked_at checks from lines organization partitions passed reused_beyond_horizon to total unreadable"
        );
        assert_eq!(
            names(&json["lines"][0]),
            "accepted billed billed_without_log conflicts difference hour log_hash organization parked repeats store_hash"
        );
        assert_eq!(names(&json["checks"][0]), "advice claim count examples name passed");
        assert_eq!(
            names(&json["checks"][0]["examples"][0]),
            "detail offset organization_id partition topic_epoch transaction_id transaction_scope"
        );
        assert_eq!(json["lines"][0]["difference"], "1");
        assert_eq!(json["passed"], false);
    }
}
