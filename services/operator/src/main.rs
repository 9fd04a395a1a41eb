//! The process: arguments → telemetry → one command → exit code.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Parser as _;
use operator::config::{
    Cli, Command, DeadLettersCommand, ListArgs, ReconcileArgs, ReplayArgs, RetryArgs, ShowArgs,
};
use operator::dead_letters::text::{self, DeadLetterReport};
use operator::dead_letters::{Retried, Selection, retry};
use operator::engines::{self, StartedHere, open_for_publishing, open_or_start, open_store};
use operator::output::{print, write_json};
use operator::reconcile::reconcile;
use operator::reconcile::text::text as reconcile_text;
use operator::replay::{Replayed, Request, replay};
use operator::schedule;
use service_kit::clock::{Clock as _, SystemClock};
use service_kit::lifecycle::chain;
use service_kit::telemetry;
use std::path::Path;
use std::process::ExitCode;
use tokio::task::block_in_place;
use usage_store::dead_letters::DeadLetterFilter;

/// Something is wrong with what was looked at.
const WRONG: u8 = 1;
/// It could not be looked at.
const NOT_CHECKED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let logging = cli.command.logging();
    telemetry::init(logging.log_format, &logging.log);
    let outcome = match cli.command {
        Command::Reconcile(args) => run_reconcile(*args).await,
        Command::Replay(args) => run_replay(&args).await,
        Command::DeadLetters(args) => match args.command {
            DeadLettersCommand::List(args) => run_list(&args).await,
            DeadLettersCommand::Show(args) => run_show(&args).await,
            DeadLettersCommand::Retry(args) => run_retry(args).await,
        },
    };
    outcome.unwrap_or_else(|error| {
        tracing::error!("{}", chain(error.as_ref()));
        ExitCode::from(NOT_CHECKED)
    })
}

async fn run_reconcile(args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    if let Some(every) = args.every {
        return schedule::serve(args, every).await;
    }
    let (from, to) = args.from.zip(args.to).context("--from and --to are needed")?;
    let (mut engines, started) = open_or_start(&args.engines).await?;
    let request = schedule::request(&args, from..to);
    let report = reconcile(&mut engines, &request, SystemClock.now()).await;
    let stopped = stop(started.as_ref());
    let report = report?;
    stopped?;
    // With --json - standard output is for the JSON alone.
    if args.json.as_deref() != Some(Path::new("-")) {
        print(&reconcile_text(&report))?;
    }
    let written = args.json.as_deref().map_or(Ok(()), |target| write_json(target, &report));
    if !report.passed {
        if let Err(error) = written {
            tracing::error!("the report cannot be written: {}", chain(&error));
        }
        return Ok(ExitCode::from(WRONG));
    }
    written?;
    Ok(ExitCode::SUCCESS)
}

fn stop(started: Option<&StartedHere>) -> anyhow::Result<()> {
    started.map_or(Ok(()), |started| block_in_place(|| started.stop()))
}

async fn run_replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let (mut engines, started) = open_or_start(&args.engines).await?;
    let ReplayArgs { from, to, dry_run, dedup_horizon: horizon, memory, .. } = *args;
    let request = Request { from, to, dry_run, horizon, memory };
    let replayed = replay(&mut engines, &request, SystemClock.now()).await;
    let stopped = stop(started.as_ref());
    let replayed = replayed?;
    stopped?;
    let mut not_restored = 0;
    for Replayed { partition, offsets, tally, not_restored: missing } in &replayed {
        print(&format!(
            "partition {partition}, offsets {} up to {}: {} read, {} {}, {} repeats, {} conflicts, {} parked\n",
            offsets.start,
            offsets.end,
            tally.records(),
            tally.stored,
            if dry_run { "to insert" } else { "inserted" },
            tally.duplicates,
            tally.conflicts,
            tally.dead_letters,
        ))?;
        not_restored += missing;
    }
    if not_restored == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!(
        "{not_restored} events were stored before and are taken for repeats now: their ids were used again after the dedup horizon. If they are missing, restore them from a backup.\n"
    ))?;
    Ok(ExitCode::from(WRONG))
}

async fn run_list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let filter = DeadLetterFilter {
        reason: args.reason.clone(),
        since: args.since.unwrap_or(DateTime::<Utc>::UNIX_EPOCH),
        limit: args.limit,
    };
    let letters = open_store(&args.engines).await?.dead_letters(&filter).await?;
    let letters: Vec<_> =
        letters.into_iter().map(|letter| DeadLetterReport::new(letter, None)).collect();
    if args.json {
        write_json(Path::new("-"), &letters)?;
    } else {
        print(&text::list(&letters))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let found = open_store(&args.engines)
        .await?
        .dead_letter(&args.record.topic, args.record.position)
        .await?;
    let Some((letter, bytes)) = found else {
        tracing::error!("there is no dead letter {}", args.record);
        return Ok(ExitCode::from(WRONG));
    };
    if args.json {
        write_json(Path::new("-"), &DeadLetterReport::new(letter, Some(&bytes)))?;
    } else {
        print(&text::show(&letter, &bytes))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    let RetryArgs { records, reason, dry_run, engines } = args;
    let selection = reason.map_or(Selection::Records(records), Selection::Reason);
    let (mut refused, mut taken) = (0_u64, 0_u64);
    let mut lines = String::new();
    let each = |name: &_, outcome: &Retried| {
        match outcome {
            Retried::Refused(_) => refused += 1,
            Retried::Published { .. } | Retried::Ready { .. } => taken += 1,
        }
        lines.push_str(&text::retried(name, outcome));
    };
    let outcome = if dry_run {
        let opened = engines::open(&engines).await?;
        retry(&opened.store, &opened.source, None, selection, each).await
    } else {
        let opened = block_in_place(|| open_for_publishing(&engines))?;
        let producer = opened.producer.as_ref();
        let outcome = retry(&opened.store, &opened.source, Some(producer), selection, each).await;
        block_in_place(|| opened.close())?;
        outcome
    };
    print(&lines)?;
    outcome?;
    let word = if dry_run { "to publish" } else { "published" };
    print(&format!("{taken} {word}, {refused} not\n"))?;
    if engines.data_dir.is_some() && taken > 0 && !dry_run {
        print("start the stack again: its consumer stores them\n")?;
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(WRONG) })
}
