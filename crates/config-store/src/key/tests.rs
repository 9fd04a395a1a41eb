//! Properties of key texts.

use super::*;
use proptest::prelude::*;

fn pepper() -> Pepper {
    "a pepper for the tests".parse().unwrap()
}

#[test]
fn a_generated_key_parses_and_matches_its_own_hash_only() {
    let (one, other) = (GeneratedKey::new(&pepper()), GeneratedKey::new(&pepper()));
    let presented = PresentedKey::parse(&one.plaintext).unwrap();
    assert_eq!(presented.key_id(), one.key_id);
    assert_eq!(one.plaintext.len(), KEY_BYTES);
    assert!(presented.matches(&pepper(), &one.hash));
    assert!(!presented.matches(&pepper(), &other.hash));
    assert!(!presented.matches(&pepper(), &SecretHash::DUMMY));
    assert!(!presented.matches(&"another pepper, as long".parse().unwrap(), &one.hash));
}

#[test]
fn the_format_is_settled() {
    // Keys are in the hands of customers: a change of the checksum would lock all of them out.
    let secret = "S".repeat(SECRET_CHARS);
    let body = format!("tmk_0123456789_{secret}");
    assert_eq!(checksum_of(&body), *b"1QhJI5");
}

#[test]
fn a_hash_is_hmac_sha256_of_the_secret() {
    // The value was computed with `printf secret | openssl dgst -sha256 -hmac 0123456789abcdef`.
    let pepper = Pepper::new(b"0123456789abcdef").unwrap();
    let hex: String = pepper.hash("secret").0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "59fa6a4dccc441a2ceb3d563296276a0a2293d927d294d695cca0ca3c3556b35");
}

#[test]
fn a_pepper_has_at_least_sixteen_bytes() {
    assert!(Pepper::new(&[7; PEPPER_BYTES_MIN]).is_ok());
    assert_eq!(Pepper::new(&[7; PEPPER_BYTES_MIN - 1]).unwrap_err(), ShortPepper);
}

#[test]
fn secrets_are_never_printed() {
    let pepper = Pepper::new(b"hunter2hunter2hunter2").unwrap();
    let key = GeneratedKey::new(&pepper);
    let presented = PresentedKey::parse(&key.plaintext).unwrap();
    let printed = format!("{pepper:?} {presented:?} {:?}", key.hash);
    assert!(printed.contains(&key.key_id));
    assert!(!printed.contains(presented.secret) && !printed.contains("hunter2"), "{printed}");
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic(text in ".*") {
        prop_assert_eq!(PresentedKey::parse(&text), None);
    }

    #[test]
    fn a_text_of_the_right_shape_is_refused_by_its_checksum(
        key_id in "[0-9A-Za-z]{10}", secret in "[0-9A-Za-z]{43}", checksum in "[0-9A-Za-z]{6}",
    ) {
        let body = format!("tmk_{key_id}_{secret}");
        let right = checksum_of(&body);
        prop_assume!(checksum.as_bytes() != right);
        let wrong_text = format!("{body}_{checksum}");
        prop_assert_eq!(PresentedKey::parse(&wrong_text), None);
        let right_text = format!("{body}_{}", str::from_utf8(&right).unwrap());
        prop_assert_eq!(PresentedKey::parse(&right_text), Some(PresentedKey { key_id: &key_id, secret: &secret }));
    }

    #[test]
    fn one_changed_character_is_noticed(position in 0..KEY_BYTES, replacement in any::<char>()) {
        let key = GeneratedKey::new(&pepper()).plaintext;
        let mut changed: Vec<char> = key.chars().collect();
        prop_assume!(changed[position] != replacement);
        changed[position] = replacement;
        let changed: String = changed.into_iter().collect();
        prop_assert_eq!(PresentedKey::parse(&changed), None);
    }

    #[test]
    fn a_cut_or_lengthened_key_is_refused(cut in 0..KEY_BYTES, extra in "[0-9A-Za-z_ \n]{1,4}") {
        let key = GeneratedKey::new(&pepper()).plaintext;
        prop_assert_eq!(PresentedKey::parse(&key[..cut]), None);
        let longer = [key.as_str(), extra.as_str()].concat();
        prop_assert_eq!(PresentedKey::parse(&longer), None);
        let shifted = [extra.as_str(), key.as_str()].concat();
        prop_assert_eq!(PresentedKey::parse(&shifted), None);
    }
}
