//! A running API with a log, a configuration database, an organization and a key of its own.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use config_store::{ConfigStore, Pepper, PoolOptions, Scope};
use event_log::embedded::{EmbeddedConsumer, EmbeddedLog, EmbeddedLogOptions};
use event_log::{EventLogConsumer, EventLogProducer, Polled, wire};
use ingest_api::{IngestApi, IngestError, ServeConfig};
use metering::{Aggregation, BillableMetric, UsageEvent};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use service_kit::clock::{Clock, SystemClock};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ORGANIZATION: &str = "org_test";
const PARTITIONS: u16 = 3;
/// How long a condition may take; generous, because a test that passes never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) key: String,
    pub(crate) store: ConfigStore,
    pub(crate) pepper: Pepper,
    pub(crate) shutdown: CancellationToken,
    pub(crate) service: JoinHandle<Result<(), IngestError>>,
    consumer: EmbeddedConsumer,
    _directory: TempDir,
}

/// An API as it is by default.
pub(crate) async fn start() -> Api {
    start_with(|_| (), None).await
}

/// An API with another configuration, and optionally another log than the embedded one.
pub(crate) async fn start_with(
    change: impl FnOnce(&mut ServeConfig),
    producer: Option<Arc<dyn EventLogProducer>>,
) -> Api {
    let directory = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let url = format!("sqlite://{}", directory.path().join("config.db").display());
    let store = ConfigStore::connect(&url, PoolOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    let pepper = Pepper::new(b"a pepper for tests only").unwrap();
    store.create_organization(Some(ORGANIZATION), "Test", clock.now()).await.unwrap();
    for (code, aggregation, field) in [
        ("api_calls", Aggregation::Count, None),
        ("tokens", Aggregation::Sum, Some("tokens")),
        ("storage", Aggregation::Max, None),
    ] {
        let metric =
            BillableMetric { code: code.to_owned(), aggregation, field: field.map(str::to_owned) };
        store.create_billable_metric(ORGANIZATION, &metric, clock.now()).await.unwrap();
    }
    let (_, key) = store
        .create_api_key(ORGANIZATION, &pepper, "test", &[Scope::Ingest], None, clock.now())
        .await
        .unwrap();
    let log = EmbeddedLog::open(EmbeddedLogOptions::new(
        directory.path().join("log.db"),
        PARTITIONS,
        Arc::clone(&clock),
    ))
    .unwrap();
    let consumer = log.consumer("test").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = ServeConfig::default();
    change(&mut config);
    let producer = producer.unwrap_or_else(|| Arc::new(log.producer()));
    let shutdown = CancellationToken::new();
    let api =
        IngestApi { producer, config_store: store.clone(), pepper: pepper.clone(), config, clock };
    let service = tokio::spawn(api.run(listener, shutdown.clone()));
    let client = Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let api = Api {
        address,
        client,
        key,
        store,
        pepper,
        shutdown,
        service,
        consumer,
        _directory: directory,
    };
    until("the API is ready", async || api.get("/ready").await.status() == 200).await;
    api
}

/// Asks `condition` until it holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text)
            .unwrap_or_else(|_| panic!("{status} with a body that is not JSON: {text}"));
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that this is the refusal `code`, in the form that every refusal has.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert_eq!(self.body["request_id"].as_str(), self.header("x-request-id"));
        for member in ["title", "detail"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        assert_eq!(
            matches!(status, 408 | 429 | 500 | 503),
            self.header("retry-after").is_some(),
            "{self:?}"
        );
    }

    /// Status and code of each event.
    pub(crate) fn outcomes(&self) -> Vec<(&str, Option<&str>)> {
        let events = self.body["events"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event["index"], index, "the list is in request order");
        }
        events
            .iter()
            .map(|event| (event["status"].as_str().unwrap(), event["code"].as_str()))
            .collect()
    }

    #[track_caller]
    pub(crate) fn assert_counts(&self, accepted: usize, rejected: usize, duplicates: usize) {
        let counts = ["accepted", "rejected", "duplicates"]
            .map(|name| self.body[name].as_u64().unwrap_or(u64::MAX));
        assert_eq!(counts, [accepted, rejected, duplicates].map(|count| count as u64), "{self:?}");
    }
}

impl Api {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// A POST of events that only lacks its body.
    pub(crate) fn request(&self) -> reqwest::RequestBuilder {
        self.client
            .post(self.url("/v1/events"))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
    }

    pub(crate) async fn post(&self, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(self.request().body(body).send().await.unwrap()).await
    }

    pub(crate) async fn post_events(&self, events: &[Value]) -> Answer {
        self.post(json!({ "events": events }).to_string()).await
    }

    /// Transaction ids in the log that were not returned before, per partition in log order.
    pub(crate) fn new_in_log(&mut self) -> Vec<String> {
        self.new_events_in_log(|event| event.transaction_id.to_string())
    }

    pub(crate) fn new_events_in_log<T>(
        &mut self,
        mut take: impl FnMut(&UsageEvent<'_>) -> T,
    ) -> Vec<T> {
        let mut taken = Vec::new();
        loop {
            // What was confirmed is durable, so one look that finds nothing has seen everything.
            match self.consumer.poll(Duration::from_millis(1)).unwrap() {
                Polled::Assigned(_) => {}
                Polled::Records(ranges) => {
                    for range in ranges {
                        for record in range.iter() {
                            let (event, _) = wire::decode(record.value).unwrap();
                            taken.push(take(&event));
                        }
                    }
                }
                Polled::Idle => return taken,
                other @ Polled::Revoked(_) => panic!("{other:?}"),
            }
        }
    }

    /// Ends the service, and returns how it ended.
    pub(crate) async fn stop(self) -> Result<(), IngestError> {
        self.shutdown.cancel();
        self.service.await.unwrap()
    }
}

pub(crate) fn now() -> DateTime<Utc> {
    SystemClock.now()
}

pub(crate) fn timestamp(ago: TimeDelta) -> String {
    (now() - ago).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A good event of the metric `api_calls`.
pub(crate) fn event(transaction_id: &str) -> Value {
    json!({
        "transaction_id": transaction_id,
        "external_customer_id": "customer-1",
        "code": "api_calls",
        "timestamp": timestamp(TimeDelta::minutes(1)),
    })
}

/// A good event in which one field is another.
pub(crate) fn event_with(transaction_id: &str, field: &str, value: Value) -> Value {
    let mut event = event(transaction_id);
    event[field] = value;
    event
}
