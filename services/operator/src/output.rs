//! Writes results to standard output or to a file; logs go to standard error.

use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Prints `text`.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes `value` as JSON: to standard output for `-`, else to a file, whole or not at all.
pub fn write_json(target: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut json = serde_json::to_string_pretty(value)?;
    json.push('\n');
    if target == Path::new("-") {
        return print(&json);
    }
    let mut draft = target.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, json)?;
    fs::rename(&draft, target)
}

/// Bytes of a record as one line of text: what is no printable ASCII is escaped.
pub fn escaped(bytes: &[u8], bytes_max: usize) -> String {
    let shown = &bytes[..bytes.len().min(bytes_max)];
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() {
        text.push_str(&format!("… ({} bytes more)", bytes.len() - shown.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_whole() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("report.json");
        write_json(&file, &[1, 2]).unwrap();
        write_json(&file, &[3]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "[\n  3\n]\n");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn bytes_cannot_reach_the_terminal() {
        assert_eq!(escaped(b"a\x1b[31m\n\xff", 100), r"a\x1b[31m\n\xff");
        assert_eq!(escaped(b"abcdef", 2), "ab… (4 bytes more)");
    }
}
