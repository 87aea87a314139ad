//! Nobody sees another account's row by any page, and nothing that a sender wrote is ever markup.

use serde_json::json;

use crate::console_events::Scene;
use crate::pages::{PageUser, add_user};

/// What another account must never see, in names of the owner's things.
const MARK: &str = "Zyx-owned";

struct Owned {
    scene: Scene,
    buyer: String,
    campaign: String,
    call: String,
    event: String,
    replay: String,
    user: String,
    api_key: String,
}

async fn owned() -> Owned {
    let scene = Scene::set().await;
    let key = &scene.key;
    add_user(
        &scene.console,
        &scene.account.to_string(),
        "ann@example.test",
        "owner",
    )
    .await;
    key.patch(
        &format!("/api/v1/webhooks/{}", scene.webhook),
        json!({ "name": MARK }),
    )
    .await
    .ok();
    key.patch(
        &format!("/api/v1/publishers/{}", scene.publisher),
        json!({ "name": MARK }),
    )
    .await
    .ok();
    let buyer = key.named("buyers", MARK).await;
    let campaign = key.named("campaigns", MARK).await;
    let call = scene
        .call(json!({ "ref_id": MARK, "qualified": true, "value_cents": 5 }))
        .await;
    let event = scene
        .report(&format!("ref_id={MARK}-unknown&payout=40"))
        .await;
    let api_key = crate::console::id(
        &key.post("/api/v1/api-keys", json!({ "name": MARK }))
            .await
            .created(),
    );
    let client = scene.console.database.client().await;
    let user: uuid::Uuid = client
        .query_one("SELECT id FROM users", &[])
        .await
        .expect("one")
        .get(0);
    let replay = uuid::Uuid::now_v7();
    client
        .execute(
            "INSERT INTO bulk_replays (id, account_id, actor, filter, total) VALUES ($1, $2, $3, '', 1)",
            &[&replay, &scene.account, &MARK],
        )
        .await
        .expect("a replay");
    let (user, replay) = (user.to_string(), replay.to_string());
    Owned {
        scene,
        buyer,
        campaign,
        call,
        event,
        replay,
        user,
        api_key,
    }
}

impl Owned {
    /// Every page and every form of the router that names a thing, with the owner's ids in it.
    fn routes(&self) -> Vec<(&'static str, String)> {
        let (webhook, publisher) = (&self.scene.webhook, &self.scene.publisher);
        let (event, call) = (&self.event, &self.call);
        let mut routes = Vec::new();
        for page in [
            "",
            "/day",
            "/setup",
            "/waiting",
            "/settings",
            "/why",
            "/secret",
        ] {
            routes.push(("GET", format!("/webhooks/{webhook}{page}")));
        }
        for form in [
            "/settings",
            "/switch",
            "/field-name",
            "/secret",
            "/secret/remove",
            "/token",
            "/archive",
        ] {
            routes.push(("POST", format!("/webhooks/{webhook}{form}")));
        }
        for form in [
            "/replay",
            "/assign",
            "/apply",
            "/ignore",
            "/unignore",
            "/undo",
        ] {
            routes.push(("POST", format!("/events/{event}{form}")));
        }
        for page in [
            format!("/events/{event}"),
            format!("/events?webhook={webhook}"),
            format!("/inbox?webhook={webhook}"),
            format!("/events.csv?webhook={webhook}"),
            format!("/events/replay?webhook={webhook}"),
            format!("/events/replays/{}", self.replay),
            format!("/events/replays/{}/part", self.replay),
            format!("/calls/{call}"),
            format!("/publishers/{publisher}"),
            format!("/publishers/{publisher}/ledger.csv"),
            format!("/keys/{}", self.api_key),
        ] {
            routes.push(("GET", page));
        }
        for form in [
            format!("/calls/{call}/assignment"),
            format!("/publishers/{publisher}"),
            format!("/buyers/{}", self.buyer),
            format!("/campaigns/{}", self.campaign),
            format!("/assignments/{}", self.scene.assignment),
            format!("/keys/{}/revoke", self.api_key),
            format!("/users/{}", self.user),
            format!("/events/replays/{}/stop", self.replay),
            format!("/webhooks/{webhook}/restore"),
            format!("/buyers/{}/archive", self.buyer),
            format!("/buyers/{}/restore", self.buyer),
            format!("/campaigns/{}/archive", self.campaign),
            format!("/campaigns/{}/restore", self.campaign),
            format!("/publishers/{publisher}/archive"),
            format!("/publishers/{publisher}/restore"),
            format!("/assignments/{}/archive", self.scene.assignment),
            format!("/assignments/{}/restore", self.scene.assignment),
        ] {
            routes.push(("POST", form));
        }
        routes
    }

    async fn state(&self) -> Vec<String> {
        let client = self.scene.console.database.client().await;
        let mut state = Vec::new();
        for table in [
            "webhooks",
            "webhook_secrets",
            "publishers",
            "buyers",
            "campaigns",
            "assignments",
            "calls",
            "events",
            "postings",
            "event_actions",
            "bulk_replays",
        ] {
            let rows = client
                .query(&format!("SELECT t::text FROM {table} t ORDER BY 1"), &[])
                .await
                .expect("reads");
            state.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        state
    }
}

/// What a form of this address would carry, were the thing one's own.
fn fields_for(path: &str) -> Vec<(&'static str, &'static str)> {
    match path.rsplit('/').next() {
        Some("apply") => vec![("amount", "5")],
        Some("assignment") => vec![
            ("assignment_id", "00000000-0000-7000-8000-000000000000"),
            ("confirmed", "yes"),
        ],
        Some("field-name") => vec![("slot", "payout"), ("field", "x")],
        Some("secret") => vec![("overlap_hours", "1")],
        Some("settings") => vec![
            ("name", "taken"),
            ("payout_cap", "5"),
            ("duration_tolerance_seconds", "1"),
            ("match_window_hours", "1"),
            ("duration_unit", "seconds"),
            ("payout_unit", "dollars"),
            ("on_currency_mismatch", "hold"),
            ("on_rejection_word", "hold"),
        ],
        _ if path.starts_with("/assignments") => vec![("kind", "rev_share"), ("amount", "5")],
        _ if path.starts_with("/users") => vec![("role", "viewer"), ("out", "on")],
        _ => vec![
            ("name", "taken"),
            ("call_id", "00000000-0000-7000-8000-000000000000"),
        ],
    }
}

#[tokio::test]
async fn no_page_shows_or_changes_another_accounts_things() {
    let owned = owned().await;
    let console = &owned.scene.console;
    let other = console.account().await;
    let account = other.get("/api/v1/account").await.ok()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    add_user(console, &account, "eve@example.test", "owner").await;
    let mut eve = PageUser::signed_in(console, "eve@example.test").await;
    let before = owned.state().await;

    for (method, path) in owned.routes() {
        let answer = if method == "GET" {
            eve.get(&path).await
        } else {
            eve.post(&path, &fields_for(&path)).await
        };
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
        assert!(
            !answer.text().contains(MARK),
            "{method} {path} tells a name"
        );
    }
    for list in [
        "/webhooks",
        "/webhooks?archived=1",
        "/inbox",
        "/events",
        "/events.csv",
        &format!("/events?q={MARK}-unknown"),
        "/calls",
        &format!("/calls?q={MARK}"),
        "/publishers",
        "/buyers",
        "/campaigns",
        "/assignments",
        "/revenue?group=buyer",
        "/revenue?group=publisher",
        "/revenue?group=webhook",
        "/keys",
        "/users",
        "/audit",
        "/try",
        "/webhooks/new",
    ] {
        let page = eve.get(list).await;
        assert_eq!(page.status, 200, "{list}");
        // A search shows what was searched for, and nothing that was found.
        let shown = [
            format!("value=\"{MARK}"),
            format!("q={MARK}"),
            format!("\u{201C}{MARK}"),
        ];
        let text = shown
            .iter()
            .fold(page.text(), |text, searched| text.replace(searched, ""));
        assert!(!text.contains(MARK), "{list} shows another account's thing");
    }
    let answer = eve
        .post(
            "/try",
            &[("webhook", &owned.scene.webhook), ("text", "payout=5")],
        )
        .await;
    assert_eq!(answer.status, 404);
    assert_eq!(owned.state().await, before, "nothing of it was changed");

    let mut ann = PageUser::signed_in(console, "ann@example.test").await;
    for (method, path) in owned.routes() {
        if method == "GET" {
            assert_eq!(ann.get(&path).await.status, 200, "the owner sees {path}");
        }
    }
}

#[tokio::test]
async fn every_route_of_the_router_is_walked_above() {
    // The router's file is read, so that a page that is added without a place in the walk is found out.
    let router = include_str!("../../src/pages/mod.rs");
    let owned = owned().await;
    let known: Vec<String> = owned.routes().into_iter().map(|(_, path)| path).collect();
    for piece in router.split(".route(\"").skip(1) {
        let path = piece.split('"').next().expect("a path");
        let Some((noun, rest)) = path.split_once("/{id}") else {
            continue;
        };
        let walked = known.iter().any(|k| {
            let k = k.split('?').next().unwrap_or_default();
            k.starts_with(&format!("{noun}/"))
                && k.ends_with(rest)
                && k.split('/').count() == path.split('/').count()
        });
        assert!(
            walked,
            "{path} is not walked with another account's session"
        );
    }
}

#[tokio::test]
async fn no_page_without_a_session() {
    let owned = owned().await;
    let mut nobody = PageUser::nobody(owned.scene.console.address);
    for (method, path) in owned.routes() {
        if method == "GET" {
            let answer = nobody.get(&path).await;
            assert_eq!(answer.status, 303, "{path}");
            assert!(
                answer
                    .header("location")
                    .is_some_and(|to| to.starts_with("/sign-in")),
                "{path}"
            );
        } else {
            let answer = nobody.post_bare(&path, &[]).await;
            assert_eq!(answer.status, 403, "{path}");
        }
    }
}

#[tokio::test]
async fn nothing_that_a_sender_wrote_is_markup_on_any_page() {
    const PAYLOADS: [&str; 4] = [
        "\"><script>alert(1)</script>",
        "'><img src=x onerror=alert(1)>",
        "</textarea><svg onload=alert(1)>",
        "javascript:alert(1)//<b>",
    ];
    let scene = Scene::set().await;
    add_user(
        &scene.console,
        &scene.account.to_string(),
        "ann@example.test",
        "owner",
    )
    .await;
    let mut ann = PageUser::signed_in(&scene.console, "ann@example.test").await;
    let call = scene
        .call(json!({ "ref_id": PAYLOADS[0], "tracking_number": PAYLOADS[1] }))
        .await;
    let mut pages = vec![
        "/events".to_owned(),
        format!("/webhooks/{}", scene.webhook),
        format!("/webhooks/{}/why", scene.webhook),
        "/calls".to_owned(),
        format!("/calls/{call}"),
        format!("/publishers/{}", scene.publisher),
        "/webhooks".to_owned(),
        "/audit".to_owned(),
        "/revenue?group=webhook".to_owned(),
    ];
    for payload in PAYLOADS {
        for slot in [
            "ref_id",
            "call_id",
            "caller_id",
            "duration",
            "payout",
            "currency",
            "status",
            "zzz",
        ] {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query
                .append_pair(slot, payload)
                .append_pair(payload, payload)
                .append_pair("payout", "5");
            let event = scene.report(&query.finish()).await;
            pages.push(format!("/events/{event}"));
        }
        let found: String = form_urlencoded::byte_serialize(payload.as_bytes()).collect();
        pages.push(format!(
            "/events?q={found}&caller={found}&ref_id={found}&amount={found}&since={found}&reason={found}"
        ));
        pages.push(format!("/calls?q={found}"));
        pages.push(format!("/sign-in?next={found}"));
        pages.push(format!("/revenue?from={found}"));
        // Names that users set are text of users, and no better.
        scene.key.named("buyers", payload).await;
        scene.key.named("publishers", payload).await;
        scene.key.named("campaigns", payload).await;
        scene
            .key
            .patch(
                &format!("/api/v1/webhooks/{}", scene.webhook),
                json!({ "name": payload }),
            )
            .await
            .ok();
    }
    pages.extend(
        [
            "/buyers",
            "/publishers",
            "/campaigns",
            "/assignments",
            "/try",
        ]
        .map(str::to_owned),
    );
    for page in pages {
        let answer = ann.get(&page).await;
        assert!(
            [200, 303].contains(&answer.status),
            "{page}: {}",
            answer.status
        );
        let text = answer.text();
        for alive in [
            "<script>alert",
            "<img src=x",
            "<svg onload",
            "</textarea><svg",
            "//<b>",
        ] {
            assert!(!text.contains(alive), "{page} lets {alive} through");
        }
        assert!(!text.contains("href=\"javascript:"), "{page}");
    }
    let tried = ann
        .post(
            "/try",
            &[
                ("webhook", &scene.webhook),
                ("text", &format!("ref_id={}", PAYLOADS[0])),
            ],
        )
        .await;
    assert!(!tried.text().contains("<script>alert"));
    let csv = ann.get("/events.csv").await.text();
    assert!(csv.lines().count() > 30, "{csv}");
}
