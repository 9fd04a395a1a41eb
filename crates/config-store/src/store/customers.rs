//! Customers: names for the ids that events carry.

use super::engine::Change;
use super::{ConfigStore, check};
use crate::error::{ConfigError, Entity, Failure};
use crate::model::{ChangeKind, Customer};
use chrono::{DateTime, Utc};

/// Most customers in one answer.
pub const CUSTOMERS_PAGE: u32 = 1_000;

const UPSERT: &str = "
    INSERT INTO customers (organization_id, external_customer_id, name, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $4)
    ON CONFLICT (organization_id, external_customer_id)
    DO UPDATE SET name = excluded.name, updated_at = excluded.updated_at
    RETURNING external_customer_id, name, created_at, updated_at";

const LIST: &str = "
    SELECT external_customer_id, name, created_at, updated_at FROM customers
    WHERE organization_id = $1 AND external_customer_id > $2
    ORDER BY external_customer_id LIMIT $3";

#[derive(sqlx::FromRow)]
struct Row {
    external_customer_id: String,
    name: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Customer {
    fn from(row: Row) -> Self {
        let Row { external_customer_id, name, created_at, updated_at } = row;
        Self { external_customer_id, name, created_at, updated_at }
    }
}

impl ConfigStore {
    /// Adds a customer, or renames it.
    pub async fn upsert_customer(
        &self,
        organization_id: &str,
        external_customer_id: &str,
        name: &str,
        at: DateTime<Utc>,
    ) -> Result<Customer, ConfigError> {
        check::external_customer_id(external_customer_id)?;
        check::name(name)?;
        let at = check::stored_instant(at);
        let change =
            || Change { organization_id, kind: ChangeKind::CustomerChanged, key_id: None, at };
        let row: Row = change!(self, "writing a customer", change(), |connection| {
            sqlx::query_as(UPSERT)
                .bind(organization_id)
                .bind(external_customer_id)
                .bind(name)
                .bind(at)
                .fetch_one(&mut *connection)
                .await
                .map_err(|error| {
                    Failure::of_insert(
                        error,
                        Entity::Customer,
                        external_customer_id,
                        organization_id,
                    )
                })?
        })
        .await?;
        Ok(row.into())
    }

    /// The customers whose id is after `after`, in the order of their ids' bytes; at most
    /// [`CUSTOMERS_PAGE`]. The last id of a full page is the `after` of the next.
    pub async fn customers(
        &self,
        organization_id: &str,
        after: Option<&str>,
    ) -> Result<Vec<Customer>, ConfigError> {
        let rows: Vec<Row> = read!(self, "listing customers", |connection| {
            sqlx::query_as(LIST)
                .bind(organization_id)
                .bind(after.unwrap_or_default())
                .bind(i64::from(CUSTOMERS_PAGE))
                .fetch_all(connection)
        })
        .await?;
        Ok(rows.into_iter().map(Customer::from).collect())
    }
}
