//! Shows how a run goes: a bar on a terminal, a line every five seconds elsewhere.

use crate::decimal::{grouped, ratio};
use crate::lag::Lag;
use crate::traffic::{Tally, Traffic};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where the progress is shown; always the error stream, so that the report can be piped.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
}

impl Progress {
    /// `events` is how many the run is going to send.
    pub fn new(events: u64) -> anyhow::Result<Self> {
        let bar = if std::io::stderr().is_terminal() {
            let style =
                ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {percent}% {msg}")?;
            Some(ProgressBar::new(events).with_style(style.progress_chars("=> ")))
        } else {
            None
        };
        let now = Instant::now();
        Ok(Self { bar, start: now, last_line: now })
    }

    pub fn show(&mut self, traffic: &Traffic, lag: &Lag) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(traffic.tally.sent);
                bar.set_message(message(traffic, lag));
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                self.say(&message(traffic, lag));
            }
            None => {}
        }
    }

    /// A line between the phases of a run.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.write(text)),
            None => self.write(text),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn write(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        // Nobody is left to tell when the error stream is closed.
        drop(writeln!(std::io::stderr(), "{seconds:>4} s  {text}"));
    }
}

fn message(traffic: &Traffic, lag: &Lag) -> String {
    let Tally { sent, acked, rejected, unknown_attempts } = traffic.tally;
    let p99 = ratio(traffic.latency.value_at_quantile(0.99).into(), 1_000, 1);
    let lag_ms = lag.samples.value_at_quantile(0.5);
    let mut text = format!(
        "sent {}  acked {}  p99 {p99} ms  lag {} s",
        grouped(sent),
        grouped(acked),
        ratio(lag_ms.into(), 1_000, 1)
    );
    if rejected > 0 {
        text.push_str(&format!("  rejected {}", grouped(rejected)));
    }
    if let (true, Some(cause)) = (unknown_attempts > 0, &traffic.last_unknown) {
        text.push_str(&format!("  unknown {} (last: {cause})", grouped(unknown_attempts)));
    }
    text
}
