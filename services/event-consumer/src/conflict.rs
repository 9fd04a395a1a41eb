//! Later copies of an event that say something else: kept out of billing, and kept.

use event_log::wire;
use usage_store::{ConflictRow, Position};

/// A refused copy, with its record's value to read the event from when it is stored. Conflicts are
/// rare, so they may cost a copy and a second decoding.
#[derive(Clone, Debug)]
pub struct Conflict {
    pub position: Position,
    pub value: Box<[u8]>,
    pub fingerprint: u64,
    pub first_epoch: u16,
    pub first_offset: u64,
    /// The low 40 bits of the accepted copy's fingerprint: the index remembers no more.
    pub first_fingerprint: u64,
}

impl Conflict {
    pub fn byte_len(&self) -> usize {
        size_of::<Self>() + self.value.len()
    }

    /// The row of `usage_event_conflicts`.
    pub fn row(&self) -> ConflictRow<'_> {
        let (event, _) = wire::decode(&self.value).expect("the value was decoded before");
        ConflictRow {
            event,
            payload_fingerprint: self.fingerprint,
            position: self.position,
            first_epoch: self.first_epoch,
            first_offset: self.first_offset,
            first_payload_fingerprint: self.first_fingerprint,
        }
    }
}
