//! usage-store
