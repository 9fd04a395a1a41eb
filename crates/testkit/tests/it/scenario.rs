//! Steps that several pipeline tests take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use testkit::event::{Event, now_ms};
use testkit::ledger::Ledger;
use testkit::sender::Sender;

/// `count` events of both demo metrics whose ids begin with `prefix`, spread over three hours.
pub(crate) fn events(prefix: &str, count: i64) -> Vec<Event> {
    let now = now_ms();
    let event = |i: i64| {
        let (id, timestamp_ms) = (format!("{prefix}-{i}"), now - i % 3 * 3_600_000);
        if i % 2 == 0 {
            Event::api_call(id, timestamp_ms)
        } else {
            Event::tokens(id, timestamp_ms, i)
        }
    };
    (0..count).map(event).collect()
}

/// Clients that send batches of 50 events one after another until they are told to stop.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Ledger>>,
}

impl Load {
    pub(crate) fn start(sender: &Sender, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number: usize| {
            let (sender, stop) = (sender.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut ledger = Ledger::default();
                for batch in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    sender.send(&events(&format!("load-{number}-{batch}"), 50), &mut ledger);
                }
                ledger
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    /// Every event whose acceptance was confirmed, once the last batch has been.
    pub(crate) fn finish(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for client in self.clients {
            ledger.merge(
                client.join().expect("a client only ends after its last batch was confirmed"),
            );
        }
        ledger
    }
}
