//! A secret is shown once, on a page of its own: to load that page again, or to go back to it, makes and
//! changes nothing. And a command that fails changes nothing at all.

use std::io::Write;

use serde_json::json;

use crate::console::Console;
use crate::pages::{ANN, PASSWORD, PageUser, between, scene_with_owner};
use crate::pages_browser::{no_complaints, scene, sign_in};

/// Sends the form, follows it to the page that shows the secret, and loads that page again.
async fn shown_once(ann: &mut PageUser, form: &str, fields: &[(&str, &str)], mark: &str) -> String {
    let answer = ann.post(form, fields).await;
    assert_eq!(answer.status, 303, "{form}: {}", answer.text());
    let place = answer.header("location").expect("a place").to_owned();
    let page = ann.get(&place).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let secret = between(&page.text(), mark, "<").expect("the secret");
    let again = ann.get(&place).await.text();
    assert!(!again.contains(&secret), "shown a second time: {again}");
    assert!(again.contains("was shown once"), "{again}");
    secret
}

#[tokio::test]
async fn a_secret_is_shown_once_and_loading_its_page_again_makes_no_other() {
    let (scene, mut ann) = scene_with_owner().await;
    let fields = [("name", "Reload test"), ("require_secret", "on")];
    let first = shown_once(&mut ann, "/webhooks", &fields, "id=\"secret\">").await;
    let listed = scene.key.get("/api/v1/webhooks").await.ok();
    let made: Vec<_> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|w| w["name"] == "Reload test")
        .collect();
    assert_eq!(made.len(), 1);
    let id = made[0]["id"].as_str().expect("an id").to_owned();
    let rotated = shown_once(
        &mut ann,
        &format!("/webhooks/{id}/secret"),
        &[("overlap_hours", "24")],
        "id=\"secret\">",
    )
    .await;
    assert_ne!(first, rotated);
    let webhook = scene.key.get(&format!("/api/v1/webhooks/{id}")).await.ok();
    assert_eq!(
        webhook["secrets"].as_array().map(Vec::len),
        Some(2),
        "made, and rotated once"
    );
    let key = shown_once(&mut ann, "/keys", &[("name", "platform")], "id=\"key\">").await;
    assert!(key.starts_with("tuk_"), "{key}");
    // Required by the settings' form, one is made and shown in the same way.
    let scene_webhook = scene
        .key
        .get(&format!("/api/v1/webhooks/{}", scene.webhook))
        .await
        .ok();
    assert_eq!(scene_webhook["secrets"], json!([]));
    let settings = [
        ("name", "Ringba"),
        ("payout_cap", "5"),
        ("duration_tolerance_seconds", "1"),
        ("match_window_hours", "1"),
        ("duration_unit", "seconds"),
        ("payout_unit", "dollars"),
        ("on_currency_mismatch", "hold"),
        ("on_rejection_word", "hold"),
        ("require_secret", "on"),
        ("enabled", "on"),
    ];
    shown_once(
        &mut ann,
        &format!("/webhooks/{}/settings", scene.webhook),
        &settings,
        "id=\"secret\">",
    )
    .await;
}

#[tokio::test]
async fn reloading_in_a_browser_repeats_nothing() {
    let (scene, browser) = scene().await;
    sign_in(&browser).await;
    browser.go("/webhooks/new").await;
    browser.fill("Name", "Reload test").await;
    browser
        .run("document.querySelector('input[name=require_secret]').checked = true")
        .await;
    browser.click("Save").await;
    browser.sees("whsec_").await;
    for _ in 0..2 {
        browser.run("location.reload()").await;
        browser.sees("was shown once").await;
    }
    let listed = scene.key.get("/api/v1/webhooks").await.ok();
    let made = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|w| w["name"] == "Reload test")
        .count();
    assert_eq!(made, 1);
    no_complaints(&browser).await;
}

async fn add_by_command(console: &Console, arguments: &[&str]) -> i32 {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "{PASSWORD}").expect("writes");
    let mut start = Console::settings(&console.database.url)
        .arg("user")
        .arg("add");
    for argument in arguments {
        start = start.arg(argument);
    }
    let mut process = start
        .arg("--password-file")
        .arg(file.path().display())
        .spawn();
    process.exit_code(std::time::Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_user_add_that_fails_changes_nothing() {
    let (scene, _) = scene_with_owner().await;
    let client = scene.console.database.client().await;
    let counts = async || {
        let row = client
            .query_one("SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM users), (SELECT count(*) FROM audit_log)", &[])
            .await
            .expect("counts");
        (
            row.get::<_, i64>(0),
            row.get::<_, i64>(1),
            row.get::<_, i64>(2),
        )
    };
    let before = counts().await;
    let ghost = [
        "--email",
        ANN,
        "--account",
        "Ghost account",
        "--new-account",
    ];
    assert_eq!(add_by_command(&scene.console, &ghost).await, 64);
    let account = scene.account.to_string();
    let known = ["--email", "ANN@example.test", "--account", &account];
    assert_eq!(add_by_command(&scene.console, &known).await, 64);
    assert_eq!(
        counts().await,
        before,
        "accounts, users, lines of the audit log"
    );
}
