//! What a broker is told at its start.

use super::{BrokerOptions, Listener};
use std::net::SocketAddr;
use std::path::Path;

/// `server.properties` of the broker at `index`, whose `data` is its log directory. Tests' own tools reach
/// it at `direct`.
pub(super) fn settings(
    index: usize,
    brokers: &[BrokerOptions],
    direct: Listener,
    data: &Path,
) -> String {
    let (id, own) = (index + 1, &brokers[index]);
    let voters: Vec<_> = brokers
        .iter()
        .zip(1..)
        .map(|(broker, id): (_, usize)| format!("{id}@{}", broker.controller.told()))
        .collect();
    let named = [("DIRECT", direct), ("REPLICAS", own.replicas)].map(|(n, l)| (n.to_owned(), l));
    let clients = own.clients.iter().zip(1..);
    let clients =
        clients.map(|(listener, number): (_, usize)| (format!("CLIENT{number}"), *listener));
    let listeners: Vec<_> = clients.chain(named).collect();
    let list = |address: fn(&Listener) -> SocketAddr| {
        let each =
            listeners.iter().map(|(name, listener)| format!("{name}://{}", address(listener)));
        each.collect::<Vec<_>>().join(",")
    };
    let (bound, told) = (list(Listener::address), list(Listener::told));
    let protocols: String =
        listeners.iter().map(|(name, _)| format!("{name}:PLAINTEXT,")).collect();
    let controller = own.controller.address();
    let (replicas, in_sync) = if brokers.len() >= 3 { (3, 2) } else { (1, 1) };
    let mut text = format!(
        "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners={bound},CONTROLLER://{controller}
# Whoever comes to a listener is sent on to where that one is advertised: each through its own proxy.
advertised.listeners={told}
listener.security.protocol.map={protocols}CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=REPLICAS
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

    const fn listener(port: u16) -> Listener {
        Listener { port, advertised: None }
    }

    fn settings_of(index: usize, count: u16) -> String {
        let broker = |n| BrokerOptions {
            clients: vec![listener(9000 + n)],
            replicas: listener(9100 + n),
            controller: listener(9200 + n),
            log_dir: None,
        };
        let mut brokers: Vec<_> = (1..=count).map(broker).collect();
        let proxy = |port| Some(([127, 0, 0, 1], port).into());
        let second = Listener { port: 9501, advertised: proxy(7001) };
        brokers[0].clients[0].advertised = proxy(7000);
        brokers[0].clients.push(second);
        brokers[0].controller.advertised = proxy(7002);
        settings(index, &brokers, listener(9300), Path::new("/data"))
    }

    #[test]
    fn one_broker_asks_for_one_replica() {
        let settings = settings_of(0, 1);
        assert!(settings.contains("controller.quorum.voters=1@127.0.0.1:7002\n"), "{settings}");
        assert!(settings.contains("offsets.topic.replication.factor=1\n"), "{settings}");
        assert!(!settings.contains("min.insync.replicas"), "{settings}");
    }

    #[test]
    fn three_brokers_keep_three_replicas_and_need_two() {
        let settings = settings_of(2, 3);
        for line in [
            "node.id=3",
            "controller.quorum.voters=1@127.0.0.1:7002,2@127.0.0.1:9202,3@127.0.0.1:9203",
            "offsets.topic.replication.factor=3",
            "transaction.state.log.replication.factor=3",
            "transaction.state.log.min.isr=2",
            "min.insync.replicas=2",
        ] {
            assert!(settings.lines().any(|found| found == line), "{line} in {settings}");
        }
    }

    #[test]
    fn each_listener_is_bound_to_its_port_and_advertises_its_proxy() {
        let first = settings_of(0, 3);
        for line in [
            "listeners=CLIENT1://127.0.0.1:9001,CLIENT2://127.0.0.1:9501,DIRECT://127.0.0.1:9300,\
             REPLICAS://127.0.0.1:9101,CONTROLLER://127.0.0.1:9201",
            "advertised.listeners=CLIENT1://127.0.0.1:7000,CLIENT2://127.0.0.1:7001,\
             DIRECT://127.0.0.1:9300,REPLICAS://127.0.0.1:9101",
            "listener.security.protocol.map=CLIENT1:PLAINTEXT,CLIENT2:PLAINTEXT,DIRECT:PLAINTEXT,\
             REPLICAS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        ] {
            assert!(first.lines().any(|found| found == line), "{line} in {first}");
        }
        let second = settings_of(1, 3);
        let line = "advertised.listeners=CLIENT1://127.0.0.1:9002,DIRECT://127.0.0.1:9300,REPLICAS://127.0.0.1:9102";
        assert!(second.lines().any(|found| found == line), "{second}");
    }
}
