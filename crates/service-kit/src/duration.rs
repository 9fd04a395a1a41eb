//! Durations as people write them in flags and variables.

use std::time::Duration;

/// Longest duration that can be configured: ten years, in seconds.
const SECONDS_MAX: u64 = 10 * 365 * 86_400;

/// Reads a duration such as `35d`, `5m` or `250ms`: above zero and at most ten years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 35d, 5m or 250ms"))?;
    if duration.is_zero() || duration > Duration::from_secs(SECONDS_MAX) {
        return Err("a duration here is above zero and at most ten years".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_bounds() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("3650d").is_ok());
        for refused in ["", "5", "0s", "3651d", "-1s", "soon"] {
            assert!(parse_duration(refused).is_err(), "{refused}");
        }
    }
}
