//! seed → which faults, when, where and for how long. Pure.

use crate::fault::{Disk, Fault, Link, LinkFault, Process, Stop};
use crate::random::Random;
use fault_injection::Point;
use serde::{Deserialize, Serialize};

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedFault {
    /// Milliseconds since the load began.
    pub at: u64,
    /// Milliseconds until it is lifted.
    pub lasts: u64,
    pub fault: Fault,
}

/// What there is to break. The same on every machine: what one cannot do is left out when it is due,
/// so that the other faults of a seed stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    pub processes: Vec<Process>,
    /// By kind, each of which is drawn as often however many there are.
    pub links: Vec<Vec<Link>>,
    pub disks: Vec<Disk>,
    /// Whether others can write into the log.
    pub open_log: bool,
}

/// Kinds of faults; a seed picks some of them, so that rare combinations meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Pause,
    Link,
    Point,
    FullDisk,
    Clock,
    Poison,
}

const KINDS: [Kind; 7] =
    [Kind::Kill, Kind::Pause, Kind::Link, Kind::Point, Kind::FullDisk, Kind::Clock, Kind::Poison];
/// Before the first fault, so that something flows that can be broken.
const QUIET_MS: u64 = 1_000;
/// Of a fault.
const SHORTEST_MS: u64 = 200;
/// Faults of a schedule.
const FAULTS: (u64, u64) = (5, 9);
/// Errors of ClickHouse that its clients have lost events over: timeout, too many parts, memory
/// limit, no space, unknown outcome, access denied.
const CLICKHOUSE_CODES: [u16; 6] = [159, 252, 241, 243, 319, 497];
/// Of a process that judges timestamps: within the 5 minutes that an event may be ahead, so that
/// none is refused that is right.
const API_SHIFTS_MS: [i64; 4] = [-240_000, -5_000, 5_000, 240_000];
/// Of a process that must not decide by its clock: hours, and more than the dedup horizon.
const CONSUMER_SHIFTS_MS: [i64; 6] =
    [-90 * 86_400_000, -7_200_000, -5_000, 5_000, 7_200_000, 90 * 86_400_000];

/// How often a fault is drawn again that would fall together with another one of its target.
const DRAWS_MAX: u64 = 100;

/// The schedule of `seed` for a load of `duration` milliseconds: at least five faults, the last of
/// which is lifted when the load ends, and never two at once of one target.
pub fn schedule(seed: u64, targets: &Targets, duration: u64) -> Vec<TimedFault> {
    let mut random = Random::new(seed);
    let kinds = pick_kinds(&mut random, targets);
    let count = random.between(FAULTS.0, FAULTS.1);
    let mut faults: Vec<TimedFault> = Vec::new();
    for _ in 0..DRAWS_MAX {
        let fault = pick_fault(&mut random, &kinds, targets);
        let at = random.between(QUIET_MS, duration.saturating_sub(QUIET_MS).max(QUIET_MS));
        let longest = duration.saturating_sub(at).clamp(SHORTEST_MS, longest_ms(&fault));
        let drawn = TimedFault { at, lasts: random.between(SHORTEST_MS, longest), fault };
        if !faults.iter().any(|other| other.falls_together_with(&drawn)) {
            faults.push(drawn);
        }
        if u64::try_from(faults.len()) == Ok(count) {
            break;
        }
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// Two to four different kinds, as far as there are so many.
fn pick_kinds(random: &mut Random, targets: &Targets) -> Vec<Kind> {
    let mut possible: Vec<_> = KINDS.into_iter().filter(|kind| targets.allow(*kind)).collect();
    let wanted = usize::try_from(random.between(2, 4)).expect("a handful");
    let mut kinds = Vec::new();
    while kinds.len() < wanted && !possible.is_empty() {
        let kind = random.pick(&possible);
        possible.retain(|other| *other != kind);
        kinds.push(kind);
    }
    kinds
}

impl TimedFault {
    fn falls_together_with(&self, other: &Self) -> bool {
        self.fault.turn() == other.fault.turn()
            && self.at <= other.at + other.lasts
            && other.at <= self.at + self.lasts
    }
}

/// Beyond a consumer's session timeout for what pretends to be dead; short for what blocks everybody.
const fn longest_ms(fault: &Fault) -> u64 {
    match fault {
        Fault::Poison { .. } => SHORTEST_MS,
        Fault::Kill(_) => 6_000,
        Fault::Pause(_) => 14_000,
        Fault::Link(..) | Fault::FullDisk(_) | Fault::ClockShift { .. } => 8_000,
        Fault::Point(..) => 10_000,
    }
}

impl Targets {
    fn allow(&self, kind: Kind) -> bool {
        match kind {
            Kind::Kill | Kind::Pause => !self.processes.is_empty(),
            Kind::Link => !self.links.is_empty(),
            Kind::FullDisk => !self.disks.is_empty(),
            Kind::Poison => self.open_log,
            Kind::Point | Kind::Clock => !self.services().is_empty(),
        }
    }

    fn services(&self) -> Vec<Process> {
        self.processes.iter().copied().filter(|process| process.is_service()).collect()
    }
}

fn pick_fault(random: &mut Random, kinds: &[Kind], targets: &Targets) -> Fault {
    match random.pick(kinds) {
        Kind::Kill => Fault::Kill(random.pick(&targets.processes)),
        Kind::Pause => Fault::Pause(random.pick(&targets.processes)),
        Kind::Link => {
            let kinds: Vec<&[Link]> = targets.links.iter().map(Vec::as_slice).collect();
            let of_a_kind = random.pick(&kinds);
            let link = random.pick(of_a_kind);
            Fault::Link(link, pick_link_fault(random, link))
        }
        Kind::Point => {
            let process = random.pick(&targets.services());
            let point = random.pick(&points_of(process));
            let milliseconds = u32::try_from(random.between(500, 9_000)).expect("seconds");
            let stop = random.pick(&[Stop::Abort, Stop::Stall { milliseconds }, Stop::Error]);
            Fault::Point(process, point, stop)
        }
        Kind::FullDisk => Fault::FullDisk(random.pick(&targets.disks)),
        Kind::Poison => {
            let records = u8::try_from(random.between(1, 9)).expect("a handful");
            Fault::Poison { records }
        }
        Kind::Clock => {
            let process = random.pick(&targets.services());
            let milliseconds = match process {
                Process::EventConsumer(_) => random.pick(&CONSUMER_SHIFTS_MS),
                _ => random.pick(&API_SHIFTS_MS),
            };
            Fault::ClockShift { process, milliseconds }
        }
    }
}

fn pick_link_fault(random: &mut Random, link: Link) -> LinkFault {
    let bytes = u32::try_from(random.between(1, 60_000)).expect("a few bytes");
    let mut faults = vec![
        LinkFault::Cut,
        LinkFault::RefuseNew,
        LinkFault::BlackHole,
        LinkFault::LoseRequests,
        LinkFault::LoseAnswers,
        LinkFault::DropAnswers,
        LinkFault::TruncateRequests { bytes },
        LinkFault::TruncateAnswers { bytes: bytes % 2_000 },
        LinkFault::Slow { bytes_per_second: 20_000 + bytes },
        LinkFault::Delay { milliseconds: bytes % 1_500 },
    ];
    if let Link::ConsumerToClickHouse(_) = link {
        let code = random.pick(&CLICKHOUSE_CODES);
        faults.extend([
            LinkFault::RefuseInserts { code },
            LinkFault::FailAfterInserts { code },
            LinkFault::RefuseQueries { code },
        ]);
    }
    random.pick(&faults)
}

/// The points that a process can come to.
pub fn points_of(process: Process) -> Vec<Point> {
    let is_api = |point: &Point| {
        matches!(
            point,
            Point::RequestAuthenticated
                | Point::BodyRead
                | Point::EventsValidated
                | Point::RecordsEnqueued
                | Point::EventsPublished
        )
    };
    let is_embedded =
        |point: &Point| matches!(point, Point::RecordsWritten | Point::RecordsDurable);
    let points = Point::ALL.iter().copied();
    match process {
        Process::Standalone => points.collect(),
        Process::IngestApi => points.filter(is_api).collect(),
        Process::EventConsumer(_) => {
            points.filter(|point| !is_api(point) && !is_embedded(point)).collect()
        }
        Process::Broker(_) | Process::ClickHouse | Process::Database => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn targets() -> Targets {
        Targets {
            processes: vec![
                Process::IngestApi,
                Process::EventConsumer(0),
                Process::EventConsumer(1),
                Process::Broker(0),
                Process::ClickHouse,
                Process::Database,
            ],
            links: vec![
                vec![Link::ClientToApi],
                vec![Link::ConsumerToClickHouse(0), Link::ConsumerToClickHouse(1)],
            ],
            disks: vec![Disk::ClickHouse],
            open_log: true,
        }
    }

    #[test]
    fn a_seed_is_a_schedule_and_another_seed_is_another() {
        assert_eq!(schedule(7, &targets(), 30_000), schedule(7, &targets(), 30_000));
        assert_ne!(schedule(7, &targets(), 30_000), schedule(8, &targets(), 30_000));
    }

    #[test]
    fn every_fault_is_lifted_when_the_load_ends_and_none_falls_together_with_another_of_its_target()
    {
        for seed in 0..1_000 {
            let faults = schedule(seed, &targets(), 30_000);
            assert!(faults.len() >= 5, "{seed}");
            for fault in &faults {
                assert!(fault.at >= QUIET_MS && fault.at + fault.lasts <= 30_000, "{fault:?}");
            }
            let together = |a: usize, b: usize| faults[a].falls_together_with(&faults[b]);
            let pairs = (0..faults.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
            assert!(pairs.into_iter().all(|(a, b)| !together(a, b)), "{faults:#?}");
        }
    }

    #[test]
    fn every_kind_of_fault_is_met_everywhere() {
        // Without the numbers that a fault has.
        let kind = |fault: &dyn std::fmt::Debug| {
            format!("{fault:?}").split(' ').next().map(str::to_owned).unwrap()
        };
        let mut met = BTreeSet::new();
        for seed in 0..3_000 {
            for TimedFault { fault, .. } in schedule(seed, &targets(), 30_000) {
                met.insert(match fault {
                    Fault::Point(process, point, stop) => {
                        format!("{process} {} {}", point.name(), kind(&stop))
                    }
                    Fault::Link(link, fault) => format!("{link:?} {}", kind(&fault)),
                    other => other.to_string(),
                });
            }
        }
        let points = 5 * 3 + 2 * 11 * 3;
        let (links, processes, shifts, disks, poison) = (10 + 2 * 13, 6 * 2, 4 + 2 * 6, 1, 9);
        let kinds = points + links + processes + shifts + disks + poison;
        assert_eq!(met.len(), kinds, "{met:#?}");
    }

    #[test]
    fn the_way_of_a_service_to_kafka_has_one_fault_at_a_time() {
        let cut = |link| Fault::Link(link, LinkFault::Cut).turn();
        assert_eq!(cut(Link::ConsumerToBroker(1, 0)), cut(Link::ConsumerToBrokers(1)));
        assert_eq!(cut(Link::ApiToBroker(2)), cut(Link::ApiToBrokers));
        assert_ne!(cut(Link::ConsumerToBroker(0, 0)), cut(Link::ConsumerToBrokers(1)));
        assert_ne!(cut(Link::BrokersToBroker(0)), cut(Link::BrokersToBroker(1)));
    }

    #[test]
    fn a_schedule_survives_its_report() {
        let faults = schedule(3, &targets(), 30_000);
        let text = serde_json::to_string(&faults).unwrap();
        assert_eq!(serde_json::from_str::<Vec<TimedFault>>(&text).unwrap(), faults);
    }
}
