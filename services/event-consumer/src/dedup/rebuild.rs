//! How the index is read back from what the store holds.
