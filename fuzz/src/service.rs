//! The API without a network: its router, over a log that notes what it is given.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use chrono::{DateTime, Utc};
use config_store::{CacheOptions, ConfigStore, KeyCache, Pepper, PoolOptions, Scope};
use event_log::{EventLogProducer, PublishError, PublishFuture, RecordBatch, wire};
use futures_util::stream;
use http_body_util::BodyExt as _;
use ingest_api::{ApiState, ServeConfig, router};
use metering::identity::partition_of;
use metering::{Aggregation, BillableMetric, MetricCatalog, UsageEvent};
use service_kit::clock::FixedClock;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The organization whose key every request carries.
pub const ORGANIZATION: &str = "org_fuzz";
/// The time of every request, in milliseconds since 1970: 2026-11-21T12:00:00.500Z.
pub const NOW_MILLIS: i64 = 1_795_262_400_500;
/// Largest body, in bytes: small enough to be exceeded by an input.
pub const BODY_BYTES_MAX: u32 = 32 * 1024;
/// Largest compressed body, in bytes.
pub const COMPRESSED_BYTES_MAX: u32 = 8 * 1024;
/// Most events of a request.
pub const EVENTS_MAX: u32 = 100;

const PARTITIONS: u16 = 12;
const TOPIC_EPOCH: u16 = 3;

/// The time of every request.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(NOW_MILLIS).expect("a valid instant")
}

/// One metric of each kind that validation tells apart.
pub fn catalog() -> MetricCatalog {
    let metrics = [
        ("api_calls", Aggregation::Count, None),
        ("storage", Aggregation::Sum, None),
        ("tokens", Aggregation::Sum, Some("to/kens")),
        ("users", Aggregation::UniqueCount, Some("user")),
    ];
    let metric = |(code, aggregation, field): (&str, _, Option<&str>)| BillableMetric {
        code: code.to_owned(),
        aggregation,
        field: field.map(str::to_owned),
    };
    metrics.into_iter().map(metric).collect()
}

/// The API of this process.
pub struct Service {
    runtime: Runtime,
    router: Router,
    authorization: String,
    log: Arc<NotingLog>,
}

/// An answer, and what was published before it.
pub struct Response {
    pub status: u16,
    pub content_type: String,
    /// Whether the answer says when to come back.
    pub retry_after: bool,
    pub body: String,
    pub records: Vec<Published>,
}

/// A record as the log was given it.
pub struct Published {
    partition: u16,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Published {
    /// The record's event, which has to stand in its partition under its key.
    pub fn decode(&self) -> UsageEvent<'_> {
        let (event, epoch) = wire::decode(&self.value).expect("a published record is an event");
        assert_eq!(epoch, TOPIC_EPOCH);
        assert_eq!(wire::check_record(self.partition, PARTITIONS, &self.key, &event), Ok(()));
        assert_eq!(self.partition, partition_of(&self.key, PARTITIONS));
        event
    }
}

impl Service {
    pub fn get() -> &'static Self {
        static SERVICE: LazyLock<Service> = LazyLock::new(Service::start);
        &SERVICE
    }

    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite://{}", directory.path().join("config.db").display());
        let pepper = Pepper::new(b"a pepper for fuzzing only").expect("long enough");
        let (store, key) = runtime.block_on(configure(&url, &pepper));
        let clock = Arc::new(FixedClock::new(now()));
        let keys = KeyCache::new(store, pepper, CacheOptions::default(), clock.clone());
        let a_lot = NonZeroU32::new(1_000_000_000).expect("above zero");
        let config = ServeConfig {
            max_body_bytes: BODY_BYTES_MAX.into(),
            max_compressed_body_bytes: COMPRESSED_BYTES_MAX.into(),
            max_events_per_request: EVENTS_MAX,
            rate_limit_events: a_lot,
            rate_limit_burst: a_lot,
            topic_epoch: TOPIC_EPOCH,
            ..ServeConfig::default()
        };
        let log = Arc::new(NotingLog::default());
        let state = ApiState::new(&config, keys, log.clone(), clock, CancellationToken::new());
        let service =
            Self { runtime, router: router(state), authorization: format!("Bearer {key}"), log };
        // From here on the key and the metrics are cached for good, and the database is not asked again.
        let example = r#"{"transaction_id":"t","external_customer_id":"c","code":"api_calls","timestamp":"2026-11-21T12:00:00Z"}"#;
        let answer = service.post(None, example.into(), usize::MAX, false);
        assert_eq!(answer.status, 200, "{}", answer.body);
        service
    }

    /// Sends a body in pieces of at most `piece` bytes.
    pub fn post(
        &self,
        encoding: Option<&str>,
        body: Vec<u8>,
        piece: usize,
        log_is_away: bool,
    ) -> Response {
        self.log.away.store(log_is_away, Ordering::Relaxed);
        let body = if body.len() <= piece {
            Body::from(body)
        } else {
            let pieces: Vec<_> = body.chunks(piece).map(<[u8]>::to_vec).collect();
            Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
        };
        let mut request = Request::post("/v1/events")
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(encoding) = encoding {
            request = request.header(header::CONTENT_ENCODING, encoding);
        }
        let request = request.body(body).expect("plain headers");
        self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.expect("infallible");
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.expect("a body in memory").to_bytes();
            let content_type = parts.headers.get(header::CONTENT_TYPE);
            Response {
                status: parts.status.as_u16(),
                content_type: content_type
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned(),
                retry_after: parts.headers.contains_key(header::RETRY_AFTER),
                body: String::from_utf8(body.to_vec()).expect("answers are UTF-8"),
                records: self.log.take(),
            }
        })
    }
}

/// A database with one organization, its metrics and a key. Returns the key's text.
async fn configure(url: &str, pepper: &Pepper) -> (ConfigStore, String) {
    let store = ConfigStore::connect(url, PoolOptions::default()).await.expect("a new database");
    store.migrate().await.expect("migrations apply");
    store.create_organization(Some(ORGANIZATION), "Fuzz", now()).await.expect("an organization");
    for metric in catalog().iter() {
        store.create_billable_metric(ORGANIZATION, metric, now()).await.expect("a metric");
    }
    let scopes = [Scope::Ingest];
    let created = store.create_api_key(ORGANIZATION, pepper, "fuzz", &scopes, None, now()).await;
    let (_, key) = created.expect("a key");
    (store, key)
}

/// Keeps what was published since the last look.
#[derive(Debug, Default)]
struct NotingLog {
    away: AtomicBool,
    batches: Mutex<Vec<RecordBatch>>,
}

impl NotingLog {
    fn take(&self) -> Vec<Published> {
        let batches =
            std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner));
        let records = batches.iter().flat_map(RecordBatch::iter).map(|record| Published {
            partition: record.partition,
            key: record.key.to_vec(),
            value: record.value.to_vec(),
        });
        records.collect()
    }
}

impl EventLogProducer for NotingLog {
    fn partition_count(&self) -> u16 {
        PARTITIONS
    }

    fn publish(&self, batch: RecordBatch) -> PublishFuture {
        let result = if self.away.load(Ordering::Relaxed) {
            Err(PublishError::Unconfirmed("the log is away".into()))
        } else {
            Ok(())
        };
        // As with a real log, what is not confirmed may be there all the same.
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        Box::pin(ready(result))
    }

    fn unready(&self) -> Option<String> {
        None
    }

    fn flush(
        &self,
        _: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + '_>> {
        Box::pin(ready(Ok(())))
    }
}
