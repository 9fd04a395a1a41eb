//! When the log does not confirm, and when the service ends.

use crate::api::{Answer, event, start_with, until};
use event_log::{EventLogProducer, PublishError, PublishFuture, RecordBatch};
use ingest_api::IngestError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A log that does with each batch what the test says.
struct Stub {
    publish: Box<dyn Fn() -> PublishFuture + Send + Sync>,
    batches: AtomicUsize,
    flushes: AtomicUsize,
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stub").finish_non_exhaustive()
    }
}

impl EventLogProducer for Stub {
    fn partition_count(&self) -> u16 {
        1
    }

    fn publish(&self, batch: RecordBatch) -> PublishFuture {
        assert!(!batch.is_empty(), "nothing to publish is not published");
        self.batches.fetch_add(1, Ordering::SeqCst);
        (self.publish)()
    }

    fn unready(&self) -> Option<String> {
        (self.batches.load(Ordering::SeqCst) > 0).then(|| "the stub was used".to_owned())
    }

    fn flush(
        &self,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(())))
    }
}

fn stub(publish: impl Fn() -> PublishFuture + Send + Sync + 'static) -> Arc<Stub> {
    Arc::new(Stub {
        publish: Box::new(publish),
        batches: AtomicUsize::new(0),
        flushes: AtomicUsize::new(0),
    })
}

fn failing(error: impl Fn() -> PublishError + Send + Sync + 'static) -> Arc<Stub> {
    stub(move || Box::pin(std::future::ready(Err(error()))))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_publish_is_no_success() {
    let log = failing(|| PublishError::Unconfirmed("broker 7 at 10.0.0.7 went away".into()));
    let api = start_with(|_| (), Some(log.clone())).await;
    let answer = api.post(event("t-1").to_string()).await;
    answer.assert_problem(503, "publish_unconfirmed");
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("retrying with the same transaction_ids is safe"),
        "{answer:?}"
    );
    assert!(!answer.body.to_string().contains("10.0.0.7"), "internals are not told: {answer:?}");
    let ready = api.get("/ready").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.text().await.unwrap(), "the stub was used\n");
    assert_eq!(api.get("/health").await.status(), 200, "a restart would not help");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_at_once() {
    let api = start_with(|_| (), Some(failing(|| PublishError::QueueFull))).await;
    api.post(event("t-1").to_string()).await.assert_problem(503, "publish_queue_full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_never_answers_is_given_up() {
    let log = stub(|| Box::pin(std::future::pending()));
    let api =
        start_with(|config| config.publish_timeout = Duration::from_millis(200), Some(log)).await;
    api.post(event("t-1").to_string()).await.assert_problem(503, "publish_unconfirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_failed_for_good_ends_the_process() {
    let api = start_with(|_| (), Some(failing(|| PublishError::Fatal("fenced".into())))).await;
    api.post(event("t-1").to_string()).await.assert_problem(503, "publish_unconfirmed");
    let ended = tokio::time::timeout(crate::api::PATIENCE, api.service).await.unwrap().unwrap();
    assert!(matches!(ended, Err(IngestError::ProducerFailed)), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_request() {
    let api = start_with(|_| (), Some(stub(|| panic!("expected in this test")))).await;
    let before = panics(&api.get("/metrics").await.text().await.unwrap());
    let answer = api.post(event("t-1").to_string()).await;
    answer.assert_problem(500, "internal_error");
    assert!(!answer.body.to_string().contains("expected in this test"), "{answer:?}");
    assert_eq!(api.get("/health").await.status(), 200);
    assert!(panics(&api.get("/metrics").await.text().await.unwrap()) > before);
}

fn panics(metrics: &str) -> u64 {
    let line =
        metrics.lines().find(|line| line.starts_with("tallymark_ingest_panics_total")).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_without_an_accepted_event() {
    let log = stub(|| Box::pin(std::future::ready(Ok(()))));
    let api = start_with(|_| (), Some(log.clone())).await;
    api.post("{}").await.assert_problem(422, "no_event_accepted");
    assert_eq!(log.batches.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_shutdown_open_requests_are_finished_and_the_log_is_flushed() {
    let (release, released) = watch::channel(false);
    let log = stub(move || {
        let mut released = released.clone();
        Box::pin(async move {
            released.wait_for(|done| *done).await.unwrap();
            Ok(())
        })
    });
    let api = start_with(|_| (), Some(log.clone())).await;
    let open = tokio::spawn(api.request().body(event("t-1").to_string()).send());
    until("the request waits for the log", async || log.batches.load(Ordering::SeqCst) == 1).await;
    api.shutdown.cancel();
    until("no connection is taken any more", async || {
        tokio::net::TcpStream::connect(api.address).await.is_err()
    })
    .await;
    assert!(!open.is_finished() && !api.service.is_finished());
    assert_eq!(log.flushes.load(Ordering::SeqCst), 0, "only after the open requests");
    release.send(true).unwrap();
    assert_eq!(Answer::of(open.await.unwrap().unwrap()).await.status, 200);
    api.service.await.unwrap().unwrap();
    assert_eq!(log.flushes.load(Ordering::SeqCst), 1);
}
