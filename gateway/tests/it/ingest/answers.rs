//! Each answer of the contract's table, and the order of the checks behind them.

use std::time::Duration;

use trueup_testkit::builders::{SecretSpec, WebhookSpec, add_secret};
use trueup_testkit::{eventually, http};

use super::{World, door, post};

#[tokio::test]
async fn every_method_and_every_shape_is_taken_as_it_came() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;

    let query = format!(
        "{}?caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123",
        webhook.path()
    );
    let from = [("X-Forwarded-For", "198.51.100.7")];
    let form = [
        from[0],
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let json = [from[0], ("Content-Type", "application/json")];
    let before = jiff::Timestamp::now();
    let answers = [
        http::send(door, "GET", &query, &from, b"").await,
        http::send(
            door,
            "POST",
            &webhook.path(),
            &form,
            b"payout=50&ref_id=abc123",
        )
        .await,
        http::send(door, "PUT", &webhook.path(), &json, b"{\"payout\":50}").await,
        http::send(door, "PATCH", &webhook.path(), &json, b"\xFF\x00").await,
        http::send(door, "HEAD", &query, &from, b"").await,
    ];
    let mut ids = Vec::new();
    for answer in answers {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"));
        if !answer.body.is_empty() {
            assert_eq!(answer.json()["ok"], true);
            ids.push(
                answer.json()["event_id"]
                    .as_str()
                    .expect("an id")
                    .to_owned(),
            );
        }
    }
    assert_eq!(ids.len(), 4, "an answer to HEAD has no body");

    let events = world.events().await;
    assert_eq!(events.len(), 5);
    for (event, method) in events.iter().zip(["GET", "POST", "PUT", "PATCH", "HEAD"]) {
        let request = event.request.as_ref().expect("a report");
        assert_eq!(request.method, method);
        assert_eq!(
            (event.webhook_id, event.account_id),
            (webhook.id, webhook.account_id)
        );
        assert_eq!(event.source_ip.to_string(), "198.51.100.7");
        assert!(event.received_at >= before && event.received_at <= jiff::Timestamp::now());
        let (low, high) = trueup_event::ids::time_of_event_id(event.id).expect("a v7");
        assert!(low <= event.received_at && event.received_at < high);
    }
    let request = |n: usize| events[n].request.clone().expect("a report");
    assert_eq!(
        &*request(0).query,
        "caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123"
    );
    assert_eq!(request(1).body, b"payout=50&ref_id=abc123");
    assert_eq!(
        request(1).content_type.as_deref(),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(request(3).body, b"\xFF\x00");
    assert!(ids.contains(&events[0].id.to_string()));
}

#[tokio::test]
async fn what_is_not_a_webhook_is_404_and_what_is_no_method_405() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let unknown = "/api/v1/ppc/inbound-webhooks/0123456789abcdef0123456789abcdef";
    for path in [
        "/",
        "/metrics",
        "/ready",
        "/live",
        "/api/v1/ppc/inbound-webhooks/",
        unknown,
        "/%2e%2e/etc/passwd",
    ] {
        let answer = http::get(door, path).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.json()["ok"].as_bool()),
            (404, Some(false)),
            "{path}"
        );
    }
    for method in ["DELETE", "TRACE", "BREW"] {
        let answer = http::send(door, method, &webhook.path(), &[], b"")
            .await
            .expect("an answer");
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(
            answer.header("allow"),
            Some("GET, POST, PUT, PATCH, HEAD, OPTIONS")
        );
    }
    let before = gateway
        .metric("trueup_gateway_rate_limit_redis_calls_total{outcome=\"ok\"}")
        .await;
    for _ in 0..100 {
        assert_eq!(
            http::get(door, unknown).await.expect("an answer").status,
            404
        );
    }
    let after = gateway
        .metric("trueup_gateway_rate_limit_redis_calls_total{outcome=\"ok\"}")
        .await;
    assert_eq!(before, after, "a stranger's guesses cost no Redis");
}

#[tokio::test]
async fn a_paused_webhook_says_the_seeds_words_and_keeps_what_a_known_sender_sent() {
    let world = World::new().await;
    let spec = WebhookSpec {
        paused: true,
        limit_per_minute: Some(2),
        ..WebhookSpec::with_secret("s3cret")
    };
    let webhook = world.webhook(&spec).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let good = [("X-Webhook-Secret", "s3cret")];
    for headers in [&good[..], &[], &good[..], &good[..]] {
        let answer = post(door, &webhook, "198.51.100.7", headers, "{\"payout\":7}").await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.text(),
            r#"{"ok":false,"reason":"endpoint disabled"}"#
        );
    }
    let kept: Vec<_> = world
        .events()
        .await
        .into_iter()
        .filter(|e| e.request.is_some())
        .collect();
    assert_eq!(
        kept.len(),
        2,
        "within the webhook's limit, and only with the secret"
    );
    assert_eq!(
        kept[0].request.as_ref().expect("whole").body,
        b"{\"payout\":7}"
    );
    let refusal = kept[0].refusal.as_ref().expect("a refusal");
    assert_eq!(
        (refusal.reason.code(), refusal.count),
        ("endpoint_disabled", 1)
    );
}

#[tokio::test]
async fn a_secret_is_asked_for_and_several_are_good_while_a_rotation_overlaps() {
    let world = World::new().await;
    let mut spec = WebhookSpec::with_secret("the-old-one");
    spec.secret_query_param = Some("key".into());
    let webhook = world.webhook(&spec).await;
    let mut gateway = world.generous_gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    world.events().await;
    let status = async |secret: &str| {
        post(
            door,
            &webhook,
            "198.51.100.7",
            &[("x-webhook-secret", secret)],
            "{}",
        )
        .await
    };

    let missing = post(door, &webhook, "198.51.100.7", &[], "{}").await;
    assert_eq!(
        (missing.status, missing.json()["ok"].as_bool()),
        (401, Some(false))
    );
    assert_eq!(status("").await.status, 401);
    assert_eq!(status("the-old-on").await.status, 401);
    assert_eq!(status("the-old-one").await.status, 200);

    let newer = SecretSpec {
        text: "the-new-one".into(),
        expires_in: None,
    };
    add_secret(&world.sql, webhook.id, &newer).await;
    eventually(
        "the new secret is known",
        Duration::from_secs(2),
        || async { (status("the-new-one").await.status == 200).then_some(()) },
    )
    .await;
    assert_eq!(status("the-old-one").await.status, 200, "the overlap");
    world
        .sql
        .execute("UPDATE webhook_secrets SET expires_at = now() WHERE webhook_id = $1 AND expires_at IS NULL AND digest <> sha256('the-new-one')", &[&webhook.id])
        .await
        .expect("expires");
    eventually(
        "the old secret is refused",
        Duration::from_secs(2),
        || async { (status("the-old-one").await.status == 401).then_some(()) },
    )
    .await;

    world.events().await;
    let path = format!("{}?payout=5&key=the-new-one", webhook.path());
    let from = [("X-Forwarded-For", "198.51.100.8")];
    assert_eq!(
        http::send(door, "GET", &path, &from, b"")
            .await
            .expect("an answer")
            .status,
        200
    );
    let events = world.events().await;
    let kept = events
        .iter()
        .find(|e| e.source_ip.to_string() == "198.51.100.8")
        .expect("the event");
    assert_eq!(
        &*kept.request.as_ref().expect("a report").query,
        "payout=5&key=***"
    );
    assert!(!gateway.log().contains("the-new-one") && !gateway.log().contains(&webhook.token));
}

#[tokio::test]
async fn uses_of_secrets_travel_bundled() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let mut gateway = world.gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    for _ in 0..5 {
        let answer = post(
            door,
            &webhook,
            "198.51.100.7",
            &[("X-Webhook-Secret", "s3cret")],
            "{}",
        )
        .await;
        assert_eq!(answer.status, 200);
    }
    let uses = eventually("the uses", Duration::from_secs(15), || async {
        Some(world.secrets_used().await).filter(|uses| !uses.is_empty())
    })
    .await;
    let id: uuid::Uuid = world
        .sql
        .query_one("SELECT id FROM webhook_secrets", &[])
        .await
        .expect("the secret")
        .get(0);
    assert_eq!(
        uses.iter().map(|used| used.secret_id).collect::<Vec<_>>(),
        [id]
    );
}

#[tokio::test]
async fn settings_reach_the_door_within_two_seconds() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world.generous_gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let set = async |assignment: &str| {
        world
            .sql
            .batch_execute(&format!("UPDATE webhooks SET {assignment}"))
            .await
            .expect("updates");
    };
    let says = async |text: &str| {
        eventually(text, Duration::from_secs(2), || async {
            let answer = post(door, &webhook, "198.51.100.7", &[], "{}").await;
            (answer.status.to_string() == text || answer.text().contains(text)).then_some(())
        })
        .await;
    };
    set("enabled = false").await;
    says("endpoint disabled").await;
    set("enabled = true, require_secret = true").await;
    says("401").await;
    set("require_secret = false, archived_at = now()").await;
    says("404").await;
    set("archived_at = NULL, token = token || 'x'").await;
    let renamed = trueup_testkit::builders::Webhook {
        token: format!("{}x", webhook.token),
        ..webhook.clone()
    };
    eventually("the new token", Duration::from_secs(2), || async {
        (post(door, &renamed, "198.51.100.7", &[], "{}").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        post(door, &webhook, "198.51.100.7", &[], "{}").await.status,
        404
    );
}

#[tokio::test]
async fn bad_settings_are_refused_before_a_port_is_bound() {
    let world = World::new().await;
    for (variable, value, names) in [
        ("TRUEUP_REDIS_URL", "http://u:hunter2@x", "TRUEUP_REDIS_URL"),
        (
            "TRUEUP_LIMIT_IP_PER_MINUTE",
            "many",
            "TRUEUP_LIMIT_IP_PER_MINUTE",
        ),
        (
            "TRUEUP_LIMIT_IP_PER_MINUT",
            "50",
            "TRUEUP_LIMIT_IP_PER_MINUTE",
        ),
        (
            "TRUEUP_TRUSTED_PROXIES",
            "everyone",
            "TRUEUP_TRUSTED_PROXIES",
        ),
    ] {
        let mut gateway = world.gateway().env(variable, value).spawn();
        assert_eq!(gateway.exit_code(Duration::from_secs(10)).await, 64);
        let said = eventually("a word", Duration::from_secs(2), || async {
            Some(gateway.log()).filter(|l| !l.is_empty())
        })
        .await;
        assert!(
            said.contains(names) && !said.contains("hunter2") && !said.contains("listening"),
            "{said}"
        );
    }
}
