//! Whether a presented key may do what it asks for: a decision on values.

use super::followed::LookupError;
use crate::key::{Pepper, PresentedKey, SecretHash};
use crate::model::ApiKey;
use crate::scope::{Scope, ScopeSet};
use crate::store::StoredKey;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// The organization that a request speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticatedOrganization {
    pub organization_id: String,
    pub key_id: String,
    pub scopes: ScopeSet,
}

/// Why a request is not let in. The first three are one thing to the client: an invalid key.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// The text cannot be a key of ours: cut, mistyped or made up.
    #[error("the API key is invalid")]
    Malformed,
    /// No key has this id.
    #[error("the API key is invalid")]
    Unknown,
    /// The id is a key's, the secret is not.
    #[error("the API key is invalid")]
    WrongSecret,
    #[error("the API key was revoked")]
    Revoked,
    #[error("the API key has expired")]
    Expired,
    #[error("the API key lacks the scope `{needed}`")]
    MissingScope { needed: Scope },
    /// The key is not cached and the database did not answer in time: it may be right or wrong.
    #[error("API keys cannot be checked at present")]
    Unavailable(#[source] LookupError),
}

/// A key as it is cached: everything that the decision needs.
#[derive(Debug)]
pub(super) struct CachedKey {
    hash: SecretHash,
    expires_at: Option<DateTime<Utc>>,
    is_revoked: bool,
    organization: Arc<AuthenticatedOrganization>,
}

impl From<StoredKey> for CachedKey {
    fn from(StoredKey { key, hash }: StoredKey) -> Self {
        let ApiKey {
            key_id,
            organization_id,
            name: _,
            scopes,
            created_at: _,
            expires_at,
            revoked_at,
        } = key;
        let organization = Arc::new(AuthenticatedOrganization { organization_id, key_id, scopes });
        Self { hash, expires_at, is_revoked: revoked_at.is_some(), organization }
    }
}

/// The secret is checked first, so that only the holder of a key learns that it was revoked.
pub(super) fn decide(
    presented: PresentedKey<'_>,
    found: Option<&CachedKey>,
    pepper: &Pepper,
    needed: Scope,
    at: DateTime<Utc>,
) -> Result<Arc<AuthenticatedOrganization>, AuthError> {
    let Some(key) = found else {
        // Costs what a wrong secret costs.
        return Err(if presented.matches(pepper, &SecretHash::DUMMY) {
            AuthError::WrongSecret
        } else {
            AuthError::Unknown
        });
    };
    if !presented.matches(pepper, &key.hash) {
        return Err(AuthError::WrongSecret);
    }
    if key.is_revoked {
        return Err(AuthError::Revoked);
    }
    if key.expires_at.is_some_and(|expires_at| expires_at <= at) {
        return Err(AuthError::Expired);
    }
    if !key.organization.scopes.contains(needed) {
        return Err(AuthError::MissingScope { needed });
    }
    Ok(Arc::clone(&key.organization))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::GeneratedKey;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    fn stored(generated: &GeneratedKey) -> StoredKey {
        StoredKey {
            key: ApiKey {
                key_id: generated.key_id.clone(),
                organization_id: "org".to_owned(),
                name: "a key".to_owned(),
                scopes: [Scope::Ingest].into_iter().collect(),
                created_at: at(0),
                expires_at: Some(at(1_000)),
                revoked_at: None,
            },
            hash: generated.hash,
        }
    }

    #[test]
    fn a_key_is_let_in_only_if_everything_is_right() {
        let pepper: Pepper = "a pepper for the tests".parse().unwrap();
        let (generated, other) = (GeneratedKey::new(&pepper), GeneratedKey::new(&pepper));
        let presented = PresentedKey::parse(&generated.plaintext).unwrap();
        let good = stored(&generated);
        let decide = |stored: Option<StoredKey>, needed, at| {
            decide(presented, stored.map(CachedKey::from).as_ref(), &pepper, needed, at)
        };

        let organization = decide(Some(good.clone()), Scope::Ingest, at(999)).unwrap();
        assert_eq!(organization.organization_id, "org");
        assert_eq!(organization.key_id, generated.key_id);

        let refusal = |stored, needed, at| decide(stored, needed, at).unwrap_err();
        assert!(matches!(refusal(None, Scope::Ingest, at(1)), AuthError::Unknown));
        assert!(matches!(
            refusal(Some(good.clone()), Scope::Read, at(1)),
            AuthError::MissingScope { needed: Scope::Read }
        ));
        assert!(matches!(
            refusal(Some(good.clone()), Scope::Ingest, at(1_000)),
            AuthError::Expired
        ));
        let mut revoked = good;
        revoked.key.revoked_at = Some(at(5));
        assert!(matches!(refusal(Some(revoked.clone()), Scope::Ingest, at(1)), AuthError::Revoked));
        // A wrong secret hides everything else about the key.
        let wrong = StoredKey { hash: other.hash, ..revoked };
        assert!(matches!(refusal(Some(wrong), Scope::Read, at(2_000)), AuthError::WrongSecret));
    }

    #[test]
    fn invalid_keys_look_alike() {
        let texts = [AuthError::Malformed, AuthError::Unknown, AuthError::WrongSecret]
            .map(|error| error.to_string());
        assert!(texts.iter().all(|text| *text == texts[0]));
    }
}
