//! The ledger file: what was sent and what was answered, each line written before the next step.
//!
//! The first line is the [`Run`] as JSON; then one line per fact, appended and never changed:
//! `SENT 17 organization=0 fresh=1700+97 duplicates=12,44 changed=3 invalid=5+1`, `RETRIED 17`, `ACKED 17`,
//! `REJECTED 17 all`, `REJECTED 17 slots=3,5` (the others were accepted), `UNKNOWN 17 status-503`.

use crate::event::Run;
use crate::group_sync::GroupSync;
use crate::plan::RequestPlan;
use anyhow::{Context, bail};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The version of the format that is written and read.
pub const FORMAT: u32 = 3;

/// The writing end. A line is with the operating system before the call returns, so that killing the
/// generator loses none. [`Ledger::sync`], at the end of the load and of the run, makes them outlast the
/// machine; [`Ledger::group_sync`] does so before each request is sent.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    line: String,
    lines: u64,
}

impl Ledger {
    /// Starts a ledger in `directory`, named after the run; it is an error if it exists.
    pub fn create(directory: &Path, run: &Run) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let path = directory.join(format!("{}.ledger", run.id));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        let mut ledger = Self { path, file, line: serde_json::to_string(run)?, lines: 0 };
        ledger.write()?;
        ledger.sync()?;
        Ok(ledger)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To be called before the first byte of the request is sent.
    pub fn sent(&mut self, plan: &RequestPlan) -> anyhow::Result<()> {
        let RequestPlan { number, organization, fresh, duplicates, changed, invalid } = plan;
        write!(self.line, "SENT {number} organization={organization}")?;
        write!(self.line, " fresh={}+{}", fresh.start, fresh.end - fresh.start)?;
        write_numbers(&mut self.line, " duplicates=", duplicates)?;
        write_numbers(&mut self.line, " changed=", changed)?;
        if !invalid.is_empty() {
            write!(self.line, " invalid={}+{}", invalid.start, invalid.end - invalid.start)?;
        }
        self.write()
    }

    /// To be called before the request is sent once more.
    pub fn retried(&mut self, number: u64) -> anyhow::Result<()> {
        write!(self.line, "RETRIED {number}")?;
        self.write()
    }

    pub fn acked(&mut self, number: u64) -> anyhow::Result<()> {
        write!(self.line, "ACKED {number}")?;
        self.write()
    }

    /// `slots` are the refused positions; `None` when nothing of the request was accepted.
    pub fn rejected(&mut self, number: u64, slots: Option<&[u64]>) -> anyhow::Result<()> {
        match slots {
            None => write!(self.line, "REJECTED {number} all")?,
            Some(slots) => {
                write!(self.line, "REJECTED {number}")?;
                write_numbers(&mut self.line, " slots=", slots)?;
            }
        }
        self.write()
    }

    pub fn unknown(&mut self, number: u64, cause: &str) -> anyhow::Result<()> {
        write!(self.line, "UNKNOWN {number} ")?;
        self.line.extend(cause.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).take(80));
        self.write()
    }

    /// Returns once everything written is on the disk.
    pub fn sync(&self) -> anyhow::Result<()> {
        self.file.sync_data().context("syncing the ledger")
    }

    /// Syncs of the same file for many requests at once.
    pub fn group_sync(&self) -> anyhow::Result<GroupSync> {
        Ok(GroupSync::start(self.file.try_clone().context("syncing the ledger")?))
    }

    /// How many lines are written.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    fn write(&mut self) -> anyhow::Result<()> {
        self.line.push('\n');
        self.lines += 1;
        let written = self.file.write_all(self.line.as_bytes()).context("writing the ledger");
        self.line.clear();
        written
    }
}

fn write_numbers(line: &mut String, label: &str, numbers: &[u64]) -> std::fmt::Result {
    for (i, number) in numbers.iter().enumerate() {
        write!(line, "{}{number}", if i == 0 { label } else { "," })?;
    }
    Ok(())
}

/// One line of a ledger after the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Sent(RequestPlan),
    Retried(u64),
    Acked(u64),
    /// The refused positions; `None` for all.
    Rejected(u64, Option<Vec<u64>>),
    Unknown(u64),
}

/// Reads a ledger; `each` gets the entries in the order they were written.
///
/// A last line that a killed generator left without its end is no entry.
pub fn read(path: &Path, mut each: impl FnMut(Entry) -> anyhow::Result<()>) -> anyhow::Result<Run> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut lines = BufReader::new(file);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    let run: Run = serde_json::from_str(&line).context("the first line of a ledger is its run")?;
    if run.format != FORMAT {
        bail!("the ledger has format {}; this program reads {FORMAT}", run.format);
    }
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(run);
        }
        let entry = parse(line.trim_end()).with_context(|| format!("no ledger entry: {line:?}"))?;
        each(entry)?;
    }
}

fn parse(line: &str) -> Option<Entry> {
    let (kind, rest) = line.split_once(' ')?;
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = number.parse().ok()?;
    match kind {
        "SENT" => sent(number, rest).map(Entry::Sent),
        "RETRIED" => Some(Entry::Retried(number)),
        "ACKED" => Some(Entry::Acked(number)),
        "REJECTED" if rest == "all" => Some(Entry::Rejected(number, None)),
        "REJECTED" => Some(Entry::Rejected(number, Some(numbers(rest.strip_prefix("slots=")?)?))),
        "UNKNOWN" => Some(Entry::Unknown(number)),
        _ => None,
    }
}

fn sent(number: u64, rest: &str) -> Option<RequestPlan> {
    let mut plan = RequestPlan {
        number,
        organization: 0,
        fresh: 0..0,
        duplicates: Vec::new(),
        changed: Vec::new(),
        invalid: 0..0,
    };
    for part in rest.split(' ') {
        match part.split_once('=')? {
            ("organization", text) => plan.organization = text.parse().ok()?,
            ("fresh", text) => plan.fresh = range(text)?,
            ("duplicates", text) => plan.duplicates = numbers(text)?,
            ("changed", text) => plan.changed = numbers(text)?,
            ("invalid", text) => plan.invalid = range(text)?,
            _ => return None,
        }
    }
    Some(plan)
}

fn range(text: &str) -> Option<Range<u64>> {
    let (start, count) = text.split_once('+')?;
    let start: u64 = start.parse().ok()?;
    Some(start..start.checked_add(count.parse().ok()?)?)
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::example_run;

    fn plan() -> RequestPlan {
        RequestPlan {
            number: 17,
            organization: 1,
            fresh: 1_700..1_797,
            duplicates: vec![12, 44],
            changed: vec![3],
            invalid: 5..6,
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        let fresh_only =
            RequestPlan { duplicates: Vec::new(), changed: Vec::new(), invalid: 0..0, ..plan() };
        ledger.sent(&plan()).unwrap();
        ledger.unknown(17, "status 503\nACKED 17").unwrap();
        ledger.retried(17).unwrap();
        ledger.acked(17).unwrap();
        ledger.sent(&fresh_only).unwrap();
        ledger.rejected(18, Some(&[3, 5])).unwrap();
        ledger.rejected(19, None).unwrap();

        let mut entries = Vec::new();
        let run = read(ledger.path(), |entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
        assert_eq!(run, example_run());
        let expected = [
            Entry::Sent(plan()),
            Entry::Unknown(17),
            Entry::Retried(17),
            Entry::Acked(17),
            Entry::Sent(fresh_only),
            Entry::Rejected(18, Some(vec![3, 5])),
            Entry::Rejected(19, None),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_torn_last_line_is_no_entry_but_a_damaged_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(directory.path(), &example_run()).unwrap();
        ledger.acked(1).unwrap();
        ledger.file.write_all(b"ACKED 2").unwrap();
        let mut entries = 0;
        read(ledger.path(), |_| {
            entries += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(entries, 1);
        ledger.file.write_all(b"x\n").unwrap();
        assert!(read(ledger.path(), |_| Ok(())).is_err());
    }

    #[test]
    fn a_ledger_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        Ledger::create(directory.path(), &example_run()).unwrap();
        assert!(Ledger::create(directory.path(), &example_run()).is_err());
    }
}
