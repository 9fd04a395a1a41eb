//! How long it takes until things work again, and how fast what has piled up is worked off.
//! Measurements for people: nothing here asserts a time.

use crate::fault::{Fault, Link, LinkFault, Process};
use crate::load::{Load, LoadPlan};
use crate::rig::{READY_LIMIT, Rig, Service, Setup, within};
use crate::trial::name_of;
use anyhow::Context as _;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use testkit::sql::Reader;
use testkit::stack::Engines;

/// The load ends when the last measurement has.
const LOAD_LIMIT: Duration = Duration::from_secs(3_600);
const ROUNDS: usize = 5;
/// How long ClickHouse is out of reach before it is measured how the consumers catch up.
const AWAY: Duration = Duration::from_secs(20);
/// Caught up means that the oldest event that is not billed was accepted less than this ago.
const CAUGHT_UP_MS: u64 = 2_500;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Milliseconds, one per round, and rates in events per second.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    pub engines: &'static str,
    pub load_rate: u64,
    /// From the SIGKILL of the API, which is started again at once, to its readiness.
    pub api_ready_ms: Vec<u64>,
    /// From the SIGKILL of a consumer, which is started again at once, to an insert from each partition; by
    /// consumer.
    pub restart_inserts_ms: BTreeMap<String, Vec<u64>>,
    /// From the SIGKILL of a consumer that stays away, to an insert from each partition by the others; by
    /// consumer that was killed.
    pub takeover_inserts_ms: BTreeMap<String, Vec<u64>>,
    /// How long ClickHouse was out of reach, and how long it took from then on until the consumers had
    /// caught up. New events kept coming all the time.
    pub away_ms: u64,
    pub catch_up_ms: u64,
    /// Events that were billed while they caught up, per second.
    pub drain_rate: u64,
    pub findings: BTreeMap<String, u64>,
}

/// Measures on a stack under a load of `rate` events per second.
pub fn measure(engines: Engines, rate: u64) -> anyhow::Result<Recovery> {
    let setup = Setup { small_disks: false, ..Setup::new(engines) };
    let rig = Rig::start(&setup)?;
    let plan = LoadPlan { rate, events_per_request: 100, ..LoadPlan::new(1, LOAD_LIMIT) };
    let load = Load::start(&rig, plan)?;
    let (api, consumers) = parts(&rig, engines)?;
    await_inserts(&rig.reader(), now_ms())?;

    let api_ready_ms = rounds(|| {
        let killed = Instant::now();
        api.kill()?;
        api.release();
        await_service(api)?;
        let took = milliseconds(killed);
        await_inserts(&rig.reader(), now_ms())?;
        Ok(took)
    })?;
    let mut restart_inserts_ms = BTreeMap::new();
    for consumer in &consumers {
        let took = rounds(|| restart(&rig, consumer))?;
        restart_inserts_ms.insert(consumer.process().to_string(), took);
    }
    let takeover_inserts_ms = takeovers(&rig, &consumers)?;
    let Drain { away_ms, catch_up_ms, events } = catch_up(&rig, u8::try_from(consumers.len())?)?;
    let findings = load.end()?.findings;
    Ok(Recovery {
        engines: name_of(engines),
        load_rate: rate,
        api_ready_ms,
        restart_inserts_ms,
        takeover_inserts_ms,
        away_ms,
        catch_up_ms,
        drain_rate: events * 1_000 / catch_up_ms.max(1),
        findings,
    })
}

fn parts(rig: &Rig, engines: Engines) -> anyhow::Result<(&Service, Vec<&Service>)> {
    match engines {
        Engines::Embedded => {
            let standalone = rig.service(Process::Standalone)?;
            Ok((standalone, vec![standalone]))
        }
        Engines::Servers => {
            let consumers = rig.services().iter();
            let consumers =
                consumers.filter(|service| matches!(service.process(), Process::EventConsumer(_)));
            Ok((rig.service(Process::IngestApi)?, consumers.collect()))
        }
    }
}

fn rounds(mut measure: impl FnMut() -> anyhow::Result<u64>) -> anyhow::Result<Vec<u64>> {
    (0..ROUNDS).map(|_| measure()).collect()
}

fn restart(rig: &Rig, consumer: &Service) -> anyhow::Result<u64> {
    let (killed, at) = (Instant::now(), now_ms());
    consumer.kill()?;
    consumer.release();
    await_inserts(&rig.reader(), at)?;
    let took = milliseconds(killed);
    rig.await_ready()?;
    // What comes next finds a group that is at rest.
    await_inserts(&rig.reader(), now_ms())?;
    Ok(took)
}

fn takeovers(rig: &Rig, consumers: &[&Service]) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
    let mut all = BTreeMap::new();
    if consumers.len() < 2 {
        return Ok(all);
    }
    for consumer in consumers {
        let took = rounds(|| {
            let (killed, at) = (Instant::now(), now_ms());
            consumer.kill()?;
            await_inserts(&rig.reader(), at)?;
            let took = milliseconds(killed);
            consumer.release();
            rig.await_ready()?;
            await_inserts(&rig.reader(), now_ms())?;
            Ok(took)
        })?;
        all.insert(consumer.process().to_string(), took);
    }
    Ok(all)
}

/// Lets records pile up in the log, with ClickHouse out of the consumers' reach; from then on, how long
/// it takes until they have caught up, and how many events that were.
fn catch_up(rig: &Rig, consumers: u8) -> anyhow::Result<Drain> {
    let away = Instant::now();
    let cuts: Vec<_> = (0..consumers)
        .map(|number| Fault::Link(Link::ConsumerToClickHouse(number), LinkFault::Cut))
        .collect();
    cuts.iter().try_for_each(|cut| rig.apply(cut).map(drop))?;
    std::thread::sleep(AWAY);
    let reader = rig.reader();
    let before = billed(&reader)?;
    cuts.iter().try_for_each(|cut| rig.lift(cut))?;
    let (away_ms, start) = (milliseconds(away), Instant::now());
    wait(|| match oldest_unbilled_ms(&reader)? {
        lag if lag < CAUGHT_UP_MS => Ok(()),
        lag => Err(format!("{lag} ms behind")),
    })?;
    let catch_up_ms = milliseconds(start);
    Ok(Drain { away_ms, catch_up_ms, events: billed(&reader)? - before })
}

struct Drain {
    away_ms: u64,
    catch_up_ms: u64,
    events: u64,
}

/// Events that are billed.
fn billed(reader: &Reader) -> anyhow::Result<u64> {
    within(READY_LIMIT, "the store answers", || {
        reader.number("SELECT count() FROM billable_events")
    })
}

/// How long ago the latest billed event of the partition that is furthest behind was accepted.
fn oldest_unbilled_ms(reader: &Reader) -> Result<u64, String> {
    reader.number(
        "SELECT toUInt64(greatest(0, dateDiff('millisecond', min(latest), now64(3)))) FROM
         (SELECT max(accepted_at) AS latest FROM usage_events GROUP BY kafka_partition)",
    )
}

/// Waits until each partition had an insert after `at`, in milliseconds since 1970.
fn await_inserts(reader: &Reader, at: u64) -> anyhow::Result<()> {
    // Written by us alone, so nothing can hide in the number.
    let sql = format!(
        "SELECT uniqExact(kafka_partition) = (SELECT uniqExact(kafka_partition) FROM ingest_batches)
         FROM ingest_batches WHERE toUnixTimestamp64Milli(inserted_at) > {at}"
    );
    wait(|| match reader.number(&sql)? {
        0 => Err("some partition had no insert".to_owned()),
        _ => Ok(()),
    })
}

fn await_service(service: &Service) -> anyhow::Result<()> {
    let http = reqwest::blocking::Client::builder().no_proxy().build()?;
    wait(|| service.is_ready(&http).then_some(()).ok_or_else(|| "not ready".to_owned()))
}

fn wait(mut condition: impl FnMut() -> Result<(), String>) -> anyhow::Result<()> {
    within(READY_LIMIT, "it works again", || {
        condition().inspect_err(|_| std::thread::sleep(LOOK_EVERY))
    })
    .context("a measurement")
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    u64::try_from(testkit::event::now_ms()).unwrap_or(0)
}
