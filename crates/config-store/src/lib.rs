//! Who may send events, and what is billed: key text → parse → cache → store (Postgres or SQLite).
//!
//! Every change is written together with an entry in a log of changes, which caches follow, so that
//! a revoked key is refused everywhere within two seconds.

pub mod cache;
pub mod error;
pub mod key;
pub mod model;
pub mod scope;
pub mod store;

pub use cache::{AuthError, AuthenticatedOrganization, CacheOptions, KeyCache, LookupError};
pub use error::{ConfigError, Entity};
pub use key::{Pepper, PresentedKey};
pub use model::{ApiKey, ChangeKind, ConfigChange, Customer, Organization};
pub use scope::{Scope, ScopeSet};
pub use store::{ConfigStore, PoolOptions};
