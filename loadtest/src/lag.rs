//! How long after its ack an event is visible to SQL, sampled during the run.

use crate::clickhouse::ClickHouse;
use crate::event::Run;
use crate::traffic::Shared;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often ClickHouse is asked, which is also the error of a sample.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// How often the newest accepted event becomes a marker.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// How many markers one query asks for; older ones come first.
const MARKERS_PER_QUERY: usize = 64;
const LAG_MAX_MS: u64 = 3_600_000;

/// The samples of a run.
#[derive(Debug)]
pub struct Lag {
    /// Milliseconds from ack to visible, rounded up by at most the polling interval.
    pub samples: Histogram<u64>,
    /// Markers that are not visible yet.
    pub waiting: VecDeque<(u64, Instant)>,
    pub failed_queries: u64,
}

/// Samples until dropped or aborted; `lag` can be read at any time.
pub async fn sample(traffic: Shared, mut clickhouse: ClickHouse, lag: Rc<std::cell::RefCell<Lag>>) {
    let run = Rc::clone(&traffic.borrow().run);
    let mut polls = interval(POLL_EVERY);
    // A slow query must not be followed by a burst of them.
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marked: Option<(u64, Instant)> = None;
    loop {
        polls.tick().await;
        let newest = traffic.borrow().newest_acked;
        let fresh = newest.filter(|(number, at)| {
            marked.is_none_or(|(last, last_at)| last != *number && *at >= last_at + MARK_EVERY)
        });
        if let Some(marker) = fresh {
            lag.borrow_mut().waiting.push_back(marker);
            marked = Some(marker);
        }
        let asked: Vec<u64> = lag
            .borrow()
            .waiting
            .iter()
            .take(MARKERS_PER_QUERY)
            .map(|(number, _)| *number)
            .collect();
        if asked.is_empty() {
            continue;
        }
        let visible = visible(&mut clickhouse, &run, &asked).await;
        let now = Instant::now();
        match visible {
            Ok(visible) => lag.borrow_mut().seen(&visible, now),
            Err(_) => lag.borrow_mut().failed_queries += 1,
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

    fn seen(&mut self, visible: &[u64], now: Instant) {
        let samples = &mut self.samples;
        self.waiting.retain(|(number, acked)| {
            let seen = visible.contains(number);
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
    numbers: &[u64],
) -> anyhow::Result<Vec<u64>> {
    let mut markers = String::from("[");
    for (i, number) in numbers.iter().enumerate() {
        let facts = run.facts(*number);
        let (code, customer) = (&run.metrics[facts.metric].code, run.customer_id(facts.customer));
        let separator = if i == 0 { "" } else { "," };
        write!(markers, "{separator}('{code}','{customer}','{}')", run.transaction_id(*number))?;
    }
    markers.push(']');
    let mut visible = Vec::new();
    clickhouse
        .rows(
            include_str!("../queries/select_visible_markers.sql"),
            &[("markers", &markers)],
            |row| {
                visible.extend(run.number_of(row));
                Ok(())
            },
        )
        .await?;
    Ok(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_sampled_once_when_it_is_seen() {
        let now = Instant::now();
        let mut lag = Lag::new().unwrap();
        lag.waiting.extend([(1, now), (2, now + Duration::from_millis(500))]);
        lag.seen(&[1], now + Duration::from_millis(900));
        lag.seen(&[1], now + Duration::from_millis(1_000));
        assert_eq!((lag.samples.len(), lag.waiting.len()), (1, 1));
        lag.seen(&[2], now + Duration::from_secs(3));
        assert_eq!((lag.samples.len(), lag.waiting.len()), (2, 0));
        assert_eq!((lag.samples.min(), lag.samples.value_at_quantile(1.0) / 10), (900, 250));
    }
}
