//! The text of an API key, `tmk_<id>_<secret>_<checksum>`, and what is kept of its secret.
//!
//! The id (10 base62 characters) finds the key; the secret (43 base62 characters, 256 bits) proves
//! it; the checksum (6 base62 characters) lets a mistyped or random text be refused without asking
//! the database.

use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use rand::distr::Alphanumeric;
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// What every key begins with, for people and for scanners that look for leaked keys.
pub const PREFIX: &str = "tmk_";
/// Length of a key, in bytes of ASCII.
pub const KEY_BYTES: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS + 1 + CHECKSUM_CHARS;
/// Shortest pepper, in bytes.
pub const PEPPER_BYTES_MIN: usize = 16;

const ID_CHARS: usize = 10;
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed key as a client presented it. Whether it exists is not known yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedKey<'a> {
    key_id: &'a str,
    secret: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// The parts of `text`; `None` when it cannot be a key of ours.
    pub fn parse(text: &'a str) -> Option<Self> {
        let parts = text.strip_prefix(PREFIX)?;
        if text.len() != KEY_BYTES || !parts.is_ascii() {
            return None;
        }
        let (key_id, rest) = parts.split_at(ID_CHARS);
        let (secret, checksum) = rest.strip_prefix('_')?.split_at(SECRET_CHARS);
        let checksum = checksum.strip_prefix('_')?;
        let well_formed = is_base62(key_id)
            && is_base62(secret)
            && checksum.as_bytes() == checksum_of(&text[..KEY_BYTES - CHECKSUM_CHARS - 1]);
        well_formed.then_some(Self { key_id, secret })
    }

    /// The public part, which may be logged.
    pub const fn key_id(self) -> &'a str {
        self.key_id
    }

    /// Whether `hash` is the hash of this key's secret. Takes the same time for every wrong secret.
    pub(crate) fn matches(self, pepper: &Pepper, hash: &SecretHash) -> bool {
        pepper.hash(self.secret).0.ct_eq(&hash.0).into()
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A new key: its id, the hash to store, and the text to show once.
pub(crate) struct GeneratedKey {
    pub(crate) key_id: String,
    pub(crate) hash: SecretHash,
    pub(crate) plaintext: String,
}

impl GeneratedKey {
    pub(crate) fn new(pepper: &Pepper) -> Self {
        let mut random = rand::rng().sample_iter(Alphanumeric).map(char::from);
        let key_id: String = random.by_ref().take(ID_CHARS).collect();
        let secret: String = random.take(SECRET_CHARS).collect();
        let hash = pepper.hash(&secret);
        let body = [PREFIX, &key_id, "_", &secret].concat();
        let checksum = checksum_of(&body).map(char::from);
        let plaintext = body.chars().chain(['_']).chain(checksum).collect();
        Self { key_id, hash, plaintext }
    }
}

/// A random id, base62, with `chars` characters.
pub(crate) fn random_id(chars: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).map(char::from).take(chars).collect()
}

/// The server-side secret that key secrets are hashed with: without it, a copy of the database
/// cannot be used to make or to guess keys. Changing it makes every key invalid.
#[derive(Clone)]
pub struct Pepper {
    keyed: Hmac<Sha256>,
}

/// The pepper is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key pepper has at least {PEPPER_BYTES_MIN} bytes; make one with `openssl rand -hex 32`"
)]
pub struct ShortPepper;

impl Pepper {
    pub fn new(secret: &[u8]) -> Result<Self, ShortPepper> {
        if secret.len() < PEPPER_BYTES_MIN {
            return Err(ShortPepper);
        }
        let keyed = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        Ok(Self { keyed })
    }

    fn hash(&self, secret: &str) -> SecretHash {
        let mut keyed = self.keyed.clone();
        keyed.update(secret.as_bytes());
        SecretHash(keyed.finalize().into_bytes().into())
    }
}

impl FromStr for Pepper {
    type Err = ShortPepper;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.as_bytes())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[pepper]")
    }
}

/// HMAC-SHA256 of a key's secret. Without `PartialEq`: comparing is [`PresentedKey::matches`]'s work.
#[derive(Clone, Copy)]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    /// What an unknown key is compared with, so that it costs as much as a known one.
    pub(crate) const DUMMY: Self = Self([0; 32]);

    pub(crate) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

fn is_base62(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The upper 32 bits of XXH3-64 over everything before the last `_`, in base62, high digit first.
fn checksum_of(body: &str) -> [u8; CHECKSUM_CHARS] {
    let mut rest = xxhash_rust::xxh3::xxh3_64(body.as_bytes()) >> 32;
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(rest % 62).expect("below 62");
        *digit = BASE62[index];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests;
