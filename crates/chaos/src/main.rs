//! The command line of the fault rig.

use anyhow::{Context as _, bail};
use chaos::report::{self, Trials};
use chaos::schedule::TimedFault;
use chaos::shrink::shrink;
use chaos::trial::{Plan, Verdict, name_of, run};
use chaos::{points, recovery, sabotage};
use clap::{Parser, Subcommand, ValueEnum};
use fault_injection::Sabotage;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use testkit::stack;

/// How often a smaller schedule is tried before its faults count as needed.
const SHRINK_ATTEMPTS: u32 = 3;

/// Breaks a running Tallymark on purpose, and proves that it still counts exactly once.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Where reports are written
    #[arg(long, global = true, default_value = "target/chaos")]
    reports: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try random schedules of faults
    Run(RunArgs),
    /// Stop at every point between two steps, in every way
    Points {
        #[arg(long, value_enum, default_value_t = Engines::Both)]
        engines: Engines,
        /// Only points whose name begins so
        #[arg(long, default_value = "")]
        point: String,
    },
    /// Measure how long it takes until things work again
    Recovery {
        #[arg(long, value_enum, default_value_t = Engines::Both)]
        engines: Engines,
        /// Events per second
        #[arg(long, default_value_t = 2_000)]
        rate: u64,
    },
    /// Put known bugs in, one at a time, and see whether they are found
    Sabotage {
        /// Only these, such as `commit-before-insert`
        names: Vec<String>,
        /// Runs at the same time
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
        parallel: u8,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[arg(long, value_enum, default_value_t = Engines::Both)]
    engines: Engines,
    /// How many fresh seeds, which are printed; on each set of engines
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// These seeds instead
    #[arg(long, value_delimiter = ',')]
    seed: Vec<u64>,
    /// The faults of this file instead of those of the seed: a list as `faults[].planned` or `reduced`
    /// of a report
    #[arg(long, requires = "seed")]
    schedule: Option<PathBuf>,
    /// How long the load and the faults last
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    duration: Duration,
    /// Trials at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    parallel: u8,
    /// Reduce the schedule of a trial that fails
    #[arg(long)]
    shrink: bool,
    /// Put this known bug in, to see which schedules find it
    #[arg(long, value_parser = parse_sabotage)]
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engines {
    Embedded,
    Servers,
    Both,
}

impl Engines {
    /// Those that this machine can run; an error when it can run none of them.
    fn each(self) -> anyhow::Result<Vec<stack::Engines>> {
        let wanted = match self {
            Self::Embedded => vec![stack::Engines::Embedded],
            Self::Servers => vec![stack::Engines::Servers],
            Self::Both => vec![stack::Engines::Embedded, stack::Engines::Servers],
        };
        let found: Vec<_> = wanted.into_iter().filter(|engines| engines.available()).collect();
        if found.is_empty() {
            bail!("this machine cannot run these engines");
        }
        Ok(found)
    }
}

fn parse_sabotage(name: &str) -> Result<Sabotage, String> {
    if !fault_injection::ENABLED {
        return Err("a build without debug assertions has no known bugs to put in".to_owned());
    }
    Sabotage::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Sabotage::ALL.iter().map(|sabotage| sabotage.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text);
    match seconds.parse() {
        Ok(seconds @ 5..=3_600) => Ok(Duration::from_secs(seconds)),
        _ => Err("use 5s to 3600s".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let Cli { command, reports } = Cli::parse();
    if !fault_injection::ENABLED {
        tell(
            "these programs were built without debug assertions: no stops at points, no clock shifts",
        );
    }
    let passed = match command {
        Command::Run(args) => run_all(&args, &reports)?,
        Command::Points { engines, point } => run_points(engines, &point, &reports)?,
        Command::Sabotage { names, parallel } => run_sabotage(&names, parallel, &reports)?,
        Command::Recovery { engines, rate } => measure_recovery(engines, rate, &reports)?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_all(args: &RunArgs, reports: &Path) -> anyhow::Result<bool> {
    let mut plans = plans(args)?;
    for plan in &plans {
        tell(&format!("{} seed {}", name_of(plan.setup.engines), plan.load.seed));
    }
    plans.reverse();
    let as_it_is = args.schedule.is_none() && args.sabotage.is_none();
    let random_seeds = args.seed.is_empty() && as_it_is;
    let (plans, trials) = (Mutex::new(plans), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..args.parallel {
            scope.spawn(|| {
                while let Some(plan) = take(&plans) {
                    let mut trial = run(&plan);
                    tell(&report::line(&trial));
                    if args.shrink && trial.verdict == Verdict::Failed {
                        trial.reduced = reduced(&plan);
                        tell(&report::line(&trial));
                    }
                    let mut trials = trials.lock().unwrap_or_else(PoisonError::into_inner);
                    trials.push(trial);
                    // After each, so that a run that is stopped leaves what it has found.
                    if let Err(error) =
                        (Trials { trials: &trials, random_seeds }).write(reports, "report")
                    {
                        tell(&format!("the report cannot be written: {error:#}"));
                    }
                }
            });
        }
    });
    let trials = trials.into_inner().unwrap_or_else(PoisonError::into_inner);
    let all = Trials { trials: &trials, random_seeds };
    tell(&format!("\n{}report: {}", all.text(), reports.join("report.json").display()));
    Ok(all.passed())
}

fn plans(args: &RunArgs) -> anyhow::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for engines in args.engines.each()? {
        for seed in seeds(args) {
            let mut plan = Plan::new(engines, seed, args.duration);
            plan.setup.sabotage = args.sabotage;
            if let Some(path) = &args.schedule {
                let text = std::fs::read(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                plan.schedule = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no schedule", path.display()))?;
            }
            plans.push(plan);
        }
    }
    Ok(plans)
}

fn take(plans: &Mutex<Vec<Plan>>) -> Option<Plan> {
    plans.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

fn seeds(args: &RunArgs) -> Vec<u64> {
    if args.seed.is_empty() {
        // The hasher's keys are random in each process, and differ from one to the next.
        (0..args.seeds)
            .map(|_| RandomState::new().build_hasher().finish() % 1_000_000_000)
            .collect()
    } else {
        args.seed.clone()
    }
}

/// The faults that are enough; `None` when all of them together do not fail once more.
fn reduced(plan: &Plan) -> Option<Vec<TimedFault>> {
    let fails = |schedule: &[TimedFault]| {
        let trial = run(&Plan { schedule: schedule.to_vec(), ..plan.clone() });
        if let Some(kept) = &trial.kept {
            // The first trial's data is kept already.
            std::fs::remove_dir_all(kept).ok();
        }
        trial.verdict == Verdict::Failed
    };
    let repeats = (0..SHRINK_ATTEMPTS).any(|_| fails(&plan.schedule));
    repeats.then(|| shrink(&plan.schedule, SHRINK_ATTEMPTS, fails))
}

fn run_points(engines: Engines, prefix: &str, reports: &Path) -> anyhow::Result<bool> {
    let mut matrices = Vec::new();
    for engines in engines.each()? {
        let mut cases = points::cases(engines);
        cases.retain(|case| case.point.name().starts_with(prefix));
        if cases.is_empty() {
            bail!("no point of {} begins with {prefix}", name_of(engines));
        }
        tell(&format!("{} cases on {}", cases.len(), name_of(engines)));
        let matrix = points::run(engines, &cases, tell)?;
        let found =
            if matrix.findings.is_empty() { "nothing missing, nothing extra" } else { "FAILED" };
        tell(&format!("{}: {found} {:?}", matrix.engines, matrix.findings));
        matrices.push(matrix);
    }
    std::fs::create_dir_all(reports)?;
    std::fs::write(reports.join("points.json"), serde_json::to_vec_pretty(&matrices)?)?;
    Ok(matrices.iter().all(|matrix| matrix.findings.is_empty()))
}

fn measure_recovery(engines: Engines, rate: u64, reports: &Path) -> anyhow::Result<bool> {
    let mut measured = Vec::new();
    for engines in engines.each()? {
        let recovery = recovery::measure(engines, rate)?;
        tell(&serde_json::to_string_pretty(&recovery)?);
        measured.push(recovery);
    }
    std::fs::create_dir_all(reports)?;
    std::fs::write(reports.join("recovery.json"), serde_json::to_vec_pretty(&measured)?)?;
    Ok(measured.iter().all(|recovery| recovery.findings.is_empty()))
}

fn run_sabotage(names: &[String], parallel: u8, reports: &Path) -> anyhow::Result<bool> {
    if !fault_injection::ENABLED {
        bail!("a build without debug assertions has no known bugs to put in");
    }
    let suite = sabotage::run(&sabotage::cases(names)?, parallel, tell);
    suite.write(reports)?;
    tell(&format!("\n{}", suite.text()));
    Ok(suite.passed())
}

fn tell(text: &str) {
    // Nobody reads it any more when it cannot be written.
    writeln!(std::io::stdout().lock(), "{text}").ok();
}
