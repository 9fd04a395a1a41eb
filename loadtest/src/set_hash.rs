//! One number for a set of rows: the sum of their SHA-256 hashes, modulo 2²⁵⁶.
//!
//! Two sets with the same number are the same set; the order does not count, and a row that is there
//! twice does. The store calculates it by itself, which checks the other comparisons too.

use num_bigint::BigUint;
use sha2::{Digest, Sha256};

/// A sum of hashes, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetHash {
    /// The lowest first.
    limbs: [u64; 4],
    pub rows: u64,
}

impl SetHash {
    pub fn add(&mut self, row: &[u8]) {
        let mut limbs = [0; 4];
        let hash: [u8; 32] = Sha256::digest(row).into();
        for (limb, bytes) in limbs.iter_mut().zip(hash.as_chunks().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        self.add_all(&Self { limbs, rows: 1 });
    }

    pub fn add_all(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(carry.into());
            (*limb, carry) = (sum, first || second);
        }
        self.rows += other.rows;
    }
}

/// In decimal, as ClickHouse prints a `UInt256`.
impl std::fmt::Display for SetHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        BigUint::from_bytes_le(&bytes).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(rows: &[&[u8]]) -> SetHash {
        let mut hash = SetHash::default();
        rows.iter().for_each(|row| hash.add(row));
        hash
    }

    #[test]
    fn the_hash_of_one_row_is_its_sha256_as_a_little_endian_number() {
        // SELECT reinterpretAsUInt256(SHA256('a'))
        let expected =
            "84711363021411756607719676028970048163078191317268235912714522710040568240074";
        assert_eq!(hash(&[b"a"]).to_string(), expected);
        assert_eq!(SetHash::default().to_string(), "0");
    }

    #[test]
    fn order_does_not_count_but_every_row_does() {
        let both = hash(&[b"a", b"b"]);
        assert_eq!(both, hash(&[b"b", b"a"]));
        assert_ne!(both.to_string(), hash(&[b"a", b"a", b"b"]).to_string());
        assert_ne!(both.to_string(), hash(&[b"ab"]).to_string());
        let mut sum = hash(&[b"a"]);
        sum.add_all(&hash(&[b"b"]));
        assert_eq!(sum, both);
    }

    #[test]
    fn sums_wrap() {
        let mut sum = SetHash { limbs: [u64::MAX; 4], rows: 0 };
        sum.add_all(&SetHash { limbs: [1, 0, 0, 0], rows: 0 });
        assert_eq!(sum.to_string(), "0");
    }
}
