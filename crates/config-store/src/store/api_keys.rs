//! API keys: made, found, listed, revoked.

use super::engine::Change;
use super::{ConfigStore, check};
use crate::error::{ConfigError, Entity, Failure};
use crate::key::{GeneratedKey, Pepper, SecretHash};
use crate::model::{ApiKey, ChangeKind};
use crate::scope::{Scope, ScopeSet};
use chrono::{DateTime, Utc};

/// Most keys of an organization that are not revoked.
pub const KEYS_PER_ORGANIZATION_MAX: u32 = 1_000;
/// Most keys that a list holds.
pub const KEYS_LISTED_MAX: u32 = 10_000;

const COUNT: &str =
    "SELECT count(*) FROM api_keys WHERE organization_id = $1 AND revoked_at IS NULL";

const INSERT: &str = "
    INSERT INTO api_keys (key_id, organization_id, name, secret_hash, scopes, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

// A key that was revoked before keeps its first date.
const REVOKE: &str = "
    UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $3)
    WHERE key_id = $1 AND organization_id = $2
    RETURNING key_id, organization_id, name, scopes, created_at, expires_at, revoked_at";

const SELECT: &str = "
    SELECT key_id, organization_id, name, scopes, created_at, expires_at, revoked_at, secret_hash
    FROM api_keys WHERE key_id = $1";

const LIST: &str = "
    SELECT key_id, organization_id, name, scopes, created_at, expires_at, revoked_at
    FROM api_keys WHERE organization_id = $1
    ORDER BY created_at DESC, key_id LIMIT $2";

/// A key with what is needed to check it.
#[derive(Clone, Debug)]
pub(crate) struct StoredKey {
    pub(crate) key: ApiKey,
    pub(crate) hash: SecretHash,
}

#[derive(sqlx::FromRow)]
struct Row {
    key_id: String,
    organization_id: String,
    name: String,
    scopes: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct SecretRow {
    #[sqlx(flatten)]
    key: Row,
    secret_hash: Vec<u8>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        let Row { key_id, organization_id, name, scopes, created_at, expires_at, revoked_at } = row;
        let scopes = ScopeSet::from_stored(&scopes);
        Self { key_id, organization_id, name, scopes, created_at, expires_at, revoked_at }
    }
}

/// What a new key is to be.
#[derive(Clone, Copy, Debug)]
struct KeyRequest<'a> {
    name: &'a str,
    scopes: ScopeSet,
    expires_at: Option<DateTime<Utc>>,
    at: DateTime<Utc>,
}

impl KeyRequest<'_> {
    fn check(&self) -> Result<(), ConfigError> {
        check::name(self.name)?;
        if self.scopes.is_empty() {
            return Err(ConfigError::Invalid(
                "a key needs at least one of the scopes ingest, read and admin".to_owned(),
            ));
        }
        if self.expires_at.is_some_and(|expires_at| expires_at <= self.at) {
            return Err(ConfigError::Invalid("a key expires after it is made".to_owned()));
        }
        Ok(())
    }
}

impl ConfigStore {
    /// Makes a key. Returns its record and its text, which is not kept and has to be shown now.
    #[expect(clippy::too_many_arguments, reason = "each is a plain property of the new key")]
    pub async fn create_api_key(
        &self,
        organization_id: &str,
        pepper: &Pepper,
        name: &str,
        scopes: &[Scope],
        expires_at: Option<DateTime<Utc>>,
        at: DateTime<Utc>,
    ) -> Result<(ApiKey, String), ConfigError> {
        let request = KeyRequest {
            name,
            scopes: scopes.iter().copied().collect(),
            expires_at: expires_at.map(check::stored_instant),
            at: check::stored_instant(at),
        };
        request.check()?;
        let generated = GeneratedKey::new(pepper);
        let key = self.insert_api_key(organization_id, &generated, request).await?;
        Ok((key, generated.plaintext))
    }

    async fn insert_api_key(
        &self,
        organization_id: &str,
        GeneratedKey { key_id, hash, .. }: &GeneratedKey,
        KeyRequest { name, scopes, expires_at, at }: KeyRequest<'_>,
    ) -> Result<ApiKey, ConfigError> {
        let change = || Change {
            organization_id,
            kind: ChangeKind::ApiKeyCreated,
            key_id: Some(key_id),
            at,
        };
        change!(self, "creating an API key", change(), |connection| {
            let count: i64 =
                sqlx::query_scalar(COUNT).bind(organization_id).fetch_one(&mut *connection).await?;
            if count >= i64::from(KEYS_PER_ORGANIZATION_MAX) {
                return Err(too_many_keys());
            }
            sqlx::query(INSERT)
                .bind(key_id)
                .bind(organization_id)
                .bind(name)
                .bind(hash.as_bytes())
                .bind(scopes.to_string())
                .bind(at)
                .bind(expires_at)
                .execute(&mut *connection)
                .await
                .map_err(|error| {
                    Failure::of_insert(error, Entity::ApiKey, key_id, organization_id)
                })?;
        })
        .await?;
        Ok(ApiKey {
            key_id: key_id.clone(),
            organization_id: organization_id.to_owned(),
            name: name.to_owned(),
            scopes,
            created_at: at,
            expires_at,
            revoked_at: None,
        })
    }

    /// Revokes a key for ever; revoking it again changes nothing.
    pub async fn revoke_api_key(
        &self,
        organization_id: &str,
        key_id: &str,
        at: DateTime<Utc>,
    ) -> Result<ApiKey, ConfigError> {
        let at = check::stored_instant(at);
        let change = || Change {
            organization_id,
            kind: ChangeKind::ApiKeyRevoked,
            key_id: Some(key_id),
            at,
        };
        change!(self, "revoking an API key", change(), |connection| {
            let row: Option<Row> = sqlx::query_as(REVOKE)
                .bind(key_id)
                .bind(organization_id)
                .bind(at)
                .fetch_optional(&mut *connection)
                .await?;
            row.map(ApiKey::from).ok_or_else(|| ConfigError::not_found(Entity::ApiKey, key_id))?
        })
        .await
    }

    /// The keys of an organization, the newest first, revoked and expired ones too; at most
    /// [`KEYS_LISTED_MAX`].
    pub async fn list_api_keys(&self, organization_id: &str) -> Result<Vec<ApiKey>, ConfigError> {
        let rows: Vec<Row> = read!(self, "listing API keys", |connection| {
            sqlx::query_as(LIST)
                .bind(organization_id)
                .bind(i64::from(KEYS_LISTED_MAX))
                .fetch_all(connection)
        })
        .await?;
        Ok(rows.into_iter().map(ApiKey::from).collect())
    }

    /// The key with this id, whosever it is.
    pub(crate) async fn stored_key(&self, key_id: &str) -> Result<Option<StoredKey>, ConfigError> {
        let row: Option<SecretRow> = read!(self, "reading an API key", |connection| {
            sqlx::query_as(SELECT).bind(key_id).fetch_optional(connection)
        })
        .await?;
        row.map(|SecretRow { key, secret_hash }| {
            let hash =
                SecretHash::from_stored(&secret_hash).ok_or_else(|| ConfigError::Unreadable {
                    what: Entity::ApiKey,
                    detail: "its hash does not have 32 bytes".to_owned(),
                })?;
            Ok(StoredKey { key: key.into(), hash })
        })
        .transpose()
    }
}

fn too_many_keys() -> Failure {
    Failure::Refused(ConfigError::Invalid(format!(
        "an organization has at most {KEYS_PER_ORGANIZATION_MAX} keys that are not revoked; revoke one first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_expires_after_it_is_made_and_may_do_something() {
        let at = DateTime::from_timestamp_millis(1_000).unwrap();
        let request = KeyRequest {
            name: "ci",
            scopes: Scope::ALL.into_iter().collect(),
            expires_at: DateTime::from_timestamp_millis(1_001),
            at,
        };
        request.check().unwrap();
        KeyRequest { expires_at: None, ..request }.check().unwrap();
        KeyRequest { expires_at: Some(at), ..request }.check().unwrap_err();
        KeyRequest { scopes: ScopeSet::default(), ..request }.check().unwrap_err();
        KeyRequest { name: " ", ..request }.check().unwrap_err();
    }
}
