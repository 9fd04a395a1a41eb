//! The domain of usage metering: events, billable metrics, exact quantities, identities, validation.
//!
//! Pure: no I/O, no async, no clock. Time is an argument, and nothing billed is a float.

pub mod event;
pub mod identity;
pub mod json_text;
pub mod metric;
pub mod properties;
pub mod quantity;
pub mod rejection;
pub mod validate;

pub use event::UsageEvent;
pub use identity::IdentityHash;
pub use metric::{Aggregation, BillableMetric, MetricCatalog};
pub use quantity::Quantity;
pub use rejection::{Rejection, RejectionCode};
pub use validate::{EventRequest, ValidatedEvents, ValidationRules, validate};
