//! As much of ClickHouse's HTTP interface as its faults need.

/// Largest head of a request that is looked at, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Whether a piece of a stream begins with the head of a request.
pub(super) fn begins_request(piece: &[u8]) -> bool {
    piece.starts_with(b"POST /") || piece.starts_with(b"GET /")
}

/// Whether a piece begins with the whole head of an INSERT, with the statement in its address as our
/// client sends it.
pub(super) fn begins_insert(piece: &[u8]) -> bool {
    head(piece).is_some_and(|head| {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        line.starts_with(b"POST /") && has(line, b"query=INSERT")
    })
}

/// Whether a piece begins with the whole head of a request that is no INSERT.
pub(super) fn begins_query(piece: &[u8]) -> bool {
    head(piece).is_some() && !begins_insert(piece)
}

/// Whether a piece of a stream has the words of an INSERT into `usage_events`.
pub(super) fn names_usage_events(piece: &[u8]) -> bool {
    has(piece, b"INSERT") && has(piece, b"usage_events")
}

/// The head of the request that a piece begins with, including the empty line.
fn head(piece: &[u8]) -> Option<&[u8]> {
    if !begins_request(piece) {
        return None;
    }
    let looked_at = &piece[..piece.len().min(HEAD_MAX)];
    let end = looked_at.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(&piece[..end + 4])
}

fn has(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// Finds the end of a request.
#[derive(Debug)]
pub(super) struct Request {
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunk),
    /// It has ended, or nobody can say where it ends.
    Ended,
}

/// Where in a chunked body the next byte is.
#[derive(Debug)]
enum Chunk {
    /// In the line that says how long the chunk is.
    Size { size: u64, extension: bool },
    /// In the chunk and the end of line after it, with so many bytes to come.
    Data(u64),
    /// In the lines after the last chunk; the line so far is empty or not.
    Trailer { empty: bool },
}

impl Request {
    /// The request that `piece` begins with, and the bytes that follow its head.
    pub(super) fn begin(piece: &[u8]) -> Option<(Self, &[u8])> {
        let head = head(piece)?;
        let text = String::from_utf8_lossy(head).to_ascii_lowercase();
        let field = |name: &str| {
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
        };
        let body = if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            Body::Chunked(Chunk::Size { size: 0, extension: false })
        } else {
            let length = field("content-length").and_then(|length| length.parse().ok());
            length.filter(|length| *length > 0).map_or(Body::Ended, Body::Length)
        };
        Some((Self { body }, &piece[head.len()..]))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.body, Body::Ended)
    }

    /// Takes in what follows. Bytes after the end are ignored.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            let here = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            match &mut self.body {
                Body::Ended => return,
                Body::Length(left) if *left > here => return *left -= here,
                Body::Length(_) => return self.body = Body::Ended,
                Body::Chunked(Chunk::Data(left)) if *left >= here => return *left -= here,
                Body::Chunked(Chunk::Data(left)) if *left > 0 => {
                    let skipped = usize::try_from(*left).expect("it is less than what is here");
                    (*left, bytes) = (0, &bytes[skipped..]);
                }
                Body::Chunked(chunk) => {
                    match chunk.next(*first) {
                        Some(next) => *chunk = next,
                        None => self.body = Body::Ended,
                    }
                    bytes = rest;
                }
            }
        }
    }
}

impl Chunk {
    /// Where the byte after `byte` is; `None` when that was the last of the body.
    fn next(&self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size: 0, .. }, b'\n') => Self::Trailer { empty: true },
            // With the end of line after the data.
            (Self::Size { size, .. }, b'\n') => Self::Data(size.saturating_add(2)),
            (Self::Size { size, extension: false }, digit) if digit.is_ascii_hexdigit() => {
                let digit = char::from(digit).to_digit(16).expect("it is a digit");
                Self::Size { size: size.saturating_mul(16) + u64::from(digit), extension: false }
            }
            (Self::Size { size, .. }, _) => Self::Size { size: *size, extension: true },
            // All of the data has been read: this is the first digit of the next size.
            (Self::Data(_), byte) => return Self::Size { size: 0, extension: false }.next(byte),
            (Self::Trailer { empty: true }, b'\n') => return None,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty: *empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: false },
        })
    }
}

/// The answer of a ClickHouse server that throws an exception.
pub(super) fn exception(code: u16) -> String {
    let status = match code {
        159 | 209 => "408 Request Timeout",
        192..=194 | 497 | 516 => "403 Forbidden",
        202 => "503 Service Unavailable",
        _ => "500 Internal Server Error",
    };
    let text = match code {
        159 => "Timeout exceeded: elapsed 60.01 seconds, maximum: 60. (TIMEOUT_EXCEEDED)",
        202 => "Too many simultaneous queries. Maximum: 100. (TOO_MANY_SIMULTANEOUS_QUERIES)",
        209 => "Timeout exceeded while reading from socket. (SOCKET_TIMEOUT)",
        210 => "Connection refused. (NETWORK_ERROR)",
        241 => "Memory limit (total) exceeded: would use 1.00 GiB. (MEMORY_LIMIT_EXCEEDED)",
        242 => "Table is in readonly mode. (TABLE_IS_READ_ONLY)",
        243 => "Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)",
        252 => {
            "Too many parts (300). Merges are processing significantly slower than inserts. \
             (TOO_MANY_PARTS)"
        }
        319 => "Insert quorum was not reached: unknown status. (UNKNOWN_STATUS_OF_INSERT)",
        497 => "Not enough privileges. (ACCESS_DENIED)",
        516 => "Authentication failed. (AUTHENTICATION_FAILED)",
        _ => "A fault of a test. (FAULT_INJECTED)",
    };
    let body = format!("Code: {code}. DB::Exception: {text}\n");
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: text/plain; charset=UTF-8\r\n\
         X-ClickHouse-Exception-Code: {code}\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] = b"POST /?query=INSERT+INTO+t HTTP/1.1\r\nHost: h\r\n\
        Transfer-Encoding: chunked\r\n\r\n\
        5\r\n0\r\n\r\n\r\n1a;name=value\r\n0123456789abcdefghijklmnop\r\n0\r\nField: 0\r\n\r\n";
    const SIZED: &[u8] =
        b"POST /?query=INSERT+INTO+t HTTP/1.1\r\ncontent-length: 11\r\n\r\nhello\r\n\r\n\r\n";

    #[test]
    fn the_end_of_a_request_is_found_however_it_is_cut_into_pieces() {
        for text in [CHUNKED, SIZED] {
            let head = head(text).unwrap().len();
            for first in head..text.len() {
                for second in first..text.len() {
                    let (mut request, rest) = Request::begin(&text[..first]).unwrap();
                    request.read(rest);
                    request.read(&text[first..second]);
                    assert!(!request.has_ended(), "{first} {second}");
                    request.read(&text[second..]);
                    assert!(request.has_ended(), "{first} {second}");
                }
            }
        }
    }

    #[test]
    fn requests_without_a_body_end_with_their_head() {
        let (request, rest) = Request::begin(b"GET /ping HTTP/1.1\r\n\r\n").unwrap();
        assert!(request.has_ended() && rest.is_empty());
        assert!(Request::begin(b"POST /?query=INSERT HTTP/1.1\r\n").is_none());
    }

    #[test]
    fn an_insert_is_known_by_its_address() {
        assert!(begins_insert(CHUNKED) && !begins_query(CHUNKED));
        for other in [
            "GET /?query=INSERT HTTP/1.1\r\n\r\n",
            "POST /?query=SELECT+1 HTTP/1.1\r\n\r\nINSERT",
            "POST /?query=INSERT HTTP/1.1\r\nHost: h\r\n",
            "INSERT INTO t",
        ] {
            assert!(!begins_insert(other.as_bytes()), "{other}");
        }
        assert!(begins_query(b"POST /?query=SELECT+1 HTTP/1.1\r\n\r\nINSERT"));
        assert!(!begins_query(b"POST /?query=SELECT HTTP/1.1\r\nHost: h\r\n"));
    }

    #[test]
    fn an_exception_is_as_long_as_it_says() {
        for code in [159, 241, 252, 319, 516, 9999] {
            let answer = exception(code);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("X-ClickHouse-Exception-Code: {code}\r\n")), "{head}");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
            assert!(body.starts_with(&format!("Code: {code}. DB::Exception: ")), "{body}");
        }
    }
}
