//! Group commit of the ledger: one sync of the disk for all lines that were written before it.

use anyhow::Context;
use std::fs::File;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{spawn_blocking, spawn_local};

/// Syncs one file whenever somebody waits, one sync at a time.
#[derive(Clone, Debug)]
pub struct GroupSync {
    asked: watch::Sender<u64>,
    synced: watch::Receiver<u64>,
}

impl GroupSync {
    /// To be called within a `LocalSet`.
    pub fn start(file: File) -> Self {
        let (asked, mut asks) = watch::channel(0);
        let (confirm, synced) = watch::channel(0);
        let file = Arc::new(file);
        spawn_local(async move {
            while asks.changed().await.is_ok() {
                // What is written while the disk is busy is left to the next sync.
                let line = *asks.borrow_and_update();
                let file = Arc::clone(&file);
                let done = spawn_blocking(move || file.sync_data()).await;
                if !matches!(done, Ok(Ok(()))) {
                    // Everybody who waits is told by the end of the channel.
                    return;
                }
                confirm.send_replace(line);
            }
        });
        Self { asked, synced }
    }

    /// Returns once the first `lines` lines, which are written, are on the disk.
    pub async fn durable(&self, lines: u64) -> anyhow::Result<()> {
        self.asked.send_if_modified(|asked| {
            let more = lines > *asked;
            *asked = lines.max(*asked);
            more
        });
        let mut synced = self.synced.clone();
        synced.wait_for(|synced| *synced >= lines).await.context("syncing the ledger")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, work)
    }

    #[test]
    fn everybody_who_waits_is_told_in_any_order() {
        block_on(async {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"1\n2\n3\n").unwrap();
            let sync = GroupSync::start(file);
            let (a, b, c) = tokio::join!(sync.durable(3), sync.durable(1), sync.durable(2));
            assert!(a.and(b).and(c).is_ok());
            assert!(sync.durable(2).await.is_ok(), "what is synced stays so");
            assert!(sync.durable(4).await.is_ok());
        });
    }

    #[test]
    fn a_disk_that_fails_is_an_error_for_everybody() {
        block_on(async {
            // A pipe cannot be synced.
            let (_, writer) = std::io::pipe().unwrap();
            let sync = GroupSync::start(File::from(std::os::fd::OwnedFd::from(writer)));
            let (a, b) = tokio::join!(sync.durable(1), sync.durable(2));
            assert!(a.is_err() && b.is_err());
        });
    }
}
