//! Accounts, keys, buyers, publishers, campaigns, assignments, webhooks: each route, on the real binary.

use serde_json::{Value, json};
use trueup_testkit::http;

use crate::console::{Console, Key, PUBLIC_URL, id};

#[tokio::test]
async fn an_account_is_made_with_the_admin_key_and_its_first_key_works() {
    let console = Console::start().await;
    let admin = console.admin();
    let body = json!({ "name": " Acme ", "default_region": "DE", "currency": "EUR", "time_zone": "Europe/Berlin" });
    let made = admin.post("/api/v1/accounts", body).await.created();
    assert_eq!(made["name"], "Acme");
    let key = Key {
        address: console.address,
        key: made["api_key"].as_str().expect("shown once").to_owned(),
    };
    let own = key.get("/api/v1/account").await.ok();
    assert_eq!(own["id"], made["id"]);
    assert_eq!(
        [&own["default_region"], &own["currency"], &own["time_zone"]],
        [&json!("DE"), &json!("EUR"), &json!("Europe/Berlin")]
    );
    assert!(own.get("api_key").is_none());

    for (body, field) in [
        (json!({}), "name"),
        (
            json!({ "name": "x", "default_region": "XX" }),
            "default_region",
        ),
        (json!({ "name": "x", "currency": "dollars" }), "currency"),
        (json!({ "name": "x", "currency": "usd" }), "currency"),
        (
            json!({ "name": "x", "time_zone": "Mars/Base" }),
            "time_zone",
        ),
        (
            json!({ "name": "x", "defualt_region": "US" }),
            "defualt_region",
        ),
    ] {
        admin
            .post("/api/v1/accounts", body)
            .await
            .problem(422, Some(field));
    }
    key.post("/api/v1/accounts", json!({ "name": "x" }))
        .await
        .problem(401, None);
    let listed = admin.get("/api/v1/accounts").await.ok();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn without_a_key_or_with_a_bad_one_it_is_401() {
    let console = Console::start().await;
    for headers in [
        &[][..],
        &[("Authorization", "Bearer nonsense")],
        &[("Authorization", "Basic dXNlcjpwYXNz")],
        &[("Authorization", "Bearer ")],
    ] {
        let answer = http::send(console.address, "GET", "/api/v1/buyers", headers, b"")
            .await
            .expect("answers");
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
    console
        .admin()
        .get("/api/v1/buyers")
        .await
        .problem(401, None);
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_and_stored_as_digests_only() {
    let console = Console::start().await;
    let first = console.account().await;
    let made = first
        .post("/api/v1/api-keys", json!({ "name": "crm" }))
        .await
        .created();
    let text = made["api_key"].as_str().expect("shown once").to_owned();
    let second = Key {
        address: console.address,
        key: text.clone(),
    };
    second.get("/api/v1/account").await.ok();

    let listed = first.get("/api/v1/api-keys").await.ok();
    let rows = listed["data"].as_array().expect("rows");
    assert_eq!(
        rows.iter()
            .map(|r| r["name"].as_str().expect("a name"))
            .collect::<Vec<_>>(),
        ["crm", "first"]
    );
    assert!(rows.iter().all(|r| r.get("api_key").is_none()));
    assert!(text.starts_with(rows[0]["prefix"].as_str().expect("a prefix")));
    assert!(rows[0]["last_used_at"].is_string());

    let found = console.database.client().await;
    let leaked = found
        .query_one(
            "SELECT count(*) FROM api_keys WHERE encode(digest, 'escape') LIKE '%' || $1 || '%'",
            &[&text],
        )
        .await
        .expect("counts");
    assert_eq!(leaked.get::<_, i64>(0), 0);

    let path = format!("/api/v1/api-keys/{}", id(&made));
    assert_eq!(first.delete(&path).await.status, 204);
    second.get("/api/v1/account").await.problem(401, None);
    assert_eq!(
        first.delete(&path).await.status,
        204,
        "revoking twice is the same"
    );
    first
        .delete(&format!("/api/v1/api-keys/{}", uuid::Uuid::now_v7()))
        .await
        .problem(404, None);
}

#[tokio::test]
async fn named_things_are_made_shown_listed_and_renamed() {
    let console = Console::start().await;
    let key = console.account().await;
    for what in ["buyers", "publishers", "campaigns"] {
        let path = format!("/api/v1/{what}");
        let made = key.post(&path, json!({ "name": "One" })).await.created();
        assert_eq!(
            made["pending_balance_cents"],
            if what == "publishers" {
                json!(0)
            } else {
                Value::Null
            }
        );
        let one = format!("{path}/{}", id(&made));
        assert_eq!(key.get(&one).await.ok(), made);
        assert_eq!(
            key.patch(&one, json!({ "name": "Uno" })).await.ok()["name"],
            "Uno"
        );
        assert_eq!(key.get(&path).await.ok()["data"][0]["name"], "Uno");
        key.post(&path, json!({ "name": "" }))
            .await
            .problem(422, Some("name"));
        key.post(&path, json!({ "name": 7 }))
            .await
            .problem(422, Some("name"));
        key.post(&path, json!({ "name": "x".repeat(201) }))
            .await
            .problem(422, Some("name"));
        key.post(&path, json!({ "name": "x", "nmae": "y" }))
            .await
            .problem(422, Some("nmae"));
        key.send("POST", &path, b"{\"name\":")
            .await
            .problem(400, None);
        key.post(&path, json!(["x"])).await.problem(400, None);
        key.get(&format!("{path}/not-a-uuid"))
            .await
            .problem(404, None);
        key.get(&format!("{path}?limt=1"))
            .await
            .problem(422, Some("limt"));
        assert_eq!(
            key.send("PUT", &one, b"{}").await.problem(405, None)["title"],
            "Method Not Allowed"
        );
    }
    key.get("/api/v1/bayers").await.problem(404, None);
}

#[tokio::test]
async fn lists_are_cut_by_cursor_without_a_gap_or_a_repetition() {
    let console = Console::start().await;
    let key = console.account().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(key.named("buyers", &format!("buyer {n}")).await);
    }
    made.reverse();
    let (mut seen, mut path) = (Vec::new(), "/api/v1/buyers?limit=3".to_owned());
    loop {
        let page = key.get(&path).await.ok();
        seen.extend(page["data"].as_array().expect("rows").iter().map(id));
        // What arrives meanwhile moves nothing.
        key.named("buyers", "late").await;
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/buyers?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for bad in ["limit=0", "limit=501", "limit=x"] {
        key.get(&format!("/api/v1/buyers?{bad}"))
            .await
            .problem(422, Some("limit"));
    }
    key.get("/api/v1/buyers?cursor=bm9uc2Vuc2U")
        .await
        .problem(422, Some("cursor"));
    assert_eq!(
        key.get("/api/v1/buyers?limit=500").await.ok()["next_cursor"],
        Value::Null
    );
}

#[tokio::test]
async fn assignments_hold_exact_terms_and_never_change_their_publisher() {
    let console = Console::start().await;
    let key = console.account().await;
    let (share, publisher) = key
        .assignment(json!({ "kind": "rev_share", "percent": "60.0000" }))
        .await;
    let path = format!("/api/v1/assignments/{share}");
    let shown = key.get(&path).await.ok();
    assert_eq!(
        shown["payout"],
        json!({ "kind": "rev_share", "percent": "60" })
    );
    assert_eq!(shown["publisher_id"], json!(publisher));
    let changed = key
        .patch(
            &path,
            json!({ "payout": { "kind": "flat", "amount_cents": 1800 } }),
        )
        .await
        .ok();
    assert_eq!(
        changed["payout"],
        json!({ "kind": "flat", "amount_cents": 1800 })
    );
    let other = key.named("publishers", "Bob").await;
    key.patch(&path, json!({ "publisher_id": other }))
        .await
        .problem(422, Some("publisher_id"));
    key.patch(&path, json!({ "publisher_id": publisher }))
        .await
        .ok();

    let campaign = key.named("campaigns", "C").await;
    for (payout, field) in [
        (
            json!({ "kind": "rev_share", "percent": "100.0001" }),
            "payout.percent",
        ),
        (
            json!({ "kind": "rev_share", "percent": "33.33333" }),
            "payout.percent",
        ),
        (
            json!({ "kind": "rev_share", "percent": 60 }),
            "payout.percent",
        ),
        (json!({ "kind": "rev_share" }), "payout.percent"),
        (json!({ "kind": "flat" }), "payout.amount_cents"),
        (
            json!({ "kind": "flat", "amount_cents": -1 }),
            "payout.amount_cents",
        ),
        (
            json!({ "kind": "flat", "amount_cents": 18.5 }),
            "payout.amount_cents",
        ),
        (
            json!({ "kind": "flat", "amount_cents": 1, "percent": "1" }),
            "payout.percent",
        ),
        (json!({ "kind": "per_minute" }), "payout.kind"),
        (
            json!({ "kind": "flat", "amount_cent": 1, "amount_cents": 1 }),
            "payout.amount_cent",
        ),
        (json!("60"), "payout"),
        (Value::Null, "payout"),
    ] {
        let body = json!({ "campaign_id": campaign, "publisher_id": publisher, "payout": payout });
        key.post("/api/v1/assignments", body)
            .await
            .problem(422, Some(field));
    }
    let stranger = uuid::Uuid::now_v7();
    let flat = json!({ "kind": "flat", "amount_cents": 1 });
    let body = json!({ "campaign_id": stranger, "publisher_id": stranger, "payout": flat });
    let problem = key
        .post("/api/v1/assignments", body)
        .await
        .problem(422, Some("campaign_id"));
    assert_eq!(
        problem["errors"].as_array().map(Vec::len),
        Some(2),
        "all faults at once"
    );
}

#[tokio::test]
async fn a_webhook_has_every_setting_and_a_url_that_works_when_pasted() {
    let console = Console::start().await;
    let key = console.account().await;
    let buyer = key.named("buyers", "Ringba HVAC").await;
    let plain = key
        .post("/api/v1/webhooks", json!({ "name": "plain" }))
        .await
        .created();
    let token = plain["token"].as_str().expect("a token");
    assert_eq!(
        plain["url"],
        format!("{PUBLIC_URL}/api/v1/ppc/inbound-webhooks/{token}")
    );
    assert!(
        token.len() >= 22
            && token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    let defaults = [
        ("enabled", json!(true)),
        ("require_secret", json!(false)),
        ("duration_tolerance_seconds", json!(60)),
        ("match_window_hours", json!(24)),
        ("payout_cap_cents", json!(1_000_000)),
        ("limit_per_minute", Value::Null),
        ("field_names", json!({})),
        ("on_currency_mismatch", json!("hold")),
        ("archived_at", Value::Null),
        ("last_event_at", Value::Null),
        ("secrets", json!([])),
    ];
    for (name, value) in defaults {
        assert_eq!(plain[name], value, "{name}");
    }
    assert!(plain.get("secret").is_none());

    let settings = json!({
        "name": "full", "buyer_id": buyer, "enabled": false, "require_secret": true, "secret_query_param": "key",
        "field_names": { "payout": "call.payout", "caller": "from" }, "duration_tolerance_seconds": 90,
        "match_window_hours": 48, "limit_per_minute": 500, "ip_limit_per_minute": 100, "payout_cap_cents": 50_000,
        "duration_unit": "milliseconds", "payout_unit": "cents", "on_currency_mismatch": "trust",
        "on_rejection_word": "trust",
    });
    let full = key
        .post("/api/v1/webhooks", settings.clone())
        .await
        .created();
    for (name, value) in settings.as_object().expect("an object") {
        assert_eq!(&full[name], value, "{name}");
    }
    assert!(
        full["secret"]
            .as_str()
            .is_some_and(|secret| secret.len() > 40)
    );
    let path = format!("/api/v1/webhooks/{}", id(&full));
    let again = key.get(&path).await.ok();
    assert!(again.get("secret").is_none(), "shown once");
    assert_eq!(again["secrets"].as_array().map(Vec::len), Some(1));

    let changes = json!({ "buyer_id": null, "limit_per_minute": null, "field_names": { "ref_id": "click" }, "enabled": true });
    let changed = key.patch(&path, changes).await.ok();
    assert_eq!(changed["buyer_id"], Value::Null);
    assert_eq!(changed["limit_per_minute"], Value::Null);
    assert_eq!(changed["field_names"], json!({ "ref_id": "click" }));
    assert_eq!(
        changed["payout_cap_cents"], 50_000,
        "what is left out stays"
    );

    for (body, field) in [
        (json!({ "payout_cap_cnets": 1 }), "payout_cap_cnets"),
        (json!({ "payout_cap_cents": 0 }), "payout_cap_cents"),
        (json!({ "payout_cap_cents": null }), "payout_cap_cents"),
        (json!({ "enabled": "yes" }), "enabled"),
        (json!({ "duration_unit": "hours" }), "duration_unit"),
        (
            json!({ "field_names": { "payuot": "x" } }),
            "field_names.payuot",
        ),
        (
            json!({ "field_names": { "payout": "" } }),
            "field_names.payout",
        ),
        (json!({ "secret_query_param": "a b" }), "secret_query_param"),
        (json!({ "match_window_hours": 0 }), "match_window_hours"),
        (json!({ "buyer_id": uuid::Uuid::now_v7() }), "buyer_id"),
    ] {
        key.patch(&path, body).await.problem(422, Some(field));
    }
    let problem = key
        .patch(&path, json!({ "payout_cap_cnets": 1 }))
        .await
        .problem(422, Some("payout_cap_cnets"));
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|d| d.contains("did you mean payout_cap_cents")),
        "{problem}"
    );
}

async fn digests(console: &Console, webhook: &Value) -> Vec<bool> {
    let webhook: uuid::Uuid = id(webhook).parse().expect("an id");
    let client = console.database.client().await;
    let rows = client
        .query(
            "SELECT expires_at IS NULL AS forever FROM webhook_secrets WHERE webhook_id = $1 ORDER BY created_at, id",
            &[&webhook],
        )
        .await
        .expect("reads");
    rows.iter().map(|row| row.get("forever")).collect()
}

#[tokio::test]
async fn secrets_and_tokens_are_rotated_with_an_overlap() {
    let console = Console::start().await;
    let key = console.account().await;
    let webhook = key
        .post("/api/v1/webhooks", json!({ "name": "w" }))
        .await
        .created();
    let path = format!("/api/v1/webhooks/{}", id(&webhook));

    let first = key.send("POST", &format!("{path}/secret"), b"").await.ok();
    assert_eq!(first["old_secrets_expire_at"], Value::Null);
    assert_eq!(
        key.get(&path).await.ok()["require_secret"],
        true,
        "making one turns it on"
    );
    let second = key
        .post(
            &format!("{path}/secret"),
            json!({ "overlap_seconds": 3600 }),
        )
        .await
        .ok();
    assert_ne!(first["secret"], second["secret"]);
    assert!(second["old_secrets_expire_at"].is_string());
    assert_eq!(
        digests(&console, &webhook).await,
        [false, true],
        "the old one expires, the new one does not"
    );
    key.post(&format!("{path}/secret"), json!({ "overlap_seconds": 0 }))
        .await
        .ok();
    assert_eq!(
        key.get(&path).await.ok()["secrets"]
            .as_array()
            .map(Vec::len),
        Some(1),
        "no overlap: the old are out"
    );
    key.post(&format!("{path}/secret"), json!({ "overlap_seconds": -1 }))
        .await
        .problem(422, Some("overlap_seconds"));

    assert_eq!(key.delete(&format!("{path}/secret")).await.status, 204);
    let open = key.get(&path).await.ok();
    assert_eq!(
        [&open["require_secret"], &open["secrets"]],
        [&json!(false), &json!([])]
    );
    let required = key
        .patch(&path, json!({ "require_secret": true }))
        .await
        .ok();
    assert!(
        required["secret"].is_string(),
        "none was valid, so one is made"
    );
    let switched = key
        .patch(&path, json!({ "require_secret": false }))
        .await
        .ok();
    assert_eq!(
        switched["secrets"].as_array().map(Vec::len),
        Some(1),
        "pausing the demand keeps the secret"
    );
    assert!(
        key.patch(&path, json!({ "require_secret": true }))
            .await
            .ok()
            .get("secret")
            .is_none()
    );

    let moved = key.send("POST", &format!("{path}/token"), b"").await.ok();
    assert_ne!(moved["token"], webhook["token"]);
    assert!(
        moved["url"]
            .as_str()
            .expect("a url")
            .ends_with(moved["token"].as_str().expect("a token"))
    );
}

#[tokio::test]
async fn an_archived_webhook_keeps_its_history_and_takes_no_change() {
    let console = Console::start().await;
    let key = console.account().await;
    let webhook = key
        .post("/api/v1/webhooks", json!({ "name": "w" }))
        .await
        .created();
    let path = format!("/api/v1/webhooks/{}", id(&webhook));
    assert_eq!(key.delete(&path).await.status, 204);
    assert_eq!(key.delete(&path).await.status, 204);
    assert!(key.get(&path).await.ok()["archived_at"].is_string());
    assert_eq!(key.get("/api/v1/webhooks").await.ok()["data"], json!([]));
    assert_eq!(
        key.get("/api/v1/webhooks?archived=true").await.ok()["data"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    key.patch(&path, json!({ "enabled": true }))
        .await
        .problem(409, None);
    key.send("POST", &format!("{path}/secret"), b"")
        .await
        .problem(409, None);
    key.send("POST", &format!("{path}/token"), b"")
        .await
        .problem(409, None);
}

#[tokio::test]
async fn every_change_of_a_setting_is_in_the_audit_log_with_who_made_it_and_no_secret() {
    let console = Console::start().await;
    let key = console.account().await;
    let (assignment, _) = key
        .assignment(json!({ "kind": "flat", "amount_cents": 100 }))
        .await;
    key.patch(
        &format!("/api/v1/assignments/{assignment}"),
        json!({ "payout": { "kind": "flat", "amount_cents": 200 } }),
    )
    .await
    .ok();
    let webhook = key
        .post(
            "/api/v1/webhooks",
            json!({ "name": "w", "require_secret": true }),
        )
        .await
        .created();
    let path = format!("/api/v1/webhooks/{}", id(&webhook));
    key.patch(&path, json!({ "enabled": false })).await.ok();
    let rotated = key.send("POST", &format!("{path}/secret"), b"").await.ok();
    let log = key.get("/api/v1/audit-log").await.ok();
    let text = log.to_string();
    for secret in [&webhook["secret"], &rotated["secret"], &webhook["token"]] {
        assert!(
            !text.contains(secret.as_str().expect("text")),
            "a secret is in the log"
        );
    }
    let entries: Vec<String> = log["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|e| {
            format!(
                "{} {}",
                e["action"].as_str().expect("text"),
                e["object_kind"].as_str().expect("text")
            )
        })
        .collect();
    assert_eq!(
        entries,
        [
            "rotate_secret webhook",
            "update webhook",
            "create webhook",
            "update assignment",
            "create assignment",
            "create publisher",
            "create campaign",
            "create account"
        ]
    );
    assert_eq!(log["data"][1]["detail"], json!({ "enabled": false }));
    assert!(
        log["data"][1]["actor"]
            .as_str()
            .is_some_and(|actor| key.key.contains(&actor["key:".len()..]))
    );
}

#[tokio::test]
async fn a_body_over_its_limit_is_413() {
    let console = Console::start().await;
    let key = console.account().await;
    let body = json!({ "name": "x".repeat(70_000) });
    key.post("/api/v1/buyers", body).await.problem(413, None);
}
