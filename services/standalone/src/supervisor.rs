//! Keeps the child processes of a stack running, and stops them in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the processes are looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// A child process that can be started again after it died.
pub(crate) trait Supervised: Send {
    fn name(&self) -> &'static str;
    fn pid(&self) -> u32;
    fn is_running(&mut self) -> bool;
    /// Starts it again on its old data and address, and waits until it serves.
    fn restart(&mut self) -> anyhow::Result<()>;
    /// Asks it to end, and waits.
    fn stop(&mut self) -> anyhow::Result<()>;
}

/// Process ids by name.
pub(crate) type Pids = BTreeMap<&'static str, u32>;

/// A running supervisor. It has a thread of its own: restarts block, and the services must not wait for them.
#[derive(Debug)]
pub(crate) struct Supervisor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Supervisor {
    /// Supervises `parts`, which run. `publish` learns the process ids now and whenever one changes.
    /// `parts` are in the order of their start, and are stopped in the opposite one.
    pub(crate) fn start(
        mut parts: Vec<Box<dyn Supervised>>,
        restart_delay: Duration,
        publish: impl Fn(&Pids) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        publish(&pids(&parts));
        let asked = stop.clone();
        let watch = move || {
            let mut died: BTreeMap<&'static str, Instant> = BTreeMap::new();
            while !asked.load(Ordering::Acquire) {
                if restart_dead(&mut parts, &mut died, restart_delay) {
                    publish(&pids(&parts));
                }
                std::thread::sleep(INTERVAL);
            }
            for part in parts.iter_mut().rev() {
                if let Err(error) = part.stop() {
                    tracing::warn!(
                        process = part.name(),
                        error = format!("{error:#}"),
                        "did not stop cleanly"
                    );
                }
            }
        };
        let thread = std::thread::Builder::new().name("supervisor".to_owned()).spawn(watch)?;
        Ok(Self { stop, thread })
    }

    /// Stops every process and waits for it. Blocks.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            tracing::error!("the supervisor panicked; its processes are killed with this one");
        }
    }
}

/// Restarts what has been dead for `restart_delay`; whether a process id has changed.
fn restart_dead(
    parts: &mut [Box<dyn Supervised>],
    died: &mut BTreeMap<&'static str, Instant>,
    restart_delay: Duration,
) -> bool {
    let mut changed = false;
    for part in parts {
        if part.is_running() {
            continue;
        }
        let since = *died.entry(part.name()).or_insert_with(|| {
            tracing::error!(process = part.name(), "died");
            Instant::now()
        });
        if since.elapsed() < restart_delay {
            continue;
        }
        died.remove(part.name());
        match part.restart() {
            Ok(()) => {
                tracing::warn!(process = part.name(), pid = part.pid(), "runs again");
                changed = true;
            }
            Err(error) => tracing::error!(
                process = part.name(),
                error = format!("{error:#}"),
                "could not be started again"
            ),
        }
    }
    changed
}

fn pids(parts: &[Box<dyn Supervised>]) -> Pids {
    parts.iter().map(|part| (part.name(), part.pid())).collect()
}
