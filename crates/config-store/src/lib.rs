//! config-store
