//! ingest-api
