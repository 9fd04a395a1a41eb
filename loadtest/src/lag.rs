//! How long after its ack an event is visible to SQL, sampled during the run.

use crate::clickhouse::{ClickHouse, columns};
use crate::event::{EventId, Run};
use crate::traffic::Shared;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often ClickHouse is asked, which is also the error of a sample.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// How often the newest accepted event becomes a marker.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// How many markers one query asks for; older ones come first.
const MARKERS_PER_QUERY: usize = 64;
/// A query that takes longer is given up: ClickHouse is paused or away.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const LAG_MAX_MS: u64 = 3_600_000;

/// The samples of a run.
#[derive(Debug)]
pub struct Lag {
    /// Milliseconds from ack to visible, rounded up by at most the polling interval.
    pub samples: Histogram<u64>,
    /// Markers that are not visible yet.
    pub waiting: VecDeque<(EventId, Instant)>,
    pub failed_queries: u64,
}

/// Samples until dropped or aborted; `lag` can be read at any time.
pub async fn sample(traffic: Shared, mut clickhouse: ClickHouse, lag: Rc<std::cell::RefCell<Lag>>) {
    let run = Rc::clone(&traffic.borrow().run);
    let mut polls = interval(POLL_EVERY);
    // A slow query must not be followed by a burst of them.
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marked: Option<(EventId, Instant)> = None;
    loop {
        polls.tick().await;
        let newest = traffic.borrow().newest_acked;
        let fresh = newest.filter(|(id, at)| {
            marked.is_none_or(|(last, last_at)| last != *id && *at >= last_at + MARK_EVERY)
        });
        if let Some(marker) = fresh {
            lag.borrow_mut().waiting.push_back(marker);
            marked = Some(marker);
        }
        let asked: Vec<EventId> =
            lag.borrow().waiting.iter().take(MARKERS_PER_QUERY).map(|(id, _)| *id).collect();
        if asked.is_empty() {
            continue;
        }
        let visible = timeout(QUERY_TIMEOUT, visible(&mut clickhouse, &run, &asked)).await;
        let now = Instant::now();
        match visible {
            Ok(Ok(visible)) => lag.borrow_mut().seen(&visible, now),
            Ok(Err(_)) | Err(_) => lag.borrow_mut().failed_queries += 1,
        }
    }
}

impl Lag {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            samples: Histogram::new_with_bounds(1, LAG_MAX_MS, 3)?,
            waiting: VecDeque::new(),
            failed_queries: 0,
        })
    }

    fn seen(&mut self, visible: &[EventId], now: Instant) {
        let samples = &mut self.samples;
        self.waiting.retain(|(id, acked)| {
            let seen = visible.contains(id);
            if seen {
                let lag = now.saturating_duration_since(*acked).as_millis();
                samples.saturating_record(u64::try_from(lag).unwrap_or(u64::MAX).max(1));
            }
            !seen
        });
    }
}

async fn visible(
    clickhouse: &mut ClickHouse,
    run: &Run,
    asked: &[EventId],
) -> anyhow::Result<Vec<EventId>> {
    let mut markers = String::from("[");
    for (i, id) in asked.iter().enumerate() {
        let facts = run.facts(*id);
        let (code, customer) = (&run.metrics[facts.metric].code, run.customer_id(facts.customer));
        let separator = if i == 0 { "" } else { "," };
        let (_, transaction_id) = run.identity(*id);
        write!(markers, "{separator}('{code}','{customer}','{transaction_id}')")?;
    }
    markers.push(']');
    let mut visible = Vec::new();
    clickhouse
        .rows(
            include_str!("../queries/select_visible_markers.sql"),
            &[("markers", &markers)],
            |row| {
                let [organization, scope, transaction_id] = columns(row)?;
                let mut names = (0..).zip(&run.organizations);
                let organization = names.find(|(_, name)| name.is_empty() || *name == organization);
                visible.extend(organization.and_then(|(i, _)| run.find(i, scope, transaction_id)));
                Ok(())
            },
        )
        .await?;
    Ok(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> EventId {
        EventId { organization: 0, number }
    }

    #[test]
    fn a_marker_is_sampled_once_when_it_is_seen() {
        let now = Instant::now();
        let mut lag = Lag::new().unwrap();
        lag.waiting.extend([(id(1), now), (id(2), now + Duration::from_millis(500))]);
        lag.seen(&[id(1)], now + Duration::from_millis(900));
        lag.seen(&[id(1)], now + Duration::from_millis(1_000));
        assert_eq!((lag.samples.len(), lag.waiting.len()), (1, 1));
        lag.seen(&[id(2)], now + Duration::from_secs(3));
        assert_eq!((lag.samples.len(), lag.waiting.len()), (2, 0));
        assert_eq!((lag.samples.min(), lag.samples.value_at_quantile(1.0) / 10), (900, 250));
    }
}
