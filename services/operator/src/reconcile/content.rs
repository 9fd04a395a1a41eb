//! What a bill depends on, as hashes: of one event, and of a set of events in any order. Pure.

use metering::UsageEvent;
use std::fmt;
use usage_store::conservation::StoredEvent;
use xxhash_rust::xxh3::xxh3_64;

/// BLAKE3-256 of everything that is stored of an event, its place in the log apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// Of an event in the log.
    pub fn of_event(event: &UsageEvent<'_>) -> Self {
        let UsageEvent {
            organization_id,
            transaction_scope,
            transaction_id,
            external_customer_id,
            external_subscription_id,
            code,
            timestamp,
            value,
            properties,
            accepted_at,
        } = event;
        let texts = [
            organization_id.as_ref(),
            transaction_scope.as_ref(),
            transaction_id.as_ref(),
            external_customer_id.as_ref(),
            external_subscription_id.as_ref(),
            code.as_ref(),
        ];
        let numbers = Numbers {
            timestamp: timestamp.timestamp_millis(),
            units: value.map(metering::Quantity::units),
            properties_hash: xxh3_64(properties.as_str().as_bytes()),
            accepted_at: accepted_at.timestamp_millis(),
        };
        hash(&texts, &numbers)
    }

    /// Of a row of the store.
    pub fn of_row(row: &StoredEvent<'_>) -> Self {
        let StoredEvent {
            position: _,
            organization_id,
            transaction_scope,
            transaction_id,
            external_customer_id,
            external_subscription_id,
            code,
            timestamp,
            units,
            properties_hash,
            accepted_at,
            // Of what is compared already.
            identity_key: _,
        } = row;
        let texts = [
            organization_id.as_ref(),
            transaction_scope.as_ref(),
            transaction_id.as_ref(),
            external_customer_id.as_ref(),
            external_subscription_id.as_ref(),
            code.as_ref(),
        ];
        let numbers = Numbers {
            timestamp: *timestamp,
            units: *units,
            properties_hash: *properties_hash,
            accepted_at: accepted_at.timestamp_millis(),
        };
        hash(&texts, &numbers)
    }

    /// Eight of its bytes, never zero: enough to compare a row with the record at its own place.
    pub fn short(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(bytes).max(1)
    }
}

struct Numbers {
    timestamp: i64,
    units: Option<i128>,
    properties_hash: u64,
    accepted_at: i64,
}

fn hash(texts: &[&str; 6], numbers: &Numbers) -> ContentHash {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        // Length first, so that no two lists of texts run together.
        hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    let Numbers { timestamp, units, properties_hash, accepted_at } = numbers;
    hasher.update(&timestamp.to_le_bytes());
    hasher.update(&[u8::from(units.is_some())]);
    hasher.update(&units.unwrap_or(0).to_le_bytes());
    hasher.update(&properties_hash.to_le_bytes());
    hasher.update(&accepted_at.to_le_bytes());
    ContentHash(*hasher.finalize().as_bytes())
}

/// A hash of a set of events that does not depend on their order: the sum of their hashes modulo 2²⁵⁶.
///
/// A sum and not an XOR, so that an event that is there twice does not vanish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetHash([u64; 4]);

impl SetHash {
    pub fn add(&mut self, content: &ContentHash) {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(content.0.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        self.add_words(words);
    }

    pub fn add_set(&mut self, other: &Self) {
        self.add_words(other.0);
    }

    fn add_words(&mut self, words: [u64; 4]) {
        let mut carry = false;
        for (sum, word) in self.0.iter_mut().zip(words) {
            let (partial, first) = sum.overflowing_add(word);
            let (total, second) = partial.overflowing_add(u64::from(carry));
            *sum = total;
            carry = first || second;
        }
    }
}

/// 64 hexadecimal digits, the most significant first.
impl fmt::Display for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use metering::Quantity;
    use proptest::prelude::*;
    use std::borrow::Cow;
    use usage_store::Position;

    fn row<'a>(event: &'a UsageEvent<'_>) -> StoredEvent<'a> {
        StoredEvent {
            position: Position { epoch: 1, partition: 0, offset: 0 },
            organization_id: Cow::Borrowed(&event.organization_id),
            transaction_scope: Cow::Borrowed(&event.transaction_scope),
            transaction_id: Cow::Borrowed(&event.transaction_id),
            external_customer_id: Cow::Borrowed(&event.external_customer_id),
            external_subscription_id: Cow::Borrowed(&event.external_subscription_id),
            code: Cow::Borrowed(&event.code),
            timestamp: event.timestamp.timestamp_millis(),
            units: event.value.map(Quantity::units),
            properties_hash: xxh3_64(event.properties.as_str().as_bytes()),
            accepted_at: event.accepted_at,
            identity_key: 0,
        }
    }

    #[test]
    fn every_part_of_an_event_counts_and_row_and_event_agree() {
        let plain = UsageEvent::example();
        let text = |text: &'static str| Cow::Borrowed(text);
        let variants = [
            UsageEvent { organization_id: text("other"), ..plain.clone() },
            UsageEvent { transaction_scope: text("other"), ..plain.clone() },
            UsageEvent { transaction_id: text("other"), ..plain.clone() },
            UsageEvent { external_customer_id: text("other"), ..plain.clone() },
            UsageEvent { external_subscription_id: text("other"), ..plain.clone() },
            UsageEvent { code: text("other"), ..plain.clone() },
            UsageEvent { timestamp: plain.timestamp + TimeDelta::milliseconds(1), ..plain.clone() },
            UsageEvent { value: Some(Quantity::ZERO), ..plain.clone() },
            UsageEvent { value: Quantity::from_units(1), ..plain.clone() },
            UsageEvent { properties: metering::properties::Properties::EMPTY, ..plain.clone() },
            UsageEvent {
                accepted_at: plain.accepted_at + TimeDelta::milliseconds(1),
                ..plain.clone()
            },
        ];
        let mut seen = vec![ContentHash::of_event(&plain)];
        for variant in &variants {
            let hash = ContentHash::of_event(variant);
            assert_eq!(hash, ContentHash::of_row(&row(variant)));
            assert!(!seen.contains(&hash), "{variant:?}");
            seen.push(hash);
        }
    }

    proptest! {
        #[test]
        fn a_sum_of_hashes_is_that_of_big_integers(hashes in prop::collection::vec(any::<[u8; 32]>(), 0..20), turn in 0_usize..20) {
            let mut set = SetHash::default();
            hashes.iter().for_each(|hash| set.add(&ContentHash(*hash)));
            let mut turned = SetHash::default();
            let at = turn.min(hashes.len());
            let (mut head, mut tail) = (SetHash::default(), SetHash::default());
            hashes[at..].iter().for_each(|hash| head.add(&ContentHash(*hash)));
            hashes[..at].iter().for_each(|hash| tail.add(&ContentHash(*hash)));
            turned.add_set(&head);
            turned.add_set(&tail);
            prop_assert_eq!(set, turned);
            // By hand, byte for byte.
            let mut sum = [0_u8; 32];
            for hash in &hashes {
                let mut carry = 0_u16;
                for (total, byte) in sum.iter_mut().zip(hash) {
                    let digit = u16::from(*total) + u16::from(*byte) + carry;
                    *total = digit.to_le_bytes()[0];
                    carry = digit >> 8;
                }
            }
            let expected: String = sum.iter().rev().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(set.to_string(), expected);
        }
    }
}
