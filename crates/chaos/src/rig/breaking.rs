//! How each fault is begun and lifted.

use super::Rig;
use crate::fault::{Disk, Fault, LinkFault, Process};
use anyhow::{Context as _, bail};
use std::sync::PoisonError;
use std::time::Duration;
use testkit::proxy::{self, Direction};

/// What beginning a fault has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Something is broken now.
    Done,
    /// Something will be when it is used.
    Waiting,
    /// This machine or build cannot do it.
    LeftOut,
}

impl Rig {
    /// Begins a fault.
    pub fn apply(&self, fault: &Fault) -> anyhow::Result<Applied> {
        match *fault {
            Fault::Kill(process) => self.kill(process)?,
            Fault::Pause(process) => self.pause(process)?,
            Fault::Link(link, fault) => {
                self.link(link)?.iter().for_each(|proxy| proxy.set(on_the_wire(fault)));
                return Ok(Applied::Waiting);
            }
            Fault::Point(..) | Fault::ClockShift { .. } if !fault_injection::ENABLED => {
                return Ok(Applied::LeftOut);
            }
            Fault::Point(process, point, stop) => {
                self.service(process)?.arm(point, stop)?;
                return Ok(Applied::Waiting);
            }
            Fault::FullDisk(disk) => {
                let Some(disk) = self.disks.get(&disk) else { return Ok(Applied::LeftOut) };
                disk.fill()?;
            }
            Fault::ClockShift { process, milliseconds } => {
                self.service(process)?.shift_clock(milliseconds)?;
            }
            Fault::Poison { records } => self.poison(records.into())?,
        }
        Ok(Applied::Done)
    }

    /// Ends a fault. What it has broken recovers by itself, except that engines are started again.
    pub fn lift(&self, fault: &Fault) -> anyhow::Result<()> {
        match *fault {
            Fault::Kill(process) => self.start_again(process),
            Fault::Pause(process) => self.resume(process),
            Fault::Link(link, _) => {
                self.link(link)?.iter().for_each(|proxy| proxy.set(proxy::Fault::None));
                Ok(())
            }
            Fault::Point(process, point, _) => self.service(process)?.disarm(point),
            Fault::FullDisk(disk) => {
                self.disks.get(&disk).map_or(Ok(()), |disk| disk.free())?;
                match (disk, &self.kafka) {
                    // A broker gives up when its disk is full.
                    (Disk::Broker(number), Some(kafka)) if !kafka.is_running(number.into()) => {
                        Ok(kafka.launch(number.into())?)
                    }
                    _ => Ok(()),
                }
            }
            Fault::ClockShift { process, .. } => self.service(process)?.right_clock(),
            Fault::Poison { .. } => Ok(()),
        }
    }

    fn poison(&self, records: u64) -> anyhow::Result<()> {
        let poisoner = self.poisoner.as_ref().context("nobody else can write into this log")?;
        let poisoner = poisoner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut poisoned = self.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
        let confirmed = poisoner.publish(poisoned.0, records);
        *poisoned = (poisoned.0 + records, poisoned.1 + confirmed);
        Ok(())
    }

    /// How many poison records are certainly in the log.
    pub fn poisoned(&self) -> u64 {
        self.poisoned.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn kill(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) => Ok(self.kafka()?.kill(number.into())?),
            Process::ClickHouse => Ok(self.clickhouse.kill()?),
            Process::Database => Ok(self.database()?.kill()?),
            _ => self.service(process)?.kill(),
        }
    }

    fn start_again(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) => Ok(self.kafka()?.restart(number.into())?),
            Process::ClickHouse => Ok(self.clickhouse.start_again()?),
            Process::Database => Ok(self.database()?.restart()?),
            _ => {
                self.service(process)?.release();
                Ok(())
            }
        }
    }

    /// Starts brokers, ClickHouse and the database again if they have ended; an error until all of them
    /// have started.
    pub(super) fn start_ended_engines(&self) -> anyhow::Result<()> {
        if let Some(kafka) = &self.kafka {
            // All of them before one is waited for: none starts while the controllers have no majority.
            for broker in (0..kafka.brokers()).filter(|broker| !kafka.is_running(*broker)) {
                kafka.launch(broker)?;
            }
            if let Some(broker) = (0..kafka.brokers()).find(|broker| !kafka.has_started(*broker)) {
                bail!("broker {} has not started", broker + 1);
            }
        }
        if !self.clickhouse.is_running() {
            self.clickhouse.start_again()?;
        }
        if self.database.is_some() {
            let mut database = self.database()?;
            if !database.is_running() {
                database.restart()?;
            }
        }
        Ok(())
    }

    pub(super) fn kill_engines(&self) -> anyhow::Result<()> {
        if let Some(kafka) = &self.kafka {
            (0..kafka.brokers()).try_for_each(|broker| kafka.kill(broker))?;
        }
        if self.database.is_some() {
            self.database()?.kill()?;
        }
        Ok(self.clickhouse.kill()?)
    }

    fn pause(&self, process: Process) -> anyhow::Result<()> {
        match process {
            // One that a full disk has ended stands still already.
            Process::Broker(number) if !self.kafka()?.is_running(number.into()) => Ok(()),
            Process::Broker(number) => Ok(self.kafka()?.pause(number.into())?),
            Process::ClickHouse if !self.clickhouse.is_running() => Ok(()),
            Process::ClickHouse => Ok(self.clickhouse.pause()?),
            Process::Database => Ok(self.database()?.pause()?),
            _ => self.service(process)?.pause(),
        }
    }

    fn resume(&self, process: Process) -> anyhow::Result<()> {
        match process {
            Process::Broker(number) if !self.kafka()?.is_running(number.into()) => Ok(()),
            Process::Broker(number) => Ok(self.kafka()?.resume(number.into())?),
            Process::ClickHouse if !self.clickhouse.is_running() => Ok(()),
            Process::ClickHouse => Ok(self.clickhouse.resume()?),
            Process::Database => Ok(self.database()?.resume()?),
            _ => self.service(process)?.resume(),
        }
    }
}

fn on_the_wire(fault: LinkFault) -> proxy::Fault {
    match fault {
        LinkFault::Cut => proxy::Fault::Cut,
        LinkFault::RefuseNew => proxy::Fault::RefuseNew,
        LinkFault::BlackHole => proxy::Fault::BlackHole,
        LinkFault::LoseRequests => proxy::Fault::HalfOpen(Direction::Requests),
        LinkFault::LoseAnswers => proxy::Fault::HalfOpen(Direction::Answers),
        LinkFault::DropAnswers => proxy::Fault::DropAnswers,
        LinkFault::TruncateRequests { bytes } => proxy::Fault::TruncateRequests(bytes.into()),
        LinkFault::TruncateAnswers { bytes } => proxy::Fault::TruncateAnswers(bytes.into()),
        LinkFault::Slow { bytes_per_second } => proxy::Fault::Slow { bytes_per_second },
        LinkFault::Delay { milliseconds } => {
            proxy::Fault::Delay(Duration::from_millis(milliseconds.into()))
        }
        LinkFault::RefuseInserts { code } => proxy::Fault::AnswerInsertsWith(code),
        LinkFault::FailAfterInserts { code } => proxy::Fault::FailAfterInsert(code),
        LinkFault::RefuseQueries { code } => proxy::Fault::AnswerQueriesWith(code),
    }
}
