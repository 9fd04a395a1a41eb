//! Tells from the API key which organization a request comes from. Nothing else names an organization.

use crate::problem::{Problem, ProblemCode};
use axum::http::{HeaderMap, header};
use chrono::{DateTime, Utc};
use config_store::{AuthError, AuthenticatedOrganization, KeyCache, Scope};
use service_kit::lifecycle::chain;
use std::sync::Arc;

/// The organization whose key is in `Authorization: Bearer …`.
pub(crate) async fn authenticate(
    keys: &KeyCache,
    headers: &HeaderMap,
    at: DateTime<Utc>,
) -> Result<Arc<AuthenticatedOrganization>, Problem> {
    let key = bearer(headers)?;
    keys.authenticate(key, Scope::Ingest, at).await.map_err(refusal)
}

/// The credentials of the only `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| Problem::new(ProblemCode::MissingApiKey))?;
    if values.next().is_some() {
        return Err(Problem::with_detail(
            ProblemCode::InvalidApiKey,
            "the header Authorization was sent more than once; send it once",
        ));
    }
    let (scheme, key) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::new(ProblemCode::MissingApiKey));
    }
    Ok(key.trim())
}

fn refusal(error: AuthError) -> Problem {
    if let AuthError::Unavailable(cause) = &error {
        tracing::warn!(error = chain(cause), "an API key cannot be checked");
    }
    Problem::new(match error {
        AuthError::Malformed | AuthError::Unknown | AuthError::WrongSecret => {
            ProblemCode::InvalidApiKey
        }
        AuthError::Revoked => ProblemCode::ApiKeyRevoked,
        AuthError::Expired => ProblemCode::ApiKeyExpired,
        AuthError::MissingScope { .. } => ProblemCode::InsufficientScope,
        AuthError::Unavailable(_) => ProblemCode::ConfigurationUnavailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(values: &[&str]) -> Result<String, ProblemCode> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(str::to_owned).map_err(|problem| problem.code())
    }

    #[test]
    fn the_key_is_what_follows_bearer() {
        assert_eq!(code(&["Bearer tmk_1"]), Ok("tmk_1".to_owned()));
        assert_eq!(code(&["bearer   tmk_1 "]), Ok("tmk_1".to_owned()));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(code(&[]), Err(ProblemCode::MissingApiKey));
        assert_eq!(code(&["tmk_1"]), Err(ProblemCode::MissingApiKey));
        assert_eq!(code(&["Basic dXNlcjpwYXNz"]), Err(ProblemCode::MissingApiKey));
        assert_eq!(code(&["Bearer"]), Err(ProblemCode::MissingApiKey));
        assert_eq!(code(&["Bearer tmk_1", "Bearer tmk_2"]), Err(ProblemCode::InvalidApiKey));
    }
}
