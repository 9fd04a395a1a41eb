//! Billable metrics.

use super::engine::Change;
use super::{ConfigStore, check};
use crate::error::{ConfigError, Entity, Failure};
use crate::model::ChangeKind;
use chrono::{DateTime, Utc};
use metering::{BillableMetric, MetricCatalog};

/// Most metrics of an organization that are not archived.
pub const METRICS_PER_ORGANIZATION_MAX: u32 = 1_000;

const COUNT: &str =
    "SELECT count(*) FROM billable_metrics WHERE organization_id = $1 AND archived_at IS NULL";

const INSERT: &str = "
    INSERT INTO billable_metrics (organization_id, code, aggregation, field, created_at)
    VALUES ($1, $2, $3, $4, $5)";

// A metric that was archived before keeps its first date.
const ARCHIVE: &str = "
    UPDATE billable_metrics SET archived_at = COALESCE(archived_at, $3)
    WHERE organization_id = $1 AND code = $2";

const LIST: &str = "
    SELECT code, aggregation, field FROM billable_metrics
    WHERE organization_id = $1 AND archived_at IS NULL";

#[derive(sqlx::FromRow)]
struct Row {
    code: String,
    aggregation: String,
    field: Option<String>,
}

impl TryFrom<Row> for BillableMetric {
    type Error = ConfigError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let Row { code, aggregation, field } = row;
        // A metric that is left out would have its events refused, so the whole catalog fails.
        let aggregation = aggregation.parse().map_err(|error| ConfigError::Unreadable {
            what: Entity::BillableMetric,
            detail: format!("`{code}`: {error}"),
        })?;
        Ok(Self { code, aggregation, field })
    }
}

impl ConfigStore {
    /// Adds a metric. A code can be used once; an archived one stays taken.
    pub async fn create_billable_metric(
        &self,
        organization_id: &str,
        metric: &BillableMetric,
        at: DateTime<Utc>,
    ) -> Result<(), ConfigError> {
        metric.check().map_err(ConfigError::Invalid)?;
        let BillableMetric { code, aggregation, field } = metric;
        let at = check::stored_instant(at);
        let change = || Change {
            organization_id,
            kind: ChangeKind::BillableMetricCreated,
            key_id: None,
            at,
        };
        change!(self, "creating a billable metric", change(), |connection| {
            let count: i64 =
                sqlx::query_scalar(COUNT).bind(organization_id).fetch_one(&mut *connection).await?;
            if count >= i64::from(METRICS_PER_ORGANIZATION_MAX) {
                return Err(too_many_metrics());
            }
            sqlx::query(INSERT)
                .bind(organization_id)
                .bind(code)
                .bind(aggregation.as_str())
                .bind(field)
                .bind(at)
                .execute(&mut *connection)
                .await
                .map_err(|error| {
                    Failure::of_insert(error, Entity::BillableMetric, code, organization_id)
                })?;
        })
        .await
    }

    /// Takes a metric out of the catalog: new events with its code are refused, stored ones stay.
    /// Archiving it again changes nothing.
    pub async fn archive_billable_metric(
        &self,
        organization_id: &str,
        code: &str,
        at: DateTime<Utc>,
    ) -> Result<(), ConfigError> {
        let at = check::stored_instant(at);
        let change = || Change {
            organization_id,
            kind: ChangeKind::BillableMetricArchived,
            key_id: None,
            at,
        };
        change!(self, "archiving a billable metric", change(), |connection| {
            let archived = sqlx::query(ARCHIVE)
                .bind(organization_id)
                .bind(code)
                .bind(at)
                .execute(&mut *connection)
                .await?;
            if archived.rows_affected() == 0 {
                return Err(ConfigError::not_found(Entity::BillableMetric, code).into());
            }
        })
        .await
    }

    /// The metrics of an organization that are not archived; empty for an unknown organization.
    pub async fn metric_catalog(
        &self,
        organization_id: &str,
    ) -> Result<MetricCatalog, ConfigError> {
        let rows: Vec<Row> = read!(self, "reading the billable metrics", |connection| {
            sqlx::query_as(LIST).bind(organization_id).fetch_all(connection)
        })
        .await?;
        rows.into_iter().map(BillableMetric::try_from).collect()
    }
}

fn too_many_metrics() -> Failure {
    Failure::Refused(ConfigError::Invalid(format!(
        "an organization has at most {METRICS_PER_ORGANIZATION_MAX} billable metrics; archive one first"
    )))
}
