//! API keys: what each kind of key is answered.

use crate::api::{Answer, Api, ORGANIZATION, event, now, start, until};
use chrono::TimeDelta;
use config_store::{CacheOptions, Scope};
use std::time::Duration;

async fn post_with(api: &Api, key: &str) -> Answer {
    let request = api
        .client
        .post(api.url("/v1/events"))
        .bearer_auth(key)
        .header("content-type", "application/json");
    Answer::of(request.body(event("t-1").to_string()).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_key_nothing_is_stored() {
    let mut api = start().await;
    let answer =
        Answer::of(api.client.post(api.url("/v1/events")).body("{}").send().await.unwrap()).await;
    answer.assert_problem(401, "missing_api_key");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"tallymark\""));
    let last = api.key.pop().unwrap();
    let mistyped = format!("{}{}", api.key, if last == 'a' { 'b' } else { 'a' });
    api.key.push(last);
    // A key of another pepper has the right form, and an id that nobody has here.
    let stranger = start().await.key.clone();
    for key in ["", "nonsense", mistyped.as_str(), stranger.as_str()] {
        let answer = post_with(&api, key).await;
        assert!(
            ["missing_api_key", "invalid_api_key"].contains(&answer.body["code"].as_str().unwrap()),
            "{key}: {answer:?}"
        );
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").is_some());
    }
    assert!(api.new_in_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_scope_is_refused() {
    let api = start().await;
    let (_, key) = api
        .store
        .create_api_key(
            ORGANIZATION,
            &api.pepper,
            "reader",
            &[Scope::Read, Scope::Admin],
            None,
            now(),
        )
        .await
        .unwrap();
    let answer = post_with(&api, &key).await;
    answer.assert_problem(403, "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_within_two_seconds() {
    let api = start().await;
    assert_eq!(post_with(&api, &api.key).await.status, 200);
    let key_id = api.key.split('_').nth(1).unwrap();
    api.store.revoke_api_key(ORGANIZATION, key_id, now()).await.unwrap();
    until("the key is refused", async || post_with(&api, &api.key).await.status == 401).await;
    // The follower looks for changes twice within the promised time, however slow this machine is.
    assert!(CacheOptions::default().poll_every * 2 <= Duration::from_secs(2));
    post_with(&api, &api.key).await.assert_problem(401, "api_key_revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_when_it_was_to_end() {
    let api = start().await;
    let soon = now() + TimeDelta::seconds(2);
    let (_, key) = api
        .store
        .create_api_key(ORGANIZATION, &api.pepper, "brief", &[Scope::Ingest], Some(soon), now())
        .await
        .unwrap();
    until("the key has expired", async || post_with(&api, &key).await.status == 401).await;
    assert!(now() >= soon, "not before its time");
    post_with(&api, &key).await.assert_problem(401, "api_key_expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_away_cached_keys_work_and_others_wait() {
    let api = start().await;
    assert_eq!(post_with(&api, &api.key).await.status, 200);
    let (_, never_used) = api
        .store
        .create_api_key(ORGANIZATION, &api.pepper, "new", &[Scope::Ingest], None, now())
        .await
        .unwrap();
    api.store.close().await;
    let answer = post_with(&api, &never_used).await;
    answer.assert_problem(503, "configuration_unavailable");
    assert_eq!(post_with(&api, &api.key).await.status, 200);
    assert_eq!(
        api.get("/ready").await.status(),
        200,
        "cached keys work, so requests may come here"
    );
}
