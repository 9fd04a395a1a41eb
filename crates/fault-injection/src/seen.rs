//! A set of ids in a file of its own, as products keep one in a cache server: it survives the
//! process, and knows nothing of what became of an id.

#![cfg_attr(not(debug_assertions), expect(dead_code, reason = "release builds inject nothing"))]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const ID_BYTES: usize = 16;

#[derive(Debug)]
pub(crate) struct SeenSet {
    path: PathBuf,
    /// Opened by the first question.
    open: Mutex<Option<(File, HashSet<[u8; ID_BYTES]>)>>,
}

impl SeenSet {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { path, open: Mutex::new(None) }
    }

    /// Whether the set holds `id`; if not, it is added before this returns.
    ///
    /// # Panics
    /// When the file cannot be used.
    pub(crate) fn note(&self, id: &[u8; ID_BYTES]) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, ids) = open.get_or_insert_with(|| {
            let known = std::fs::read(&self.path).unwrap_or_default();
            let file = File::options().create(true).append(true).open(&self.path);
            (file.expect("the set can be written"), known.as_chunks().0.iter().copied().collect())
        });
        let is_new = ids.insert(*id);
        if is_new {
            file.write_all(id).expect("the set can be written");
        }
        !is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_from_the_second_time_on_and_after_a_restart() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("seen");
        let set = SeenSet::new(path.clone());
        assert!(!set.note(&[1; 16]) && set.note(&[1; 16]) && !set.note(&[2; 16]));
        let again = SeenSet::new(path);
        assert!(again.note(&[1; 16]) && again.note(&[2; 16]) && !again.note(&[3; 16]));
    }
}
