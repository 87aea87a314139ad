//! The operator's ceilings over what an account may have and set, through the API and the pages.

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::console::{Console, Key, Said, id};
use crate::pages::{PASSWORD, PageUser, add_user};

/// Who asks for the last place at once.
const CROWD: usize = 12;

fn is_refused(said: Said, field: &str, most: &str, setting: &str) {
    let problem = said.problem(422, Some(field));
    let detail = problem["detail"].as_str().expect("a detail");
    for part in [most, setting, "operator"] {
        assert!(detail.contains(part), "{detail}");
    }
}

/// Makes as many as it may, from several requests at once; gives one that was refused.
async fn fill(key: &Key, path: &str, body: &Value, most: usize) -> Said {
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (key, path, body) = (key.clone(), path.to_owned(), body.clone());
        crowd.spawn(async move { key.post(&path, body).await });
    }
    let said = crowd.join_all().await;
    let (made, mut refused): (Vec<_>, Vec<_>) = said.into_iter().partition(|s| s.status == 201);
    assert_eq!(made.len(), most, "{path}: {refused:?}");
    assert_eq!(refused.len(), CROWD - most, "{path}");
    refused.pop().expect("one too many")
}

#[tokio::test]
async fn no_more_is_made_than_the_operator_allows_even_at_once() {
    let console = Console::start_with(|start| {
        start
            .env("TRUEUP_MAX_ACCOUNTS", 3)
            .env("TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT", 3)
            .env("TRUEUP_MAX_API_KEYS_PER_ACCOUNT", 4)
            .env("TRUEUP_MAX_RECORDS_PER_ACCOUNT", 5)
    })
    .await;
    let (first, second) = (console.account().await, console.account().await);
    for what in ["buyers", "publishers", "campaigns"] {
        let path = format!("/api/v1/{what}");
        let refused = fill(&first, &path, &json!({ "name": "x" }), 5).await;
        is_refused(refused, what, "5", "TRUEUP_MAX_RECORDS_PER_ACCOUNT");
        second.named(what, "another account's").await;
    }
    let newest = async |what: &str| {
        let list = first.get(&format!("/api/v1/{what}?limit=1")).await.ok();
        id(&list["data"][0])
    };
    let assignment = json!({ "campaign_id": newest("campaigns").await, "publisher_id": newest("publishers").await,
        "payout": { "kind": "rev_share", "percent": "60" } });
    let refused = fill(&first, "/api/v1/assignments", &assignment, 5).await;
    is_refused(
        refused,
        "assignments",
        "5",
        "TRUEUP_MAX_RECORDS_PER_ACCOUNT",
    );

    let refused = fill(&first, "/api/v1/webhooks", &json!({ "name": "x" }), 3).await;
    is_refused(refused, "webhooks", "3", "TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT");
    let webhook = newest("webhooks").await;
    first.delete(&format!("/api/v1/webhooks/{webhook}")).await;
    second.named("webhooks", "another account's").await;
    first
        .named("webhooks", "in the place of the archived")
        .await;

    // The account's first key counts.
    let refused = fill(&first, "/api/v1/api-keys", &json!({ "name": "x" }), 3).await;
    is_refused(refused, "api_keys", "4", "TRUEUP_MAX_API_KEYS_PER_ACCOUNT");
    let key = newest("api-keys").await;
    first.delete(&format!("/api/v1/api-keys/{key}")).await;
    first.named("api-keys", "in the place of the revoked").await;

    let refused = fill(
        &console.admin(),
        "/api/v1/accounts",
        &json!({ "name": "x" }),
        1,
    )
    .await;
    is_refused(refused, "accounts", "3", "TRUEUP_MAX_ACCOUNTS");
}

#[tokio::test]
async fn secrets_that_are_valid_at_once_are_bounded() {
    let console = Console::start_with(|start| start.env("TRUEUP_MAX_SECRETS_PER_WEBHOOK", 2)).await;
    let key = console.account().await;
    let webhook = key.named("webhooks", "x").await;
    let path = format!("/api/v1/webhooks/{webhook}/secret");
    key.post(&path, json!({})).await.ok();
    key.post(&path, json!({})).await.ok();
    let refused = key.post(&path, json!({})).await;
    is_refused(
        refused,
        "overlap_seconds",
        "2",
        "TRUEUP_MAX_SECRETS_PER_WEBHOOK",
    );
    key.post(&path, json!({ "overlap_seconds": 0 })).await.ok();
    key.post(&path, json!({})).await.ok();
    let webhook = key.get(&format!("/api/v1/webhooks/{webhook}")).await.ok();
    assert_eq!(webhook["secrets"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_webhooks_own_limits_end_at_the_operators_and_older_ones_stay() {
    const SETTING: &str = "TRUEUP_MAX_WEBHOOK_LIMIT_PER_MINUTE";
    let console = Console::start_with(|start| start.env(SETTING, 500)).await;
    let key = console.account().await;
    for field in ["limit_per_minute", "ip_limit_per_minute"] {
        let over = json!({ "name": "x", field: 501 });
        is_refused(
            key.post("/api/v1/webhooks", over).await,
            field,
            "500",
            SETTING,
        );
    }
    let most = json!({ "name": "x", "limit_per_minute": 500, "ip_limit_per_minute": 500 });
    let webhook = id(&key.post("/api/v1/webhooks", most).await.created());
    let path = format!("/api/v1/webhooks/{webhook}");
    let over = json!({ "ip_limit_per_minute": 501 });
    is_refused(
        key.patch(&path, over).await,
        "ip_limit_per_minute",
        "500",
        SETTING,
    );

    // Set before the operator lowered the ceiling.
    let client = console.database.client().await;
    let raise = "UPDATE webhooks SET limit_per_minute = 900 WHERE id = $1";
    let webhook_id: Uuid = webhook.parse().expect("an id");
    client.execute(raise, &[&webhook_id]).await.expect("raises");
    key.patch(&path, json!({ "name": "y" })).await.ok();
    let same = json!({ "limit_per_minute": 900, "name": "z" });
    assert_eq!(key.patch(&path, same).await.ok()["limit_per_minute"], 900);
    let other = json!({ "limit_per_minute": 899 });
    is_refused(
        key.patch(&path, other).await,
        "limit_per_minute",
        "500",
        SETTING,
    );
}

#[tokio::test]
async fn the_pages_meet_the_same_ceilings_and_count_only_users_who_may_sign_in() {
    let console = Console::start_with(|start| {
        start
            .env("TRUEUP_MAX_USERS_PER_ACCOUNT", 2)
            .env("TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT", 1)
            .env("TRUEUP_MAX_RECORDS_PER_ACCOUNT", 1)
            .env("TRUEUP_MAX_WEBHOOK_LIMIT_PER_MINUTE", 500)
    })
    .await;
    let key = console.account().await;
    let account = id(&key.get("/api/v1/account").await.ok());
    add_user(&console, &account, "ann@example.test", "owner").await;
    let mut ann = PageUser::signed_in(&console, "ann@example.test").await;
    for (path, setting) in [
        ("/buyers", "TRUEUP_MAX_RECORDS_PER_ACCOUNT"),
        ("/webhooks", "TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT"),
    ] {
        assert_eq!(ann.post(path, &[("name", "x")]).await.status, 303, "{path}");
        let refused = ann.post(path, &[("name", "y")]).await;
        assert_eq!(refused.status, 422, "{path}");
        assert!(refused.text().contains(setting), "{}", refused.text());
    }

    let mut crowd = JoinSet::new();
    for number in 0..4 {
        let mut ann = ann.clone();
        crowd.spawn(async move {
            let email = format!("user-{number}@example.test");
            let fields = [
                ("email", email.as_str()),
                ("password", PASSWORD),
                ("role", "viewer"),
            ];
            ann.post("/users", &fields).await
        });
    }
    let answers = crowd.join_all().await;
    let made = answers.iter().filter(|answer| answer.status == 303).count();
    assert_eq!(made, 1, "one beside Ann");
    let refused = answers.iter().find(|answer| answer.status == 422);
    let text = refused.expect("one too many").text();
    assert!(text.contains("TRUEUP_MAX_USERS_PER_ACCOUNT"), "{text}");

    let client = console.database.client().await;
    let viewer = "SELECT id FROM users WHERE role = 'viewer'";
    let viewer: Uuid = client.query_one(viewer, &[]).await.expect("one").get(0);
    let path = format!("/users/{viewer}");
    let away = [("role", "viewer"), ("out", "on")];
    assert_eq!(ann.post(&path, &away).await.status, 303);
    let bob = [
        ("email", "bob@example.test"),
        ("password", PASSWORD),
        ("role", "viewer"),
    ];
    assert_eq!(ann.post("/users", &bob).await.status, 303, "a free place");
    let back = ann.post(&path, &[("role", "viewer")]).await;
    assert_eq!(back.status, 422, "{}", back.text());
}
