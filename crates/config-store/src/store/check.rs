//! What may be stored: the bounds of ids and names.

use crate::error::ConfigError;
use chrono::{DateTime, SubsecRound, Utc};
use metering::event::{ID_BYTES_MAX, ORGANIZATION_ID_BYTES_MAX};

/// Longest name of anything, in bytes of UTF-8.
pub(super) const NAME_BYTES_MAX: usize = 255;

pub(super) fn organization_id(id: &str) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if (1..=ORGANIZATION_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(ConfigError::Invalid(format!(
        "an organization id has 1 to {ORGANIZATION_ID_BYTES_MAX} letters, digits, `_`, `-` and `.`"
    )))
}

pub(super) fn name(name: &str) -> Result<(), ConfigError> {
    text("a name", name, NAME_BYTES_MAX)
}

pub(super) fn external_customer_id(id: &str) -> Result<(), ConfigError> {
    text("an external_customer_id", id, ID_BYTES_MAX)
}

/// Instants are stored to the millisecond; a returned record equals the one that is read later.
pub(super) fn stored_instant(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(3)
}

fn text(what: &str, text: &str, bytes_max: usize) -> Result<(), ConfigError> {
    if text.trim().is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(ConfigError::Invalid(format!(
            "{what} has 1 to {bytes_max} bytes, is not blank and has no control characters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_are_held_to_their_bounds() {
        for good in ["o", "org_demo", "Org-1.eu", &"o".repeat(ORGANIZATION_ID_BYTES_MAX)] {
            organization_id(good).unwrap();
        }
        for bad in ["", "a b", "ö", "a/b", &"o".repeat(ORGANIZATION_ID_BYTES_MAX + 1)] {
            organization_id(bad).unwrap_err();
        }
        for good in ["n", "Zoë & Söhne", &"n".repeat(NAME_BYTES_MAX)] {
            name(good).unwrap();
        }
        for bad in ["", "  ", "a\0b", "a\nb", &"n".repeat(NAME_BYTES_MAX + 1)] {
            name(bad).unwrap_err();
        }
        external_customer_id(&"c".repeat(ID_BYTES_MAX)).unwrap();
        external_customer_id(&"c".repeat(ID_BYTES_MAX + 1)).unwrap_err();
    }
}
