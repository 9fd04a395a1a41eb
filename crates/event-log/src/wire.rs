//! The value of a record: version 1, a JSON object (docs/log-format.md). `encode` writes it, `decode` reads it.
//!
//! Encoding appends to the caller's buffer and decoding borrows from the record, so neither
//! allocates for an event without escaped characters.

mod decode;
mod encode;

pub use decode::{check_record, decode};
pub use encode::encode;

/// The version of the format, the field `v` of every value.
pub const VERSION: u16 = 1;
/// Longest value that is decoded, in bytes. The largest event the API accepts needs less than half.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// First and last year (inclusive) of a timestamp: what a `DateTime64(3)` holds, with a margin.
pub const YEARS: std::ops::RangeInclusive<i32> = 1970..=2261;

/// A record that is no event: it is parked with its position and this reason, never skipped silently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Undecodable {
    pub code: UndecodableCode,
    /// One sentence that names the field and the limit.
    pub detail: String,
}

impl Undecodable {
    fn new(code: UndecodableCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Why a record is no event. The texts are stored with parked records and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UndecodableCode {
    EmptyValue,
    ValueTooLarge,
    NotUtf8,
    MalformedJson,
    NotAnObject,
    DuplicateField,
    UnknownVersion,
    MissingField,
    InvalidField,
    InvalidTimestamp,
    InvalidValue,
    InvalidProperties,
    WrongKey,
    WrongPartition,
}

impl UndecodableCode {
    pub const ALL: [Self; 14] = [
        Self::EmptyValue,
        Self::ValueTooLarge,
        Self::NotUtf8,
        Self::MalformedJson,
        Self::NotAnObject,
        Self::DuplicateField,
        Self::UnknownVersion,
        Self::MissingField,
        Self::InvalidField,
        Self::InvalidTimestamp,
        Self::InvalidValue,
        Self::InvalidProperties,
        Self::WrongKey,
        Self::WrongPartition,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyValue => "empty_value",
            Self::ValueTooLarge => "value_too_large",
            Self::NotUtf8 => "not_utf8",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateField => "duplicate_field",
            Self::UnknownVersion => "unknown_version",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::InvalidValue => "invalid_value",
            Self::InvalidProperties => "invalid_properties",
            Self::WrongKey => "wrong_key",
            Self::WrongPartition => "wrong_partition",
        }
    }
}

#[cfg(test)]
mod tests;
