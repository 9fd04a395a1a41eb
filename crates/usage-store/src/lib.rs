//! The store of usage: schema → rows → token → insert; identities, to remember what is stored;
//! conservation, to prove it.
//!
//! The only crate that names ClickHouse. It runs on a server, on a replicated cluster and on the
//! embedded engine alike; the SQL is in `queries/` and in the repository's `clickhouse-schema/`.

pub mod audit_rows;
pub mod check;
pub mod config;
pub mod conservation;
pub mod dead_letters;
pub mod error;
pub mod event_rows;
pub mod identities;
pub mod insert;
pub mod migrate;
mod native;
pub mod reused_ids;
mod row_binary;
mod row_reader;
pub mod schema;
pub mod store;
mod table;
pub mod token;

pub use audit_rows::{ConflictRow, DeadLetterRow, IngestBatchRow};
pub use config::UsageStoreConfig;
pub use error::{InsertError, Retry, StoreError};
pub use event_rows::{EncodedRows, EventRows, Position};
pub use identities::{IdentityRow, RecentInsert, Remembered};
pub use store::UsageStore;
pub use token::InsertToken;
