//! What a broker is told at its start.

use super::BrokerOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

/// The loopback ports of a broker that only brokers use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Where other brokers and the tools of [`super::tools`] reach it, past any proxy.
    pub(super) internal: u16,
    pub(super) controller: u16,
}

/// `server.properties` of the broker at `index`, whose `data` is its log directory.
pub(super) fn settings(
    index: usize,
    brokers: &[BrokerOptions],
    ports: &[Ports],
    data: &Path,
) -> String {
    let (id, own, Ports { internal, controller }) = (index + 1, &brokers[index], ports[index]);
    let voters: Vec<_> = ports
        .iter()
        .zip(1..)
        .map(|(ports, id): (_, usize)| format!("{id}@127.0.0.1:{}", ports.controller))
        .collect();
    let (clients, advertised) = (own.port, advertised(own));
    let (replicas, in_sync) = if brokers.len() >= 3 { (3, 2) } else { (1, 1) };
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=CLIENTS://127.0.0.1:{clients},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}
# Brokers reach each other directly, also when clients go through proxies.
advertised.listeners=CLIENTS://{advertised},INTERNAL://127.0.0.1:{internal}
listener.security.protocol.map=CLIENTS:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
log.dirs={data}
# Topics are made on purpose, with the settings they need.
auto.create.topics.enable=false
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
# A group of one need not wait for others, and tests need not wait for long sessions to end.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# Expired records go within seconds, so that a test can see that they do.
log.initial.task.delay.ms=500
log.retention.check.interval.ms=3000
# The default takes a quarter of a small heap.
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
",
        voters = voters.join(","),
        data = data.display(),
    );
    if brokers.len() >= 3 {
        text.push_str(CLUSTER);
    }
    text
}

/// Where clients are told to go.
pub(super) fn advertised(broker: &BrokerOptions) -> SocketAddr {
    broker.advertised.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, broker.port)))
}

/// What only a cluster is told. It is there to be broken, and faults of a few seconds should reach
/// every stage of a fail-over, so its clocks run faster than those of a cluster that is to be left
/// alone. None of them weakens what an acknowledged write means.
const CLUSTER: &str = "\
# Also for the committed offsets: no answer before two brokers have them.
min.insync.replicas=2
# A broker that says nothing loses its partitions after 3 s and not 9 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# Another controller is elected 1 s after the last word of the old one, and not 2 s.
controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.timeout.ms=500
controller.quorum.election.backoff.max.ms=300
# A replica that lives but does not keep up stops holding back writes after 5 s and not 30 s.
replica.lag.time.max.ms=5000
# A broker that is back leads again within seconds, so that the next fault on it hits something.
leader.imbalance.check.interval.seconds=5
# Brokers that stop together do not wait for a majority of controllers that has gone already.
controlled.shutdown.enable=false
# The files of a deleted topic go within seconds: the disk may be small.
log.segment.delete.delay.ms=1000
";

#[cfg(test)]
mod tests {
    use super::*;

    fn settings_of(index: usize, count: u16) -> String {
        let broker = |n| BrokerOptions { port: 9000 + n, advertised: None, log_dir: None };
        let mut brokers: Vec<_> = (1..=count).map(broker).collect();
        brokers[0].advertised = Some(([127, 0, 0, 1], 7000).into());
        let ports: Vec<_> =
            (1..=count).map(|n| Ports { internal: 9100 + n, controller: 9200 + n }).collect();
        settings(index, &brokers, &ports, Path::new("/data"))
    }

    #[test]
    fn one_broker_asks_for_one_replica() {
        let settings = settings_of(0, 1);
        assert!(settings.contains("controller.quorum.voters=1@127.0.0.1:9201\n"), "{settings}");
        assert!(settings.contains("offsets.topic.replication.factor=1\n"), "{settings}");
        assert!(!settings.contains("min.insync.replicas"), "{settings}");
    }

    #[test]
    fn three_brokers_keep_three_replicas_and_need_two() {
        let settings = settings_of(2, 3);
        for line in [
            "node.id=3",
            "controller.quorum.voters=1@127.0.0.1:9201,2@127.0.0.1:9202,3@127.0.0.1:9203",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            "min.insync.replicas=2",
        ] {
            assert!(settings.lines().any(|found| found == line), "{line} in {settings}");
        }
    }

    #[test]
    fn clients_are_sent_to_the_advertised_address_and_brokers_are_not() {
        let expected = [
            "CLIENTS://127.0.0.1:7000,INTERNAL://127.0.0.1:9101",
            "CLIENTS://127.0.0.1:9002,INTERNAL://127.0.0.1:9102",
        ];
        for (index, expected) in expected.into_iter().enumerate() {
            let settings = settings_of(index, 3);
            let line = format!("advertised.listeners={expected}\n");
            assert!(settings.contains(&line), "{settings}");
            assert!(settings.contains("listeners=CLIENTS://127.0.0.1:900"), "{settings}");
        }
    }
}
