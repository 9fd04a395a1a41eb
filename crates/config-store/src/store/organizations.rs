//! Organizations.

use super::engine::Change;
use super::{ConfigStore, check};
use crate::error::{ConfigError, Entity, Failure};
use crate::key::random_id;
use crate::model::{ChangeKind, Organization};
use chrono::{DateTime, Utc};

const INSERT: &str = "INSERT INTO organizations (id, name, created_at) VALUES ($1, $2, $3)";

/// Most organizations that a list holds.
pub const ORGANIZATIONS_LISTED_MAX: u32 = 10_000;

const LIST: &str =
    "SELECT id, name, created_at FROM organizations ORDER BY created_at DESC, id LIMIT $1";

const SELECT: &str = "SELECT id, name, created_at FROM organizations WHERE id = $1";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    created_at: DateTime<Utc>,
}

impl ConfigStore {
    /// Adds an organization under `id`, or under a new random id.
    pub async fn create_organization(
        &self,
        id: Option<&str>,
        name: &str,
        at: DateTime<Utc>,
    ) -> Result<Organization, ConfigError> {
        let id = id.map_or_else(|| format!("org_{}", random_id(20)), str::to_owned);
        check::organization_id(&id)?;
        check::name(name)?;
        let at = check::stored_instant(at);
        let change = || Change {
            organization_id: &id,
            kind: ChangeKind::OrganizationCreated,
            key_id: None,
            at,
        };
        change!(self, "creating an organization", change(), |connection| {
            sqlx::query(INSERT)
                .bind(&id)
                .bind(name)
                .bind(at)
                .execute(&mut *connection)
                .await
                .map_err(|error| Failure::of_insert(error, Entity::Organization, &id, &id))?;
        })
        .await?;
        Ok(Organization { id, name: name.to_owned(), created_at: at })
    }

    /// The organization `id`, or [`ConfigError::NotFound`].
    pub async fn organization(&self, id: &str) -> Result<Organization, ConfigError> {
        let row: Option<Row> = read!(self, "reading an organization", |connection| {
            sqlx::query_as(SELECT).bind(id).fetch_optional(connection)
        })
        .await?;
        let Row { id, name, created_at } =
            row.ok_or_else(|| ConfigError::not_found(Entity::Organization, id))?;
        Ok(Organization { id, name, created_at })
    }

    /// The organizations, the newest first; at most [`ORGANIZATIONS_LISTED_MAX`].
    pub async fn list_organizations(&self) -> Result<Vec<Organization>, ConfigError> {
        let rows: Vec<Row> = read!(self, "listing organizations", |connection| {
            sqlx::query_as(LIST).bind(i64::from(ORGANIZATIONS_LISTED_MAX)).fetch_all(connection)
        })
        .await?;
        Ok(rows
            .into_iter()
            .map(|Row { id, name, created_at }| Organization { id, name, created_at })
            .collect())
    }
}
