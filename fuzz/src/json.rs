//! JSON read one level at a time: every member of an object in its order, repeated keys included.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Whether `text` is one JSON value.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The members of an object, as their texts; `None` when `text` is no object.
pub fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = deserializer.deserialize_map(MembersVisitor).ok()?;
    deserializer.end().ok().map(|()| members)
}

/// The elements of an array, as their texts; `None` when `text` is no array.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// The string that a literal stands for; `None` when it is no string, or holds a lone surrogate.
pub fn string(literal: &str) -> Option<String> {
    serde_json::from_str(literal).ok()
}

/// The text of the member `name`, which stands there once; `None` for `null`.
pub fn member<'a>(members: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    let mut found = members.iter().filter(|(key, _)| string(key).as_deref() == Some(name));
    let text = found.next()?.1;
    assert!(found.next().is_none(), "`{name}` stands twice");
    (text != "null").then_some(text)
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(&'de str, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            members.push((key.get(), value.get()));
        }
        Ok(members)
    }
}
