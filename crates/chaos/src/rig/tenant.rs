//! An organization that is metered, with its key and metrics, as an operator makes it.

use anyhow::{Context as _, bail};
use serde_json::Value;
use std::process::Command;
use testkit::stack::binary;

/// An organization, and a key that may send its events.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub organization: String,
    pub api_key: String,
}

/// Where tenants are made.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub(super) database_url: String,
    pub(super) pepper: String,
}

impl Configuration {
    pub(super) fn migrate(&self) -> anyhow::Result<()> {
        self.run(&["migrate"]).map(drop)
    }

    /// Two organizations: what one sends must never show at the other.
    pub(super) fn create_tenants(&self) -> anyhow::Result<Vec<Tenant>> {
        ["org_north", "org_south"].into_iter().map(|id| self.create_tenant(id)).collect()
    }

    fn create_tenant(&self, id: &str) -> anyhow::Result<Tenant> {
        self.run(&["create-organization", "--id", id, "--name", id])?;
        let metric = ["create-metric", "--organization", id, "--code"];
        self.run(&[&metric[..], &["api_calls", "--aggregation", "count"]].concat())?;
        let sum = ["tokens", "--aggregation", "sum", "--field", "tokens"];
        self.run(&[&metric[..], &sum].concat())?;
        let key = self.run(&["create-api-key", "--organization", id])?;
        let api_key = key["api_key"].as_str().context("create-api-key prints the key")?.to_owned();
        Ok(Tenant { organization: id.to_owned(), api_key })
    }

    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(binary("ingest-api"))
            .args(arguments)
            .arg("--json")
            .env("DATABASE_URL", &self.database_url)
            .env("TALLYMARK_API_KEY_PEPPER", &self.pepper)
            .output()?;
        if !output.status.success() {
            bail!("ingest-api {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
