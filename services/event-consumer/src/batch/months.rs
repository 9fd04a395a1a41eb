//! The calendar months of a batch: each is a part of its own in the store, and their number is limited.

use chrono::{DateTime, Datelike, Utc};

#[derive(Clone, Debug, Default)]
pub(super) struct Months {
    /// Year and month; the one that was met last is at the end, as most events share it.
    seen: Vec<(i32, u32)>,
}

impl Months {
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn insert(&mut self, at: DateTime<Utc>) {
        let month = (at.year(), at.month());
        match self.seen.iter().rposition(|seen| *seen == month) {
            Some(found) => {
                let last = self.seen.len() - 1;
                self.seen.swap(found, last);
            }
            None => self.seen.push(month),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_counts_once() {
        let mut months = Months::default();
        for text in [
            "2026-01-31T23:59:59.999Z",
            "2026-02-01T00:00:00Z",
            "2026-01-01T00:00:00Z",
            "2025-01-05T00:00:00Z",
        ] {
            months.insert(text.parse().unwrap());
        }
        assert_eq!(months.len(), 3);
    }
}
