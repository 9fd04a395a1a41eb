//! docker-compose.yml: what can be known of it without running containers.
//!
//! The last test starts each program of it with exactly the environment the file gives it, on real engines.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use local_engines::clickhouse::{EmbeddedClickHouse, EmbeddedClickHouseOptions};
use local_engines::kafka::{Kafka, KafkaOptions};
use local_engines::postgres::{Postgres, PostgresOptions};
use local_engines::process::ManagedProcess;
use local_engines::{free_port, libchdb, require_or_skip};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use testkit::compose::{Compose, Service};
use testkit::repo;
use testkit::sql::Reader;
use testkit::stack::binary;
use testkit::wait;

fn compose(variables: &[(&'static str, &'static str)]) -> Compose {
    Compose::read(&repo::root().join("docker-compose.yml"), &variables.iter().copied().collect())
}

fn read(file: &str) -> String {
    std::fs::read_to_string(repo::root().join(file)).unwrap()
}

#[test]
fn docker_compose_accepts_the_file() {
    let version = Command::new("docker-compose").arg("version").output();
    let installed = version.map_err(|error| {
        format!("docker-compose: {error}; install it with: sudo apt-get install -y docker-compose")
    });
    if require_or_skip("the parser of docker-compose", installed).is_none() {
        return;
    }
    let checked = Command::new("docker-compose")
        .args(["config", "--quiet"])
        .current_dir(repo::root())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn nothing_is_published_beyond_this_machine() {
    for (name, service) in compose(&[]).services {
        for port in service.ports {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
}

#[test]
fn images_are_pinned_and_mounted_files_exist() {
    for (name, service) in compose(&[]).services {
        let (_, tag) = service
            .image
            .rsplit_once(':')
            .unwrap_or_else(|| panic!("{name} has no tag: {}", service.image));
        assert!(tag == "dev" || tag.starts_with(|c: char| c.is_ascii_digit()), "{name}: {tag}");
        for volume in service.volumes.iter().filter(|volume| volume.starts_with('.')) {
            let (file, _) = volume.split_once(':').unwrap();
            assert!(repo::root().join(file).exists(), "{name} mounts {file}, which is not there");
            assert!(volume.ends_with(":ro"), "{name} could write {file}");
        }
    }
}

#[test]
fn every_service_waits_for_a_condition_that_can_come_true() {
    let compose = compose(&[]);
    for (name, service) in &compose.services {
        for (other, condition) in &service.depends_on {
            let other_service = compose.service(other);
            match condition.as_str() {
                "service_healthy" => assert!(
                    !other_service.healthcheck.is_empty(),
                    "{name} waits for {other}, which has no health check"
                ),
                "service_completed_successfully" => {
                    assert!(other.starts_with("migrate-"), "{name} waits for the end of {other}");
                }
                _ => panic!("{name} waits for {other} to be {condition}"),
            }
        }
    }
}

#[test]
fn every_secret_has_a_marked_default_and_can_be_replaced_everywhere() {
    let secrets = [
        ("TALLYMARK_API_KEY_PEPPER", "a-pepper-of-my-own"),
        ("POSTGRES_PASSWORD", "pg-own"),
        ("CLICKHOUSE_PASSWORD", "ch-own"),
        ("CLICKHOUSE_READER_PASSWORD", "reader-own"),
        ("GRAFANA_PASSWORD", "grafana-own"),
    ];
    let by_default = format!("{:?}", compose(&[]));
    assert!(by_default.contains("development-only"));
    assert!(
        !format!("{:?}", compose(&secrets)).contains("development-only"),
        "a secret keeps its default when it is replaced"
    );
}

#[test]
fn clickhouse_is_given_every_password_its_users_take() {
    let users = read("clickhouse-schema/users/tallymark.xml");
    let wanted: Vec<&str> =
        users.split("from_env=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(wanted.len(), 2, "the service and the reader");
    let compose = compose(&[]);
    let given = &compose.service("clickhouse").environment;
    for name in wanted {
        assert!(given.contains_key(name), "{name}");
    }
    let service = &compose.service("event-consumer").environment;
    assert_eq!(given["TALLYMARK_PASSWORD"], service["CLICKHOUSE_PASSWORD"]);
    let grafana = &compose.service("grafana").environment;
    assert_eq!(given["TALLYMARK_READER_PASSWORD"], grafana["CLICKHOUSE_READER_PASSWORD"]);
}

#[test]
fn a_clickhouse_server_keeps_parts_as_the_embedded_engine_does() {
    let settings = |path: &str| {
        let text = read(path);
        let (_, rest) = text.split_once("<merge_tree>").unwrap();
        let (inside, _) = rest.split_once("</merge_tree>").unwrap();
        let lines = inside.lines().map(|line| line.trim().to_owned());
        lines.filter(|line| line.contains("</")).collect::<BTreeSet<_>>()
    };
    let server = settings("clickhouse-schema/server/tallymark.xml");
    assert_eq!(server, settings("crates/embedded-clickhouse/engine/config.xml"));
    assert!(server.contains("<max_suspicious_broken_parts>0</max_suspicious_broken_parts>"));
}

#[test]
fn the_image_is_built_from_what_the_workspace_says() {
    let dockerfile = read("Dockerfile");
    let manifest = read("Cargo.toml");
    let wanted = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap()
        .trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{wanted}-")),
        "the image is built with Rust {wanted}"
    );
    assert!(
        dockerfile.lines().any(|line| line.starts_with("USER ") && line != "USER root"),
        "the services are not root"
    );
    let context = read(".dockerignore");
    let kept: Vec<&str> = context.lines().filter_map(|line| line.strip_prefix('!')).collect();
    // The build reads manifests of all members, and files that are compiled in.
    for needed in [
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "services",
        "loadtest",
        "migrations",
        "clickhouse-schema",
        "openapi",
        "docker/demo",
        "docker/healthcheck",
    ] {
        assert!(kept.contains(&needed), "{needed} is not part of the build context");
    }
}

/// Addresses of the compose network and what stands for them here.
struct Network {
    addresses: Vec<(String, String)>,
}

impl Network {
    fn environment(&self, service: &Service) -> BTreeMap<String, String> {
        let local = |value: &String| {
            self.addresses.iter().fold(value.clone(), |value, (from, to)| value.replace(from, to))
        };
        service.environment.iter().map(|(name, value)| (name.clone(), local(value))).collect()
    }

    /// The service's command, with nothing in its environment but what the file says.
    fn command(&self, service: &Service) -> Command {
        let (program, arguments) = service.command.split_first().unwrap();
        let scripts = repo::root().join("docker");
        let path = if program == "demo" { scripts.join(program) } else { binary(program) };
        let mut command = Command::new(path);
        // The programs are in the image's PATH, and so are the usual tools.
        let programs = binary("ingest-api").parent().unwrap().to_owned();
        command
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
        command.envs(self.environment(service)).current_dir("/");
        command
    }

    fn run_to_the_end(&self, compose: &Compose, name: &str) -> Output {
        let output = self.command(compose.service(name)).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} ended with {}: {stdout}{stderr}", output.status);
        output
    }

    fn start(&self, compose: &Compose, name: &str, directory: &Path) -> ManagedProcess {
        let service = compose.service(name);
        let log = directory.join(format!("{name}.log"));
        let mut process = ManagedProcess::spawn(self.command(service), name, &log).unwrap();
        let (port, path) = (&service.healthcheck[2], &service.healthcheck[3]);
        let (_, port) =
            self.addresses.iter().find(|(from, _)| from == &format!("0.0.0.0:{port}")).unwrap();
        let port = port.rsplit_once(':').unwrap().1;
        wait::until(name, || {
            assert!(
                process.is_running(),
                "{name} ended: {}",
                std::fs::read_to_string(&log).unwrap()
            );
            let check = Command::new(repo::root().join("docker/healthcheck"))
                .args([port, path])
                .output()
                .unwrap();
            if check.status.success() {
                Ok(())
            } else {
                Err(format!(
                    "its health check fails; its log: {}",
                    std::fs::read_to_string(&log).unwrap()
                ))
            }
        });
        process
    }
}

/// What the containers would run on.
struct Servers {
    kafka: Kafka,
    postgres: Postgres,
    clickhouse: EmbeddedClickHouse,
}

/// `None`, loudly, on a machine that lacks one of them.
fn servers(compose: &Compose, directory: &Path) -> Option<Servers> {
    let kafka = Kafka::start(KafkaOptions::new(directory.join("kafka")));
    let kafka = require_or_skip("Apache Kafka", kafka)?;
    let postgres = Postgres::start(PostgresOptions { data_dir: directory.join("postgres") });
    let postgres = require_or_skip("Postgres", postgres)?;
    postgres.create_database(&compose.service("postgres").environment["POSTGRES_DB"]).unwrap();
    let passwords = &compose.service("clickhouse").environment;
    let clickhouse = EmbeddedClickHouse::start(EmbeddedClickHouseOptions {
        binary: Some(binary("embedded-clickhouse")),
        library: libchdb::ensure(true).unwrap(),
        data_dir: directory.join("clickhouse"),
        listen: None,
        service_password: passwords["TALLYMARK_PASSWORD"].clone(),
        reader_password: passwords["TALLYMARK_READER_PASSWORD"].clone(),
        reader_database: "tallymark".to_owned(),
        max_memory: None,
        log_file: directory.join("clickhouse.log"),
        restart: false,
    });
    Some(Servers { kafka, postgres, clickhouse: clickhouse.unwrap() })
}

fn network(servers: &Servers, compose: &Compose, directory: &Path) -> Network {
    let Servers { kafka, postgres, clickhouse } = servers;
    let password = &compose.service("postgres").environment["POSTGRES_PASSWORD"];
    let database = postgres.url("tallymark");
    let (credentials, _) = database.strip_prefix("postgres://").unwrap().split_once('/').unwrap();
    let [api, admin, job] =
        [free_port(), free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let addresses = [
        ("kafka:19092", kafka.bootstrap()),
        (&format!("tallymark:{password}@postgres:5432"), credentials.to_owned()),
        ("clickhouse:8123", clickhouse.address().to_string()),
        ("127.0.0.1:8123", clickhouse.address().to_string()),
        ("127.0.0.1:8080", api.clone()),
        ("0.0.0.0:8080", api),
        ("0.0.0.0:8081", admin),
        ("0.0.0.0:8082", job),
        ("/demo", directory.join("demo").display().to_string()),
    ];
    Network { addresses: addresses.into_iter().map(|(from, to)| (from.to_owned(), to)).collect() }
}

/// The argument in single quotes after `before`.
fn quoted<'a>(text: &'a str, before: &str) -> &'a str {
    text.split_once(before)
        .unwrap_or_else(|| panic!("no `{before}` in {text}"))
        .1
        .split('\'')
        .next()
        .unwrap()
}

#[test]
fn the_programs_work_with_exactly_the_environment_the_file_gives_them() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::create_dir(directory.join("demo")).unwrap();
    let compose = compose(&[]);
    let Some(servers) = servers(&compose, directory) else { return };
    let network = network(&servers, &compose, directory);

    network.run_to_the_end(&compose, "migrate-config");
    network.run_to_the_end(&compose, "migrate-store");
    let mut api = network.start(&compose, "ingest-api", directory);
    let mut consumer = network.start(&compose, "event-consumer", directory);
    let shown = String::from_utf8(network.run_to_the_end(&compose, "demo").stdout).unwrap();
    let again = String::from_utf8(network.run_to_the_end(&compose, "demo").stdout).unwrap();
    assert_eq!(
        quoted(&shown, "Bearer "),
        quoted(&again, "Bearer "),
        "a second start shows the same key"
    );

    // What the demo tells a person to do works as it stands.
    let post = &shown[shown.find("curl -sS").unwrap()..];
    let request = post.split("\n\n").next().unwrap();
    wait::until("the events are accepted", || {
        let posted = Command::new("bash").args(["-c", request]).output().unwrap();
        let answer = String::from_utf8_lossy(&posted.stdout).into_owned();
        // After a 5xx, the same events are sent again.
        let accepted = answer.contains(r#""accepted":2,"rejected":0"#);
        if accepted { Ok(()) } else { Err(answer) }
    });
    let reader = Reader::new(quoted(&post[1..], "curl -sS '"));
    wait::until("the events can be billed", || {
        let sql = "SELECT code, events, value_sum FROM usage_by_hour ORDER BY code FORMAT TSV";
        let billed = reader.query(sql)?;
        let log = std::fs::read_to_string(directory.join("event-consumer.log")).unwrap();
        if billed == "api_calls\t1\t0\ntokens\t1\t1250\n" {
            Ok(())
        } else {
            Err(format!("{billed:?}; the log of the consumer: {log}"))
        }
    });
    assert!(api.stop(Duration::from_secs(45)).unwrap().success(), "ingest-api stops in order");
    assert!(
        consumer.stop(Duration::from_secs(45)).unwrap().success(),
        "event-consumer stops in order"
    );
    // Nothing is under way any more, so that the first run finds what it can prove.
    let mut job = network.start(&compose, "reconcile", directory);
    let log = directory.join("reconcile.log");
    wait::until("the job has proved the last day", || {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains("reconciliation passed") { Ok(()) } else { Err(log) }
    });
    assert!(job.stop(Duration::from_secs(30)).unwrap().success(), "reconcile stops in order");
}
