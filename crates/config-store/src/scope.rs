//! What an API key may do.

use std::fmt;
use std::str::FromStr;

/// One permission. None implies another: a key that administers cannot send events unless it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Send usage events.
    Ingest,
    /// Read usage.
    Read,
    /// Change keys, metrics and customers.
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Admin];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Ingest => 1,
            Self::Read => 2,
            Self::Admin => 4,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scope; use ingest, read or admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// The permissions of a key. Its text is the names, separated by spaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet(u8);

impl ScopeSet {
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }

    /// Reads what [`fmt::Display`] wrote. A name from a newer version is left out: it grants nothing here.
    pub(crate) fn from_stored(text: &str) -> Self {
        text.split(' ').filter_map(|name| name.parse::<Scope>().ok()).collect()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, scope) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_scopes_survives_being_stored() {
        for bits in 0..8u8 {
            let set: ScopeSet =
                Scope::ALL.into_iter().filter(|scope| bits & scope.bit() != 0).collect();
            assert_eq!(ScopeSet::from_stored(&set.to_string()), set);
            for scope in Scope::ALL {
                assert_eq!(set.contains(scope), bits & scope.bit() != 0);
            }
        }
    }

    #[test]
    fn an_unknown_scope_grants_nothing() {
        let set = ScopeSet::from_stored("ingest everything");
        assert_eq!(set.iter().collect::<Vec<_>>(), [Scope::Ingest]);
        assert!("Ingest".parse::<Scope>().is_err());
    }
}
