//! The stack as separate processes on Apache Kafka, Postgres and the ClickHouse engine.

use super::embedded::{clickhouse, place, store_environment};
use super::service::{Service, ServiceSpec, fixed_address};
use super::tenant::Configuration;
use super::{Rig, Setup, Supervisor};
use crate::fault::{Disk, Link, Process};
use crate::poison::Poisoner;
use anyhow::Context as _;
use local_engines::kafka::{Kafka, KafkaOptions, Listener};
use local_engines::postgres::{Postgres, PostgresOptions};
use local_engines::small_disk::SmallDisk;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use testkit::proxy::Proxy;
use testkit::stack::binary;

const PEPPER: &str = "a pepper that is not secret";
const DATABASE: &str = "tallymark";

pub(super) fn start(setup: &Setup) -> anyhow::Result<Rig> {
    let directory = tempfile::tempdir()?;
    let mut disks = BTreeMap::new();
    let mut links = BTreeMap::new();
    let kafka = kafka(setup, directory.path(), &mut links, &mut disks)?;
    let postgres =
        Postgres::start(PostgresOptions { data_dir: directory.path().join("postgres") })?;
    let clickhouse = clickhouse(setup, directory.path(), &mut disks)?;
    for number in 0..setup.consumers {
        links.insert(Link::ConsumerToClickHouse(number), Proxy::start(clickhouse.address())?);
    }
    links.insert(
        Link::ApiToDatabase,
        Proxy::start(SocketAddr::from(([127, 0, 0, 1], postgres.port())))?,
    );
    postgres.create_database(DATABASE)?;
    let configuration =
        Configuration { database_url: postgres.url(DATABASE), pepper: PEPPER.to_owned() };
    configuration.migrate()?;
    let tenants = configuration.create_tenants()?;

    let store =
        |number: u8| store_environment(&clickhouse, &links[&Link::ConsumerToClickHouse(number)]);
    migrate(&store(0))?;
    let consumers: Vec<_> = (0..setup.consumers)
        .map(|number| consumer(number, store(number), &kafka, directory.path()))
        .collect();
    let proxied = format!(":{}/", links[&Link::ApiToDatabase].address().port());
    let database_url =
        configuration.database_url.replacen(&format!(":{}/", postgres.port()), &proxied, 1);
    let api_address = fixed_address();
    links.insert(Link::ClientToApi, Proxy::start(api_address)?);
    let mut specs = vec![ServiceSpec {
        process: Process::IngestApi,
        program: "ingest-api",
        arguments: Vec::new(),
        environment: named([
            ("TALLYMARK_LISTEN", api_address.to_string()),
            ("TALLYMARK_API_KEY_PEPPER", PEPPER.to_owned()),
            ("DATABASE_URL", database_url),
            ("KAFKA_BROKERS", kafka.bootstrap_of(API)),
        ]),
        ready_url: format!("http://{api_address}/ready"),
        directory: directory.path().to_owned(),
    }];
    specs.extend(consumers);
    for spec in &mut specs {
        spec.environment.extend(topic_environment(setup));
        spec.environment.extend(setup.environment.iter().cloned());
    }
    let services: Vec<_> = specs
        .into_iter()
        .map(|spec| Service::start(spec, setup.sabotage))
        .collect::<anyhow::Result<_>>()?;
    let services = Arc::new(services);
    let rig = Rig {
        supervisor: Some(Supervisor::start(Arc::clone(&services))?),
        services,
        links,
        clickhouse,
        poisoner: Some(Mutex::new(Poisoner::connect(&kafka.direct_bootstrap())?)),
        poisoned: Mutex::default(),
        kafka: Some(kafka),
        database: Some(Mutex::new(postgres)),
        embedded_log: None,
        tenants,
        disks,
        directory,
    };
    rig.await_ready()?;
    Ok(rig)
}

fn consumer(
    number: u8,
    store: Vec<(&'static str, String)>,
    kafka: &Kafka,
    directory: &Path,
) -> ServiceSpec {
    let address = fixed_address();
    let mut environment = store;
    environment.push(("TALLYMARK_ADMIN_LISTEN", address.to_string()));
    environment.push(("KAFKA_BROKERS", kafka.bootstrap_of(listener_of(number))));
    // Members with and without an instance id may be in one group, and each kind has faults of its own.
    if number == 0 {
        environment.push(("KAFKA_GROUP_INSTANCE_ID", "event-consumer-1".to_owned()));
    }
    ServiceSpec {
        process: Process::EventConsumer(number),
        program: "event-consumer",
        arguments: Vec::new(),
        environment: named(environment),
        ready_url: format!("http://{address}/ready"),
        directory: directory.to_owned(),
    }
}

fn named(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Vec<(String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The brokers, each with a proxy for every service, for the other brokers and for controllers.
fn kafka(
    setup: &Setup,
    directory: &Path,
    links: &mut BTreeMap<Link, Proxy>,
    disks: &mut BTreeMap<Disk, SmallDisk>,
) -> anyhow::Result<Kafka> {
    let data_dir = directory.join("kafka");
    let mut options = match setup.brokers {
        1 => KafkaOptions::new(data_dir),
        _ => KafkaOptions::cluster(data_dir),
    };
    options.quick_start = true;
    for (number, broker) in (0..).zip(&mut options.brokers) {
        let mut through_proxy = |link: Link| -> anyhow::Result<Listener> {
            let listener = Listener::free();
            let proxy = Proxy::start(listener.address())?;
            let advertised = Some(proxy.address());
            links.insert(link, proxy);
            Ok(Listener { advertised, ..listener })
        };
        broker.clients = vec![through_proxy(Link::ApiToBroker(number))?];
        for consumer in 0..setup.consumers {
            broker.clients.push(through_proxy(Link::ConsumerToBroker(consumer, number))?);
        }
        broker.replicas = through_proxy(Link::BrokersToBroker(number))?;
        broker.controller = through_proxy(Link::BrokersToController(number))?;
        let disk = directory.join(format!("kafka-disk-{}", number + 1));
        // Kafka wants a directory of its own, without what a file system may keep at its root.
        broker.log_dir = Some(place(setup, Disk::Broker(number), &disk, disks)?.join("data"));
    }
    Ok(Kafka::start(options)?)
}

/// The listener that each broker has for the API.
const API: usize = 0;

/// The listener that each broker has for a consumer.
fn listener_of(consumer: u8) -> usize {
    API + 1 + usize::from(consumer)
}

fn topic_environment(setup: &Setup) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    if setup.brokers == 1 {
        environment.push(("KAFKA_ALLOW_SINGLE_REPLICA", "true".to_owned()));
        environment.push(("KAFKA_REPLICATION_FACTOR", "1".to_owned()));
    }
    named(environment)
}

fn migrate(store: &[(&'static str, String)]) -> anyhow::Result<()> {
    let output = Command::new(binary("event-consumer"))
        .arg("migrate")
        .envs(store.iter().map(|(name, value)| (name, value)))
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).with_context(|| format!("event-consumer migrate: {text}"))
}
