//! The little that has to be known of a statement before the engine sees it: where an INSERT's data begins,
//! and the FORMAT of a SELECT. Tokens are split as the engine's own lexer does.

mod lexer;

pub use lexer::{Kind, Token, tokens};

/// A statement, by how it has to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// An INSERT with data after it: its length without the FORMAT clause, the format, and where the data begins.
    Insert { head: usize, format: String, data: usize },
    /// An INSERT that reads a file on the engine's machine.
    InsertFromFile,
    /// Any other statement.
    Other { select: bool, format: OutputFormat },
}

/// The FORMAT clause of a statement with a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// There is none.
    Default,
    Named(String),
    /// There may be one, but not where it is expected.
    Unclear,
}

/// Reads the shape of `text`, which may go on with data after an INSERT's FORMAT or VALUES.
pub fn statement(text: &[u8]) -> Statement {
    let mut tokens = tokens(text).peekable();
    let first = loop {
        match tokens.next() {
            Some(token) if token.text == b"(" => {}
            first => break first,
        }
    };
    let is = |word: &str| first.as_ref().is_some_and(|t| t.is_word(word));
    if is("INSERT") {
        return insert(text);
    }
    let select = is("SELECT") || is("WITH") || is("FROM");
    Statement::Other { select, format: output_format(text) }
}

fn insert(text: &[u8]) -> Statement {
    let mut depth = 0_u32;
    let mut before: Option<Token<'_>> = None;
    let mut tokens = tokens(text);
    while let Some(token) = tokens.next() {
        match token.text {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        // A table or column may have the name of a keyword.
        let is_name = before
            .as_ref()
            .is_some_and(|b| b.is_word("INTO") || b.is_word("TABLE") || b.text == b".");
        if token.is_word("SELECT") {
            break;
        }
        if depth == 0 && !is_name {
            if token.is_word("VALUES") {
                return Statement::Insert {
                    head: token.start,
                    format: "Values".to_owned(),
                    data: token.end,
                };
            }
            if token.is_word("INFILE") {
                return Statement::InsertFromFile;
            }
            if token.is_word("FORMAT")
                && let Some(format) = tokens.next().filter(|name| name.kind == Kind::Word)
            {
                let name = String::from_utf8_lossy(format.text).into_owned();
                return Statement::Insert {
                    head: token.start,
                    format: name,
                    data: data_start(text, format.end),
                };
            }
        }
        before = Some(token);
    }
    Statement::Other { select: false, format: OutputFormat::Default }
}

/// Data begins after blanks and one line break, or after a `;` on the statement's line.
fn data_start(text: &[u8], mut at: usize) -> usize {
    let skip_blanks = |mut at: usize| {
        while matches!(text.get(at), Some(b' ' | b'\t' | 0x0c)) {
            at += 1;
        }
        at
    };
    at = skip_blanks(at);
    if text.get(at) == Some(&b';') {
        at = skip_blanks(at + 1);
    }
    if text.get(at) == Some(&b'\r') {
        at += 1;
    }
    if text.get(at) == Some(&b'\n') {
        at += 1;
    }
    at
}

fn output_format(text: &[u8]) -> OutputFormat {
    let all: Vec<Token<'_>> = tokens(text).collect();
    let mut found = OutputFormat::Default;
    for (at, token) in all.iter().enumerate().filter(|(_, token)| token.is_word("FORMAT")) {
        let Some(name) = all.get(at + 1) else { continue };
        if name.kind != Kind::Word {
            // `format` is also the name of functions and, possibly, columns.
            continue;
        }
        let ends = all.get(at + 2).is_none_or(|next| next.text == b";" || next.is_word("SETTINGS"));
        if !ends || found != OutputFormat::Default {
            return OutputFormat::Unclear;
        }
        debug_assert!(token.end <= name.start);
        found = OutputFormat::Named(String::from_utf8_lossy(name.text).into_owned());
    }
    found
}

/// Whether a statement, as the engine itself writes it, calls the function `file`, which reads any file of the
/// machine and which no grant forbids.
pub fn names_file(canonical: &[u8]) -> bool {
    tokens(canonical).any(|token| match token.kind {
        Kind::Word => token.text == b"file",
        // An escape in a name could spell anything.
        Kind::QuotedName => {
            token.text.contains(&b'\\')
                || token.text[1..].starts_with(b"file") && token.text.len() == 6
        }
        Kind::Literal | Kind::Symbol => false,
    })
}

#[cfg(test)]
mod tests;
