//! Every bound of a request: what is at it passes, what is one past it is refused.

use crate::api::{Answer, Api, event, start, start_with, until};
use serde_json::{Value, json};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const COMPRESSED_BYTES_MAX: usize = 5 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_pass_and_one_more_does_not() {
    let mut api = start().await;
    let mut events: Vec<Value> = (0..10_000).map(|n| event(&format!("t-{n}"))).collect();
    let answer = api.post_events(&events).await;
    assert_eq!(answer.status, 200);
    answer.assert_counts(10_000, 0, 0);
    let mut stored = api.new_in_log();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), 10_000);
    events.push(event("one-too-many"));
    let answer = api.post_events(&events).await;
    answer.assert_problem(413, "too_many_events");
    assert_eq!(answer.body["limit_events"], 10_000);
    assert!(api.new_in_log().is_empty());
}

/// An event in a body of exactly `bytes` bytes.
fn padded(id: &str, bytes: usize) -> Vec<u8> {
    let mut body = event(id).to_string().into_bytes();
    body.resize(bytes, b' ');
    body
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn assert_too_large(answer: &Answer) {
    answer.assert_problem(413, "body_too_large");
    assert_eq!(answer.body["limit_bytes"], BODY_BYTES_MAX);
    assert_eq!(answer.body["limit_compressed_bytes"], COMPRESSED_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_mebibytes_pass_and_one_byte_more_does_not() {
    let mut api = start().await;
    assert_eq!(api.post(padded("at", BODY_BYTES_MAX)).await.status, 200);
    assert_too_large(&api.post(padded("past", BODY_BYTES_MAX + 1)).await);

    let compressed = async |bytes| {
        let request =
            api.request().header("content-encoding", "gzip").body(gzip(&padded("gzipped", bytes)));
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(compressed(BODY_BYTES_MAX).await.status, 200);
    assert_too_large(&compressed(BODY_BYTES_MAX + 1).await);

    // Without an announced length, the bytes are counted as they arrive.
    let chunked = async |bytes| {
        let chunks: Vec<_> = padded("chunked", bytes)
            .chunks(1 << 20)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect();
        api.post(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))).await
    };
    assert_eq!(chunked(BODY_BYTES_MAX).await.status, 200);
    assert_too_large(&chunked(BODY_BYTES_MAX + 1).await);

    let mut stored = api.new_in_log();
    stored.sort_unstable();
    assert_eq!(stored, ["at", "chunked", "gzipped"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_of_five_mebibytes_passes_and_one_byte_more_does_not() {
    let api = start().await;
    // Members of stored blocks reach any size; a member of nothing adds 20 bytes or more.
    let fill = |target: usize| {
        let mut body = gzip(event("t").to_string().as_bytes());
        let member = |bytes: usize| {
            let mut encoder = flate2::GzBuilder::new()
                .comment(vec![b'.'; bytes])
                .write(Vec::new(), flate2::Compression::none());
            encoder.write_all(b" ").unwrap();
            encoder.finish().unwrap()
        };
        let bare = member(0).len();
        while target - body.len() > 65_536 + 2 * bare {
            body.extend(member(32_768));
        }
        while body.len() < target {
            let left = target - body.len();
            let bytes = if left > 4 * bare + 8_000 { 4_000 } else { left - bare };
            body.extend(member(bytes));
        }
        assert_eq!(body.len(), target);
        body
    };
    for (bytes, status) in [(COMPRESSED_BYTES_MAX, 200), (COMPRESSED_BYTES_MAX + 1, 413)] {
        let request = api.request().header("content-encoding", "gzip").body(fill(bytes));
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused() {
    let api = start().await;
    let bomb = gzip(&vec![b' '; 400 << 20]);
    assert!(bomb.len() < COMPRESSED_BYTES_MAX);
    let request = api.request().header("content-encoding", "gzip").body(bomb);
    assert_too_large(&Answer::of(request.send().await.unwrap()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_stream_is_refused() {
    let mut api = start().await;
    let whole = gzip(event("t-1").to_string().as_bytes());
    let request =
        api.request().header("content-encoding", "gzip").body(whole[..whole.len() - 1].to_vec());
    Answer::of(request.send().await.unwrap()).await.assert_problem(400, "malformed_encoding");
    let request = api.request().header("content-encoding", "br").body(whole);
    let answer = Answer::of(request.send().await.unwrap()).await;
    answer.assert_problem(415, "unsupported_content_encoding");
    assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd"));
    assert!(api.new_in_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_media_types_are_refused() {
    let api = start().await;
    let url = api.url("/v1/events");
    for media_type in [
        None,
        Some("text/plain"),
        Some("application/x-ndjson"),
        Some("application/json; charset=utf-16"),
    ] {
        let mut request =
            api.client.post(&url).bearer_auth(&api.key).body(event("t-1").to_string());
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        answer.assert_problem(415, "unsupported_media_type");
        assert_eq!(answer.header("accept"), Some("application/json"));
    }
    let request = api
        .client
        .post(&url)
        .bearer_auth(&api.key)
        .header("content-type", "application/json; charset=UTF-8");
    assert_eq!(request.body(event("t-1").to_string()).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_counts_events_and_says_when_to_come_back() {
    let configure = |config: &mut ingest_api::ServeConfig| {
        config.rate_limit_events = NonZeroU32::MIN;
        config.rate_limit_burst = NonZeroU32::MIN;
        config.max_events_per_request = 20;
    };
    let mut api = start_with(configure, None).await;
    let batch = |from: u32, count: u32| {
        (from..from + count).map(|n| event(&n.to_string())).collect::<Vec<_>>()
    };
    // The burst is at least one request.
    assert_eq!(api.post_events(&batch(0, 20)).await.status, 200);
    let answer = api.post_events(&batch(20, 20)).await;
    answer.assert_problem(429, "rate_limited");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(api.new_in_log().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_are_bounded_and_given_back() {
    let configure = |config: &mut ingest_api::ServeConfig| {
        config.max_body_bytes = 100_000;
        config.max_compressed_body_bytes = 1;
        config.max_events_per_request = 1;
        config.max_in_flight_bytes = 1;
    };
    // Room for one largest body and its records.
    let api = start_with(configure, None).await;
    let headers = format!(
        "content-length: 100000\r\ncontent-type: application/json\r\nauthorization: Bearer {}",
        api.key
    );
    let probe = async || api.post(padded("t", 100_000)).await;
    // The probe may be served before the slow request is, which then finds no room, is answered at
    // once and holds nothing; so slow ones are opened until one holds its bytes.
    let mut slow = Vec::new();
    let started = std::time::Instant::now();
    loop {
        let mut request = raw_post(&api, &headers).await;
        drop(request.write_all(&vec![b' '; 99_999]).await);
        slow.push(request);
        if probe().await.status == 503 {
            break;
        }
        assert!(started.elapsed() < crate::api::PATIENCE, "no open request holds its bytes");
    }
    probe().await.assert_problem(503, "overloaded");
    drop(slow);
    until("the bytes are given back", async || probe().await.status == 200).await;
}

async fn raw_post(api: &Api, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream
        .write_all(
            format!("POST /v1/events HTTP/1.1\r\nhost: test\r\n{headers}\r\n\r\n").as_bytes(),
        )
        .await
        .unwrap();
    stream
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is as good as an end.
    let read = tokio::time::timeout(crate::api::PATIENCE, stream.read_to_end(&mut text)).await;
    assert!(read.is_ok(), "the connection stays open");
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_end_are_given_up() {
    let api = start_with(|config| config.header_timeout = Duration::from_millis(200), None).await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost: test\r\n").await.unwrap();
    let answer = read_to_end(stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_given_up() {
    let api =
        start_with(|config| config.body_idle_timeout = Duration::from_millis(200), None).await;
    let headers = format!(
        "content-length: 1000\r\ncontent-type: application/json\r\nauthorization: Bearer {}",
        api.key
    );
    let mut stream = raw_post(&api, &headers).await;
    stream.write_all(b"{\"transaction_id\":").await.unwrap();
    let answer = read_to_end(stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"body_timeout\""),
        "{answer}"
    );
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_not_stored() {
    let mut api = start().await;
    let body = event("t-1").to_string();
    let headers = format!(
        "transfer-encoding: chunked\r\ncontent-type: application/json\r\nauthorization: Bearer {}",
        api.key
    );
    let mut stream = raw_post(&api, &headers).await;
    stream
        .write_all(format!("{:x}\r\n{body}\r\nnot a chunk\r\n", body.len()).as_bytes())
        .await
        .unwrap();
    let answer = read_to_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("\"code\":\"incomplete_body\""), "{answer}");
    assert!(api.new_in_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_before_it_sends() {
    let api = start().await;
    let headers = format!(
        "content-length: {}\r\nexpect: 100-continue\r\ncontent-type: application/json\r\nauthorization: Bearer {}",
        BODY_BYTES_MAX + 1,
        api.key
    );
    let answer = read_to_end(raw_post(&api, &headers).await).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_that_two_servers_could_read_differently_is_refused() {
    let api = start().await;
    for framing in
        ["content-length: 2\r\ncontent-length: 3", "content-length: -1", "transfer-encoding: gzip"]
    {
        let headers = format!(
            "{framing}\r\ncontent-type: application/json\r\nauthorization: Bearer {}",
            api.key
        );
        let mut stream = raw_post(&api, &headers).await;
        stream.write_all(b"{}").await.unwrap();
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{framing}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_at_the_limits_of_its_fields_passes() {
    let api = start().await;
    let long = |bytes: usize| "x".repeat(bytes);
    for (field, at, past) in [
        ("transaction_id", 255, 256),
        ("external_customer_id", 255, 256),
        ("external_subscription_id", 255, 256),
        ("transaction_scope", 255, 256),
    ] {
        let answer = api.post_events(&[crate::api::event_with("a", field, json!(long(at)))]).await;
        assert_eq!(answer.status, 200, "{field}: {answer:?}");
        let answer =
            api.post_events(&[crate::api::event_with("a", field, json!(long(past)))]).await;
        assert_eq!(answer.outcomes(), [("rejected", Some("field_too_long"))], "{field}");
    }
}
