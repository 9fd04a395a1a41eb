//! Ids that have more than one billable row: billed twice, or used again after the dedup horizon. Pure.

use super::findings::{Check, Example, Findings, Found, Identity};
use chrono::{DateTime, Utc};
use std::time::Duration;
use usage_store::reused_ids::ReusedId;

/// Takes the rows of such ids, those of one id after each other and the earliest in the log first.
#[derive(Debug)]
pub struct ReusedIds {
    horizon: Duration,
    examples_max: usize,
    /// The hash and the acceptance of the row before.
    previous: Option<([u8; 16], DateTime<Utc>)>,
    /// Those that were used again after the horizon: the contract bills them again.
    beyond_horizon: Found,
}

impl ReusedIds {
    pub fn new(horizon: Duration, examples_max: usize) -> Self {
        Self { horizon, examples_max, previous: None, beyond_horizon: Found::default() }
    }

    pub fn row(&mut self, row: ReusedId, findings: &mut Findings) {
        let ReusedId {
            hash,
            organization_id,
            transaction_scope,
            transaction_id,
            position,
            accepted_at,
            places: _,
            is_reused: _,
        } = row;
        let before = self.previous.replace((hash, accepted_at));
        let Some((_, first)) = before.filter(|(known, _)| *known == hash) else { return };
        let identity = Some(Identity { organization_id, transaction_scope, transaction_id });
        let detail = format!(
            "accepted {}, and before that {}",
            accepted_at.to_rfc3339(),
            first.to_rfc3339()
        );
        if accepted_at - first > self.horizon_delta() {
            self.beyond_horizon.count += 1;
            if self.beyond_horizon.examples.len() < self.examples_max {
                self.beyond_horizon.examples.push(Example { position, identity, detail });
            }
        } else {
            findings.add_event(Check::NothingBilledTwice, position, identity, detail);
        }
    }

    pub fn beyond_horizon(self) -> Found {
        self.beyond_horizon
    }

    fn horizon_delta(&self) -> chrono::TimeDelta {
        chrono::TimeDelta::from_std(self.horizon).unwrap_or(chrono::TimeDelta::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use usage_store::Position;

    fn row(hash: u8, offset: u64, day: i64) -> ReusedId {
        ReusedId {
            hash: [hash; 16],
            organization_id: "o".to_owned(),
            transaction_scope: String::new(),
            transaction_id: format!("t{hash}"),
            position: Position { epoch: 1, partition: 0, offset },
            accepted_at: DateTime::from_timestamp(day * 86_400, 0).unwrap(),
            places: Vec::new(),
            is_reused: true,
        }
    }

    #[test]
    fn the_horizon_tells_a_double_from_a_reuse() {
        let mut findings = Findings::new(9);
        let mut ids = ReusedIds::new(Duration::from_secs(35 * 86_400), 9);
        for row in
            [row(1, 0, 0), row(1, 5, 35), row(2, 1, 0), row(2, 6, 36), row(2, 7, 37), row(3, 2, 0)]
        {
            ids.row(row, &mut findings);
        }
        let twice = findings.against(Check::NothingBilledTwice).unwrap();
        let offsets: Vec<_> = twice.examples.iter().map(|e| e.position.offset).collect();
        assert_eq!(offsets, [5, 7]);
        let reused = ids.beyond_horizon();
        assert_eq!((reused.count, reused.examples[0].position.offset), (1, 6));
    }
}
