//! The deduplication token of an insert: which log ranges it holds, and a hash of its bytes.

use fault_injection::{Sabotage, sabotaged};
use std::fmt::{self, Write as _};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Ranges that a token spells out. More are named by a hash, so that tokens stay below 1 KiB.
const SPELLED_RANGES_MAX: usize = 16;

/// Names the content of one insert, so that a cluster drops a retry of the same rows. What a single server
/// is sent differs in each attempt (docs/decisions/0008-a-token-for-each-attempt.md).
///
/// ClickHouse compares tokens only: the same token with other rows would lose them without an
/// error. That is why the hash of the bytes is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsertToken(String);

impl InsertToken {
    /// `ranges` are `(partition, first offset, last offset)`, both inclusive; `bytes` are the encoded rows.
    pub fn new(topic: &str, ranges: &[(u16, u64, u64)], bytes: &[u8]) -> Self {
        if sabotaged(Sabotage::TokenWithoutContent) {
            let begins: Vec<_> =
                ranges.iter().map(|(p, first, _)| format!("{p}:{first}")).collect();
            return Self(format!("{topic}/{}", begins.join(",")));
        }
        let mut token = format!("{topic}/");
        if ranges.len() <= SPELLED_RANGES_MAX {
            for (i, (partition, first, last)) in ranges.iter().enumerate() {
                let separator = if i == 0 { "" } else { "," };
                write!(token, "{separator}{partition}:{first}-{last}")
                    .expect("writing to a string");
            }
        } else {
            let mut hash = Xxh3::new();
            for (partition, first, last) in ranges {
                hash.update(&partition.to_le_bytes());
                hash.update(&first.to_le_bytes());
                hash.update(&last.to_le_bytes());
            }
            write!(token, "{} ranges {:032x}", ranges.len(), hash.digest128())
                .expect("writing to a string");
        }
        write!(token, "/{:032x}", xxh3_128(bytes)).expect("writing to a string");
        Self(token)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InsertToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_topic_ranges_and_bytes() {
        let token = InsertToken::new("usage.events", &[(3, 10, 19), (4, 7, 7)], b"rows");
        assert_eq!(
            token.as_str(),
            format!("usage.events/3:10-19,4:7-7/{:032x}", xxh3_128(b"rows"))
        );
    }

    #[test]
    fn a_change_anywhere_changes_the_token() {
        let token = |topic, ranges: &[_], bytes| InsertToken::new(topic, ranges, bytes);
        let few: Vec<_> = (0..16).map(|p| (p, 0, 9)).collect();
        let many: Vec<_> = (0..17).map(|p| (p, 0, 9)).collect();
        for ranges in [few, many] {
            let original = token("t", &ranges, b"rows");
            assert_eq!(original, token("t", &ranges, b"rows"));
            assert!(original.as_str().len() < 1024);
            assert_ne!(original, token("u", &ranges, b"rows"));
            assert_ne!(original, token("t", &ranges, b"rowz"));
            let mut changed = ranges.clone();
            changed[7].2 = 10;
            assert_ne!(original, token("t", &changed, b"rows"));
        }
    }
}
