//! The envelope of a request: one event, or `{"events": […]}`.

use crate::json_text::Kind;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use std::fmt;

/// The events of a request as JSON texts, each known to be valid JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct EventRequest<'a> {
    events: Vec<&'a str>,
    batch: bool,
}

/// Why a whole request was refused; none of its events was looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the body is not valid JSON at line {line}, column {column}; nothing of it was stored")]
    MalformedJson { line: usize, column: usize },
    #[error("the body is {found}; send one event object, or {{\"events\": [...]}}")]
    NotAnObject { found: &'static str },
    #[error("`events` is not an array; send {{\"events\": [...]}}")]
    EventsNotAnArray,
    #[error("`events` is empty; send at least one event")]
    NoEvents,
    #[error("the request has more than {max} events; split it")]
    TooManyEvents { max: usize },
    #[error("a request with `events` has no other fields; put `{name}` into the events")]
    FieldBesideEvents { name: String },
}

impl<'a> EventRequest<'a> {
    /// Finds the events of `body`, at most `events_max` of them.
    pub fn parse(body: &'a str, events_max: usize) -> Result<Self, RequestError> {
        let trimmed = body.trim_matches([' ', '\t', '\n', '\r']);
        let mut envelope = Envelope {
            events: Vec::new(),
            events_max,
            has_events: false,
            other: None,
            fault: None,
        };
        if !trimmed.starts_with('{') {
            let _: &RawValue = serde_json::from_str(body).map_err(|e| malformed(&e))?;
            return Err(RequestError::NotAnObject { found: Kind::of(trimmed).name() });
        }
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let read = (&mut envelope).deserialize(&mut deserializer).and_then(|()| deserializer.end());
        if let Some(fault) = envelope.fault {
            return Err(fault);
        }
        // The text is JSON, but of another shape than an array of values.
        read.map_err(|e| if e.is_data() { RequestError::EventsNotAnArray } else { malformed(&e) })?;
        match (envelope.has_events, envelope.other) {
            (false, _) => Ok(Self { events: vec![trimmed], batch: false }),
            (true, Some(name)) => Err(RequestError::FieldBesideEvents { name }),
            (true, None) if envelope.events.is_empty() => Err(RequestError::NoEvents),
            (true, None) => Ok(Self { events: envelope.events, batch: true }),
        }
    }

    pub fn events(&self) -> &[&'a str] {
        &self.events
    }

    /// JSON Pointer of an event in the request body.
    pub fn pointer_prefix(&self, index: usize) -> String {
        if self.batch { format!("/events/{index}") } else { String::new() }
    }
}

fn malformed(error: &serde_json::Error) -> RequestError {
    RequestError::MalformedJson { line: error.line(), column: error.column() }
}

struct Envelope<'a> {
    events: Vec<&'a str>,
    events_max: usize,
    has_events: bool,
    other: Option<String>,
    fault: Option<RequestError>,
}

impl<'de> DeserializeSeed<'de> for &mut Envelope<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Envelope<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&RawValue>()? {
            if key.get() != "\"events\"" {
                self.other
                    .get_or_insert_with(|| key.get().trim_matches('"').chars().take(64).collect());
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if self.has_events {
                self.other.get_or_insert_with(|| "a second `events`".to_owned());
            }
            self.has_events = true;
            let mut seed = Events {
                events: &mut self.events,
                events_max: self.events_max,
                fault: &mut self.fault,
            };
            map.next_value_seed(&mut seed)?;
        }
        Ok(())
    }
}

struct Events<'e, 'a> {
    events: &'e mut Vec<&'a str>,
    events_max: usize,
    fault: &'e mut Option<RequestError>,
}

impl<'de> DeserializeSeed<'de> for &mut Events<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Events<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(event) = sequence.next_element::<&'de RawValue>()? {
            if self.events.len() == self.events_max {
                *self.fault = Some(RequestError::TooManyEvents { max: self.events_max });
                return Err(A::Error::custom("too many events"));
            }
            self.events.push(event.get());
        }
        Ok(())
    }
}
