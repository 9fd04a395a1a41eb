//! Wrong behaviours that can be switched on in the driver. A simulation that does not notice them has no teeth.

/// What the driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// Offsets count as stored when their batch is sent.
    CommitBeforeInsert,
    /// What was fetched is committed, as clients do by themselves.
    AutoCommit,
    /// A batch whose insert failed is dropped, and the next one commits past it.
    CommitPastFailure,
    /// What was read before a revocation is still inserted and committed, although an insert before it was given up.
    KeepBufferAndCommit,
    /// A partition is decided without the ids that are in the store.
    NoRebuild,
    /// A rebuild brings what the same process read when it had the partition before.
    StaleRebuild,
    /// A rebuild that fails counts as one that found nothing.
    FailedRebuildIsEmpty,
    /// Conflicting copies become rows, and the last one wins.
    LastWriteWins,
    /// Records that are no events are skipped.
    SkipPoison,
    /// The audit is written before the rows.
    AuditFirst,
    /// Nothing compares the log with the audit when a partition is assigned.
    NoFitCheck,
    /// The token names ranges and not the bytes.
    TokenWithoutBytes,
    /// Records that arrive while a partition is paused are gone when it is resumed.
    DropWhilePaused,
    /// Harmless: retries and replays are never dropped by their tokens.
    NoTokens,
    /// Harmless: what was read before a revocation is still inserted, and not committed.
    KeepBuffer,
    /// Harmless: no answer to a commit ever arrives.
    DeafCommits,
    /// Harmless: every statement of an insert is sent twice.
    SendTwice,
}

impl Sabotage {
    pub(super) const HARMFUL: [Self; 13] = [
        Self::CommitBeforeInsert,
        Self::AutoCommit,
        Self::CommitPastFailure,
        Self::KeepBufferAndCommit,
        Self::NoRebuild,
        Self::StaleRebuild,
        Self::FailedRebuildIsEmpty,
        Self::LastWriteWins,
        Self::SkipPoison,
        Self::AuditFirst,
        Self::NoFitCheck,
        Self::TokenWithoutBytes,
        Self::DropWhilePaused,
    ];
    pub(super) const HARMLESS: [Self; 4] =
        [Self::NoTokens, Self::KeepBuffer, Self::DeafCommits, Self::SendTwice];
}
