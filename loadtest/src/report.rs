//! What a run found out: a table for people, JSON for scripts.

use crate::args::JudgeArgs;
use crate::decimal::{grouped, ratio};
use crate::expectation::{Counts, Expectation};
use crate::processes::Usage;
use crate::settle::Settled;
use crate::verdict::{self, Rule, Verdict};
use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Quantiles of a histogram, in its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    pub samples: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl Quantiles {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            samples: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// Whether everything accepted is counted exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Passed,
    Failed,
    #[default]
    NotJudged,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Written by [`Report::save`].
    pub outcome: Outcome,
    /// Why there is no verdict.
    pub error: Option<String>,
    pub run: String,
    pub organizations: Vec<String>,
    pub ledger: String,
    /// Events per second.
    pub target_rate: u64,
    /// Accepted events per second while the load was on.
    pub achieved_rate: u64,
    pub milliseconds: u64,
    pub events_per_request: u64,
    pub counts: Counts,
    /// Attempts of requests that left the outcome unknown.
    pub unknown_attempts: u64,
    pub rejection_codes: BTreeMap<String, u64>,
    pub late_requests: u64,
    pub latest_start_ms: u64,
    /// Requests that were due and could not be sent at all.
    pub never_started_requests: u64,
    /// Microseconds from when a request was due to its ack.
    pub ack_latency_us: Quantiles,
    /// The longest time of the load without an accepted request.
    pub longest_without_ack_ms: u64,
    /// When it began, after the start of the load.
    pub longest_without_ack_began_ms: u64,
    /// Milliseconds from ack to visible in SQL.
    pub queryable_lag_ms: Quantiles,
    /// Markers that did not become visible.
    pub never_visible: u64,
    /// Questions for visible events that ClickHouse did not answer.
    pub failed_lag_queries: u64,
    /// From the last ack until everything was visible; none when it did not come to that.
    pub caught_up_ms: Option<u64>,
    pub processes: Vec<Usage>,
    /// Nobody else wrote to the store.
    pub exclusive: bool,
    pub rules: BTreeMap<Rule, verdict::Outcome>,
    pub verdict: Verdict,
}

impl Report {
    /// The report of a run that was judged.
    pub fn new(expectation: &Expectation, args: &JudgeArgs, verdict: Verdict) -> Self {
        Self {
            outcome: Outcome::Passed,
            run: expectation.run.id.clone(),
            organizations: expectation.run.organizations.clone(),
            counts: expectation.counts,
            exclusive: args.exclusive,
            verdict,
            ..Self::default()
        }
    }

    /// The report of a run that could not be judged.
    pub fn not_judged(error: &anyhow::Error) -> Self {
        Self { error: Some(format!("{error:#}")), ..Self::default() }
    }

    #[must_use]
    pub fn caught_up(self, settled: Settled, after: Duration) -> Self {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let caught_up_ms = if settled == Settled::CaughtUp { Some(after) } else { None };
        Self { caught_up_ms, ..self }
    }

    /// `None` when there is no verdict.
    pub fn passed(&self) -> Option<bool> {
        if self.outcome == Outcome::NotJudged { None } else { Some(self.verdict.passed()) }
    }

    /// Writes the report as JSON, whole or not at all.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let outcome = match self.passed() {
            Some(true) => Outcome::Passed,
            Some(false) => Outcome::Failed,
            None => Outcome::NotJudged,
        };
        let rules = match outcome {
            Outcome::NotJudged => BTreeMap::new(),
            Outcome::Passed | Outcome::Failed => self.verdict.rules(self.exclusive),
        };
        let report = Self { outcome, rules, ..self.clone() };
        let draft = path.with_extension("new");
        std::fs::write(&draft, serde_json::to_vec_pretty(&report)?)
            .and_then(|()| std::fs::rename(&draft, path))
            .with_context(|| format!("writing {}", path.display()))
    }

    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.outcome == Outcome::NotJudged {
            let error = self.error.as_deref().unwrap_or("no reason is known");
            return writeln!(out, "NOT JUDGED: {error}");
        }
        // A ledger that is judged again tells nothing of times.
        if self.target_rate > 0 {
            self.print_traffic(out)?;
            self.print_times(out)?;
            self.print_processes(out)?;
        }
        self.print_verdict(out)
    }

    fn print_traffic(&self, out: &mut impl Write) -> io::Result<()> {
        let counts = &self.counts;
        let shares = format!(
            "{} first copies, {} duplicates, {} with another payload",
            grouped(counts.acked_fresh),
            grouped(counts.acked_duplicates),
            grouped(counts.acked_changed)
        );
        writeln!(out)?;
        row(
            out,
            "sent",
            &format!("{} events, {} per request", grouped(counts.sent), self.events_per_request),
        )?;
        row(out, "acked", &format!("{}: {shares}", grouped(counts.acked)))?;
        let invalid = format!(
            "{} valid events; {} invalid ones were sent",
            grouped(counts.rejected),
            grouped(counts.invalid)
        );
        row(out, "rejected", &invalid)?;
        for (code, count) in &self.rejection_codes {
            row(out, "", &format!("{} {code}", grouped(*count)))?;
        }
        let retried = format!(
            "{}, {} attempts were retried",
            grouped(counts.unresolved),
            grouped(self.unknown_attempts)
        );
        row(out, "unknown", &retried)?;
        let rate = format!(
            "{} events/s of {} for {} s",
            grouped(self.achieved_rate),
            grouped(self.target_rate),
            ratio(self.milliseconds.into(), 1_000, 1)
        );
        row(out, "rate", &rate)?;
        if self.never_started_requests > 0 {
            let text = format!(
                "{} requests were due and could not be sent: the system is too slow for this rate",
                grouped(self.never_started_requests)
            );
            row(out, "NOT SENT", &text)?;
        }
        let late = format!(
            "{} requests waited for a connection, for {} ms at most",
            grouped(self.late_requests),
            self.latest_start_ms
        );
        row(out, "late", &late)
    }

    fn print_times(&self, out: &mut impl Write) -> io::Result<()> {
        let Quantiles { p50, p90, p99, p999, max, .. } = self.ack_latency_us;
        let ms = |microseconds: u64| ratio(microseconds.into(), 1_000, 1);
        let latency = format!(
            "p50 {}  p90 {}  p99 {}  p999 {}  max {} ms, from the due time",
            ms(p50),
            ms(p90),
            ms(p99),
            ms(p999),
            ms(max)
        );
        row(out, "ack latency", &latency)?;
        let seconds = |ms: u64| ratio(ms.into(), 1_000, 2);
        let silence = format!(
            "for {} s at most, {} s after the start",
            seconds(self.longest_without_ack_ms),
            seconds(self.longest_without_ack_began_ms)
        );
        row(out, "without ack", &silence)?;
        let lag = self.queryable_lag_ms;
        let lag_text = format!(
            "p50 {}  p99 {}  max {} s after the ack, {} samples",
            seconds(lag.p50),
            seconds(lag.p99),
            seconds(lag.max),
            lag.samples
        );
        row(out, "queryable", &lag_text)?;
        if self.never_visible > 0 {
            row(out, "", &format!("{} samples never became visible", self.never_visible))?;
        }
        let caught_up = self.caught_up_ms.map_or("not within the time allowed".to_owned(), |ms| {
            format!("{} s after the last ack", seconds(ms))
        });
        row(out, "caught up", &caught_up)
    }

    fn print_processes(&self, out: &mut impl Write) -> io::Result<()> {
        let events = u128::from(self.counts.acked);
        let mut total = 0;
        for usage in &self.processes {
            total += u128::from(usage.cpu_us);
            let gone = if usage.gone { ", ended during the run" } else { "" };
            let per_event = ratio(usage.cpu_us.into(), events, 2);
            let text = format!(
                "{per_event:>7} µs of CPU per event, {} MB at most{gone}",
                usage.rss_peak_kib / 1_024
            );
            row(out, &usage.name, &text)?;
        }
        row(out, "all of these", &format!("{:>7} µs of CPU per event", ratio(total, events, 2)))
    }

    fn print_verdict(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        for (problem, finding) in &self.verdict.findings {
            writeln!(
                out,
                "  {}: {}, such as {}",
                problem.name(),
                grouped(finding.count),
                finding.examples.join("; ")
            )?;
        }
        let rows = grouped(self.verdict.store.rows);
        let accepted = grouped(self.counts.acked_fresh);
        if self.verdict.passed() {
            let audited = if self.exclusive {
                "conflicts, and the audit of the log agree"
            } else {
                "and conflicts agree, and the audit has no gap"
            };
            writeln!(
                out,
                "PASS: every one of {accepted} accepted events is counted exactly once; ids, payloads, hourly and daily counts and sums, set hashes, {audited}"
            )
        } else {
            writeln!(
                out,
                "FAIL: {accepted} events were accepted, the billing view has {rows} rows; the ledger is {}",
                self.ledger
            )
        }
    }
}

fn row(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{label:>14}  {text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Problem;

    fn printed(report: &Report) -> String {
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn good() -> Report {
        let counts = Counts {
            sent: 103,
            acked: 103,
            acked_fresh: 100,
            acked_duplicates: 2,
            acked_changed: 1,
            ..Counts::default()
        };
        let processes = vec![Usage {
            name: "standalone".to_owned(),
            cpu_us: 618,
            rss_peak_kib: 204_800,
            gone: false,
        }];
        Report {
            outcome: Outcome::Passed,
            target_rate: 100,
            counts,
            processes,
            caught_up_ms: Some(1_250),
            ..Report::default()
        }
    }

    #[test]
    fn the_table_ends_in_the_verdict() {
        let text = printed(&good());
        assert!(text.contains("6.00 µs of CPU per event, 200 MB at most"), "{text}");
        assert!(text.lines().last().unwrap().starts_with("PASS: every one of 100"), "{text}");
    }

    #[test]
    fn findings_fail() {
        let mut report = good();
        assert_eq!(report.passed(), Some(true));
        report.verdict.add(Problem::Missing, || "load-a-1".to_owned());
        assert_eq!(report.passed(), Some(false));
        let text = printed(&report);
        assert!(text.contains("missing: 1, such as load-a-1"), "{text}");
        assert!(text.lines().last().unwrap().starts_with("FAIL"), "{text}");
    }

    #[test]
    fn the_file_says_how_it_ended_and_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let saved = |report: &Report| -> serde_json::Value {
            report.save(&path).unwrap();
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
        };
        assert_eq!(saved(&good())["outcome"], "passed");
        let mut report = good();
        report.verdict.add(Problem::NotCaughtUp, || "load-a-1".to_owned());
        let json = saved(&report);
        assert_eq!(
            (&json["outcome"], &json["rules"]["liveness"]),
            (&"failed".into(), &"failed".into())
        );
        assert_eq!(json["verdict"]["findings"]["not_caught_up"]["count"], 1);
        let report = Report::not_judged(&anyhow::anyhow!("no store"));
        let json = saved(&report);
        assert_eq!((&json["outcome"], &json["error"]), (&"not_judged".into(), &"no store".into()));
        assert_eq!((report.passed(), printed(&report).as_str()), (None, "NOT JUDGED: no store\n"));
    }
}
