//! Whether a revoked API key is refused. No load can tell: its keys are valid.

use super::Found;
use crate::rig::{READY_LIMIT, Rig, Tenant, within};
use anyhow::{Context as _, bail};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;
use testkit::stack::binary;

/// A revocation is promised to be seen everywhere within two seconds.
const AFTER: Duration = Duration::from_secs(3);

pub(super) fn revocation(rig: &Rig) -> anyhow::Result<Found> {
    let tenant = rig.tenants().last().context("a stack has tenants")?;
    let http = reqwest::blocking::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/events", rig.api_url()?);
    // The key is checked before the body is looked at.
    let status = || -> anyhow::Result<u16> {
        let request = http.post(&url).bearer_auth(&tenant.api_key);
        Ok(request.header("content-type", "application/json").body("{}").send()?.status().as_u16())
    };
    within(READY_LIMIT, "the key is accepted", || match status() {
        Ok(422 | 400) => Ok(()),
        Ok(status) => Err(format!("status {status}")),
        Err(error) => Err(format!("{error:#}")),
    })?;
    revoke(rig, tenant)?;
    sleep(AFTER);
    Ok(match status()? {
        401 => Found::default(),
        422 | 400 => Found {
            findings: [("accepted_after_revocation".to_owned(), 1)].into(),
            ..Found::default()
        },
        other => bail!("a revoked key was answered {other}"),
    })
}

fn revoke(rig: &Rig, tenant: &Tenant) -> anyhow::Result<()> {
    let key_id = tenant.api_key.split('_').nth(1).context("a key has an id")?;
    let database = rig.directory().join("standalone/config.sqlite");
    let output = Command::new(binary("ingest-api"))
        .args(["revoke-api-key", "--organization", &tenant.organization, "--key-id", key_id])
        .env("DATABASE_URL", format!("sqlite://{}", database.display()))
        .output()?;
    if !output.status.success() {
        bail!("revoke-api-key: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
