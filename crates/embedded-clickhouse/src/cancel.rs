//! Stops a statement in the engine when its client has gone.

use crate::engine::Engine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the engine is asked to stop a statement, and how often. A statement may not have begun yet when
/// its client goes, so once is not enough.
const ASKING: Duration = Duration::from_secs(60);
const ASKING_AGAIN: Duration = Duration::from_millis(100);

/// The state of one statement, shared by its worker and its client's side.
#[derive(Debug, Default)]
struct State {
    unwanted: AtomicBool,
    /// Finished, or to be finished in any case.
    settled: AtomicBool,
}

/// The client's side: dropped before the worker has finished, it stops the statement.
#[derive(Debug)]
pub struct Client {
    engine: Arc<Engine>,
    tag: String,
    state: Arc<State>,
}

/// The worker's side: says when it is dropped that the statement has finished.
#[derive(Debug)]
pub struct Worker(Arc<State>);

/// The two sides of a statement marked with `tag`.
pub fn pair(engine: Arc<Engine>, tag: String) -> (Client, Worker) {
    let state = Arc::new(State::default());
    (Client { engine, tag, state: Arc::clone(&state) }, Worker(state))
}

impl Worker {
    /// Whether the client has gone.
    pub fn is_unwanted(&self) -> bool {
        self.0.unwanted.load(Ordering::Acquire)
    }

    /// The statement is over, or is one that runs to its end even when the client goes.
    pub fn settle(&self) {
        self.0.settled.store(true, Ordering::Release);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.state.unwanted.store(true, Ordering::Release);
        if self.state.settled.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (engine, tag, state) =
            (Arc::clone(&self.engine), std::mem::take(&mut self.tag), Arc::clone(&self.state));
        runtime.spawn(async move {
            let deadline = Instant::now() + ASKING;
            while !state.settled.load(Ordering::Acquire) && Instant::now() < deadline {
                let (engine, tag) = (Arc::clone(&engine), tag.clone());
                match tokio::task::spawn_blocking(move || engine.kill(&tag)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "cannot cancel a statement"),
                    Err(error) => tracing::warn!(%error, "cancelling a statement failed"),
                }
                tokio::time::sleep(ASKING_AGAIN).await;
            }
        });
    }
}
