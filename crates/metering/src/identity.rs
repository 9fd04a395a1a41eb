//! Who an event is: its identity, the partition that owns it, and the hash it is remembered by.

use crate::UsageEvent;
use std::fmt;

/// The 128-bit hash of an identity, as the dedup index and the store hold it.
///
/// It is the first half of BLAKE3-256: collision-resistant, so no sender can craft an id that
/// erases somebody's usage, and without a key that could be lost (docs/decisions/0002).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityHash(pub [u8; 16]);

impl fmt::Debug for IdentityHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl UsageEvent<'_> {
    /// Appends the record key: `(organization_id, transaction_scope, transaction_id)` as three netstrings.
    ///
    /// Length-prefixed, so that ("a-b", "c") and ("a", "b-c") stay apart; plain text, so that any
    /// Kafka client can build it and tools can show it.
    pub fn write_identity_key(&self, key: &mut Vec<u8>) {
        for part in [
            self.organization_id.as_ref(),
            self.transaction_scope.as_ref(),
            self.transaction_id.as_ref(),
        ] {
            write_netstring(part.as_bytes(), key);
        }
    }
}

fn write_netstring(part: &[u8], key: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut length = part.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789"[length % 10];
        length /= 10;
        if length == 0 {
            break;
        }
    }
    key.extend_from_slice(&digits[start..]);
    key.push(b':');
    key.extend_from_slice(part);
    key.push(b',');
}

/// The hash an identity key is remembered by.
pub fn identity_hash(key: &[u8]) -> IdentityHash {
    let digest = blake3::hash(key);
    let mut half = [0; 16];
    half.copy_from_slice(&digest.as_bytes()[..16]);
    IdentityHash(half)
}

/// The partition that owns an identity key: `(murmur2(key) & 0x7fffffff) % partitions`.
///
/// This is the default partitioner of Apache Kafka's Java client, so any producer that sets the
/// documented key agrees with us without code of ours.
///
/// # Panics
/// When `partitions` is zero; topics have at least one.
pub fn partition_of(key: &[u8], partitions: u16) -> u16 {
    assert!(partitions > 0, "a topic has at least one partition");
    let positive = murmur2(key) & 0x7fff_ffff;
    u16::try_from(positive % u32::from(partitions)).expect("the remainder is below a u16")
}

/// Apache Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`, seed `0x9747b28c`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // The reference mixes in the length as a 32-bit int; keys are far below 4 GiB.
    let mut h = SEED ^ u32::try_from(data.len()).expect("a key is shorter than 4 GiB");
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::borrow::Cow;

    /// Values from Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, expected) in cases {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }

    fn key(organization: &str, scope: &str, transaction: &str) -> Vec<u8> {
        let event = UsageEvent {
            organization_id: Cow::Borrowed(organization),
            transaction_scope: Cow::Borrowed(scope),
            transaction_id: Cow::Borrowed(transaction),
            ..UsageEvent::example()
        };
        let mut key = Vec::new();
        event.write_identity_key(&mut key);
        key
    }

    #[test]
    fn identity_key_is_three_netstrings() {
        assert_eq!(key("org_demo", "", "txn-0000001"), b"8:org_demo,0:,11:txn-0000001,");
    }

    proptest! {
        #[test]
        fn different_identities_have_different_keys(a in "[ab:,0-9]{0,12}", b in "[ab:,0-9]{0,12}", c in "[ab:,0-9]{0,12}", d in "[ab:,0-9]{0,12}", e in "[ab:,0-9]{0,12}", f in "[ab:,0-9]{0,12}") {
            prop_assert_eq!((&a, &b, &c) == (&d, &e, &f), key(&a, &b, &c) == key(&d, &e, &f));
        }

        #[test]
        fn every_identity_has_one_partition_within_the_topic(id in ".{0,40}", partitions in 1u16..1000) {
            let owner = partition_of(&key("o", "", &id), partitions);
            prop_assert!(owner < partitions);
            prop_assert_eq!(owner, partition_of(&key("o", "", &id), partitions));
        }
    }
}
