//! The bounded queue in front of the writer: publishes, and the few other things that write.

use crate::{LogError, Offset, PartitionId, PublishError, RecordBatch};
use std::collections::VecDeque;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes of keys and values in one transaction; one more batch than that may be taken.
pub(super) const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A batch that waits to become durable.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) batch: RecordBatch,
    pub(super) done: oneshot::Sender<Result<(), PublishError>>,
}

/// Something else to write, whose outcome somebody waits for.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) request: Request,
    pub(super) done: SyncSender<Result<(), LogError>>,
}

#[derive(Debug)]
pub(super) enum Request {
    Commit { group: String, next: Vec<(PartitionId, Offset)> },
    RegisterGroup(String),
    ForgetGroup(String),
    Sweep,
}

/// What the writer does next, in one transaction.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) publishes: Vec<Publish>,
    pub(super) tasks: Vec<Task>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.publishes.is_empty() && self.tasks.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    batches_max: usize,
    state: Mutex<State>,
    on_change: Condvar,
}

#[derive(Debug, Default)]
struct State {
    publishes: VecDeque<Publish>,
    tasks: Vec<Task>,
    /// Accepted and not answered yet, whether waiting or being written.
    unanswered_batches: usize,
    unanswered_bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize, batches_max: usize) -> Self {
        let (state, on_change) = (Mutex::default(), Condvar::new());
        Self { bytes_max, batches_max, state, on_change }
    }

    /// Queues `batch` if there is room; never waits.
    pub(super) fn publish(
        &self,
        batch: RecordBatch,
    ) -> Result<oneshot::Receiver<Result<(), PublishError>>, PublishError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(PublishError::Fatal("the writer of the embedded log has stopped".into()));
        }
        let bytes = state.unanswered_bytes + batch.byte_len();
        if bytes > self.bytes_max || state.unanswered_batches >= self.batches_max {
            return Err(PublishError::QueueFull);
        }
        state.unanswered_bytes = bytes;
        state.unanswered_batches += 1;
        let (done, outcome) = oneshot::channel();
        state.publishes.push_back(Publish { batch, done });
        drop(state);
        self.on_change.notify_all();
        Ok(outcome)
    }

    /// Has the writer do `request`, and waits for it. Callers are few: consumers, one each.
    pub(super) fn run(&self, request: Request) -> Result<(), LogError> {
        let stopped = || LogError::Permanent {
            operation: "writing to the embedded log",
            source: "its writer has stopped".into(),
        };
        let (done, outcome) = mpsc::sync_channel(1);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(stopped());
        }
        state.tasks.push(Task { request, done });
        drop(state);
        self.on_change.notify_all();
        outcome.recv().map_err(|_| stopped())?
    }

    /// Waits for work until `deadline`. `None` once the queue is closed and empty.
    pub(super) fn next_group(&self, deadline: Instant) -> Option<Group> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let group = state.take();
            if !group.is_empty() {
                return Some(group);
            }
            if state.closed {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(group);
            }
            let waited = self.on_change.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes room for what was answered.
    pub(super) fn answered(&self, batches: usize, bytes: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unanswered_batches -= batches;
        state.unanswered_bytes -= bytes;
        if state.unanswered_batches == 0 {
            drop(state);
            self.on_change.notify_all();
        }
    }

    /// Whether everything published was answered within `limit`.
    pub(super) fn wait_until_answered(&self, limit: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.on_change.wait_timeout_while(state, limit, |state| state.unanswered_batches > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.unanswered_batches == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Refuses everything from now on; what was accepted is still written.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.on_change.notify_all();
    }

    /// The writer is gone: nobody will answer, so the waiting ones are told.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        state.publishes.clear();
        state.tasks.clear();
        state.unanswered_batches = 0;
        state.unanswered_bytes = 0;
        drop(state);
        self.on_change.notify_all();
    }
}

impl State {
    fn take(&mut self) -> Group {
        let mut bytes = 0;
        let within = |publish: &Publish| {
            let fits = bytes < GROUP_BYTES_MAX;
            bytes += publish.batch.byte_len();
            fits
        };
        let count = self.publishes.iter().map(within).take_while(|fits| *fits).count();
        let publishes = self.publishes.drain(..count).collect();
        Group { publishes, tasks: std::mem::take(&mut self.tasks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize) -> RecordBatch {
        let mut batch = RecordBatch::default();
        batch.push(|_| (), |_| 0, |value| value.resize(bytes, b'x'));
        batch
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_queue_is_bounded_by_bytes_until_answers_make_room() {
        let queue = Queue::new(100, 10);
        queue.publish(batch(60)).unwrap();
        queue.publish(batch(40)).unwrap();
        assert!(matches!(queue.publish(batch(1)), Err(PublishError::QueueFull)));
        let group = queue.next_group(now()).unwrap();
        assert_eq!(group.publishes.len(), 2);
        assert!(matches!(queue.publish(batch(1)), Err(PublishError::QueueFull)), "being written");
        queue.answered(1, 60);
        queue.publish(batch(60)).unwrap();
    }

    #[test]
    fn the_queue_is_bounded_by_batches() {
        let queue = Queue::new(100, 2);
        queue.publish(batch(1)).unwrap();
        queue.publish(batch(1)).unwrap();
        assert!(matches!(queue.publish(batch(1)), Err(PublishError::QueueFull)));
    }

    #[test]
    fn a_group_ends_with_the_batch_that_reaches_its_bound() {
        let queue = Queue::new(usize::MAX, 10);
        for bytes in [GROUP_BYTES_MAX - 1, 1, 1] {
            queue.publish(batch(bytes)).unwrap();
        }
        assert_eq!(queue.next_group(now()).unwrap().publishes.len(), 2);
        assert_eq!(queue.next_group(now()).unwrap().publishes.len(), 1);
        assert!(queue.next_group(now()).unwrap().is_empty());
    }

    #[test]
    fn closing_still_hands_out_what_was_accepted() {
        let queue = Queue::new(100, 10);
        queue.publish(batch(1)).unwrap();
        queue.close();
        assert!(matches!(queue.publish(batch(1)), Err(PublishError::Fatal(_))));
        assert_eq!(queue.next_group(now()).unwrap().publishes.len(), 1);
        assert!(queue.next_group(now()).is_none());
    }

    #[test]
    fn abandoning_tells_the_waiting_ones() {
        let queue = Queue::new(100, 10);
        let mut outcome = queue.publish(batch(1)).unwrap();
        assert!(!queue.wait_until_answered(Duration::ZERO));
        queue.abandon();
        assert!(outcome.try_recv().is_err());
        assert!(queue.wait_until_answered(Duration::ZERO));
        assert!(queue.run(Request::Sweep).is_err());
    }
}
