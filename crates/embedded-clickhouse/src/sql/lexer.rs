//! Splits SQL into tokens as ClickHouse's lexer does, comments and all.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword, a bare name or a number.
    Word,
    /// A name in backticks, double quotes or curly double quotes, with its quotes.
    QuotedName,
    /// A string in any of its forms, with its quotes.
    Literal,
    /// Any other single byte.
    Symbol,
}

/// A token and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a [u8],
    pub start: usize,
    pub end: usize,
}

impl Token<'_> {
    /// Whether this is the keyword, in any case.
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

/// The tokens of `text`. What is not closed reaches to the end.
pub fn tokens(text: &[u8]) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at = skip_blanks_and_comments(text, at);
        let start = at;
        let (kind, end) = token_at(text, start)?;
        at = end;
        Some(Token { kind, text: &text[start..end], start, end })
    })
}

fn skip_blanks_and_comments(text: &[u8], mut at: usize) -> usize {
    loop {
        let rest = &text[at..];
        at += match rest {
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => 1,
            [b'-', b'-', ..] | [b'/', b'/', ..] | [b'#', b' ' | b'!', ..] => line(rest),
            [b'/', b'*', ..] => nested_comment(rest),
            _ => return at,
        };
    }
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
}

fn nested_comment(rest: &[u8]) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at + 2 <= rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn token_at(text: &[u8], start: usize) -> Option<(Kind, usize)> {
    let rest = &text[start..];
    let (kind, length) = match rest {
        [] => return None,
        [b'\'', ..] => (Kind::Literal, quoted(rest, b'\'')),
        [quote @ (b'"' | b'`'), ..] => (Kind::QuotedName, quoted(rest, *quote)),
        // Curly quotes, ‘…’ and “…”, are quotes to the engine too, without escapes.
        [0xe2, 0x80, 0x98, ..] => (Kind::Literal, until(rest, 3, &[0xe2, 0x80, 0x99])),
        [0xe2, 0x80, 0x9c, ..] => (Kind::QuotedName, until(rest, 3, &[0xe2, 0x80, 0x9d])),
        [b'$', ..] if heredoc(rest).is_some() => {
            (Kind::Literal, heredoc(rest).unwrap_or(rest.len()))
        }
        [byte, ..] if is_word(*byte) => {
            (Kind::Word, rest.iter().position(|&b| !is_word(b)).unwrap_or(rest.len()))
        }
        _ => (Kind::Symbol, 1),
    };
    Some((kind, start + length))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// The length of a quoted token: a backslash escapes a byte, a doubled quote is a quote.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = rest.get(at) {
        if byte == b'\\' || (byte == quote && rest.get(at + 1) == Some(&quote)) {
            at += 2;
        } else if byte == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn until(rest: &[u8], from: usize, end: &[u8]) -> usize {
    rest[from..]
        .windows(end.len())
        .position(|w| w == end)
        .map_or(rest.len(), |at| from + at + end.len())
}

/// The length of `$name$ … $name$`, if that is what begins here.
fn heredoc(rest: &[u8]) -> Option<usize> {
    let name = 2 + rest[1..].iter().position(|&b| b == b'$')?;
    let close = rest[name..].windows(name).position(|w| w == &rest[..name])?;
    Some(name + close + name)
}
