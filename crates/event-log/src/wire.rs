//! The value of a record: version 1, a JSON object (docs/log-format.md). `encode` writes it, `decode` reads it.
