//! An API and a ClickHouse in one small server, with a memory for a store.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use loadtest::decimal;
use loadtest::set_hash::SetHash;
use num_bigint::BigInt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
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
    /// The first row and another one have each other's properties.
    pub(crate) swaps_properties: bool,
    /// One row has lost its subscription.
    pub(crate) loses_subscription: bool,
    pub(crate) sums_as_floats: bool,
    pub(crate) forgets_conflicts: bool,
    pub(crate) refuses_key: bool,
    /// Takes timestamps that have to be refused.
    pub(crate) accepts_any_age: bool,
    /// Joins scope and transaction id by a hyphen to know an event.
    pub(crate) confuses_identities: bool,
    /// Knows an event by its transaction id, whoever sent it.
    pub(crate) mixes_organizations: bool,
    /// The audit begins at the second record.
    pub(crate) audit_begins_late: bool,
    /// A record that nobody tells of, in log and audit.
    pub(crate) dead_letters: u64,
    /// ClickHouse answers that it cannot, so often.
    pub(crate) failing_queries: u64,
    /// Nothing that is accepted after the n-th request becomes visible.
    pub(crate) stops_consuming_after: Option<u64>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    requests: u64,
    events: u64,
    /// In the order of the first copies.
    rows: Vec<Value>,
    places: BTreeMap<String, usize>,
    conflicts: Vec<Value>,
    duplicates: u64,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Pipeline {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
    state: Arc<Mutex<State>>,
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
            duplicates: 0,
        };
        let state = Arc::new(Mutex::new(state));
        runtime.spawn(accept(listener, Arc::clone(&state)));
        Self { address, runtime: Some(runtime), state }
    }

    /// Waits until so many requests have come, for 30 s at most.
    pub(crate) fn wait_for_requests(&self, count: u64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.state.lock().unwrap().requests < count {
            assert!(Instant::now() < deadline, "the requests do not come");
            std::thread::sleep(Duration::from_millis(10));
        }
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
        let mut state = state.lock().unwrap();
        if state.faults.failing_queries > 0 {
            state.faults.failing_queries -= 1;
            return Ok(Response::builder().status(500).body(Full::default()).unwrap());
        }
        let rows = state.select(std::str::from_utf8(&body).unwrap(), &parameters);
        return Ok(Response::new(Full::new(Bytes::from(rows))));
    }
    let organization = match head.headers["authorization"].to_str().unwrap() {
        "Bearer key" => "org_demo",
        "Bearer key-b" => "org_b",
        other => panic!("no such key: {other}"),
    };
    let stall = {
        let mut state = state.lock().unwrap();
        if state.requests == 10 { state.faults.stalls_once.take() } else { None }
    };
    if let Some(stall) = stall {
        tokio::time::sleep(stall).await;
    }
    let (status, answer) = state.lock().unwrap().accept(organization, &body)?;
    let answer = Full::new(Bytes::from(answer.to_string()));
    let response = Response::builder().status(status);
    let response = if status == 503 { response.header("retry-after", "1") } else { response };
    Ok(response.body(answer).unwrap())
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap()
}

fn scope(event: &Value) -> &str {
    event.get("transaction_scope").map_or("", |scope| scope.as_str().unwrap())
}

fn milliseconds(event: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text(event, "timestamp")).unwrap().timestamp_millis()
}

fn subscription(event: &Value) -> &str {
    event.get("external_subscription_id").map_or("", |id| id.as_str().unwrap())
}

/// The quantity as text, with all of its digits.
fn value(event: &Value) -> Option<String> {
    let field = event.get("value").or_else(|| event["properties"].get("tokens"));
    field.map(|value| value.as_str().unwrap().to_owned())
}

/// What the API refuses whatever the time, as far as it occurs here.
fn is_malformed(event: &Value) -> bool {
    let value = value(event);
    let units = value.as_deref().map(|text| decimal::parse(text).map(|units| units.to_string()));
    let too_long =
        |units: Option<String>| units.is_none_or(|units| units.trim_start_matches('-').len() > 38);
    chrono::DateTime::parse_from_rfc3339(text(event, "timestamp")).is_err()
        || scope(event).len() > 255
        || !["api_calls", "tokens", "credits"].contains(&text(event, "code"))
        || (text(event, "code") != "api_calls" && value.is_none())
        || units.is_some_and(too_long)
}

fn is_untimely(event: &Value) -> bool {
    #[expect(clippy::disallowed_methods, reason = "a server has a clock of its own")]
    let now = chrono::Utc::now().timestamp_millis();
    let age = now - milliseconds(event);
    !(-300_000..=35 * 86_400_000).contains(&age)
}

impl State {
    /// The API: an error breaks the connection.
    fn accept(&mut self, organization: &str, body: &[u8]) -> std::io::Result<(u16, Value)> {
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
            let invalid =
                is_malformed(&event) || (is_untimely(&event) && !self.faults.accepts_any_age);
            let refused = self.faults.refuses_every > 0
                && self.events.is_multiple_of(self.faults.refuses_every)
                && index > 0;
            event["organization"] = json!(organization);
            statuses.push(if refused || invalid {
                json!({"index": index, "status": "rejected", "code": "timestamp_too_old"})
            } else {
                json!({"index": index, "status": "accepted"})
            });
            if (!refused && !invalid)
                || (self.faults.stores_refused && !self.places.contains_key(&self.key(&event)))
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

    fn key(&self, event: &Value) -> String {
        let (scope, id) = (scope(event), text(event, "transaction_id"));
        let organization = text(event, "organization");
        let organization = if self.faults.mixes_organizations { "" } else { organization };
        if self.faults.confuses_identities && !scope.is_empty() {
            return format!("{organization}/{scope}-{id}");
        }
        let separator = if self.faults.confuses_identities { "" } else { "\n" };
        format!("{organization}/{scope}{separator}{id}")
    }

    fn store(&mut self, event: Value) {
        if self.faults.stops_consuming_after.is_some_and(|requests| self.requests > requests) {
            return;
        }
        let key = self.key(&event);
        let Some(place) = self.places.get(&key) else {
            self.places.insert(key, self.rows.len());
            self.rows.push(event);
            self.spoil_newest();
            return;
        };
        let first = &mut self.rows[*place];
        if milliseconds(first) == milliseconds(&event) && value(first) == value(&event) {
            self.duplicates += 1;
        } else {
            if self.faults.last_copy_wins {
                *first = event.clone();
            }
            self.conflicts.push(event);
        }
    }

    fn spoil_newest(&mut self) {
        let Some((newest, [first, ..])) = self.rows.split_last_mut() else { return };
        if self.faults.swaps_properties && first["sent"] != newest["sent"] {
            let sent = newest["sent"].take();
            newest["sent"] = std::mem::replace(&mut first["sent"], sent);
            self.faults.swaps_properties = false;
        }
        if self.faults.loses_subscription && !subscription(newest).is_empty() {
            newest["external_subscription_id"] = json!("");
            self.faults.loses_subscription = false;
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
        if let Some(markers) = parameters.get("param_markers") {
            let asked =
                |row: &&Value| markers.contains(&format!("'{}'", text(row, "transaction_id")));
            self.visible().filter(asked).map(|row| format!("{}\n", identity(row))).collect()
        } else if let Some(customer) = parameters.get("param_customer") {
            let of_customer = |row: &&Value| text(row, "external_customer_id") == customer;
            format!("{}\n", self.visible().filter(of_customer).count())
        } else if sql.contains("ingest_batches") {
            self.audit()
        } else if sql.contains("FROM dead_letters") {
            let (rows, dead_letters) = (self.visible().count(), self.faults.dead_letters);
            format!("{rows}\t{}\t{dead_letters}\n", conflicts.len())
        } else if sql.contains("uniqExact") {
            format!("{}\n", conflicts.iter().map(identity).collect::<BTreeSet<_>>().len())
        } else if sql.contains("usage_event_conflicts FINAL") {
            conflicts.iter().map(event_row).collect()
        } else if sql.contains("SHA256") {
            self.set_hashes()
        } else if sql.contains("usage_by_hour") {
            self.totals(3_600, 0, true)
        } else if sql.contains("toStartOfDay") {
            self.totals(86_400, 19_800, false)
        } else if sql.contains("GROUP BY") {
            self.totals(3_600, 0, false)
        } else if sql.contains("count()") {
            format!("{}\n", self.visible().count())
        } else {
            self.visible().map(event_row).collect()
        }
    }

    fn audit(&self) -> String {
        let (stored, duplicates, conflicts) =
            (self.rows.len(), self.duplicates, self.conflicts.len());
        let dead_letters = self.faults.dead_letters;
        let records = u64::try_from(stored + conflicts).unwrap() + duplicates + dead_letters;
        let first = u64::from(self.faults.audit_begins_late);
        let last = first + records - 1;
        format!(
            "usage.events\t0\t0\t{first}\t{last}\t{records}\t{stored}\t{duplicates}\t{conflicts}\t{dead_letters}\n"
        )
    }

    fn set_hashes(&self) -> String {
        let mut hashes: BTreeMap<&str, SetHash> = BTreeMap::new();
        for row in self.visible() {
            let organization = text(row, "organization");
            let (milliseconds, value) = (milliseconds(row).to_string(), value(row));
            let parts = [
                organization,
                scope(row),
                text(row, "transaction_id"),
                text(row, "external_customer_id"),
                subscription(row),
                text(row, "code"),
                &milliseconds,
                value.as_deref().unwrap_or("null"),
                text(row, "sent"),
            ];
            let row: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
            hashes.entry(organization).or_default().add(row.as_bytes());
        }
        let line = |(organization, hash): (&str, SetHash)| {
            format!("{organization}\t{}\t{hash}\n", hash.rows)
        };
        hashes.into_iter().map(line).collect()
    }

    fn totals(&self, seconds: i64, offset: i64, by_subscription: bool) -> String {
        let mut totals: BTreeMap<Group<'_>, (u64, BigInt)> = BTreeMap::new();
        for row in self.visible() {
            let start = milliseconds(row).div_euclid(1_000) + offset;
            let start = start.div_euclid(seconds) * seconds - offset;
            let customer = text(row, "external_customer_id");
            let subscription = if by_subscription { subscription(row) } else { "" };
            let key = (text(row, "organization"), text(row, "code"), customer, subscription, start);
            let total = totals.entry(key).or_default();
            total.0 += 1;
            total.1 += value(row).map_or(BigInt::ZERO, |value| decimal::parse(&value).unwrap());
        }
        let mut lines = String::new();
        for ((organization, code, customer, subscription, start), (events, sum)) in totals {
            let sum = if self.faults.sums_as_floats {
                sum.to_string().parse::<f64>().unwrap().to_string()
            } else {
                sum.to_string()
            };
            let (sign, digits) =
                sum.strip_prefix('-').map_or(("", sum.as_str()), |digits| ("-", digits));
            let digits = format!("{digits:0>13}");
            let (whole, fraction) = digits.split_at(digits.len() - 12);
            lines.push_str(&format!(
                "{organization}\t{code}\t{customer}\t{subscription}\t{start}\t{events}\t{sign}{whole}.{fraction}\n"
            ));
        }
        lines
    }
}

/// Organization, metric, customer, subscription, start.
type Group<'a> = (&'a str, &'a str, &'a str, &'a str, i64);

fn identity(row: &Value) -> String {
    format!("{}\t{}\t{}", text(row, "organization"), scope(row), text(row, "transaction_id"))
}

fn event_row(row: &Value) -> String {
    let value = value(row).unwrap_or_else(|| "\\N".to_owned());
    let customer = [text(row, "code"), text(row, "external_customer_id"), subscription(row)];
    let properties = escaped(text(row, "sent"));
    let (identity, milliseconds) = (identity(row), milliseconds(row));
    format!("{identity}\t{}\t{milliseconds}\t{value}\t{properties}\n", customer.join("\t"))
}

/// As in `TabSeparated`, for the characters that occur here.
fn escaped(text: &str) -> String {
    [("\\", "\\\\"), ("\n", "\\n"), ("\t", "\\t"), ("'", "\\'")]
        .iter()
        .fold(text.to_owned(), |text, (plain, escape)| text.replace(plain, escape))
}

/// The events of a body, with every quantity as a string so that none is rounded, and with the text of
/// the properties as it was `sent`.
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
    let mut events = request["events"].as_array().unwrap().clone();
    let sent: Sent<'_> = serde_json::from_slice(body).unwrap();
    for (event, sent) in events.iter_mut().zip(sent.events) {
        event["sent"] = json!(sent.properties.get());
    }
    events
}

#[derive(serde::Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    events: Vec<SentEvent<'a>>,
}

#[derive(serde::Deserialize)]
struct SentEvent<'a> {
    #[serde(borrow)]
    properties: &'a serde_json::value::RawValue,
}

/// `12.5}…` as `"12.5"}…`; what is a string already stays.
fn quoted(text: &str) -> String {
    if text.starts_with('"') {
        return text.to_owned();
    }
    let number = text.split([',', '}']).next().unwrap();
    format!("\"{number}\"{}", &text[number.len()..])
}
