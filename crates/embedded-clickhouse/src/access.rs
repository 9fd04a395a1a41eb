//! Who is asking: the two users, and the credentials of a request in each of the places a client may put them.

use crate::config::Config;
use crate::exception::{AUTHENTICATION_FAILED, Exception};
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use service_kit::secret::Secret;
use subtle::ConstantTimeEq;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Creates, changes and fills tables.
    Service,
    /// Reads the reader's databases.
    Reader,
}

impl Role {
    /// The role's name in the engine's users.xml.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Reader => "reader",
        }
    }
}

/// The users that exist.
#[derive(Clone, Debug)]
pub struct Users([(String, Secret, Role); 2]);

impl Users {
    pub fn from_config(config: &Config) -> Self {
        Self([
            (config.service_user.clone(), config.service_password.clone(), Role::Service),
            (config.reader_user.clone(), config.reader_password.clone(), Role::Reader),
        ])
    }

    /// The role of the user with these credentials. Passwords are compared in constant time.
    pub fn authenticate(&self, credentials: &Credentials) -> Result<Role, Exception> {
        let Credentials { user, password } = credentials;
        self.0
            .iter()
            .filter(|(name, secret, _)| {
                let same = secret.expose().as_bytes().ct_eq(password.as_bytes());
                name == user && bool::from(same)
            })
            .map(|(_, _, role)| *role)
            .next()
            .ok_or_else(|| {
                Exception::new(
                    AUTHENTICATION_FAILED,
                    "Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)",
                )
            })
    }
}

/// A name and a password as given.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl Credentials {
    /// From `Authorization: Basic`, else from ClickHouse's own headers, else from the URL's parameters.
    pub fn find(
        headers: &HeaderMap,
        url_user: Option<String>,
        url_password: Option<String>,
    ) -> Self {
        let text =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if let Some(basic) = text(header::AUTHORIZATION.as_str()).and_then(|value| basic(&value)) {
            return basic;
        }
        let (user, password) = match text("X-ClickHouse-User") {
            Some(user) => (Some(user), text("X-ClickHouse-Key")),
            None => (url_user, url_password),
        };
        Self {
            user: user.unwrap_or_else(|| "default".to_owned()),
            password: password.unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

fn basic(value: &str) -> Option<Credentials> {
    let encoded = value.strip_prefix("Basic ").or_else(|| value.strip_prefix("basic "))?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users([
            ("s".to_owned(), Secret::new("one"), Role::Service),
            ("r".to_owned(), Secret::new("two"), Role::Reader),
        ])
    }

    fn role(user: &str, password: &str) -> Result<Role, u32> {
        let credentials = Credentials { user: user.to_owned(), password: password.to_owned() };
        users().authenticate(&credentials).map_err(|e| e.code())
    }

    #[test]
    fn a_user_is_known_by_name_and_password_together() {
        assert_eq!(role("s", "one"), Ok(Role::Service));
        assert_eq!(role("r", "two"), Ok(Role::Reader));
        for (user, password) in
            [("s", "two"), ("r", "one"), ("s", ""), ("", "one"), ("default", ""), ("s", "one ")]
        {
            assert_eq!(role(user, password), Err(AUTHENTICATION_FAILED), "{user}:{password}");
        }
    }

    #[test]
    fn credentials_are_found_in_their_three_places() {
        let mut headers = HeaderMap::new();
        let url = || (Some("u".to_owned()), Some("p".to_owned()));
        let found = |headers: &HeaderMap| Credentials::find(headers, url().0, url().1).user;
        assert_eq!(found(&headers), "u");
        headers.insert("X-ClickHouse-User", "h".parse().unwrap());
        assert_eq!(found(&headers), "h");
        headers.insert(header::AUTHORIZATION, "Basic YjpjOmQ=".parse().unwrap());
        let basic = Credentials::find(&headers, None, None);
        assert_eq!((basic.user.as_str(), basic.password.as_str()), ("b", "c:d"));
    }
}
