//! API keys: exactly the well-formed texts parse, and one changed byte is noticed.
#![no_main]

use config_store::PresentedKey;
use config_store::key::KEY_BYTES;
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_CHARACTERS: usize = 10;
const SECRET_CHARACTERS: usize = 43;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
        // A text with the right checksum, which mutation alone does not find.
        if let Some((body, _)) = text.rsplit_once('_') {
            check(&format!("{body}_{}", checksum(body)));
        }
    }
    check_damaged(data);
});

/// The parser takes `text` if and only if it has the documented form, and finds its parts.
fn check(text: &str) {
    let parsed = PresentedKey::parse(text);
    let parts: Vec<&str> = text.split('_').collect();
    let expected = match parts[..] {
        ["tmk", id, secret, sum] => {
            let (body, _) = text.rsplit_once('_').expect("there are underscores");
            let well_formed = id.len() == ID_CHARACTERS
                && secret.len() == SECRET_CHARACTERS
                && [id, secret].concat().bytes().all(|byte| BASE62.contains(&byte))
                && sum == checksum(body);
            well_formed.then_some((id, secret))
        }
        _ => None,
    };
    assert_eq!(parsed.map(PresentedKey::key_id), expected.map(|(id, _)| id), "{text}");
    if let (Some(key), Some((_, secret))) = (parsed, expected) {
        assert_eq!(text.len(), KEY_BYTES);
        assert!(!format!("{key:?}").contains(secret), "a secret is never printed");
    }
}

/// Makes a good key of the input's first bytes, and changes what its next bytes say.
fn check_damaged(data: &[u8]) {
    let Some((seed, rest)) = data.split_at_checked(ID_CHARACTERS + SECRET_CHARACTERS) else {
        return;
    };
    let characters: String =
        seed.iter().map(|byte| char::from(BASE62[usize::from(*byte) % 62])).collect();
    let (id, secret) = characters.split_at(ID_CHARACTERS);
    let body = format!("tmk_{id}_{secret}");
    let text = format!("{body}_{}", checksum(&body));
    assert_eq!(PresentedKey::parse(&text).map(PresentedKey::key_id), Some(id), "{text}");
    let [place, replacement, ..] = rest else { return };
    let mut damaged = text.clone().into_bytes();
    damaged[usize::from(*place) % KEY_BYTES] = *replacement;
    let damaged = String::from_utf8_lossy(&damaged);
    assert_eq!(PresentedKey::parse(&damaged).is_some(), damaged == text, "{damaged}");
    assert!(PresentedKey::parse(&text[..usize::from(*place) % KEY_BYTES]).is_none(), "{text}");
}

/// The upper half of XXH3-64 in base62: the remainders of repeated division, the last one first.
fn checksum(body: &str) -> String {
    let number = xxh3_64(body.as_bytes()) >> 32;
    let digit = |power| {
        let remainder = number / 62_u64.pow(power) % 62;
        char::from(BASE62[usize::try_from(remainder).expect("below 62")])
    };
    (0..6).rev().map(digit).collect()
}
