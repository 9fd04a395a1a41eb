//! The topic is deleted and created anew, so that its offsets start over.

use chaos::fault::Process;
use chaos::rig::{READY_LIMIT, Rig, Setup, within};
use testkit::event::{Event, now_ms};
use testkit::ledger::Ledger;
use testkit::sender::Sender;
use testkit::stack::Engines;

const TOPIC: &str = "usage.events";
const EPOCH: &str = "TALLYMARK_TOPIC_EPOCH";
const SERVICES: [Process; 2] = [Process::IngestApi, Process::EventConsumer(0)];

struct Scene {
    rig: Rig,
    sender: Sender,
    ledger: Ledger,
    before: Vec<Event>,
}

/// A stack whose topic was created anew after all of it was billed; no service runs.
fn scene() -> anyhow::Result<Scene> {
    let setup =
        Setup { brokers: 1, consumers: 1, small_disks: false, ..Setup::new(Engines::Servers) };
    let rig = Rig::start(&setup)?;
    let sender = Sender::new(&rig.api_url()?, &rig.tenants()[0].api_key);
    let mut ledger = Ledger::default();
    let before = events("before");
    sender.send(&before, &mut ledger);
    ledger.await_exactly_once(&rig.reader());
    for service in SERVICES {
        rig.service(service)?.kill()?;
    }
    rig.kafka()?.delete_topic(TOPIC)?;
    Ok(Scene { rig, sender, ledger, before })
}

fn events(prefix: &str) -> Vec<Event> {
    (0..500).map(|i| Event::tokens(format!("{prefix}-{i}"), now_ms() - 60_000, i)).collect()
}

impl Scene {
    fn start(&self, service: Process, epoch: &str) -> anyhow::Result<()> {
        let service = self.rig.service(service)?;
        service.set(EPOCH, epoch);
        service.release();
        Ok(())
    }
}

#[test]
fn under_the_next_epoch_everything_goes_on() -> anyhow::Result<()> {
    if !Engines::Servers.available() {
        return Ok(());
    }
    let Scene { rig, sender, mut ledger, before } = {
        let scene = scene()?;
        SERVICES.iter().try_for_each(|service| scene.start(*service, "2"))?;
        scene
    };
    rig.await_ready()?;
    // Their first copies lie in the topic that is gone.
    sender.send(&before, &mut ledger);
    sender.send(&events("after"), &mut ledger);
    ledger.await_exactly_once(&rig.reader());
    Ok(())
}

#[test]
fn under_the_same_epoch_the_consumer_stops_and_nothing_is_lost() -> anyhow::Result<()> {
    if !Engines::Servers.available() {
        return Ok(());
    }
    let mut scene = scene()?;
    SERVICES.iter().try_for_each(|service| scene.start(*service, "1"))?;
    let consumer = scene.rig.service(Process::EventConsumer(0))?;
    within(READY_LIMIT, "the consumer says what to do", || {
        let log = std::fs::read_to_string(consumer.log_path()).unwrap_or_default();
        log.contains("raise its epoch").then_some(()).ok_or(log)
    })?;
    consumer.kill()?;
    // What the API accepts meanwhile waits in the log, repeats in another order than before.
    scene.before.reverse();
    scene.sender.send(&events("after"), &mut scene.ledger);
    scene.sender.send(&scene.before, &mut scene.ledger);
    scene.start(Process::EventConsumer(0), "2")?;
    scene.ledger.await_exactly_once(&scene.rig.reader());
    Ok(())
}
