//! An account sees itself alone: every route of the document, walked with another account's key.

use serde_json::{Value, json};

use crate::console::{Key, Said, id};
use crate::console_events::Scene;
use crate::console_openapi::operations;

/// What somebody owns, by the noun of the route that shows it.
struct Owned {
    scene: Scene,
    buyer: String,
    campaign: String,
    api_key: String,
    call: String,
    event: String,
}

impl Owned {
    async fn set() -> Owned {
        let scene = Scene::set().await;
        let buyer = scene.key.named("buyers", "Bo").await;
        let campaign = scene.key.named("campaigns", "C").await;
        let made = scene
            .key
            .post("/api/v1/api-keys", json!({ "name": "second" }))
            .await
            .created();
        let call = scene
            .call(
                json!({ "ref_id": "abc", "buyer_id": buyer, "qualified": true, "value_cents": 5 }),
            )
            .await;
        let event = scene.report("ref_id=unknown&payout=40").await;
        Owned {
            buyer,
            campaign,
            api_key: id(&made),
            call,
            event,
            scene,
        }
    }

    fn of(&self, noun: &str) -> &str {
        match noun {
            "api-keys" => &self.api_key,
            "assignments" => &self.scene.assignment,
            "buyers" => &self.buyer,
            "calls" => &self.call,
            "campaigns" => &self.campaign,
            "events" => &self.event,
            "publishers" => &self.scene.publisher,
            "webhooks" => &self.scene.webhook,
            other => panic!("a new noun, {other}: own one here"),
        }
    }

    /// A body that would do, were it one's own.
    fn body(&self, method: &str, template: &str) -> Value {
        let payout = json!({ "kind": "flat", "amount_cents": 1 });
        match (method, template) {
            ("POST", "/api/v1/events/{id}/assign") => json!({ "call_id": self.call }),
            ("PATCH", "/api/v1/assignments/{id}") => json!({ "payout": payout }),
            ("PATCH", _) => json!({ "name": "taken over" }),
            _ => json!({}),
        }
    }
}

/// Everything that could have been changed, as its owner sees it.
async fn snapshot(owned: &Owned) -> Vec<Value> {
    let mut seen = Vec::new();
    for noun in [
        "assignments",
        "buyers",
        "calls",
        "campaigns",
        "events",
        "publishers",
        "webhooks",
    ] {
        seen.push(
            owned
                .scene
                .key
                .get(&format!("/api/v1/{noun}/{}", owned.of(noun)))
                .await
                .ok(),
        );
    }
    let mut keys = owned.scene.key.get("/api/v1/api-keys").await.ok();
    for key in keys["data"].as_array_mut().expect("rows") {
        key["last_used_at"] = Value::Null;
    }
    seen.push(keys);
    seen
}

#[tokio::test]
async fn another_accounts_objects_are_404_on_every_route() {
    let owned = Owned::set().await;
    let stranger = owned.scene.console.account().await;
    let nobody = Key {
        address: stranger.address,
        key: "tuk_nobody".to_owned(),
    };
    let document = stranger.get("/api/v1/openapi.json").await.ok();
    let before = snapshot(&owned).await;
    for (method, template) in operations(&document) {
        let noun = template.split('/').nth(3).expect("a noun");
        let body = owned.body(&method, &template).to_string();
        let path = if template.contains("{id}") {
            template.replace("{id}", owned.of(noun))
        } else {
            template.clone()
        };
        nobody
            .send(&method, &path, body.as_bytes())
            .await
            .problem(401, None);
        if template.contains("{id}") {
            let said = stranger.send(&method, &path, body.as_bytes()).await;
            assert_eq!(said.status, 404, "{method} {template}: {}", said.json);
        } else if method == "GET" && noun != "accounts" {
            says_nothing_of(&owned, &stranger.get(&path).await);
        }
    }
    assert_eq!(snapshot(&owned).await, before);
}

fn says_nothing_of(owned: &Owned, said: &Said) {
    assert_eq!(said.status, 200, "{}", said.json);
    let text = said.json.to_string();
    let nouns = [
        "api-keys",
        "assignments",
        "buyers",
        "calls",
        "campaigns",
        "events",
        "publishers",
        "webhooks",
    ];
    for noun in nouns {
        assert!(
            !text.contains(owned.of(noun)),
            "another account's {noun}: {text}"
        );
    }
    assert!(!text.contains(&owned.scene.account.to_string()), "{text}");
}

#[tokio::test]
async fn another_accounts_objects_cannot_be_named_in_a_body() {
    let owned = Owned::set().await;
    let key = owned.scene.console.account().await;
    let flat = json!({ "kind": "flat", "amount_cents": 1 });
    let (own_assignment, own_publisher) = key.assignment(flat.clone()).await;
    let own_webhook = id(&key
        .post("/api/v1/webhooks", json!({ "name": "w" }))
        .await
        .created());

    let body =
        json!({ "campaign_id": owned.campaign, "publisher_id": own_publisher, "payout": flat });
    key.post("/api/v1/assignments", body)
        .await
        .problem(422, Some("campaign_id"));
    let path = format!("/api/v1/assignments/{own_assignment}");
    key.patch(&path, json!({ "campaign_id": owned.campaign }))
        .await
        .problem(422, Some("campaign_id"));
    key.patch(&path, json!({ "publisher_id": owned.scene.publisher }))
        .await
        .problem(422, Some("publisher_id"));
    key.post(
        "/api/v1/webhooks",
        json!({ "name": "w", "buyer_id": owned.buyer }),
    )
    .await
    .problem(422, Some("buyer_id"));
    let path = format!("/api/v1/webhooks/{own_webhook}");
    key.patch(&path, json!({ "buyer_id": owned.buyer }))
        .await
        .problem(422, Some("buyer_id"));

    let call = json!({ "id": owned.call, "caller": null, "duration_seconds": 1, "started_at": "2026-01-01T00:00:00Z" });
    for (field, value) in [
        ("buyer_id", &owned.buyer),
        ("assignment_id", &owned.scene.assignment),
    ] {
        let mut call = call.clone();
        call[field] = json!(value);
        key.post("/api/v1/calls", call)
            .await
            .problem(422, Some(field));
    }
    // The same id in two accounts is two calls.
    key.post("/api/v1/calls", call).await.ok();
    let mine = key.get(&format!("/api/v1/calls/{}", owned.call)).await.ok();
    let theirs = owned
        .scene
        .key
        .get(&format!("/api/v1/calls/{}", owned.call))
        .await
        .ok();
    assert_eq!(
        [&mine["duration_seconds"], &theirs["duration_seconds"]],
        [1, 90]
    );
    assert_eq!(
        [&mine["buyer_id"], &theirs["ref_id"]],
        [&Value::Null, &json!("abc")]
    );

    // A sample is matched among one's own calls only.
    let said = key
        .post(
            &format!("{path}/try"),
            json!({ "query": "ref_id=abc&payout=1" }),
        )
        .await
        .ok();
    assert_eq!(
        [&said["status"], &said["reason"]],
        [&json!("unmatched"), &json!("ref_id_not_found")]
    );
}
