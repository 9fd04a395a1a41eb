//! A process from start to exit: its tasks, the signals that end it, and its exit code.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of a process. When one ends before shutdown was asked for, the process ends with a failure.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    shutdown: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to end; tasks then finish what they have begun.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Runs `task` until it ends. An error, a panic, or an end before shutdown ends the process with a failure.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let lifecycle = self.clone();
        let handle = tokio::spawn(task);
        self.tasks.spawn(async move {
            let failure = match handle.await {
                Ok(Ok(())) if lifecycle.shutdown.is_cancelled() => None,
                Ok(Ok(())) => Some("it ended although nobody asked it to".to_owned()),
                Ok(Err(error)) => Some(chain(error.into().as_ref())),
                Err(panic) => Some(panic.to_string()),
            };
            if let Some(failure) = failure {
                tracing::error!(task = name, error = failure, "a task failed, the process ends");
                lifecycle.failed.store(true, Ordering::Release);
                lifecycle.shutdown.cancel();
            }
        });
    }

    /// Waits for SIGTERM, SIGINT or a failed task, then at most `limit` for the tasks to finish.
    /// A second signal ends the wait at once.
    pub async fn run(self, limit: Duration) -> ExitCode {
        let (mut terminate, mut interrupt) =
            match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
                (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%error, "cannot listen for signals");
                    return ExitCode::FAILURE;
                }
            };
        tokio::select! {
            _ = terminate.recv() => tracing::info!("terminating"),
            _ = interrupt.recv() => tracing::info!("interrupted"),
            () = self.shutdown.cancelled() => {}
        }
        self.shutdown.cancel();
        self.tasks.close();
        let finished = tokio::select! {
            () = self.tasks.wait() => true,
            () = tokio::time::sleep(limit) => {
                tracing::error!(limit_seconds = limit.as_secs(), "tasks did not finish in time");
                false
            }
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
        };
        if finished && !self.failed.load(Ordering::Acquire) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_fails_ends_the_process_with_a_failure() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("broken", async { Err::<(), _>("no") });
        let code = lifecycle.run(Duration::from_secs(10)).await;
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn a_panic_ends_the_process_with_a_failure() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn::<_, String>("panicking", async { panic!("expected in this test") });
        let code = lifecycle.run(Duration::from_secs(10)).await;
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn tasks_that_end_on_request_make_a_success() {
        let lifecycle = Lifecycle::new();
        let shutdown = lifecycle.shutdown_token();
        lifecycle.spawn("waiting", {
            let shutdown = shutdown.clone();
            async move {
                shutdown.cancelled().await;
                Ok::<_, String>(())
            }
        });
        shutdown.cancel();
        let code = lifecycle.run(Duration::from_secs(10)).await;
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    }
}
