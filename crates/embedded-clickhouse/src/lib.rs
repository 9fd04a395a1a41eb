//! request → authenticate → classify → run (select | insert) → answer: libchdb behind ClickHouse's HTTP interface.
//!
//! A binary, `embedded-clickhouse`, that loads the ClickHouse engine and answers loopback clients which
//! speak to a ClickHouse server: the `clickhouse` crate, `curl`, Grafana. It differs from a server in
//! that it knows two users only, runs one statement per request in a session of its own, and refuses
//! statements that change sessions, files or administration (SET, USE, SYSTEM, INTO OUTFILE).
//!
//! An INSERT is atomic per partition when it is one block: at most 1,048,449 rows and about 256 MB.

pub mod access;
pub mod cancel;
pub mod config;
pub mod engine;
pub mod exception;
pub mod ffi;
pub mod framing;
pub mod guard;
pub mod insert;
pub mod request;
pub mod select;
pub mod server;
pub mod settings;
pub mod sql;
