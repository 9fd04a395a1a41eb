//! The fields of one event object, found but not yet read.

use crate::json_text::{Kind, pointer_token, unescape};
use crate::rejection::{Fault, RejectionCode};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

const NAMES: &str = "transaction_id, transaction_scope, external_customer_id, external_subscription_id, code, timestamp, value, properties";

/// The JSON text of each field.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) transaction_id: Option<&'a str>,
    pub(super) transaction_scope: Option<&'a str>,
    pub(super) external_customer_id: Option<&'a str>,
    pub(super) external_subscription_id: Option<&'a str>,
    pub(super) code: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) value: Option<&'a str>,
    pub(super) properties: Option<&'a str>,
    fault: Option<Fault>,
}

impl<'a> Fields<'a> {
    /// `text` is one valid JSON value. The error carries the `transaction_id`, if it could be read.
    pub(super) fn read(text: &'a str) -> Result<Self, (Option<String>, Fault)> {
        let kind = Kind::of(text);
        if kind != Kind::Object {
            let detail = format!("the event is {}; send an object", kind.name());
            return Err((None, Fault::new(RejectionCode::NotAnObject, "", detail)));
        }
        let mut fields: Self = serde_json::from_str(text).map_err(|_| {
            let detail =
                "a field name of the event holds a lone surrogate escape; send valid Unicode";
            (None, Fault::new(RejectionCode::InvalidString, "", detail))
        })?;
        match fields.fault.take() {
            Some(fault) => Err((fields.readable_transaction_id(), fault)),
            None => Ok(fields),
        }
    }

    /// For the answer only: the id as sent, when it is a string of a sane length.
    pub(super) fn readable_transaction_id(&self) -> Option<String> {
        let text = self
            .transaction_id
            .filter(|literal| literal.len() <= 8 * crate::event::ID_BYTES_MAX)?;
        unescape(text).map(Cow::into_owned)
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            "transaction_id" => &mut self.transaction_id,
            "transaction_scope" => &mut self.transaction_scope,
            "external_customer_id" => &mut self.external_customer_id,
            "external_subscription_id" => &mut self.external_subscription_id,
            "code" => &mut self.code,
            "timestamp" => &mut self.timestamp,
            "value" => &mut self.value,
            "properties" => &mut self.properties,
            _ => return None,
        })
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(FieldName(name)) = map.next_key()? {
            let Some(slot) = fields.slot(&name) else {
                map.next_value::<IgnoredAny>()?;
                let shown: String = name.chars().take(64).collect();
                let detail = format!(
                    "`{shown}` is not a field of an event; the fields are {NAMES}; anything else belongs in `properties`"
                );
                fields.fault.get_or_insert(Fault::new(
                    RejectionCode::UnknownField,
                    format!("/{}", pointer_token(&shown)),
                    detail,
                ));
                continue;
            };
            let literal: &'de RawValue = map.next_value()?;
            if slot.replace(literal.get()).is_some() {
                let detail = format!("`{name}` stands twice in the event; send it once");
                fields.fault.get_or_insert(Fault::new(
                    RejectionCode::DuplicateField,
                    format!("/{name}"),
                    detail,
                ));
            }
        }
        Ok(fields)
    }
}

/// A key, borrowed unless it is escaped.
struct FieldName<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for FieldName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = FieldName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(FieldName(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(FieldName(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}
