//! CPU time and memory of processes, from `/proc`.

use crate::args::NamedProcess;
use std::fs;

/// Microseconds of a clock tick: Linux reports CPU times to user space in 100ths of a second on
/// every architecture it still supports.
const TICK_MICROSECONDS: u64 = 10_000;

/// What is known of one process.
#[derive(Clone, Debug)]
struct Watched {
    process: NamedProcess,
    baseline_us: Option<u64>,
    cpu_us: u64,
    rss_peak_kib: u64,
    gone: bool,
}

/// The processes of a run.
#[derive(Debug, Default)]
pub struct Processes {
    watched: Vec<Watched>,
}

/// What a process used between the first and the last sample.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    pub name: String,
    pub cpu_us: u64,
    /// The largest sampled resident set.
    pub rss_peak_kib: u64,
    /// Ended before the last sample, so that its CPU time is cut short.
    pub gone: bool,
}

impl Processes {
    /// Takes the first sample. A process that can't be read is marked as gone.
    pub fn start(processes: impl IntoIterator<Item = NamedProcess>) -> Self {
        let watch = |process| Watched {
            process,
            baseline_us: None,
            cpu_us: 0,
            rss_peak_kib: 0,
            gone: false,
        };
        let mut this = Self { watched: processes.into_iter().map(watch).collect() };
        this.sample();
        this
    }

    pub fn sample(&mut self) {
        for watched in &mut self.watched {
            let Some((cpu_us, rss_kib)) = read(watched.process.pid) else {
                watched.gone = true;
                continue;
            };
            let baseline = *watched.baseline_us.get_or_insert(cpu_us);
            watched.cpu_us = cpu_us.saturating_sub(baseline);
            watched.rss_peak_kib = watched.rss_peak_kib.max(rss_kib);
        }
    }

    pub fn usage(&self) -> Vec<Usage> {
        let usage = |watched: &Watched| Usage {
            name: watched.process.name.clone(),
            cpu_us: watched.cpu_us,
            rss_peak_kib: watched.rss_peak_kib,
            gone: watched.gone,
        };
        self.watched.iter().map(usage).collect()
    }
}

fn read(pid: u32) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((cpu_microseconds(&stat)?, rss_kib(&status)?))
}

/// User and system time of all threads: fields 14 and 15 of `/proc/PID/stat`.
fn cpu_microseconds(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, and may hold both.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11).map(str::parse::<u64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some((user + system) * TICK_MICROSECONDS)
}

fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat =
            "12 (a) b (c) R 1 1 1 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 1 0 100 1000 10 1844 1 1";
        assert_eq!(cpu_microseconds(stat), Some(3_000_000));
        assert_eq!(cpu_microseconds("12 (a) R 1"), None);
    }

    #[test]
    fn resident_memory_is_found() {
        assert_eq!(rss_kib("Name:\ta\nVmHWM:\t  900 kB\nVmRSS:\t  1234 kB\n"), Some(1_234));
        assert_eq!(rss_kib("Name:\tkthread\n"), None);
    }

    #[test]
    fn this_process_can_be_watched_and_a_missing_one_is_reported() {
        let process = |pid: u32| NamedProcess { name: pid.to_string(), pid };
        let mut processes = Processes::start([process(std::process::id()), process(u32::MAX)]);
        processes.sample();
        let usage = processes.usage();
        assert!(usage[0].rss_peak_kib > 0 && !usage[0].gone);
        assert!(usage[1].gone);
    }
}
