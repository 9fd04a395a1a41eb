//! What happened in a run, line by line: always hashed, and kept when somebody wants to read it.

use std::fmt::{self, Write as _};

#[derive(Debug)]
pub(super) struct Trace {
    /// FNV-1a, 64 bits.
    hash: u64,
    lines: Option<String>,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: keep.then(String::new) }
    }

    pub(super) fn line(&mut self, now: u64, text: fmt::Arguments<'_>) {
        let written = writeln!(self, "{now:>9} {text}");
        written.expect("writing to a hash cannot fail");
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn into_lines(self) -> String {
        self.lines.unwrap_or_default()
    }
}

impl fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.as_bytes() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines.as_mut().map_or(Ok(()), |lines| lines.write_str(text))
    }
}
