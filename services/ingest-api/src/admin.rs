//! Commands for operators: organizations, API keys and billable metrics.

use crate::config::DatabaseArgs;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use config_store::{ApiKey, ConfigError, ConfigStore, Organization, Pepper, PoolOptions, Scope};
use metering::{Aggregation, BillableMetric};
use serde_json::{Value, json};
use service_kit::duration::parse_duration;
use std::time::Duration;

/// A command other than serving.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Bring the configuration database to the state this version needs
    Migrate(OnlyCommonArgs),
    /// Create an organization, whom events and keys belong to
    CreateOrganization(CreateOrganizationArgs),
    /// List the organizations, the newest first
    ListOrganizations(OnlyCommonArgs),
    /// Create an API key; its text is shown this once
    CreateApiKey(CreateApiKeyArgs),
    /// Revoke an API key; it is refused everywhere within two seconds
    RevokeApiKey(RevokeApiKeyArgs),
    /// List the API keys of an organization, without their secrets
    ListApiKeys(ListArgs),
    /// Create a billable metric
    CreateMetric(CreateMetricArgs),
    /// List the billable metrics of an organization
    ListMetrics(ListArgs),
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Print JSON instead of lines for people
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct OnlyCommonArgs {
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Debug)]
pub struct CreateOrganizationArgs {
    /// A name for people
    #[arg(long)]
    pub name: String,
    /// Id of the organization; a random one when left out
    #[arg(long)]
    pub id: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Debug)]
pub struct CreateApiKeyArgs {
    /// Id of the organization the key speaks for
    #[arg(long)]
    pub organization: String,
    /// What the key is for
    #[arg(long, default_value = "default")]
    pub name: String,
    /// What the key may do: ingest, read or admin; several separated by commas
    #[arg(long, value_delimiter = ',', default_value = "ingest")]
    pub scopes: Vec<Scope>,
    /// When the key ends, from now; never when left out
    #[arg(long, value_parser = parse_duration)]
    pub expires_in: Option<Duration>,
    /// Secret that API keys are hashed with; the same as that of the service
    #[arg(long, env = "TALLYMARK_API_KEY_PEPPER", hide_env_values = true)]
    pub api_key_pepper: Pepper,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Debug)]
pub struct RevokeApiKeyArgs {
    /// Id of the organization the key belongs to
    #[arg(long)]
    pub organization: String,
    /// The part of the key between its first two underscores
    #[arg(long)]
    pub key_id: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Debug)]
pub struct CreateMetricArgs {
    /// Id of the organization that bills by the metric
    #[arg(long)]
    pub organization: String,
    /// What events name the metric by
    #[arg(long)]
    pub code: String,
    /// count, sum, max, min, unique_count, latest, weighted_sum or percentile
    #[arg(long)]
    pub aggregation: Aggregation,
    /// The property that holds the quantity or the distinct value; the event's `value` when left out
    #[arg(long)]
    pub field: Option<String>,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Debug)]
pub struct ListArgs {
    /// Id of the organization
    #[arg(long)]
    pub organization: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What a command has to say: lines for people, and the same as JSON.
struct Report {
    lines: Vec<String>,
    json: Value,
}

impl AdminCommand {
    /// Carries the command out at `at`, and returns what to print.
    pub async fn run(&self, at: DateTime<Utc>) -> Result<String, ConfigError> {
        let CommonArgs { database, json } = self.common();
        let store =
            ConfigStore::connect(database.database_url.expose(), PoolOptions::default()).await?;
        let report = self.carry_out(&store, at).await;
        store.close().await;
        let Report { lines, json: value } = report?;
        Ok(if *json { value.to_string() } else { lines.join("\n") })
    }

    fn common(&self) -> &CommonArgs {
        match self {
            Self::Migrate(args) | Self::ListOrganizations(args) => &args.common,
            Self::CreateOrganization(args) => &args.common,
            Self::CreateApiKey(args) => &args.common,
            Self::RevokeApiKey(args) => &args.common,
            Self::CreateMetric(args) => &args.common,
            Self::ListApiKeys(args) | Self::ListMetrics(args) => &args.common,
        }
    }

    async fn carry_out(
        &self,
        store: &ConfigStore,
        at: DateTime<Utc>,
    ) -> Result<Report, ConfigError> {
        match self {
            Self::Migrate(_) => {
                store.migrate().await?;
                Ok(Report {
                    lines: vec!["the configuration database is up to date".to_owned()],
                    json: json!({"migrated": true}),
                })
            }
            Self::CreateOrganization(CreateOrganizationArgs { name, id, common: _ }) => store
                .create_organization(id.as_deref(), name, at)
                .await
                .map(|organization| Report::one(organization_row(organization))),
            Self::ListOrganizations(_) => store
                .list_organizations()
                .await
                .map(|all| Report::list(all.into_iter().map(organization_row))),
            Self::ListMetrics(args) => {
                let catalog = store.metric_catalog(&args.organization).await?;
                let mut metrics: Vec<_> = catalog.iter().cloned().collect();
                metrics.sort_unstable_by(|a, b| a.code.cmp(&b.code));
                Ok(Report::list(metrics.into_iter().map(metric_row)))
            }
            Self::CreateApiKey(args) => create_api_key(args, store, at).await,
            Self::RevokeApiKey(RevokeApiKeyArgs { organization, key_id, common: _ }) => store
                .revoke_api_key(organization, key_id, at)
                .await
                .map(|key| Report::one(key_row(key))),
            Self::ListApiKeys(args) => store
                .list_api_keys(&args.organization)
                .await
                .map(|all| Report::list(all.into_iter().map(key_row))),
            Self::CreateMetric(CreateMetricArgs {
                organization,
                code,
                aggregation,
                field,
                common: _,
            }) => {
                let metric = BillableMetric {
                    code: code.clone(),
                    aggregation: *aggregation,
                    field: field.clone(),
                };
                store.create_billable_metric(organization, &metric, at).await?;
                Ok(Report::one(metric_row(metric)))
            }
        }
    }
}

async fn create_api_key(
    args: &CreateApiKeyArgs,
    store: &ConfigStore,
    at: DateTime<Utc>,
) -> Result<Report, ConfigError> {
    let CreateApiKeyArgs { organization, name, scopes, expires_in, api_key_pepper, common: _ } =
        args;
    let expires_at = expires_in
        .and_then(|span| TimeDelta::from_std(span).ok())
        .and_then(|span| at.checked_add_signed(span));
    let (key, plaintext) =
        store.create_api_key(organization, api_key_pepper, name, scopes, expires_at, at).await?;
    let mut report = Report::one(key_row(key));
    report.lines.insert(0, format!("{plaintext}\n(the key is shown this once)"));
    report.json["api_key"] = plaintext.into();
    Ok(report)
}

/// A row of a report: its names and values, in order.
type Row = Vec<(&'static str, Option<String>)>;

impl Report {
    fn one(row: Row) -> Self {
        let lines = row
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.as_deref().unwrap_or("-")))
            .collect();
        Self { lines, json: object(&row) }
    }

    fn list(rows: impl Iterator<Item = Row>) -> Self {
        let rows: Vec<Row> = rows.collect();
        let line = |row: &Row| {
            row.iter()
                .map(|(_, value)| value.as_deref().unwrap_or("-"))
                .collect::<Vec<_>>()
                .join("\t")
        };
        let head = rows
            .first()
            .map(|row| row.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("\t"));
        let lines = head.into_iter().chain(rows.iter().map(line)).collect();
        Self { lines, json: rows.iter().map(object).collect() }
    }
}

fn object(row: &Row) -> Value {
    Value::Object(row.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect())
}

fn organization_row(organization: Organization) -> Row {
    let Organization { id, name, created_at } = organization;
    vec![
        ("organization", Some(id)),
        ("name", Some(name)),
        ("created_at", Some(created_at.to_rfc3339())),
    ]
}

fn key_row(key: ApiKey) -> Row {
    let ApiKey { key_id, organization_id, name, scopes, created_at, expires_at, revoked_at } = key;
    vec![
        ("key_id", Some(key_id)),
        ("organization", Some(organization_id)),
        ("name", Some(name)),
        ("scopes", Some(scopes.to_string())),
        ("created_at", Some(created_at.to_rfc3339())),
        ("expires_at", expires_at.map(|at| at.to_rfc3339())),
        ("revoked_at", revoked_at.map(|at| at.to_rfc3339())),
    ]
}

fn metric_row(metric: BillableMetric) -> Row {
    let BillableMetric { code, aggregation, field } = metric;
    vec![("code", Some(code)), ("aggregation", Some(aggregation.to_string())), ("field", field)]
}
