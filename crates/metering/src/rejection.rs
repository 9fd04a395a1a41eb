//! Rejections: bad events as values, each with a stable code and a sentence that says how to fix it.

/// Why an event was refused. The texts are part of the API contract and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    NotAnObject,
    MissingField,
    BlankField,
    FieldTooLong,
    InvalidType,
    InvalidString,
    InvalidCharacters,
    UnknownField,
    DuplicateField,
    UnknownMetricCode,
    InvalidTimestamp,
    TimestampTooOld,
    TimestampInFuture,
    MissingValue,
    InvalidValue,
    ValueOutOfRange,
    PropertiesTooLarge,
    PropertiesTooDeep,
    TooManyProperties,
    InvalidProperty,
    DuplicateProperty,
    ConflictingDuplicate,
}

impl RejectionCode {
    pub const ALL: [Self; 22] = [
        Self::NotAnObject,
        Self::MissingField,
        Self::BlankField,
        Self::FieldTooLong,
        Self::InvalidType,
        Self::InvalidString,
        Self::InvalidCharacters,
        Self::UnknownField,
        Self::DuplicateField,
        Self::UnknownMetricCode,
        Self::InvalidTimestamp,
        Self::TimestampTooOld,
        Self::TimestampInFuture,
        Self::MissingValue,
        Self::InvalidValue,
        Self::ValueOutOfRange,
        Self::PropertiesTooLarge,
        Self::PropertiesTooDeep,
        Self::TooManyProperties,
        Self::InvalidProperty,
        Self::DuplicateProperty,
        Self::ConflictingDuplicate,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAnObject => "not_an_object",
            Self::MissingField => "missing_field",
            Self::BlankField => "blank_field",
            Self::FieldTooLong => "field_too_long",
            Self::InvalidType => "invalid_type",
            Self::InvalidString => "invalid_string",
            Self::InvalidCharacters => "invalid_characters",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::UnknownMetricCode => "unknown_metric_code",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TimestampTooOld => "timestamp_too_old",
            Self::TimestampInFuture => "timestamp_in_future",
            Self::MissingValue => "missing_value",
            Self::InvalidValue => "invalid_value",
            Self::ValueOutOfRange => "value_out_of_range",
            Self::PropertiesTooLarge => "properties_too_large",
            Self::PropertiesTooDeep => "properties_too_deep",
            Self::TooManyProperties => "too_many_properties",
            Self::InvalidProperty => "invalid_property",
            Self::DuplicateProperty => "duplicate_property",
            Self::ConflictingDuplicate => "conflicting_duplicate",
        }
    }
}

/// A refused event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Position of the event in its request, from zero.
    pub index: usize,
    /// The event's `transaction_id`, when it could be read.
    pub transaction_id: Option<String>,
    pub code: RejectionCode,
    /// JSON Pointer (RFC 6901) into the request body.
    pub pointer: String,
    /// One sentence that says what is wrong and how to fix it.
    pub detail: String,
}

/// What is wrong with one part of an event, before its place in a request is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: RejectionCode,
    /// JSON Pointer relative to the event, such as `/timestamp`; empty for the event itself.
    pub pointer: String,
    pub detail: String,
}

impl Fault {
    pub fn new(code: RejectionCode, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { code, pointer: pointer.into(), detail: detail.into() }
    }
}
