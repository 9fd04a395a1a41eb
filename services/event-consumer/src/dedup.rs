//! Whether a record is the first copy of its event: exact, from an index of each partition.

mod ages;
pub mod builder;
pub mod index;
pub mod place;
pub mod rebuild;
mod table;

pub use builder::IndexBuilder;
pub use index::{Copy, PartitionIndex, Verdict};
pub use place::{Place, PositionOrder};
