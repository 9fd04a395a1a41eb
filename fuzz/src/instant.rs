//! A timestamp read by the letter of RFC 3339, with the days counted one year at a time.

/// What a text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Every reader of RFC 3339 takes it: milliseconds since 1970, the rest cut off.
    Strict(i64),
    /// Only the RFC's "may" or a common reading beyond it allows it: a leap second, a space for the
    /// `T`, small letters, U+2212 for the minus sign of the offset. If it is taken, then as this.
    Lenient(i64),
    No,
}

impl Reading {
    pub const fn millis(self) -> Option<i64> {
        match self {
            Self::Strict(millis) | Self::Lenient(millis) => Some(millis),
            Self::No => None,
        }
    }
}

/// Reads `YYYY-MM-DDThh:mm:ss[.s…](Z|±hh:mm)`.
pub fn read(text: &str) -> Reading {
    let characters: Vec<char> = text.chars().collect();
    let mut at = Cursor { rest: &characters, lenient: false };
    match at.instant() {
        Some(millis) if at.lenient => Reading::Lenient(millis),
        Some(millis) => Reading::Strict(millis),
        None => Reading::No,
    }
}

struct Cursor<'a> {
    rest: &'a [char],
    lenient: bool,
}

impl Cursor<'_> {
    fn instant(&mut self) -> Option<i64> {
        let year = self.number(4)?;
        self.one_of("-", "")?;
        let month = self.number(2)?;
        self.one_of("-", "")?;
        let day = self.number(2)?;
        self.one_of("T", "t ")?;
        let hour = self.number(2)?;
        self.one_of(":", "")?;
        let minute = self.number(2)?;
        self.one_of(":", "")?;
        let second = self.number(2)?;
        self.lenient |= second == 60;
        let millis = if self.one_of(".", "").is_some() { self.fraction()? } else { 0 };
        let offset_minutes = self.offset()?;
        let is_date = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
        if !self.rest.is_empty() || !is_date || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let minutes = days_since_1970(year, month, day) * 1440 + hour * 60 + minute;
        Some(((minutes - offset_minutes) * 60 + second) * 1000 + millis)
    }

    /// Digits after the point, of which the first three count.
    fn fraction(&mut self) -> Option<i64> {
        let length = self.rest.iter().take_while(|c| c.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(length);
        self.rest = rest;
        let first: String = digits.iter().chain(&['0', '0']).take(3).collect();
        first.parse().ok().filter(|_| length > 0)
    }

    fn offset(&mut self) -> Option<i64> {
        if self.one_of("Z", "z").is_some() {
            return Some(0);
        }
        let sign = self.one_of("+-", "\u{2212}")?;
        let hours = self.number(2)?;
        self.one_of(":", "")?;
        let minutes = self.number(2)?;
        let offset = hours * 60 + minutes;
        (hours <= 23 && minutes <= 59).then_some(if sign == '+' { offset } else { -offset })
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        let text: String = number.iter().collect();
        text.parse().ok().filter(|_| number.iter().all(char::is_ascii_digit))
    }

    /// Takes the next character if it is one of `strict`, or one of `lenient`.
    fn one_of(&mut self, strict: &str, lenient: &str) -> Option<char> {
        let (first, rest) = self.rest.split_first()?;
        let is_lenient = lenient.contains(*first);
        if !is_lenient && !strict.contains(*first) {
            return None;
        }
        self.lenient |= is_lenient;
        self.rest = rest;
        Some(*first)
    }
}

fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `year` is 0 to 9999.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let days_of_year = |year| if is_leap(year) { 366 } else { 365 };
    let years: i64 = if year >= 1970 {
        (1970..year).map(days_of_year).sum()
    } else {
        -(year..1970).map(days_of_year).sum::<i64>()
    };
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>() + day - 1
}
