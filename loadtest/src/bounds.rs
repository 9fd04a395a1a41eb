//! How many of something there may be: exactly so many, or from so many to so many.

use std::fmt;
use std::str::FromStr;

/// Both ends are included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bounds {
    pub min: u64,
    pub max: u64,
}

impl Bounds {
    pub const fn exactly(count: u64) -> Self {
        Self { min: count, max: count }
    }

    pub const fn contains(self, count: u64) -> bool {
        self.min <= count && count <= self.max
    }

    /// Whether some count is within both.
    pub const fn meets(self, other: Self) -> bool {
        self.min <= other.max && other.min <= self.max
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    /// Without an upper end.
    #[must_use]
    pub const fn or_more(self) -> Self {
        Self { min: self.min, max: u64::MAX }
    }
}

/// `7`, or `7..9`.
impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let wrong = || format!("`{text}` is not a count such as 7, or a range such as 7..9");
        let bounds =
            Self { min: min.parse().map_err(|_| wrong())?, max: max.parse().map_err(|_| wrong())? };
        if bounds.min <= bounds.max { Ok(bounds) } else { Err(wrong()) }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(f, "{min}"),
            (min, u64::MAX) => write!(f, "{min} or more"),
            (min, max) => write!(f, "{min} to {max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_belong_to_the_bounds() {
        let bounds = Bounds { min: 2, max: 4 };
        assert_eq!([1, 2, 4, 5].map(|count| bounds.contains(count)), [false, true, true, false]);
        let meets = [Bounds::exactly(1), Bounds { min: 0, max: 2 }, Bounds { min: 4, max: 9 }];
        assert_eq!(meets.map(|other| bounds.meets(other)), [false, true, true]);
        assert!(bounds.or_more().contains(u64::MAX));
    }

    #[test]
    fn counts_and_ranges_are_read() {
        assert_eq!("7".parse(), Ok(Bounds::exactly(7)));
        assert_eq!("7..9".parse(), Ok(Bounds { min: 7, max: 9 }));
        for text in ["", "9..7", "7..", "-1", "a"] {
            assert!(text.parse::<Bounds>().is_err(), "{text}");
        }
        assert_eq!(Bounds { min: 7, max: 9 }.to_string(), "7 to 9");
    }
}
