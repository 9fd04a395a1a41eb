//! Validation: the events of one request, split into accepted events and rejections.
//!
//! A bad event never costs a good one in the same request anything.

use crate::event::{CODE_BYTES_MAX, ID_BYTES_MAX};
use crate::json_text::{Kind, pointer_token, unescape};
use crate::properties::{self, Properties};
use crate::rejection::{Fault, Rejection, RejectionCode};
use crate::{BillableMetric, MetricCatalog, Quantity, UsageEvent};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

mod fields;
mod request;

pub use request::{EventRequest, RequestError};

use fields::Fields;

/// What an organization's events are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidationRules {
    /// Oldest accepted `timestamp`, before the time of the request; 35 days by default.
    pub max_age: TimeDelta,
    /// Latest accepted `timestamp`, after the time of the request; 5 minutes by default.
    pub max_ahead: TimeDelta,
    /// Whether events of metrics that are not in the catalog are accepted.
    pub accept_unknown_codes: bool,
}

impl Default for ValidationRules {
    fn default() -> Self {
        Self {
            max_age: TimeDelta::days(35),
            max_ahead: TimeDelta::minutes(5),
            accept_unknown_codes: false,
        }
    }
}

/// The result for one event of a request, in request order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    Accepted {
        transaction_id: Cow<'a, str>,
    },
    /// The same event stands earlier in the request.
    Duplicate {
        transaction_id: Cow<'a, str>,
    },
    Rejected(Rejection),
}

/// A request's events after validation.
#[derive(Clone, Debug, Default)]
pub struct ValidatedEvents<'a> {
    /// The events to publish, in request order.
    pub accepted: Vec<UsageEvent<'a>>,
    /// One for each event of the request, in request order.
    pub outcomes: Vec<Outcome<'a>>,
}

impl ValidatedEvents<'_> {
    pub fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.outcomes.iter().filter_map(|o| {
            if let Outcome::Rejected(rejection) = o { Some(rejection) } else { None }
        })
    }
}

/// Splits the events of `request`, received at `at` from `organization_id`.
pub fn validate<'a>(
    request: &EventRequest<'a>,
    organization_id: &'a str,
    catalog: &MetricCatalog,
    rules: &ValidationRules,
    at: DateTime<Utc>,
) -> ValidatedEvents<'a> {
    let at = at.trunc_subsecs(3);
    let events = request.events();
    let mut validated = ValidatedEvents {
        accepted: Vec::with_capacity(events.len()),
        outcomes: Vec::with_capacity(events.len()),
    };
    let mut seen: HashMap<(Cow<'a, str>, Cow<'a, str>), usize> =
        HashMap::with_capacity(events.len());
    for (index, text) in events.iter().enumerate() {
        let fields = Fields::read(text);
        let event = fields.and_then(|fields| {
            event(&fields, organization_id, catalog, rules, at)
                .map_err(|fault| (fields.readable_transaction_id(), fault))
        });
        let outcome = match event {
            Ok(event) => {
                match seen.entry((event.transaction_scope.clone(), event.transaction_id.clone())) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(validated.accepted.len());
                        let transaction_id = event.transaction_id.clone();
                        validated.accepted.push(event);
                        Outcome::Accepted { transaction_id }
                    }
                    Entry::Occupied(first) => {
                        repeated(request, index, &validated.accepted[*first.get()], event)
                    }
                }
            }
            Err((transaction_id, fault)) => {
                Outcome::Rejected(reject(request, index, transaction_id, fault))
            }
        };
        validated.outcomes.push(outcome);
    }
    debug_assert_eq!(validated.outcomes.len(), events.len(), "every event has one outcome");
    validated
}

fn repeated<'a>(
    request: &EventRequest<'_>,
    index: usize,
    first: &UsageEvent<'_>,
    event: UsageEvent<'a>,
) -> Outcome<'a> {
    if first.payload_fingerprint() == event.payload_fingerprint() {
        return Outcome::Duplicate { transaction_id: event.transaction_id };
    }
    let detail = "an earlier event of this request has the same transaction_id and another payload; the first one is kept, give this one an id of its own";
    let fault = Fault::new(RejectionCode::ConflictingDuplicate, "/transaction_id", detail);
    Outcome::Rejected(reject(request, index, Some(event.transaction_id.into_owned()), fault))
}

fn reject(
    request: &EventRequest<'_>,
    index: usize,
    transaction_id: Option<String>,
    fault: Fault,
) -> Rejection {
    let Fault { code, pointer, detail } = fault;
    Rejection {
        index,
        transaction_id,
        code,
        pointer: format!("{}{pointer}", request.pointer_prefix(index)),
        detail,
    }
}

fn event<'a>(
    fields: &Fields<'a>,
    organization_id: &'a str,
    catalog: &MetricCatalog,
    rules: &ValidationRules,
    at: DateTime<Utc>,
) -> Result<UsageEvent<'a>, Fault> {
    let transaction_id = required_text("transaction_id", fields.transaction_id, ID_BYTES_MAX)?;
    let external_customer_id =
        required_text("external_customer_id", fields.external_customer_id, ID_BYTES_MAX)?;
    let code = required_text("code", fields.code, CODE_BYTES_MAX)?;
    let transaction_scope =
        optional_text("transaction_scope", fields.transaction_scope, ID_BYTES_MAX)?;
    let external_subscription_id =
        optional_text("external_subscription_id", fields.external_subscription_id, ID_BYTES_MAX)?;
    let timestamp = timestamp(fields.timestamp, rules, at)?;
    let metric = catalog.get(&code);
    if metric.is_none() && !rules.accept_unknown_codes {
        let detail = format!(
            "no billable metric has the code `{code}`; create it first, or correct the code"
        );
        return Err(Fault::new(RejectionCode::UnknownMetricCode, "/code", detail));
    }
    let wanted = metric.and_then(|m| m.field.as_deref());
    let (properties, found) = match fields.properties {
        None => (Properties::EMPTY, None),
        Some(text) if Kind::of(text) == Kind::Null => (Properties::EMPTY, None),
        Some(text) => Properties::parse_and_get(text, wanted)?,
    };
    let value = value(metric, fields.value, found)?;
    Ok(UsageEvent {
        organization_id: Cow::Borrowed(organization_id),
        transaction_scope,
        transaction_id,
        external_customer_id,
        external_subscription_id,
        code,
        timestamp,
        value,
        properties,
        accepted_at: at,
    })
}

fn required_text<'a>(
    name: &'static str,
    value: Option<&'a str>,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Fault> {
    match value {
        None => Err(missing(name)),
        Some(text) if Kind::of(text) == Kind::Null => Err(missing(name)),
        Some(text) => {
            let text = text_value(name, text, bytes_max)?;
            if text.trim().is_empty() {
                return Err(Fault::new(
                    RejectionCode::BlankField,
                    format!("/{name}"),
                    format!("`{name}` is blank; send a non-blank string"),
                ));
            }
            Ok(text)
        }
    }
}

fn missing(name: &str) -> Fault {
    Fault::new(
        RejectionCode::MissingField,
        format!("/{name}"),
        format!("`{name}` is missing; every event needs it"),
    )
}

fn optional_text<'a>(
    name: &'static str,
    value: Option<&'a str>,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Fault> {
    match value {
        None => Ok(Cow::Borrowed("")),
        Some(text) if Kind::of(text) == Kind::Null => Ok(Cow::Borrowed("")),
        Some(text) => text_value(name, text, bytes_max),
    }
}

fn text_value<'a>(
    name: &'static str,
    literal: &'a str,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Fault> {
    let fault = |code, detail: String| Fault::new(code, format!("/{name}"), detail);
    let kind = Kind::of(literal);
    if kind != Kind::String {
        return Err(fault(
            RejectionCode::InvalidType,
            format!("`{name}` is {}; send a string", kind.name()),
        ));
    }
    let Some(text) = unescape(literal) else {
        return Err(fault(
            RejectionCode::InvalidString,
            format!("`{name}` holds a lone surrogate escape; send valid Unicode"),
        ));
    };
    if text.len() > bytes_max {
        return Err(fault(
            RejectionCode::FieldTooLong,
            format!("`{name}` has {} bytes; at most {bytes_max} are allowed", text.len()),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(fault(
            RejectionCode::InvalidCharacters,
            format!("`{name}` holds a control character; remove it"),
        ));
    }
    Ok(text)
}

fn timestamp(
    value: Option<&str>,
    rules: &ValidationRules,
    at: DateTime<Utc>,
) -> Result<DateTime<Utc>, Fault> {
    const EXAMPLE: &str = "send RFC 3339 with an offset, such as 2026-01-31T12:00:00Z";
    let fault = |code, detail: String| Fault::new(code, "/timestamp", detail);
    let literal = match value {
        None => return Err(missing("timestamp")),
        Some(text) if Kind::of(text) == Kind::Null => return Err(missing("timestamp")),
        Some(text) => text,
    };
    let kind = Kind::of(literal);
    if kind != Kind::String {
        return Err(fault(
            RejectionCode::InvalidType,
            format!("`timestamp` is {}; {EXAMPLE}", kind.name()),
        ));
    }
    let parsed = unescape(literal).and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    let Some(timestamp) = parsed else {
        return Err(fault(
            RejectionCode::InvalidTimestamp,
            format!("`timestamp` is not a date and time; {EXAMPLE}"),
        ));
    };
    // Windows are whole milliseconds or more, so cutting the rest never moves an event to another one.
    // Going through milliseconds also makes a leap second (:60) the next second.
    let timestamp = DateTime::from_timestamp_millis(timestamp.timestamp_millis())
        .unwrap_or(DateTime::<Utc>::MIN_UTC);
    if timestamp < at - rules.max_age {
        let detail = format!(
            "`timestamp` is more than {} old; send it earlier next time, or ask for a longer limit",
            span(rules.max_age)
        );
        return Err(fault(RejectionCode::TimestampTooOld, detail));
    }
    if timestamp > at + rules.max_ahead {
        let detail = format!(
            "`timestamp` is more than {} ahead of the server's clock; check the sender's clock",
            span(rules.max_ahead)
        );
        return Err(fault(RejectionCode::TimestampInFuture, detail));
    }
    Ok(timestamp)
}

/// A duration in its largest whole unit.
fn span(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds();
    match seconds {
        s if s != 0 && s % 86_400 == 0 => format!("{} days", s / 86_400),
        s if s != 0 && s % 60 == 0 => format!("{} minutes", s / 60),
        s => format!("{s} seconds"),
    }
}

/// The event's quantity: from the metric's property, or from the event's own `value`.
fn value(
    metric: Option<&BillableMetric>,
    own: Option<&str>,
    property: Option<&str>,
) -> Result<Option<Quantity>, Fault> {
    let own = own.filter(|text| Kind::of(text) != Kind::Null);
    let Some(metric) = metric else {
        return own.map(|text| quantity("value", "/value", text)).transpose();
    };
    let Some(field) = &metric.field else {
        return match own {
            Some(text) => quantity("value", "/value", text).map(Some),
            None if metric.aggregation.needs_quantity() => {
                let detail = format!(
                    "`value` is missing; the metric `{}` is a {} and needs it",
                    metric.code, metric.aggregation
                );
                Err(Fault::new(RejectionCode::MissingValue, "/value", detail))
            }
            None => Ok(None),
        };
    };
    if own.is_some() {
        let detail = format!(
            "the metric `{}` reads `properties.{field}`; remove `value` so that only one number can be meant",
            metric.code
        );
        return Err(Fault::new(RejectionCode::InvalidValue, "/value", detail));
    }
    match property.filter(|text| Kind::of(text) != Kind::Null) {
        Some(text) if metric.aggregation.needs_quantity() => {
            quantity(&format!("properties.{field}"), &properties::pointer(field), text).map(Some)
        }
        Some(text) if matches!(Kind::of(text), Kind::Object | Kind::Array) => {
            let detail = format!(
                "`properties.{field}` is {}; the metric `{}` counts strings, numbers and booleans",
                Kind::of(text).name(),
                metric.code
            );
            Err(Fault::new(RejectionCode::InvalidValue, properties::pointer(field), detail))
        }
        Some(_) => Ok(None),
        None if metric.aggregation == crate::Aggregation::Count => Ok(None),
        None => {
            let detail = format!(
                "`properties.{field}` is missing; the metric `{}` is a {} and needs it",
                metric.code, metric.aggregation
            );
            Err(Fault::new(
                RejectionCode::MissingValue,
                format!("/properties/{}", pointer_token(field)),
                detail,
            ))
        }
    }
}

/// A quantity as a JSON number, or as a JSON string that holds one.
fn quantity(name: &str, pointer: &str, literal: &str) -> Result<Quantity, Fault> {
    let text = match Kind::of(literal) {
        Kind::Number => Cow::Borrowed(literal),
        Kind::String => unescape(literal).unwrap_or(Cow::Borrowed("")),
        kind => {
            let detail = format!(
                "`{name}` is {}; send a decimal number, or a string that holds one",
                kind.name()
            );
            return Err(Fault::new(RejectionCode::InvalidValue, pointer, detail));
        }
    };
    Quantity::parse(&text).map_err(|error| {
        use crate::quantity::QuantityError::{
            NotANumber, TooManyFractionDigits, TooManyIntegerDigits,
        };
        match error {
            NotANumber => Fault::new(
                RejectionCode::InvalidValue,
                pointer,
                format!("`{name}` {error}; send digits such as 12.5"),
            ),
            TooManyIntegerDigits | TooManyFractionDigits => Fault::new(
                RejectionCode::ValueOutOfRange,
                pointer,
                format!(
                    "`{name}` {error}; it would have to be rounded, so send it in another unit"
                ),
            ),
        }
    })
}

#[cfg(test)]
mod tests;
