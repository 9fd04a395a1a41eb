use super::*;
use futures_util::stream;
use std::convert::Infallible;
use std::io::Write as _;

const MAX: usize = 1000;

fn limits() -> BodyLimits {
    BodyLimits {
        bytes_max: MAX,
        compressed_bytes_max: 500,
        idle_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(30),
        events_max: 10,
    }
}

fn encoded(encoding: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
    headers
}

async fn read_all(headers: &HeaderMap, body: Body) -> Result<ReadBody, ProblemCode> {
    let mut body = body;
    read(headers, &mut body, &limits(), &ByteBudget::new(1 << 20))
        .await
        .map_err(|problem| problem.code())
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd_stream(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 3).unwrap()
}

/// A body in pieces, of unknown length.
fn pieces(pieces: Vec<Vec<u8>>) -> Body {
    Body::from_stream(stream::iter(
        pieces.into_iter().map(|piece| Ok::<_, Infallible>(Bytes::from(piece))),
    ))
}

#[tokio::test]
async fn a_body_may_have_exactly_the_limit() {
    for (size, allowed) in [(MAX, true), (MAX + 1, false)] {
        let content = vec![b'a'; size];
        let cut = content.chunks(99).map(<[u8]>::to_vec).collect();
        for (headers, body) in [
            (HeaderMap::new(), Body::from(content.clone())),
            (encoded("identity"), pieces(cut)),
            (encoded("gzip"), Body::from(gzip(&content))),
            (encoded("zstd"), Body::from(zstd_stream(&content))),
        ] {
            let result = read_all(&headers, body).await;
            if allowed {
                assert_eq!(result.unwrap().bytes, content, "{headers:?}");
            } else {
                assert_eq!(result.unwrap_err(), ProblemCode::BodyTooLarge, "{headers:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_compressed_body_may_have_exactly_its_limit() {
    // Stored blocks, so that the compressed size can be chosen to the byte.
    let mut sent = Vec::new();
    for (size, expected) in [(500, None), (501, Some(ProblemCode::BodyTooLarge))] {
        for content in 0..size {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
            encoder.write_all(&vec![b'a'; content]).unwrap();
            sent = encoder.finish().unwrap();
            if sent.len() == size {
                break;
            }
        }
        assert_eq!(sent.len(), size);
        assert_eq!(read_all(&encoded("gzip"), Body::from(sent.clone())).await.err(), expected);
    }
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_is_unpacked() {
    let bomb = zstd_stream(&vec![0; 10 << 20]);
    assert!(bomb.len() <= 500, "{} bytes", bomb.len());
    let budget = ByteBudget::new(4096);
    let mut body = Body::from(bomb);
    // The budget is far below what the bomb unpacks to, and suffices to find out.
    let problem = read(&encoded("zstd"), &mut body, &limits(), &budget).await.unwrap_err();
    assert_eq!(problem.code(), ProblemCode::BodyTooLarge);
    assert!(budget.has_room_for(4096), "everything was given back");
}

#[tokio::test]
async fn broken_streams_are_refused() {
    for (name, whole) in [("gzip", gzip(b"{\"a\":1}")), ("zstd", zstd_stream(b"{\"a\":1}"))] {
        for length in 1..whole.len() {
            let result = read_all(&encoded(name), Body::from(whole[..length].to_vec())).await;
            assert_eq!(
                result.unwrap_err(),
                ProblemCode::MalformedEncoding,
                "{name} cut to {length} bytes"
            );
        }
        let result =
            read_all(&encoded(name), Body::from([whole.as_slice(), b"trailing"].concat())).await;
        assert_eq!(
            result.unwrap_err(),
            ProblemCode::MalformedEncoding,
            "{name} with bytes behind it"
        );
        let result = read_all(&encoded(name), Body::from(b"not compressed".to_vec())).await;
        assert_eq!(result.unwrap_err(), ProblemCode::MalformedEncoding, "{name} that is none");
        let twice = [whole.clone(), whole].concat();
        assert_eq!(
            read_all(&encoded(name), Body::from(twice)).await.unwrap().bytes,
            &b"{\"a\":1}{\"a\":1}"[..],
            "{name} in two members"
        );
    }
}

#[tokio::test]
async fn a_zstd_window_above_eight_mebibytes_is_refused() {
    for (window_log, expected) in [(23, None), (24, Some(ProblemCode::MalformedEncoding))] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(b"{}").unwrap();
        let sent = encoder.finish().unwrap();
        assert_eq!(
            read_all(&encoded("zstd"), Body::from(sent)).await.err(),
            expected,
            "2^{window_log}"
        );
    }
}

#[tokio::test]
async fn unknown_and_stacked_encodings_are_refused() {
    for name in ["br", "deflate", "gzip, gzip", "gzip,zstd", ""] {
        let result = read_all(&encoded(name), Body::from("{}")).await;
        assert_eq!(result.unwrap_err(), ProblemCode::UnsupportedContentEncoding, "{name}");
    }
    let mut twice = encoded("gzip");
    twice.append(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(
        read_all(&twice, Body::from("{}")).await.unwrap_err(),
        ProblemCode::UnsupportedContentEncoding
    );
    assert_eq!(read_all(&encoded("GZIP"), Body::from(gzip(b"{}"))).await.unwrap().bytes, "{}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_or_dribbles_is_given_up() {
    let stalled = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"{")) });
    let stalled = Body::from_stream(futures_util::StreamExt::chain(stalled, stream::pending()));
    let start = Instant::now();
    assert_eq!(read_all(&HeaderMap::new(), stalled).await.unwrap_err(), ProblemCode::BodyTimeout);
    assert_eq!(start.elapsed().as_secs(), 10, "the idle limit");

    let dribble = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    });
    let start = Instant::now();
    assert_eq!(
        read_all(&HeaderMap::new(), Body::from_stream(dribble)).await.unwrap_err(),
        ProblemCode::BodyTimeout
    );
    assert_eq!(start.elapsed().as_secs(), 30, "the limit for the whole body");
}

#[tokio::test]
async fn a_full_budget_refuses_at_once() {
    let budget = ByteBudget::new(1500);
    let mut held = budget.reserve();
    held.grow_to(1000).unwrap();
    let mut body = Body::from(vec![b'a'; 600]);
    assert_eq!(
        read(&HeaderMap::new(), &mut body, &limits(), &budget).await.unwrap_err().code(),
        ProblemCode::Overloaded
    );
    drop(held);
    let read = read(&HeaderMap::new(), &mut body, &limits(), &budget).await.unwrap();
    assert_eq!(read.bytes.len(), 600);
}

#[tokio::test]
async fn invalid_utf8_is_named_with_its_place() {
    let body = read_all(&HeaderMap::new(), Body::from(b"{\"a\":\"\xff\"}".to_vec())).await.unwrap();
    let problem = text(&body.bytes).unwrap_err();
    assert_eq!(problem.code(), ProblemCode::InvalidUtf8);
}
