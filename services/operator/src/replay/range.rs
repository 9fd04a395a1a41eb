//! Which part of the log to replay, as a person says it.

use crate::config::instant;
use chrono::{DateTime, Utc};
use event_log::Offset;
use std::str::FromStr;

/// Where a replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStart {
    /// At the first record that the log still has, in every partition.
    Earliest,
    /// At the first record that was appended at or after it, in every partition.
    Time(DateTime<Utc>),
    /// At an offset of one partition.
    At { partition: u16, offset: Offset },
}

/// Where it ends; the end is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayEnd {
    Time(DateTime<Utc>),
    Offset(Offset),
}

impl FromStr for ReplayStart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "earliest" {
            return Ok(Self::Earliest);
        }
        let at = text.split_once(':').and_then(|(partition, offset)| {
            Some(Self::At { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        });
        match at {
            Some(at) => Ok(at),
            None => instant(text).map(Self::Time).map_err(|_| {
                format!("`{text}` is not a time such as 2026-11-21T12:00:00Z, partition:offset such as 3:4711, or earliest")
            }),
        }
    }
}

impl FromStr for ReplayEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(offset) = text.parse() {
            return Ok(Self::Offset(offset));
        }
        instant(text).map(Self::Time).map_err(|_| {
            format!(
                "`{text}` is not a time such as 2026-11-21T12:00:00Z, or an offset such as 4711"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_and_ends_are_told_apart() {
        let time = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!("earliest".parse(), Ok(ReplayStart::Earliest));
        assert_eq!("3:4711".parse(), Ok(ReplayStart::At { partition: 3, offset: 4711 }));
        assert_eq!("2026-11-21T12:00:00Z".parse(), Ok(ReplayStart::Time(time)));
        assert_eq!("4711".parse(), Ok(ReplayEnd::Offset(4711)));
        assert_eq!("2026-11-21T13:00:00+01:00".parse(), Ok(ReplayEnd::Time(time)));
        for refused in ["", "latest", "3:", "70000:1", "-1:5", "2026-11-21"] {
            assert!(refused.parse::<ReplayStart>().is_err(), "{refused}");
            assert!(refused.parse::<ReplayEnd>().is_err(), "{refused}");
        }
    }
}
