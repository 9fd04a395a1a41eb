//! What a record holds: an event with its identity, or the reason why it is none. Pure.

mod sabotaged;

use event_log::wire::{self, Undecodable};
use event_log::{FetchedRecord, PartitionId};
use metering::identity::identity_hash;
use metering::{IdentityHash, UsageEvent};

/// The topic that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub topic: String,
    /// The generation of the topic. Rises when the topic is created anew, so that offsets that
    /// start over are still later than those in the store.
    pub epoch: u16,
    pub partition_count: u16,
}

/// A record that is an event.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    pub event: UsageEvent<'a>,
    pub identity: IdentityHash,
    pub fingerprint: u64,
}

/// A record that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A stable code: one of `event_log::wire::UndecodableCode`.
    pub reason: &'static str,
    /// One sentence.
    pub detail: String,
}

/// Why a record cannot become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRow {
    /// It is no event, and never will be one.
    Refused(Refused),
    /// It is an event of a later life of the topic than the one that is configured.
    LaterEpoch(u16),
}

impl From<Undecodable> for NoRow {
    fn from(undecodable: Undecodable) -> Self {
        Self::Refused(undecodable.into())
    }
}

impl From<Undecodable> for Refused {
    fn from(undecodable: Undecodable) -> Self {
        let Undecodable { code, detail } = undecodable;
        Self { reason: code.as_str(), detail }
    }
}

/// Reads a record of `partition`. `key` is a buffer for the keys of records that have none.
///
/// A record of an earlier epoch than the topic's was written by a producer that was not told of the
/// new one; its place is where it stands, so it is taken as it is. One of a later epoch means that
/// this consumer was not told of the new one: its rows would get wrong places for ever, and parked
/// it would be missing from the bill, so there is nothing to do but to stop.
pub fn decode<'a>(
    source: &Source,
    partition: PartitionId,
    record: &FetchedRecord<'a>,
    key: &mut Vec<u8>,
) -> Result<Decoded<'a>, NoRow> {
    let (mut event, epoch) = wire::decode(record.value)?;
    if epoch > source.epoch {
        return Err(NoRow::LaterEpoch(epoch));
    }
    wire::check_record(partition, source.partition_count, record.key, &event)?;
    event.value = event.value.map(sabotaged::quantity);
    let key: &[u8] = if record.key.is_empty() {
        key.clear();
        event.write_identity_key(key);
        key
    } else {
        // The check has found the key equal to the identity.
        record.key
    };
    let identity = sabotaged::identity(identity_hash(key), key, &event);
    let fingerprint = event.payload_fingerprint();
    Ok(Decoded { event, identity, fingerprint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::identity::partition_of;

    fn source() -> Source {
        Source { topic: "usage.events".to_owned(), epoch: 2, partition_count: 12 }
    }

    fn example(epoch: u16) -> (PartitionId, Vec<u8>, Vec<u8>) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        UsageEvent::example().write_identity_key(&mut key);
        wire::encode(&UsageEvent::example(), epoch, &mut value);
        (partition_of(&key, 12), key, value)
    }

    fn refusal(partition: PartitionId, key: &[u8], value: &[u8]) -> NoRow {
        decode(&source(), partition, &FetchedRecord { offset: 0, key, value }, &mut Vec::new())
            .unwrap_err()
    }

    fn reason(partition: PartitionId, key: &[u8], value: &[u8]) -> &'static str {
        match refusal(partition, key, value) {
            NoRow::Refused(refused) => refused.reason,
            NoRow::LaterEpoch(epoch) => panic!("of epoch {epoch}"),
        }
    }

    #[test]
    fn a_record_with_and_without_its_key_is_the_same_event() {
        let (partition, key, value) = example(2);
        for key in [&key[..], b""] {
            let record = FetchedRecord { offset: 0, key, value: &value };
            let decoded =
                decode(&source(), partition, &record, &mut b"left over".to_vec()).unwrap();
            assert_eq!(decoded.event, UsageEvent::example());
            assert_eq!(decoded.identity, identity_hash(b"8:org_demo,0:,11:txn-0000001,"));
            assert_eq!(decoded.fingerprint, UsageEvent::example().payload_fingerprint());
        }
    }

    #[test]
    fn an_earlier_epoch_is_taken_and_a_later_one_is_not_for_us() {
        let (partition, key, value) = example(1);
        assert!(
            decode(
                &source(),
                partition,
                &FetchedRecord { offset: 0, key: &key, value: &value },
                &mut Vec::new()
            )
            .is_ok()
        );
        assert_eq!(refusal(partition, &key, &example(3).2), NoRow::LaterEpoch(3));
    }

    #[test]
    fn what_is_no_event_has_a_reason() {
        let (partition, key, value) = example(2);
        assert_eq!(reason(partition, &key, b""), "empty_value");
        assert_eq!(reason(partition, &key, b"{}"), "missing_field");
        assert_eq!(reason(partition, b"another key", &value), "wrong_key");
        assert_eq!(reason((partition + 1) % 12, &key, &value), "wrong_partition");
    }
}
