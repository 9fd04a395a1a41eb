//! Known wrong behaviours, each a bug that a metering or ingestion system was published with, and
//! harmless controls. A rig that does not find the former, or that objects to the latter, proves nothing.

macro_rules! sabotages {
    ($($(#[$doc:meta])* $sabotage:ident = $name:literal,)*) => {
        /// A wrong behaviour that a process can be started with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Sabotage {
            $($(#[$doc])* $sabotage,)*
        }

        impl Sabotage {
            pub const ALL: &[Self] = &[$(Self::$sabotage,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$sabotage => $name,)*
                }
            }
        }
    };
}

sabotages! {
    /// 2xx when the records are in the producer's queue (OpenMeter, Lago).
    AckOnEnqueue = "ack-on-enqueue",
    /// 2xx although publishing failed (FlexPrice).
    AckOnPublishError = "ack-on-publish-error",
    /// Offsets are committed before the insert is confirmed. Nothing compares the store
    /// with the log, as we do when a partition is assigned.
    CommitBeforeInsert = "commit-before-insert",
    /// A batch that failed is left behind and later offsets are committed (Lago, Vector);
    /// nothing compares the store with the log.
    CommitPastFailure = "commit-past-failure",
    /// A record that cannot be decoded is skipped without a trace (Meteroid).
    SkipPoison = "skip-poison",
    /// Offsets are committed by a timer, whatever became of the records (FlexPrice); nothing
    /// compares the store with the log.
    AutoCommit = "auto-commit",
    /// An insert token names where a batch begins, and neither its end nor its content, so that a batch
    /// that is cut again after a crash is taken for the one before.
    TokenWithoutContent = "token-without-content",
    /// The timestamp is part of an event's identity (Lago, FlexPrice, bxb, Meteroid).
    TimestampInIdentity = "timestamp-in-identity",
    /// The last copy of an event wins (bxb). As there, no index keeps the copies apart, and rows are
    /// replaced by identity.
    LastWriteWins = "last-write-wins",
    /// Hourly usage is added up as rows are inserted (Lago until 2025-12), so that a batch that is cut
    /// again after a crash counts twice.
    AdditiveView = "additive-view",
    /// The billing view picks the rows of each period before it compares copies, by `PREWHERE`
    /// (Meteroid by `LIMIT 1 BY` inside of the time filter). No index keeps the copies apart, and rows are replaced by identity.
    FilterBeforeFinal = "filter-before-final",
    /// Copies of an event in different partitions are not compared (FlexPrice, by the day). No index
    /// keeps the copies apart, and rows are replaced by identity.
    FinalPerPartition = "final-per-partition",
    /// Ids are noted as seen before their events are stored, in a set that outlives the process and
    /// that nobody compares with the store (OpenMeter).
    SeenBeforeDurable = "seen-before-durable",
    /// The parts of an identity are joined with `-` (OpenMeter).
    AmbiguousKey = "ambiguous-key",
    /// Quantities pass through binary floating point.
    FloatQuantity = "float-quantity",
    /// A quantity that does not fit becomes 0 (Lago, bxb).
    ZeroWhenTooLarge = "zero-when-too-large",
    /// The log's record time is the event's time, so that retention deletes late events unread
    /// (OpenMeter); nothing compares the store with the log.
    RecordTimeIsEventTime = "record-time-is-event-time",
    /// A consumer without a committed offset starts at the end of the log; nothing compares the store
    /// with the log.
    OffsetResetLatest = "offset-reset-latest",
    /// A revoked API key works for as long as it is cached.
    CacheWithoutRevocation = "cache-without-revocation",
    /// An insert is given up after its first failure, and its offsets are committed (Betterlytics);
    /// nothing compares the store with the log.
    DropAfterFailedInsert = "drop-after-failed-insert",
    /// A refusal by the store's access control counts as a bad event, which is dropped
    /// (Vector); nothing compares the store with the log.
    RefusalIsRejection = "refusal-is-rejection",
    /// Only the latest ids are remembered (OpenMeter's memory driver keeps 128).
    BoundedSeenSet = "bounded-seen-set",
    /// Duplicates are compared within a billing period only (Meteroid).
    DedupWithinPeriod = "dedup-within-period",
    /// An index is kept when its partition was lost and comes back.
    StaleIndex = "stale-index",

    /// Harmless: records are kept after their partition was revoked, and inserted.
    KeepAfterRevoke = "keep-after-revoke",
    /// Harmless: all attempts of an insert carry one token, on a single server too.
    OneToken = "one-token",
    /// Harmless: the producer is not idempotent.
    NoIdempotence = "no-idempotence",
}

impl Sabotage {
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|sabotage| sabotage.name() == name)
    }

    /// Whether the pipeline must stay right with it, because another layer holds.
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::KeepAfterRevoke | Self::OneToken | Self::NoIdempotence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_four_wrong_behaviours_and_three_controls() {
        let harmless = Sabotage::ALL.iter().filter(|sabotage| sabotage.is_harmless()).count();
        assert_eq!((Sabotage::ALL.len() - harmless, harmless), (24, 3));
    }

    #[test]
    fn names_are_unique_and_found() {
        for sabotage in Sabotage::ALL {
            assert_eq!(Sabotage::from_name(sabotage.name()), Some(*sabotage));
        }
    }
}
