//! The rebuild for which there was not enough memory, and when it is worth another attempt. Pure.

use crate::batch::Tenure;
use crate::rebalance::Partitions;

/// A rebuild that needed more memory than there was.
#[derive(Clone, Debug)]
pub(crate) struct TooLarge {
    tenures: Vec<Tenure>,
    /// The bytes that were not enough.
    bytes_max: usize,
    /// It is tried again, as there is more by now.
    pub(crate) again: bool,
}

impl TooLarge {
    pub(crate) fn new(tenures: Vec<Tenure>, bytes_max: usize) -> Self {
        Self { tenures, bytes_max, again: false }
    }

    pub(crate) fn is_of(&self, tenure: Tenure) -> bool {
        self.tenures.contains(&tenure)
    }

    /// Whether any of its partitions is still ours.
    pub(crate) fn is_held(&self, partitions: &Partitions) -> bool {
        self.held(partitions).next().is_some()
    }

    /// Whether to try again now that there are `room` bytes: each attempt reads the whole table.
    pub(crate) fn try_again(&mut self, room: usize) -> bool {
        let begins = !self.again && room > self.bytes_max;
        self.again |= begins;
        begins
    }

    /// Those of its partitions that are still ours.
    pub(crate) fn held(&self, partitions: &Partitions) -> impl Iterator<Item = Tenure> {
        self.tenures.iter().copied().filter(|tenure| partitions.holds(*tenure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_that_was_too_large_is_tried_again_once_there_is_more_memory() {
        let mut rebuild = TooLarge::new(vec![Tenure { partition: 0, generation: 1 }], 1000);
        assert!(!rebuild.try_again(900) && !rebuild.try_again(1000) && !rebuild.again);
        assert!(rebuild.try_again(1001) && rebuild.again);
        assert!(!rebuild.try_again(2000), "it is under way");
    }
}
