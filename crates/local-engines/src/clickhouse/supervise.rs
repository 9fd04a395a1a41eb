//! Starts the engine again whenever it ends by itself.

use super::{EmbeddedClickHouseOptions, launch};
use crate::process::ManagedProcess;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the process is looked at, and the delays between attempts to start it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Supervisor {
    process: Arc<Mutex<ManagedProcess>>,
    /// Dropped to end the thread.
    work: Mutex<Option<(mpsc::Sender<()>, JoinHandle<()>)>>,
}

impl Supervisor {
    pub(super) fn start(
        process: ManagedProcess,
        options: EmbeddedClickHouseOptions,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let process = Arc::new(Mutex::new(process));
        let mut work = None;
        if options.restart {
            let (alive, ended) = mpsc::channel();
            let watched = Arc::clone(&process);
            let watch = move || watch(&watched, &options, address, &ended);
            work = Some((
                alive,
                std::thread::Builder::new().name("clickhouse".to_owned()).spawn(watch)?,
            ));
        }
        Ok(Self { process, work: Mutex::new(work) })
    }

    pub(super) fn process(&self) -> MutexGuard<'_, ManagedProcess> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the process be; waits for an attempt to start it that is under way.
    pub(super) fn give_up(&self) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((alive, thread)) = work {
            drop(alive);
            if thread.join().is_err() {
                tracing::error!("the supervisor of the engine panicked");
            }
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Runs until the other end of `ended` is dropped.
fn watch(
    process: &Mutex<ManagedProcess>,
    options: &EmbeddedClickHouseOptions,
    address: SocketAddr,
    ended: &mpsc::Receiver<()>,
) {
    let mut delay = DELAY_FIRST;
    let mut wait = LOOK_EVERY;
    while ended.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
        wait = LOOK_EVERY;
        if process.lock().unwrap_or_else(PoisonError::into_inner).is_running() {
            delay = DELAY_FIRST;
            continue;
        }
        tracing::warn!("the ClickHouse engine ended, starting it again");
        match launch(options, address) {
            Ok(started) => *process.lock().unwrap_or_else(PoisonError::into_inner) = started,
            Err(error) => {
                tracing::error!(error = %error, retry_ms = delay.as_millis(), "the ClickHouse engine did not start");
                wait = delay;
                delay = (delay * 2).min(DELAY_MAX);
            }
        }
    }
}
