//! Dead letters as a person and as a program read them.

use super::Retried;
use crate::config::RecordName;
use crate::output::escaped;
use chrono::SecondsFormat;
use serde::Serialize;
use std::fmt::Write as _;
use usage_store::dead_letters::{DeadLetter, DeadLetterBytes};

/// Bytes of a key or value that `show` prints.
const SHOWN_BYTES_MAX: usize = 4096;

/// A dead letter with the names that its JSON has.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterReport {
    /// What `show` and `retry` take.
    pub record: String,
    pub topic: String,
    pub topic_epoch: u16,
    pub partition: u16,
    pub offset: u64,
    pub reason: String,
    pub detail: String,
    pub key_bytes: u64,
    pub value_bytes: u64,
    pub parked_at: String,
    /// As text with escapes for what is no printable ASCII; whole, as far as it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl DeadLetterReport {
    pub fn new(letter: DeadLetter, bytes: Option<&DeadLetterBytes>) -> Self {
        let DeadLetter { topic, position, reason, detail, key_bytes, value_bytes, parked_at } =
            letter;
        let name = RecordName { topic, position };
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        Self {
            record: name.to_string(),
            topic: name.topic,
            topic_epoch: position.epoch,
            partition: position.partition,
            offset: position.offset,
            reason,
            detail,
            key_bytes,
            value_bytes,
            parked_at: parked_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            key: bytes.map(|bytes| text(&bytes.key)),
            value: bytes.map(|bytes| text(&bytes.value)),
        }
    }
}

/// One line each.
pub fn list(letters: &[DeadLetterReport]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut out = String::new();
    for letter in letters {
        let DeadLetterReport { record, reason, detail, value_bytes, parked_at, .. } = letter;
        let detail = escaped(detail.as_bytes(), 200);
        writeln!(out, "{parked_at}  {record}  {reason}  {value_bytes} bytes  {detail}")
            .expect("writing to a string");
    }
    out
}

/// Everything that is known of one.
pub fn show(letter: &DeadLetter, bytes: &DeadLetterBytes) -> String {
    let DeadLetter { topic, position, reason, detail, key_bytes, value_bytes, parked_at } = letter;
    let name = RecordName { topic: topic.clone(), position: *position };
    format!(
        "record     {name}\nparked at  {}\nreason     {reason}\ndetail     {}\nkey        {key_bytes} bytes: {}\nvalue      {value_bytes} bytes: {}\n",
        parked_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        escaped(detail.as_bytes(), SHOWN_BYTES_MAX),
        escaped(&bytes.key, SHOWN_BYTES_MAX),
        escaped(&bytes.value, SHOWN_BYTES_MAX),
    )
}

/// What became of a retried record, in one line.
pub fn retried(name: &RecordName, retried: &Retried) -> String {
    match retried {
        Retried::Published { partition } => format!("{name}  published to partition {partition}\n"),
        Retried::Ready { partition } => {
            format!("{name}  would be published to partition {partition}\n")
        }
        Retried::Refused(reason) => format!("{name}  not published: {reason}\n"),
    }
}
