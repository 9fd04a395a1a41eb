//! plan → ledger → send → resolve → drain → settle → judge → report
//!
//! An open-loop load generator with a ledger of its own. It shares no code with the pipeline it
//! tests, except the clock and the secret type, so a mistake there can't hide behind the same mistake
//! here.

pub mod answer;
pub mod args;
pub mod audit;
pub mod bounds;
pub mod checker;
pub mod clickhouse;
pub mod decimal;
pub mod edge;
pub mod event;
pub mod event_json;
pub mod expectation;
pub mod generate;
pub mod group_sync;
pub mod http;
pub mod judge;
pub mod lag;
pub mod ledger;
pub mod plan;
pub mod processes;
pub mod progress;
pub mod report;
pub mod resolve;
pub mod run;
pub mod schedule;
pub mod set_hash;
pub mod settle;
pub mod totals;
pub mod traffic;
pub mod verdict;
