//! Billable metrics: what is counted, and from which part of an event.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// How the events of a metric become one number for a window `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregation {
    /// The number of events.
    Count,
    /// The sum of the quantities.
    Sum,
    /// The largest quantity.
    Max,
    /// The smallest quantity.
    Min,
    /// The number of distinct values of the field.
    UniqueCount,
    /// The quantity of the event with the latest timestamp.
    Latest,
    /// The sum of a level that changes over time, weighted by how long each level held.
    WeightedSum,
    /// A percentile of the quantities, by nearest rank.
    Percentile,
}

impl Aggregation {
    pub const ALL: [Self; 8] = [
        Self::Count,
        Self::Sum,
        Self::Max,
        Self::Min,
        Self::UniqueCount,
        Self::Latest,
        Self::WeightedSum,
        Self::Percentile,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
            Self::UniqueCount => "unique_count",
            Self::Latest => "latest",
            Self::WeightedSum => "weighted_sum",
            Self::Percentile => "percentile",
        }
    }

    /// Whether every event of the metric must carry a [`crate::Quantity`].
    pub const fn needs_quantity(self) -> bool {
        match self {
            Self::Count | Self::UniqueCount => false,
            Self::Sum
            | Self::Max
            | Self::Min
            | Self::Latest
            | Self::WeightedSum
            | Self::Percentile => true,
        }
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no aggregation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an aggregation; use one of count, sum, max, min, unique_count, latest, weighted_sum, percentile"
)]
pub struct UnknownAggregation(String);

impl FromStr for Aggregation {
    type Err = UnknownAggregation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|a| a.as_str() == text)
            .ok_or_else(|| UnknownAggregation(text.to_owned()))
    }
}

/// A metric an organization bills by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillableMetric {
    pub code: String,
    pub aggregation: Aggregation,
    /// The property that holds the quantity (or the distinct value); the event's `value` when absent.
    pub field: Option<String>,
}

impl BillableMetric {
    /// Checks what must hold before a metric can be billed by; the message says how to fix it.
    pub fn check(&self) -> Result<(), String> {
        if self.code.trim().is_empty() || self.code.len() > crate::event::CODE_BYTES_MAX {
            return Err(format!(
                "a metric code has 1 to {} bytes and is not blank",
                crate::event::CODE_BYTES_MAX
            ));
        }
        if self.code.chars().any(char::is_control) {
            return Err("a metric code has no control characters".to_owned());
        }
        if self.aggregation == Aggregation::UniqueCount && self.field.is_none() {
            return Err(
                "unique_count needs the name of the property whose values are counted".to_owned()
            );
        }
        if self
            .field
            .as_deref()
            .is_some_and(|f| f.is_empty() || f.len() > crate::properties::KEY_BYTES_MAX)
        {
            return Err(format!(
                "a field name has 1 to {} bytes",
                crate::properties::KEY_BYTES_MAX
            ));
        }
        Ok(())
    }
}

/// The metrics of one organization, by code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricCatalog {
    by_code: HashMap<String, BillableMetric>,
}

impl MetricCatalog {
    pub fn get(&self, code: &str) -> Option<&BillableMetric> {
        self.by_code.get(code)
    }

    /// The metrics, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &BillableMetric> {
        self.by_code.values()
    }

    /// The number of metrics.
    pub fn len(&self) -> usize {
        self.by_code.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_code.is_empty()
    }
}

impl FromIterator<BillableMetric> for MetricCatalog {
    fn from_iter<I: IntoIterator<Item = BillableMetric>>(metrics: I) -> Self {
        Self { by_code: metrics.into_iter().map(|m| (m.code.clone(), m)).collect() }
    }
}
