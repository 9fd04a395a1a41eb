//! What the configuration holds, as its users see it.

use crate::scope::ScopeSet;
use chrono::{DateTime, Utc};
use std::fmt;

/// Whom events and keys belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    pub id: String,
    pub name: String,
    pub created_at: DateTime<Utc>,
}

/// An API key without its secret, which is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The public part of the key's text.
    pub key_id: String,
    pub organization_id: String,
    pub name: String,
    pub scopes: ScopeSet,
    pub created_at: DateTime<Utc>,
    /// The first instant at which the key is refused; never when `None`.
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A name for an `external_customer_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub external_customer_id: String,
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// One committed change. `seq` counts from 1 in the order of commits, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    pub seq: u64,
    pub organization_id: String,
    pub kind: ChangeKind,
    /// The key that was changed, for changes of keys.
    pub key_id: Option<String>,
    pub changed_at: DateTime<Utc>,
}

/// What a change was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    OrganizationCreated,
    ApiKeyCreated,
    ApiKeyRevoked,
    BillableMetricCreated,
    BillableMetricArchived,
    CustomerChanged,
    /// Written by a newer version; may have changed anything of the organization.
    Unknown,
}

impl ChangeKind {
    const STORED: [Self; 6] = [
        Self::OrganizationCreated,
        Self::ApiKeyCreated,
        Self::ApiKeyRevoked,
        Self::BillableMetricCreated,
        Self::BillableMetricArchived,
        Self::CustomerChanged,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganizationCreated => "organization_created",
            Self::ApiKeyCreated => "api_key_created",
            Self::ApiKeyRevoked => "api_key_revoked",
            Self::BillableMetricCreated => "billable_metric_created",
            Self::BillableMetricArchived => "billable_metric_archived",
            Self::CustomerChanged => "customer_changed",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn from_stored(text: &str) -> Self {
        Self::STORED.into_iter().find(|kind| kind.as_str() == text).unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
