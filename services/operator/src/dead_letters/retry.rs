//! Whether a parked record is an event by the rules of this version. Pure.

use event_consumer::decode::Source;
use event_log::wire;
use metering::IdentityHash;
use metering::identity::{identity_hash, partition_of};
use std::fmt;
use usage_store::Position;
use usage_store::dead_letters::{DeadLetter, DeadLetterBytes};

/// A record to publish: its value as it is, under the key and in the partition of its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub partition: u16,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub identity: IdentityHash,
}

/// Why a record is not published; one sentence that says what can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Refused {
    /// An event with its id is stored from `position`.
    pub fn billed(position: Position) -> Self {
        let Position { epoch, partition, offset } = position;
        Self(format!(
            "an event with its id is billed already, from epoch {epoch}, partition {partition}, offset {offset}; if it is a new event, the producer has to send it under an id of its own"
        ))
    }
}

/// Judges what the store has of a parked record.
pub fn judge(
    source: &Source,
    found: Option<(DeadLetter, DeadLetterBytes)>,
) -> Result<Ready, Refused> {
    let refused = |text: String| Err(Refused(text));
    let Some((letter, DeadLetterBytes { key, value })) = found else {
        return refused(
            "there is no such dead letter; `tallymark dead-letters list` names those there are"
                .to_owned(),
        );
    };
    if letter.topic != source.topic {
        return refused(format!(
            "it is of the topic {}; name that one with --kafka-topic",
            letter.topic
        ));
    }
    let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length(&key) < letter.key_bytes || length(&value) < letter.value_bytes {
        return refused(format!(
            "only the beginning was kept (value: {} of {} bytes, key: {} of {}), so it cannot be sent again; the producer has to send the event",
            value.len(),
            letter.value_bytes,
            key.len(),
            letter.key_bytes
        ));
    }
    let (event, epoch) = match wire::decode(&value) {
        Ok(decoded) => decoded,
        Err(undecodable) => return refused(format!("it still is no event: {undecodable}")),
    };
    if epoch > source.epoch {
        return refused(format!(
            "it is of topic epoch {epoch}, and --topic-epoch is {}",
            source.epoch
        ));
    }
    let mut key = Vec::with_capacity(128);
    event.write_identity_key(&mut key);
    let partition = partition_of(&key, source.partition_count);
    let identity = identity_hash(&key);
    Ok(Ready { partition, key, value, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use metering::UsageEvent;

    fn source() -> Source {
        Source { topic: "usage.events".to_owned(), epoch: 1, partition_count: 12 }
    }

    fn parked(value: &[u8]) -> (DeadLetter, DeadLetterBytes) {
        let letter = DeadLetter {
            topic: "usage.events".to_owned(),
            position: Position { epoch: 1, partition: 3, offset: 7 },
            reason: "wrong_partition".to_owned(),
            detail: "x".to_owned(),
            key_bytes: 3,
            value_bytes: u64::try_from(value.len()).unwrap(),
            parked_at: DateTime::UNIX_EPOCH,
        };
        (letter, DeadLetterBytes { key: b"key".to_vec(), value: value.to_vec() })
    }

    fn event(epoch: u16) -> Vec<u8> {
        let mut value = Vec::new();
        wire::encode(&UsageEvent::example(), epoch, &mut value);
        value
    }

    fn refusal(found: Option<(DeadLetter, DeadLetterBytes)>) -> String {
        judge(&source(), found).unwrap_err().to_string()
    }

    #[test]
    fn an_event_is_published_as_it_is_where_it_belongs() {
        let ready = judge(&source(), Some(parked(&event(1)))).unwrap();
        assert_eq!(ready.value, event(1));
        assert_eq!(ready.key, b"8:org_demo,0:,11:txn-0000001,");
        assert_eq!(ready.partition, partition_of(&ready.key, 12));
        assert_eq!(ready.identity, identity_hash(&ready.key));
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        assert!(refusal(None).contains("no such dead letter"));
        assert!(refusal(Some(parked(b"{}"))).contains("still is no event: missing_field"));
        assert!(refusal(Some(parked(&event(2)))).contains("topic epoch 2"));
        let (letter, bytes) = parked(&event(1));
        let cut = DeadLetter { value_bytes: letter.value_bytes + 1, ..letter.clone() };
        assert!(refusal(Some((cut, bytes.clone()))).contains("only the beginning"));
        let other = DeadLetter { topic: "other".to_owned(), ..letter };
        assert!(refusal(Some((other, bytes))).contains("--kafka-topic"));
    }
}
