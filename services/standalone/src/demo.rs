//! The demo organization, and the facts a person or a script needs to use the stack.

use crate::secrets::private_file;
use crate::supervisor::Pids;
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use config_store::{ConfigError, ConfigStore, Pepper, Scope};
use metering::{Aggregation, BillableMetric};
use std::io::Write as _;
use std::path::{Path, PathBuf};

const ORGANIZATION: &str = "org_demo";

/// What `demo.env` says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) url: String,
    pub(crate) api_key: String,
    /// The consumer's endpoint for operators.
    pub(crate) admin_url: String,
    /// With the read-only user and the database.
    pub(crate) clickhouse_url: String,
    /// Process ids by name.
    pub(crate) pids: Pids,
}

/// Makes the demo organization with its metrics, unless they are there, and returns an API key of it.
pub(crate) async fn seed(
    store: &ConfigStore,
    pepper: &Pepper,
    data_dir: &Path,
    at: DateTime<Utc>,
) -> anyhow::Result<String> {
    ignore_existing(store.create_organization(Some(ORGANIZATION), "Demo", at).await)?;
    let metrics = [
        ("api_calls", Aggregation::Count, None),
        ("tokens", Aggregation::Sum, Some("tokens")),
        ("active_users", Aggregation::UniqueCount, Some("user_id")),
    ];
    for (code, aggregation, field) in metrics {
        let metric =
            BillableMetric { code: code.to_owned(), aggregation, field: field.map(str::to_owned) };
        ignore_existing(store.create_billable_metric(ORGANIZATION, &metric, at).await)?;
    }
    // The key is shown once and stored nowhere but here; a lost file, or another store, means a new key.
    let path = data_dir.join("demo-api-key");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let known = store.list_api_keys(ORGANIZATION).await?;
    if known.iter().any(|key| kept.contains(&key.key_id)) {
        return Ok(kept.trim().to_owned());
    }
    let (_, key) = store
        .create_api_key(ORGANIZATION, pepper, "demo", &[Scope::Ingest, Scope::Read], None, at)
        .await?;
    let draft = path.with_extension("new");
    let mut file =
        private_file(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    std::fs::rename(&draft, &path)?;
    Ok(key)
}

fn ignore_existing<T>(created: Result<T, ConfigError>) -> Result<(), ConfigError> {
    match created {
        Ok(_) | Err(ConfigError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Facts {
    /// Writes `demo.env` whole or not at all: scripts source it while the stack runs.
    fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let (path, draft) = (data_dir.join("demo.env"), data_dir.join("demo.env.new"));
        let pids: Vec<_> = self.pids.iter().map(|(name, pid)| format!("{name}={pid}")).collect();
        let mut file = private_file(&draft)?;
        writeln!(
            file,
            "# Facts of the running stack, for scripts to source. The key and the password are this machine's demo ones."
        )?;
        writeln!(file, "TALLYMARK_URL='{}'", self.url)?;
        writeln!(file, "TALLYMARK_API_KEY='{}'", self.api_key)?;
        writeln!(file, "TALLYMARK_ADMIN_URL='{}'", self.admin_url)?;
        writeln!(file, "CLICKHOUSE_URL='{}'", self.clickhouse_url)?;
        writeln!(file, "TALLYMARK_PIDS='{}'", pids.join(","))?;
        file.sync_all()?;
        std::fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes `demo.env` anew for each set of process ids; with our own id when the services run in here.
    pub(crate) fn publisher(
        &self,
        data_dir: PathBuf,
        in_process: bool,
    ) -> impl Fn(&Pids) + Send + use<> {
        let facts = self.clone();
        move |pids| {
            let own = in_process.then(|| ("standalone", std::process::id()));
            let facts = Self {
                pids: pids.iter().map(|(name, pid)| (*name, *pid)).chain(own).collect(),
                ..facts.clone()
            };
            if let Err(error) = facts.write(&data_dir) {
                tracing::error!(error = format!("{error:#}"), "cannot write demo.env");
            }
        }
    }

    /// Tells a person that the stack is up.
    #[expect(clippy::print_stdout, reason = "this is what the program is started for")]
    pub(crate) fn announce(&self, data_dir: &Path, at: DateTime<Utc>) {
        println!("{}", self.banner(&data_dir.join("demo.env"), at));
    }

    /// What a person reads when the stack is up. `timestamp` is the present.
    fn banner(&self, demo_env: &Path, timestamp: DateTime<Utc>) -> String {
        let Self { url, api_key, admin_url: _, clickhouse_url, pids: _ } = self;
        let (demo_env, timestamp) = (demo_env.display(), timestamp.format("%Y-%m-%dT%H:%M:%SZ"));
        format!(
            r#"
Tallymark is up.

  API       {url}        (reference: {url}/docs)
  API key   {api_key}    (organization {ORGANIZATION})
  Facts     {demo_env}

Post two events:

  curl -sS '{url}/v1/events' -H 'Authorization: Bearer {api_key}' -H 'Content-Type: application/json' \
    -d '{{"events":[{{"transaction_id":"txn-1","external_customer_id":"customer-1","code":"api_calls","timestamp":"{timestamp}"}},{{"transaction_id":"txn-2","external_customer_id":"customer-1","code":"tokens","timestamp":"{timestamp}","properties":{{"tokens":1250}}}}]}}'

Ask what to bill, a second later:

  curl -sS '{clickhouse_url}' \
    -d 'SELECT external_customer_id, code, hour, events, value_sum FROM usage_by_hour FORMAT PrettyCompact'

Ctrl-C stops it; the data stays.
"#
        )
    }
}
