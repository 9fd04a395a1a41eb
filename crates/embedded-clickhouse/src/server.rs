//! The HTTP interface: one statement per request, in the order read → authenticate → place → run → answer.

use crate::access::{Role, Users};
use crate::cancel::{self, Client};
use crate::config::{PLACE_WAIT, READER_STATEMENTS_MAX, SERVICE_STATEMENTS_MAX};
use crate::engine::{Engine, Wanted};
use crate::exception::{ACCESS_DENIED, Exception, TOO_MANY_SIMULTANEOUS_QUERIES};
use crate::framing::{Decoder, decode_content, encode_block};
use crate::insert::{self, Insert};
use crate::request::{Head, collect, read_form};
use crate::select::{PARTS_MAX, Part, Select, Summary};
use crate::settings::Settings;
use crate::sql::{self, Statement};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Everything a request needs.
#[derive(Clone, Debug)]
pub struct Server {
    engine: Arc<Engine>,
    users: Users,
    service_places: Arc<Semaphore>,
    reader_places: Arc<Semaphore>,
}

impl Server {
    pub fn new(engine: Arc<Engine>, users: Users) -> Self {
        Self {
            engine,
            users,
            service_places: Arc::new(Semaphore::new(SERVICE_STATEMENTS_MAX)),
            reader_places: Arc::new(Semaphore::new(READER_STATEMENTS_MAX)),
        }
    }

    pub fn router(&self) -> Router {
        Router::new()
            .route("/", get(ping_or_handle).post(handle))
            .route("/ping", get(ping))
            .route("/replicas_status", get(ping))
            .with_state(self.clone())
    }

    /// Waits until no statement runs, for at most `limit`. No statement begins after this.
    pub async fn finish(&self, limit: Duration) -> bool {
        let places = |semaphore: &Arc<Semaphore>, all: usize| {
            let all = u32::try_from(all).expect("a handful of places");
            Arc::clone(semaphore).acquire_many_owned(all)
        };
        let all = async {
            let service = places(&self.service_places, SERVICE_STATEMENTS_MAX).await;
            let reader = places(&self.reader_places, READER_STATEMENTS_MAX).await;
            self.service_places.close();
            self.reader_places.close();
            drop((service, reader));
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    async fn place(&self, role: Role) -> Result<OwnedSemaphorePermit, Exception> {
        let places = match role {
            Role::Service => &self.service_places,
            Role::Reader => &self.reader_places,
        };
        match tokio::time::timeout(PLACE_WAIT, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(Exception::new(
                TOO_MANY_SIMULTANEOUS_QUERIES,
                "Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)",
            )),
        }
    }
}

async fn ping() -> &'static str {
    "Ok.\n"
}

async fn ping_or_handle(state: State<Server>, request: Request) -> Response {
    match request.uri().query() {
        None | Some("") => ping().await.into_response(),
        Some(_) => handle(state, request).await,
    }
}

async fn handle(State(server): State<Server>, request: Request) -> Response {
    match answer(&server, request).await {
        Ok(response) => response,
        Err(exception) => exception.into_response(),
    }
}

async fn answer(server: &Server, request: Request) -> Result<Response, Exception> {
    let (parts, body) = request.into_parts();
    let mut head = Head::parse(&parts)?;
    let role = server.users.authenticate(&head.credentials)?;
    let settings = Settings::check(role, head.read_only, std::mem::take(&mut head.settings))?;
    let tag = format!("{:032x}", rand::random::<u128>());
    let wanted = Wanted { role, database: head.database.take(), settings, tag };

    // An INSERT whose statement is in the URL takes its data from the body as it arrives.
    let url = Bytes::from(head.sql.take().unwrap_or_default());
    let streamed = head.boundary.is_none() && head.content_encoding.is_none();
    if let Statement::Insert { head: end, format, data } = sql::statement(&url) {
        refuse_reader(role)?;
        let insert = insert_of(server, wanted, &head, (&url[..end], format));
        let inline = url.slice(data..);
        if streamed {
            let place = server.place(role).await?;
            let body = Some(body.into_data_stream());
            return Ok(done(&head, insert::run(insert, inline, body, place).await?));
        }
        let body = decode_content(head.content_encoding.as_deref(), collect(body).await?)?;
        let place = server.place(role).await?;
        let data = Bytes::from([inline, body].concat());
        return Ok(done(&head, insert::run(insert, data, None, place).await?));
    }
    let text = statement_text(&mut head, url, body).await?;
    let place = server.place(role).await?;
    match sql::statement(&text) {
        Statement::InsertFromFile => {
            Err(Exception::new(ACCESS_DENIED, "INFILE is not allowed here. (ACCESS_DENIED)"))
        }
        Statement::Insert { head: end, format, data } => {
            refuse_reader(role)?;
            let insert = insert_of(server, wanted, &head, (&text[..end], format));
            // The text was decompressed as a whole.
            let insert = Insert { compressed: false, ..insert };
            Ok(done(&head, insert::run(insert, text.slice(data..), None, place).await?))
        }
        Statement::Other { select, format } => {
            let select = Select {
                engine: Arc::clone(&server.engine),
                wanted,
                sql: text,
                select,
                named_format: format,
                default_format: head.default_format.clone(),
                parameters: std::mem::take(&mut head.parameters),
            };
            run_select(select, &head, place).await
        }
    }
}

/// Statement and inline data of a request whose body has to be read first: the URL's text, then the body's.
async fn statement_text(head: &mut Head, url: Bytes, body: Body) -> Result<Bytes, Exception> {
    let body = decode_content(head.content_encoding.as_deref(), collect(body).await?)?;
    let body = match head.boundary.take() {
        Some(boundary) => read_form(body, boundary, head).await?,
        None if head.decompress => {
            let mut decoder = Decoder::new(true);
            let mut text = Vec::new();
            decoder.push(&body, |data| {
                text.extend_from_slice(data);
                Ok(())
            })?;
            decoder.finish()?;
            text.into()
        }
        None => body,
    };
    Ok(match (url.is_empty(), body.is_empty()) {
        (false, false) => [&url[..], b"\n", &body].concat().into(),
        (false, true) => url,
        (true, _) => body,
    })
}

fn insert_of(
    server: &Server,
    wanted: Wanted,
    head: &Head,
    (sql, format): (&[u8], String),
) -> Insert {
    Insert {
        engine: Arc::clone(&server.engine),
        wanted,
        sql: sql.to_vec(),
        format,
        parameters: head.parameters.clone(),
        compressed: head.decompress,
    }
}

/// The engine would refuse it too, after the reader's data was read.
fn refuse_reader(role: Role) -> Result<(), Exception> {
    match role {
        Role::Service => Ok(()),
        Role::Reader => {
            Err(Exception::new(ACCESS_DENIED, "Not enough privileges to insert. (ACCESS_DENIED)"))
        }
    }
}

async fn run_select(
    select: Select,
    head: &Head,
    place: OwnedSemaphorePermit,
) -> Result<Response, Exception> {
    let (client, worker) = cancel::pair(Arc::clone(&select.engine), select.wanted.tag.clone());
    let format = select.format().to_owned();
    let (sender, mut parts) = mpsc::channel(PARTS_MAX);
    tokio::task::spawn_blocking(move || {
        select.run(&worker, &sender);
        // In this order: the client must not ask to stop a place's next statement.
        drop(worker);
        drop(place);
    });
    let first = parts
        .recv()
        .await
        .unwrap_or_else(|| Err(Exception::from_engine("the statement's worker failed")))?;
    let tag = format!("{:016x}", rand::random::<u64>());
    let summary = first.summary;
    let body =
        Answer { first: Some(first), parts, client, tag: tag.clone(), compress: head.compress };
    let mut response = Response::new(Body::from_stream(stream::unfold(Some(body), Answer::next)));
    describe(&mut response, head, &format, summary);
    set(&mut response, "X-ClickHouse-Exception-Tag", &tag);
    Ok(response)
}

/// A body in progress. Dropped by hyper when the client goes, which drops `client`, which stops the statement.
struct Answer {
    first: Option<Part>,
    parts: mpsc::Receiver<Result<Part, Exception>>,
    client: Client,
    tag: String,
    compress: bool,
}

impl Answer {
    async fn next(
        answer: Option<Self>,
    ) -> Option<(Result<Bytes, std::convert::Infallible>, Option<Self>)> {
        let mut answer = answer?;
        let part = match answer.first.take() {
            Some(first) => Ok(first),
            None => answer.parts.recv().await?,
        };
        let encode = |bytes: Bytes| match answer.compress && !bytes.is_empty() {
            true => encode_block(&bytes).into(),
            false => bytes,
        };
        match part {
            Ok(part) => Some((Ok(encode(part.bytes)), Some(answer))),
            Err(exception) => {
                let trailer = exception.trailer(&answer.tag).into();
                drop(answer.client);
                Some((Ok(encode(trailer)), None))
            }
        }
    }
}

fn done(head: &Head, summary: Summary) -> Response {
    let mut response = Response::new(Body::empty());
    describe(&mut response, head, "TabSeparated", summary);
    response
}

fn describe(response: &mut Response, head: &Head, format: &str, summary: Summary) {
    let generated = || format!("{:032x}", rand::random::<u128>());
    set(response, "X-ClickHouse-Query-Id", &head.query_id.clone().unwrap_or_else(generated));
    set(response, "X-ClickHouse-Format", format);
    set(response, "X-ClickHouse-Timezone", "UTC");
    set(response, "X-ClickHouse-Server-Display-Name", "embedded-clickhouse");
    set(response, "X-ClickHouse-Summary", &summary.header());
    set(response, header::CONTENT_TYPE.as_str(), content_type(format));
}

/// Sets a header; a value that cannot be one, such as a query id with a line break, is left out.
fn set(response: &mut Response, name: &str, value: &str) {
    let name = HeaderName::try_from(name).expect("a literal header name");
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn content_type(format: &str) -> &'static str {
    match format {
        "JSON" | "JSONCompact" | "JSONStrings" => "application/json; charset=UTF-8",
        "JSONEachRow" | "JSONCompactEachRow" => "application/x-ndjson; charset=UTF-8",
        "CSV" | "CSVWithNames" => "text/csv; charset=UTF-8",
        "RowBinary" | "RowBinaryWithNamesAndTypes" | "Native" | "Parquet" | "Arrow" => {
            "application/octet-stream"
        }
        _ if format.starts_with("TabSeparated") || format.starts_with("TSV") => {
            "text/tab-separated-values; charset=UTF-8"
        }
        _ => "text/plain; charset=UTF-8",
    }
}
