//! Signing in, sessions and their end, the forms' tokens, roles.

use crate::console::Console;
use crate::pages::{PASSWORD, PageUser, add_user};

const ANN: &str = "ann@example.test";

async fn scene(role: &str) -> (Console, String) {
    let console = Console::start().await;
    let key = console.account().await;
    let account = key.get("/api/v1/account").await.ok()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    add_user(&console, &account, ANN, role).await;
    (console, account)
}

#[tokio::test]
async fn a_user_signs_in_with_the_right_password_alone_and_out_again() {
    let (console, _) = scene("owner").await;
    let mut user = PageUser::nobody(console.address);
    let answer = user.get("/webhooks").await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/sign-in?next=%2Fwebhooks"));
    for (email, password) in [
        (ANN, "correct horse battery stapler"),
        ("bob@example.test", PASSWORD),
        (ANN, ""),
    ] {
        let answer = user.sign_in(email, password).await;
        assert_eq!(answer.status, 401, "{email}");
        assert!(
            answer.text().contains("do not go together"),
            "the same words for both"
        );
    }
    let answer = user.sign_in(" ANN@example.test ", PASSWORD).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer
        .headers
        .iter()
        .find(|(name, value)| name == "set-cookie" && value.contains("trueup_session="));
    let cookie = &cookie.expect("a session").1;
    for part in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let page = user.get("/webhooks").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );

    let before = user.clone();
    assert_eq!(user.post("/sign-out", &[]).await.status, 303);
    let mut stolen = before;
    assert_eq!(
        stolen.get("/webhooks").await.status,
        303,
        "the session has ended, not only its cookie"
    );
}

#[tokio::test]
async fn only_the_digest_of_a_session_is_stored_and_sessions_expire() {
    let (console, _) = scene("owner").await;
    let client = console.database.client().await;
    for (change, why) in [
        (
            "UPDATE sessions SET last_seen_at = now() - interval '12 hours 1 minute'",
            "idle",
        ),
        (
            "UPDATE sessions SET created_at = now() - interval '7 days 1 minute'",
            "absolute",
        ),
        ("UPDATE users SET disabled_at = now()", "shut out"),
    ] {
        let mut user = PageUser::signed_in(&console, ANN).await;
        let session = user
            .cookies
            .iter()
            .find(|(n, _)| n == "trueup_session")
            .expect("a session")
            .1
            .clone();
        let leaked: i64 = client
            .query_one(
                "SELECT count(*) FROM sessions WHERE encode(digest, 'escape') LIKE '%' || $1 || '%'",
                &[&session],
            )
            .await
            .expect("counts")
            .get(0);
        assert_eq!(leaked, 0);
        assert_eq!(user.get("/webhooks").await.status, 200);
        client.batch_execute(change).await.expect("changes");
        assert_eq!(user.get("/webhooks").await.status, 303, "{why}");
    }
    let answer = PageUser::nobody(console.address)
        .sign_in(ANN, PASSWORD)
        .await;
    assert_eq!(answer.status, 401, "who was shut out does not come back in");
    let hash: String = client
        .query_one("SELECT password_hash FROM users", &[])
        .await
        .expect("reads")
        .get(0);
    assert!(hash.starts_with("$argon2id$"), "{hash}");
}

#[tokio::test]
async fn signing_in_is_slowed_down_by_address_of_the_user() {
    let (console, _) = scene("owner").await;
    let mut user = PageUser::nobody(console.address);
    user.get("/sign-in").await;
    let mut answers = Vec::new();
    for _ in 0..14 {
        let fields = [
            ("email", "victim@example.test"),
            ("password", "a guess that is wrong"),
        ];
        answers.push(user.post("/sign-in", &fields).await.status);
    }
    assert_eq!(answers[..10], [401; 10]);
    assert!(answers[10..].contains(&429), "{answers:?}");
    assert_eq!(
        user.sign_in(ANN, PASSWORD).await.status,
        303,
        "another user is not slowed down"
    );
}

#[tokio::test]
async fn no_form_does_anything_without_the_sessions_own_token() {
    let (console, account) = scene("owner").await;
    add_user(&console, &account, "bob@example.test", "owner").await;
    let mut ann = PageUser::signed_in(&console, ANN).await;
    let bob = PageUser::signed_in(&console, "bob@example.test").await;
    for token in ["", "nonsense", &bob.csrf] {
        let answer = ann
            .post_bare("/webhooks", &[("csrf", token), ("name", "planted")])
            .await;
        assert_eq!(answer.status, 403, "{token:?}");
    }
    let answer = ann.post_bare("/webhooks", &[("name", "planted")]).await;
    assert_eq!(answer.status, 403);
    let list = ann.get("/webhooks").await.text();
    assert!(!list.contains("planted"));
    let mut visitor = PageUser::nobody(console.address);
    let answer = visitor
        .post_bare("/sign-in", &[("email", ANN), ("password", PASSWORD)])
        .await;
    assert_eq!(answer.status, 403, "signing in is a form, too");
    assert_eq!(ann.post("/webhooks", &[("name", "mine")]).await.status, 303);
}

#[tokio::test]
async fn signing_in_leads_only_to_our_own_pages() {
    let (console, _) = scene("owner").await;
    for (next, leads) in [
        ("/revenue?group=buyer", "/revenue?group=buyer"),
        ("//evil.test/", "/"),
        ("https://evil.test/", "/"),
        ("/\\evil.test", "/"),
        ("javascript:alert(1)", "/"),
    ] {
        let mut user = PageUser::nobody(console.address);
        user.get("/sign-in").await;
        let answer = user
            .post(
                "/sign-in",
                &[("email", ANN), ("password", PASSWORD), ("next", next)],
            )
            .await;
        assert_eq!(answer.header("location"), Some(leads), "{next}");
    }
}

#[tokio::test]
async fn a_role_does_what_it_may_and_no_more() {
    let (console, account) = scene("owner").await;
    add_user(&console, &account, "op@example.test", "operator").await;
    add_user(&console, &account, "view@example.test", "viewer").await;
    let mut owner = PageUser::signed_in(&console, ANN).await;
    let mut operator = PageUser::signed_in(&console, "op@example.test").await;
    let mut viewer = PageUser::signed_in(&console, "view@example.test").await;

    assert_eq!(viewer.get("/webhooks").await.status, 200);
    for path in [
        "/webhooks",
        "/buyers",
        "/publishers",
        "/campaigns",
        "/keys",
        "/users",
        "/events/replay",
    ] {
        assert_eq!(
            viewer.post(path, &[("name", "x")]).await.status,
            403,
            "viewer at {path}"
        );
    }
    assert_eq!(viewer.get("/webhooks/new").await.status, 403);
    assert_eq!(viewer.get("/keys").await.status, 403);
    assert!(!viewer.get("/webhooks").await.text().contains("New webhook"));

    assert_eq!(
        operator
            .post("/webhooks", &[("name", "of the operator")])
            .await
            .status,
        303
    );
    assert_eq!(operator.get("/keys").await.status, 403);
    for path in ["/keys", "/users", "/account"] {
        assert_eq!(
            operator.post(path, &[("name", "x")]).await.status,
            403,
            "operator at {path}"
        );
    }

    let page = owner
        .post_and_follow("/keys", &[("name", "call platform")])
        .await
        .text();
    assert!(page.contains("tuk_"), "the key is shown once");
    assert!(
        !owner.get("/keys").await.text().contains(">tuk_")
            || !owner.get("/keys").await.text().contains("id=\"key\"")
    );
    let fields = [
        ("email", "new@example.test"),
        ("password", PASSWORD),
        ("role", "viewer"),
    ];
    assert_eq!(owner.post("/users", &fields).await.status, 303);
    assert_eq!(
        owner.post("/users", &fields).await.status,
        422,
        "one address, one user"
    );
    let client = console.database.client().await;
    let id: uuid::Uuid = client
        .query_one("SELECT id FROM users WHERE email = $1", &[&ANN])
        .await
        .expect("there")
        .get(0);
    let answer = owner
        .post(&format!("/users/{id}"), &[("role", "viewer")])
        .await;
    assert_eq!(answer.status, 422, "the last owner stays one");
}

#[tokio::test]
async fn every_change_made_on_a_page_is_in_the_audit_log_with_the_users_name() {
    let (console, _) = scene("owner").await;
    let mut ann = PageUser::signed_in(&console, ANN).await;
    let made = ann.post("/webhooks", &[("name", "Ringba")]).await;
    let setup = made.header("location").expect("goes on").to_owned();
    let id = setup.split('/').nth(2).expect("an id").to_owned();
    ann.post(&format!("/webhooks/{id}/switch"), &[]).await;
    let secret = ann
        .post_and_follow(&format!("/webhooks/{id}/secret"), &[("overlap_hours", "1")])
        .await
        .text();
    assert!(secret.contains("whsec_"));
    ann.post("/account", &[("time_zone", "America/New_York")])
        .await;
    ann.post(
        "/account/password",
        &[("old", PASSWORD), ("new", "another good password")],
    )
    .await;
    let client = console.database.client().await;
    let rows = client
        .query("SELECT action || ' ' || object_kind FROM audit_log WHERE actor = $1 ORDER BY created_at, id", &[&ANN])
        .await
        .expect("reads");
    let done: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        done,
        [
            "sign_in user",
            "create webhook",
            "update webhook",
            "rotate_secret webhook",
            "update account",
            "set_password user"
        ]
    );
    assert_eq!(
        ann.get("/webhooks").await.status,
        200,
        "the new session is the browser's"
    );
    let log = ann.get("/audit").await.text();
    assert!(log.contains("rotate secret webhook") && !log.contains("whsec_"));
}
