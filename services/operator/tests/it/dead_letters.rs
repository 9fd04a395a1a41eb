//! Dead letters are listed, shown, and sent again once they are events.

use crate::bench::{Bench, PARTITIONS, event, failed, kafka, on_both_logs, record};
use clap::Parser as _;
use operator::config::{Cli, Command, RecordName};
use operator::dead_letters::{Retried, Selection, retry};
use operator::engines::open_for_publishing;
use usage_store::UsageStore;
use usage_store::dead_letters::{DeadLetter, DeadLetterFilter};

fn listed(bench: &Bench, reason: Option<&str>, limit: u64) -> Vec<DeadLetter> {
    let since = chrono::DateTime::UNIX_EPOCH;
    let filter = DeadLetterFilter { reason: reason.map(str::to_owned), since, limit };
    bench.runtime.block_on(UsageStore::connect(&bench.store).dead_letters(&filter)).unwrap()
}

fn retried(bench: &mut Bench, selection: Selection, publish: bool) -> Vec<(RecordName, Retried)> {
    let store = UsageStore::connect(&bench.store);
    let producer = publish.then(|| bench.producer.as_ref());
    let mut outcomes = Vec::new();
    let each =
        |name: &RecordName, outcome: &Retried| outcomes.push((name.clone(), outcome.clone()));
    bench.runtime.block_on(retry(&store, &bench.source, producer, selection, each)).unwrap();
    outcomes
}

fn name(letter: &DeadLetter) -> RecordName {
    RecordName { topic: letter.topic.clone(), position: letter.position }
}

#[test]
fn dead_letters_are_listed_shown_and_retried_once() {
    on_both_logs(|mut bench| {
        let (partition, key, value) = record(&event("misplaced", 5));
        let elsewhere = (partition + 1) % PARTITIONS;
        bench.publish_raw(
            &[
                (elsewhere, key, value.clone()),
                (0, b"\x1b[31mkey".to_vec(), b"garbage".to_vec()),
                (1, Vec::new(), vec![b' '; 2 * 1024 * 1024]),
            ][..if bench.source.topic == "usage.events" { 3 } else { 2 }],
        );
        bench.consume();
        assert_eq!(bench.bill().len(), 0);
        let all = listed(&bench, None, 100);
        let misplaced = listed(&bench, Some("wrong_partition"), 100);
        assert_eq!((misplaced.len(), listed(&bench, None, 1).len()), (1, 1));
        assert_eq!(misplaced[0].position.partition, elsewhere);

        let store = UsageStore::connect(&bench.store);
        let named = name(&misplaced[0]);
        let (letter, bytes) = bench
            .runtime
            .block_on(store.dead_letter(&named.topic, named.position))
            .unwrap()
            .unwrap();
        assert_eq!((&letter, bytes.value), (&misplaced[0], value));

        let by_reason = || Selection::Reason("wrong_partition".to_owned());
        let dry = retried(&mut bench, by_reason(), false);
        assert_eq!(dry, [(named.clone(), Retried::Ready { partition })]);
        // Twice, before it is billed, and it is billed once.
        for _ in 0..2 {
            let done = retried(&mut bench, by_reason(), true);
            assert_eq!(done, [(named.clone(), Retried::Published { partition })]);
        }
        bench.publish(&[event("another", 1)]);
        bench.consume_retried(2);
        assert_eq!(bench.bill().len(), 2);
        let report = bench.reconcile();
        assert_eq!(failed(&report), [] as [&str; 0]);
        // However long ago it was billed: the consumer is not asked, whose memory has an end.
        for publish in [true, false] {
            let again = retried(&mut bench, by_reason(), publish);
            let Retried::Refused(reason) = &again[0].1 else { panic!("{again:?}") };
            let billed = format!("billed already, from epoch 1, partition {partition}, offset ");
            assert!(reason.to_string().contains(&billed), "{reason}");
        }

        let others: Vec<_> =
            all.iter().filter(|letter| letter.reason != "wrong_partition").map(name).collect();
        let refused = retried(&mut bench, Selection::Records(others.clone()), true);
        assert_eq!(refused.len(), others.len());
        for (_, outcome) in refused {
            let Retried::Refused(reason) = outcome else { panic!("{outcome:?}") };
            let reason = reason.to_string();
            assert!(
                reason.contains("still is no event") || reason.contains("only the beginning"),
                "{reason}"
            );
        }
        let absent = "usage.events/1/0/999".parse().unwrap();
        let none = retried(&mut bench, Selection::Records(vec![absent]), true);
        assert!(matches!(none[0].1, Retried::Refused(_)));
    });
}

/// With another number of partitions, records would be published where no copy of them is looked for.
#[test]
fn nothing_is_published_to_a_topic_of_another_shape() {
    let (Some(bench), Some(brokers)) = (Bench::kafka(), kafka()) else { return };
    let opened = |partitions: u16| {
        let (topic, partitions) = (bench.source.topic.as_str(), partitions.to_string());
        let arguments = ["tallymark", "dead-letters", "retry", "--reason", "x"];
        let flags = ["--kafka-brokers", brokers, "--kafka-topic", topic];
        let single = ["--kafka-allow-single-replica", "--kafka-replication-factor", "1"];
        let shape = ["--kafka-partitions", &partitions];
        let all = arguments.iter().chain(&flags).chain(&single).chain(&shape);
        let Command::DeadLetters(args) = Cli::parse_from(all).command else { unreachable!() };
        open_for_publishing(args.engines())
    };
    opened(PARTITIONS).unwrap().close().unwrap();
    let refused = opened(PARTITIONS + 1).unwrap_err().to_string();
    assert!(refused.contains("has 3 partitions and 4 were configured"), "{refused}");
}
