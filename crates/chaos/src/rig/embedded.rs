//! The stack in one process, with the ClickHouse engine beside it.

use super::service::{Service, ServiceSpec, fixed_address};
use super::tenant::Configuration;
use super::{Rig, SMALL_DISK_BYTES, Setup, Supervisor};
use crate::fault::{Disk, Link, Process};
use anyhow::Context as _;
use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::small_disk::{SmallDisk, SmallDiskError};
use local_engines::{libchdb, require_or_skip};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use testkit::proxy::Proxy;
use testkit::stack::binary;

pub(super) fn start(setup: &Setup) -> anyhow::Result<Rig> {
    let directory = tempfile::tempdir()?;
    let mut disks = BTreeMap::new();
    let log_dir = place(setup, Disk::Log, &directory.path().join("standalone"), &mut disks)?;
    let clickhouse = clickhouse(setup, directory.path(), &mut disks)?;
    let listen = fixed_address();
    let links = BTreeMap::from([
        (Link::ClientToApi, Proxy::start(listen)?),
        (Link::ConsumerToClickHouse(0), Proxy::start(clickhouse.address())?),
    ]);
    let mut environment: Vec<_> =
        store_environment(&clickhouse, &links[&Link::ConsumerToClickHouse(0)])
            .into_iter()
            .chain([
                ("CLICKHOUSE_READER_USER", clickhouse.reader_user().to_owned()),
                ("CLICKHOUSE_READER_PASSWORD", clickhouse.reader_password().to_owned()),
                ("TALLYMARK_DATA_DIR", log_dir.display().to_string()),
                ("TALLYMARK_LISTEN", listen.to_string()),
                ("TALLYMARK_ADMIN_PORT", "0".to_owned()),
                ("TALLYMARK_LOG", "info".to_owned()),
            ])
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
    environment.extend(setup.environment.iter().cloned());
    let spec = ServiceSpec {
        process: Process::Standalone,
        program: "standalone",
        arguments: vec!["--engines", "embedded"],
        environment,
        ready_url: format!("http://{listen}/ready"),
        directory: directory.path().to_owned(),
    };
    let services = Arc::new(vec![Service::start(spec, setup.sabotage)?]);
    let mut rig = Rig {
        supervisor: Some(Supervisor::start(Arc::clone(&services))?),
        services,
        links,
        clickhouse,
        kafka: None,
        poisoner: None,
        poisoned: Mutex::default(),
        database: None,
        embedded_log: Some(log_dir.join("log")),
        tenants: Vec::new(),
        disks,
        directory,
    };
    rig.await_ready()?;
    rig.tenants = configuration(&log_dir)?.create_tenants()?;
    Ok(rig)
}

fn configuration(data_dir: &Path) -> anyhow::Result<Configuration> {
    let secrets = std::fs::read_to_string(data_dir.join("secrets.env"))?;
    let pepper = secrets.lines().find_map(|line| line.strip_prefix("API_KEY_PEPPER="));
    Ok(Configuration {
        database_url: format!("sqlite://{}", data_dir.join("config.sqlite").display()),
        pepper: pepper.context("secrets.env has a pepper")?.to_owned(),
    })
}

/// The ClickHouse engine, alone in its process.
pub(super) fn clickhouse(
    setup: &Setup,
    directory: &Path,
    disks: &mut BTreeMap<Disk, SmallDisk>,
) -> anyhow::Result<EmbeddedClickHouse> {
    let data_dir = place(setup, Disk::ClickHouse, &directory.join("clickhouse"), disks)?;
    Ok(EmbeddedClickHouse::start(EmbeddedClickHouseOptions {
        binary: Some(binary("embedded-clickhouse")),
        library: libchdb::ensure(true)?,
        data_dir: data_dir.join("data"),
        listen: None,
        service_password: "service-password".to_owned(),
        reader_password: "reader-password".to_owned(),
        reader_database: "tallymark".to_owned(),
        max_memory: None,
        log_file: directory.join("clickhouse.log"),
        restart: false,
    })?)
}

/// How services reach ClickHouse: through the proxy.
pub(super) fn store_environment(
    clickhouse: &EmbeddedClickHouse,
    proxy: &Proxy,
) -> Vec<(&'static str, String)> {
    vec![
        ("CLICKHOUSE_URL", format!("http://{}", proxy.address())),
        ("CLICKHOUSE_USER", clickhouse.service_user().to_owned()),
        ("CLICKHOUSE_PASSWORD", clickhouse.service_password().to_owned()),
    ]
}

/// A directory, on a disk of its own where the setup asks for it and the machine permits it.
pub(super) fn place(
    setup: &Setup,
    disk: Disk,
    directory: &Path,
    disks: &mut BTreeMap<Disk, SmallDisk>,
) -> anyhow::Result<PathBuf> {
    if setup.small_disks {
        match SmallDisk::mount(SMALL_DISK_BYTES) {
            Err(error @ SmallDiskError::Io(_)) => return Err(error.into()),
            // The other faults say enough to go on; that this one is left out must be seen, and in CI it may not be.
            mounted => {
                if let Some(mounted) = require_or_skip("a full disk", mounted) {
                    let path = mounted.path().to_owned();
                    disks.insert(disk, mounted);
                    return Ok(path);
                }
            }
        }
    }
    std::fs::create_dir_all(directory)?;
    Ok(directory.to_owned())
}
