//! Instances of the API and foreign producers: what they publish, and what they are told about it.

use super::coverage::Seen;
use super::log::NewRecord;
use super::plan::Fault;
use super::world::{World, instant};
use event_log::wire;
use metering::identity::partition_of;
use metering::{Quantity, UsageEvent};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Milliseconds of a day.
const DAY: u64 = 86_400_000;

/// What somebody said about an event. Two copies with another `payload` are a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Payload {
    pub(super) id: u64,
    pub(super) payload: u64,
}

impl Payload {
    /// Organization, scope and transaction id. Joined with a hyphen, many of them are the same text.
    pub(super) fn identity(self) -> (String, String, String) {
        let organization = if self.id.is_multiple_of(5) { "org-a" } else { "org" };
        let (scope, transaction) = match self.id % 3 {
            0 => ("", format!("a-b-{}", self.id / 3)),
            1 => ("a", format!("b-{}", self.id / 3)),
            _ => ("a-b", format!("{}", self.id / 3)),
        };
        (organization.to_owned(), scope.to_owned(), transaction)
    }

    pub(super) fn customer(self) -> String {
        format!("customer-{}", self.payload % 2)
    }

    /// Units of the value; beyond 2⁵³ and 2⁶⁴ for some.
    pub(super) fn units(self) -> Option<i128> {
        let large = if self.id.is_multiple_of(4) { 1_i128 << 70 } else { 1 << 53 };
        (self.id % 7 != 6).then(|| large + i128::from(self.id * 1000 + self.payload))
    }

    /// When the usage happened, in milliseconds since 1970: some copies say another month.
    pub(super) fn timestamp(self) -> i64 {
        let days = self.id % 70 + self.payload * 31;
        instant(0).timestamp_millis() - i64::try_from(days * DAY).expect("a few months")
    }

    fn event(self, accepted_at: u64) -> UsageEvent<'static> {
        let (organization, scope, transaction) = self.identity();
        UsageEvent {
            organization_id: Cow::Owned(organization),
            transaction_scope: Cow::Owned(scope),
            transaction_id: Cow::Owned(transaction),
            external_customer_id: Cow::Owned(self.customer()),
            timestamp: chrono::DateTime::from_timestamp_millis(self.timestamp()).expect("valid"),
            value: self.units().map(|units| Quantity::from_units(units).expect("in range")),
            accepted_at: instant(accepted_at),
            ..UsageEvent::example()
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Producers {
    /// Ids that were published at least once.
    used: u64,
    /// Published, and not confirmed: to be published again.
    unconfirmed: Vec<Payload>,
    /// Records on their way to the log.
    pub(super) delayed: Vec<NewRecord>,
    pub(super) acknowledged: BTreeSet<u64>,
}

impl World {
    /// One request of some producer.
    pub(super) fn produce(&mut self) {
        if !self.producers.delayed.is_empty() && self.prng.chance(300) {
            return self.deliver_delayed();
        }
        if self.happens(Fault::Poison) {
            return self.poison();
        }
        if self.happens(Fault::OffsetGap) {
            self.coverage.note(Seen::OffsetGap);
            let partition = self.any_partition();
            self.log.partition_mut(partition).next += 1;
            return;
        }
        let copy = self.next_copy();
        self.publish(copy);
    }

    fn next_copy(&mut self) -> Payload {
        let (used, repeat) = (self.producers.used, self.producers.unconfirmed.len());
        if repeat > 0 && self.prng.chance(500) {
            let at = self.prng.index(repeat);
            return self.producers.unconfirmed.swap_remove(at);
        }
        if used > 0 && self.happens(Fault::ClientConflict) {
            self.coverage.note(Seen::ClientConflict);
            return Payload { id: self.prng.below(used), payload: self.prng.between(1, 2) };
        }
        if used > 0 && (self.happens(Fault::ClientDuplicate) || used >= self.plan.identities) {
            self.coverage.note(Seen::ClientDuplicate);
            return Payload { id: self.prng.below(used), payload: 0 };
        }
        self.producers.used += 1;
        Payload { id: used, payload: 0 }
    }

    fn publish(&mut self, copy: Payload) {
        let record = self.record(copy);
        if self.happens(Fault::PublishLost) {
            self.coverage.note(Seen::PublishLost);
            self.producers.unconfirmed.push(copy);
        } else if self.happens(Fault::PublishDelayed) {
            self.coverage.note(Seen::PublishDelayed);
            self.producers.delayed.push(record);
            self.producers.unconfirmed.push(copy);
        } else if self.happens(Fault::PublishUnknown) {
            self.coverage.note(Seen::PublishUnknown);
            self.append(record);
            self.producers.unconfirmed.push(copy);
        } else {
            if self.happens(Fault::PublishTwice) {
                self.coverage.note(Seen::PublishTwice);
                self.append(record.clone());
            }
            self.append(record);
            self.acknowledge(copy);
        }
    }

    fn acknowledge(&mut self, copy: Payload) {
        self.coverage.note(Seen::PublishAcknowledged);
        self.producers.acknowledged.insert(copy.id);
    }

    fn deliver_delayed(&mut self) {
        let at = self.prng.index(self.producers.delayed.len());
        let record = self.producers.delayed.swap_remove(at);
        let known = |copy: Payload| self.producers.acknowledged.contains(&copy.id);
        if record.event.is_some_and(known) {
            self.coverage.note(Seen::PublishReordered);
        }
        self.append(record);
    }

    /// What every producer still wants to say, without further faults.
    pub(super) fn finish_producing(&mut self) {
        while !self.producers.delayed.is_empty() {
            self.deliver_delayed();
        }
        for copy in std::mem::take(&mut self.producers.unconfirmed) {
            let record = self.record(copy);
            self.append(record);
            self.acknowledge(copy);
        }
    }

    fn record(&mut self, copy: Payload) -> NewRecord {
        let event = copy.event(self.now);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        event.write_identity_key(&mut key);
        let partition = partition_of(&key, self.plan.partitions);
        let mut epoch = self.log.epoch();
        if self.happens(Fault::EarlierEpoch) {
            self.coverage.note(Seen::EarlierEpochRecord);
            epoch -= 1;
        }
        wire::encode(&event, epoch, &mut value);
        if self.happens(Fault::Keyless) {
            self.coverage.note(Seen::KeylessRecord);
            key.clear();
        }
        NewRecord { partition, key, value, event: Some(copy), accepted_at: self.now }
    }

    /// A record that is no event, or stands where it does not belong.
    fn poison(&mut self) {
        self.coverage.note(Seen::PoisonRecord);
        let used = self.producers.used.max(1);
        let copy = Payload { id: self.prng.below(used), payload: 0 };
        let mut record = self.record(copy);
        let kinds = if self.plan.partitions > 1 { 5 } else { 4 };
        match self.prng.below(kinds) {
            0 => record.value.truncate(20),
            1 => record.value.clear(),
            2 => record.value = b"\xff\xfe no event".to_vec(),
            3 => record.key = b"8:org_demo,0:,5:other,".to_vec(),
            _ => record.partition = (record.partition + 1) % self.plan.partitions,
        }
        self.append(NewRecord { event: None, ..record });
    }

    fn append(&mut self, record: NewRecord) {
        let (partition, event) = (record.partition, record.event);
        let entry = self.log.append(record);
        let (offset, fate) = (entry.offset, entry.fate);
        if fate == super::log::Fate::Open {
            self.coverage.note(Seen::HorizonPassed);
        }
        let now = self.now;
        match event {
            Some(Payload { id, payload }) => self.trace.line(
                now,
                format_args!("append {partition}:{offset} event {id}/{payload} {fate:?}"),
            ),
            None => self.trace.line(now, format_args!("append {partition}:{offset} poison")),
        }
    }
}
