//! An API and a ClickHouse in one small server, with a memory for a store.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use loadtest::decimal;
use num_bigint::BigInt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// What the stand-in does wrong; counts are of requests, except where events are named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Answers 503 without storing anything.
    pub(crate) answers_503_every: u64,
    /// Stores everything, and closes the connection without an answer.
    pub(crate) breaks_connection_every: u64,
    pub(crate) stalls_once: Option<Duration>,
    /// Refuses each so many-th event.
    pub(crate) refuses_every: u64,
    pub(crate) stores_refused: bool,
    /// The n-th stored row is not there when it is read.
    pub(crate) loses_row: Option<usize>,
    pub(crate) doubles_row: Option<usize>,
    pub(crate) last_copy_wins: bool,
    pub(crate) sums_as_floats: bool,
    pub(crate) forgets_conflicts: bool,
    pub(crate) refuses_key: bool,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    requests: u64,
    events: u64,
    /// By transaction id, in the order of the first copies.
    rows: Vec<Value>,
    places: BTreeMap<String, usize>,
    conflicts: Vec<Value>,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Pipeline {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Pipeline {
    pub(crate) fn start(faults: Faults) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            faults,
            requests: 0,
            events: 0,
            rows: Vec::new(),
            places: BTreeMap::new(),
            conflicts: Vec::new(),
        };
        runtime.spawn(accept(listener, Arc::new(Mutex::new(state))));
        Self { address, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        let service = service_fn(move |request| serve(request, Arc::clone(&state)));
        // A broken connection is one of the faults.
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn serve(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> std::io::Result<Response<Full<Bytes>>> {
    let query = request.uri().query().unwrap_or("").to_owned();
    let parameters: BTreeMap<String, String> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    if head.uri.path() != "/v1/events" {
        assert_eq!(head.headers["x-clickhouse-user"], "tallymark_reader");
        assert_eq!(parameters["database"], "tallymark");
        let rows = state.lock().unwrap().select(std::str::from_utf8(&body).unwrap(), &parameters);
        return Ok(Response::new(Full::new(Bytes::from(rows))));
    }
    assert_eq!(head.headers["authorization"], "Bearer key");
    let stall = {
        let mut state = state.lock().unwrap();
        if state.requests == 10 { state.faults.stalls_once.take() } else { None }
    };
    if let Some(stall) = stall {
        tokio::time::sleep(stall).await;
    }
    let (status, answer) = state.lock().unwrap().accept(&body)?;
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(answer.to_string()))).unwrap())
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap()
}

fn milliseconds(event: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text(event, "timestamp")).unwrap().timestamp_millis()
}

/// The quantity as text, with all of its digits.
fn value(event: &Value) -> Option<String> {
    let field = event.get("value").or_else(|| event["properties"].get("tokens"));
    field.map(|value| value.as_str().unwrap().to_owned())
}

impl State {
    /// The API: an error breaks the connection.
    fn accept(&mut self, body: &[u8]) -> std::io::Result<(u16, Value)> {
        self.requests += 1;
        let is_nth = |every: u64| every > 0 && self.requests.is_multiple_of(every);
        if self.faults.refuses_key {
            return Ok((401, json!({"code": "invalid_api_key"})));
        }
        if is_nth(self.faults.answers_503_every) {
            return Ok((503, json!({"code": "log_unavailable"})));
        }
        let broken = is_nth(self.faults.breaks_connection_every);
        let mut statuses = Vec::new();
        for (index, mut event) in events(body).into_iter().enumerate() {
            self.events += 1;
            let refused = self.faults.refuses_every > 0
                && self.events.is_multiple_of(self.faults.refuses_every)
                && index > 0;
            event["index"] = json!(index);
            statuses.push(if refused {
                json!({"index": index, "status": "rejected", "code": "timestamp_too_old"})
            } else {
                json!({"index": index, "status": "accepted"})
            });
            if !refused
                || (self.faults.stores_refused
                    && !self.places.contains_key(text(&event, "transaction_id")))
            {
                self.store(event);
            }
        }
        if broken {
            return Err(std::io::Error::other("the connection breaks"));
        }
        let rejected = statuses.iter().filter(|status| status["status"] == "rejected").count();
        let accepted = statuses.len() - rejected;
        Ok((
            200,
            json!({"accepted": accepted, "rejected": rejected, "duplicates": 0, "events": statuses}),
        ))
    }

    fn store(&mut self, event: Value) {
        let id = text(&event, "transaction_id").to_owned();
        let Some(place) = self.places.get(&id) else {
            self.places.insert(id, self.rows.len());
            self.rows.push(event);
            return;
        };
        let first = &mut self.rows[*place];
        if milliseconds(first) != milliseconds(&event) {
            if self.faults.last_copy_wins {
                *first = event.clone();
            }
            self.conflicts.push(event);
        }
    }

    fn visible(&self) -> impl Iterator<Item = &Value> {
        let rows = self.rows.iter().enumerate().filter(|(i, _)| self.faults.loses_row != Some(*i));
        let doubled = self.faults.doubles_row.and_then(|i| self.rows.get(i));
        rows.map(|(_, row)| row).chain(doubled)
    }

    /// ClickHouse, for the queries that are asked.
    fn select(&self, sql: &str, parameters: &BTreeMap<String, String>) -> String {
        let none: &[Value] = &[];
        let conflicts = if self.faults.forgets_conflicts { none } else { &self.conflicts };
        let id = |row: &Value| text(row, "transaction_id").to_owned();
        if let Some(markers) = parameters.get("param_markers") {
            let found = self.visible().map(id).filter(|id| markers.contains(&format!("'{id}'")));
            found.map(|id| format!("{id}\n")).collect()
        } else if let Some(customer) = parameters.get("param_customer") {
            format!(
                "{}\n",
                self.visible().filter(|row| text(row, "external_customer_id") == customer).count()
            )
        } else if sql.contains("uniqExact") {
            format!("{}\n", conflicts.iter().map(id).collect::<BTreeSet<_>>().len())
        } else if sql.contains("usage_event_conflicts FINAL") {
            conflicts.iter().map(|row| format!("{}\t{}\n", id(row), milliseconds(row))).collect()
        } else if sql.contains("usage_by_hour") {
            self.hours()
        } else if sql.contains("count()") {
            format!("{}\n", self.visible().count())
        } else {
            self.visible().map(event_row).collect()
        }
    }

    fn hours(&self) -> String {
        let mut hours: BTreeMap<(&str, &str, i64), (u64, BigInt)> = BTreeMap::new();
        for row in self.visible() {
            let hour = milliseconds(row).div_euclid(3_600_000) * 3_600;
            let total = hours
                .entry((text(row, "code"), text(row, "external_customer_id"), hour))
                .or_default();
            total.0 += 1;
            total.1 += value(row).map_or(BigInt::ZERO, |value| decimal::parse(&value).unwrap());
        }
        let line = |((code, customer, hour), (events, sum)): ((&str, &str, i64), (u64, BigInt))| {
            let sum = if self.faults.sums_as_floats {
                sum.to_string().parse::<f64>().unwrap().to_string()
            } else {
                sum.to_string()
            };
            let (sign, digits) =
                sum.strip_prefix('-').map_or(("", sum.as_str()), |digits| ("-", digits));
            let digits = format!("{digits:0>13}");
            let (whole, fraction) = digits.split_at(digits.len() - 12);
            format!("{code}\t{customer}\t{hour}\t{events}\t{sign}{whole}.{fraction}\n")
        };
        hours.into_iter().map(line).collect()
    }
}

fn event_row(row: &Value) -> String {
    let value = value(row).unwrap_or_else(|| "\\N".to_owned());
    let (id, code, customer) =
        (text(row, "transaction_id"), text(row, "code"), text(row, "external_customer_id"));
    format!("org_demo\t\t{id}\t{code}\t{customer}\t{}\t{value}\n", milliseconds(row))
}

/// The events of a body, with every quantity as a string so that none is rounded.
fn events(body: &[u8]) -> Vec<Value> {
    let mut exact = std::str::from_utf8(body).unwrap().to_owned();
    for name in ["\"value\":", "\"tokens\":"] {
        exact = exact
            .split_inclusive(name)
            .enumerate()
            .map(|(i, part)| if i == 0 { part.to_owned() } else { quoted(part) })
            .collect();
    }
    let request: Value = serde_json::from_str(&exact).unwrap();
    request["events"].as_array().unwrap().clone()
}

/// `12.5}…` as `"12.5"}…`.
fn quoted(text: &str) -> String {
    let number = text.split([',', '}']).next().unwrap();
    format!("\"{}\"{}", number.trim_matches('"'), &text[number.len()..])
}
