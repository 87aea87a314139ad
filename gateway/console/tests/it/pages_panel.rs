//! Recent events in a real browser: filters that stand in the address, pages that follow by key, the
//! export that says how far it is, and the refusals of the seed's troubleshooting, found by clicking.

use serde_json::{Value, json};
use trueup_event::raw_event::Refusal;
use trueup_event::reason::Reason;

use crate::pages_browser::{no_complaints, scene, sign_in};

/// More than one page of the panel, which has 50 rows.
const ROWS: usize = 56;

#[tokio::test]
async fn filters_stand_in_the_address_and_older_rows_follow() {
    let (scene, browser) = scene().await;
    scene.call(json!({ "ref_id": "abc" })).await;
    scene.report("ref_id=abc&payout=50").await;
    for n in 0..ROWS {
        scene
            .report(&format!("ref_id=unknown-{n}&payout=7.25"))
            .await;
    }
    sign_in(&browser).await;
    let panel = format!("/webhooks/{}", scene.webhook);
    browser.go(&panel).await;
    browser.sees("unknown-55").await;
    browser.click("unmatched").await;
    browser.sees("ref_id not found").await;
    assert_eq!(browser.path().await, format!("{panel}?status=unmatched"));
    let count = "return document.querySelectorAll('tbody tr[id]').length";
    assert_eq!(browser.run(count).await, json!(50));
    browser.click("Older events").await;
    browser.sees("Back to the newest").await;
    assert!(
        browser
            .path()
            .await
            .starts_with(&format!("{panel}?status=unmatched&before="))
    );
    assert_eq!(browser.run(count).await, json!(ROWS - 50));
    browser.sees("unknown-0").await;

    // The finer filters go on top of the first; each has its way back.
    browser.go(&format!("{panel}?status=unmatched")).await;
    browser.click("More filters").await;
    browser.fill("ref_id", "unknown-3").await;
    browser.fill("Payout", "7.25").await;
    browser.click("Filter").await;
    browser.sees("Shown:").await;
    assert_eq!(browser.run(count).await, json!(1));
    assert_eq!(
        browser.path().await,
        format!("{panel}?status=unmatched&ref_id=unknown-3&amount=7.25")
    );
    browser.click("Without ref_id unknown-3").await;
    browser.sees("unknown-55").await;
    assert_eq!(
        browser.path().await,
        format!("{panel}?status=unmatched&amount=7.25")
    );
    browser.click("Clear").await;
    browser.sees("Older events").await;
    assert_eq!(browser.path().await, panel);

    // A part of an id, in the search.
    browser.press("/").await;
    browser.press("KNOWN-4\u{E007}").await;
    browser.sees("\u{201C}KNOWN-4\u{201D}").await;
    assert_eq!(
        browser.run(count).await,
        json!(11),
        "unknown-4 and unknown-40 to unknown-49"
    );
    no_complaints(&browser).await;
}

#[tokio::test]
async fn an_export_says_how_far_it_is() {
    let (scene, browser) = scene().await;
    scene.report("ref_id=one&payout=1").await;
    scene.report("ref_id=two&payout=2").await;
    sign_in(&browser).await;
    browser.go("/events?status=unmatched").await;
    // What is saved is looked at instead of written to a disk.
    browser.run("URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return location.href + '#saved'; }").await;
    browser.click("Export CSV").await;
    browser.sees("2 rows exported.").await;
    let saved = browser.run("return window.saved").await;
    let saved = saved.as_str().expect("a text");
    assert!(
        saved.starts_with("\"event_id\",")
            && saved.contains("\"one\"")
            && saved.contains("\"two\""),
        "{saved}"
    );
    assert_eq!(
        browser
            .run("return document.querySelector('[data-exporting] progress').value")
            .await,
        json!(100)
    );
    no_complaints(&browser).await;
}

#[tokio::test]
async fn refusals_are_found_by_clicking_on_a_narrow_screen() {
    let (scene, browser) = scene().await;
    scene.call(json!({ "ref_id": "abc" })).await;
    for (reason, count) in [
        (Reason::SecretMissing, 3),
        (Reason::SecretMismatch, 1),
        (Reason::RateLimitedIp, 12),
        (Reason::RateLimitedToken, 2),
    ] {
        scene.refuse(None, Refusal { reason, count }).await;
    }
    let paused = scene
        .refuse(
            Some("ref_id=abc&payout=50"),
            Refusal {
                reason: Reason::EndpointDisabled,
                count: 1,
            },
        )
        .await;
    sign_in(&browser).await;
    browser.width(360).await;
    browser.go("/webhooks").await;
    // 3 + 1 + 12 + 2 + 1 requests.
    browser
        .click_at("//table//a[contains(@href,'status=refused')][normalize-space(.)='19']")
        .await;
    // "Returning 401?"
    browser
        .sees("carried none. Give the buyer the secret")
        .await;
    browser
        .sees("Rotate the secret and share it with the buyer again")
        .await;
    // "Returning 429?"
    browser
        .sees("Too many requests in 60 s from this address. Have the buyer batch or slow down")
        .await;
    browser
        .sees("Too many requests in 60 s on this webhook")
        .await;
    browser.sees("× 12").await;
    // "Webhook disabled?" The report was kept, and counts once it is on.
    browser
        .click_at(&format!("//a[@href='/events/{paused}']"))
        .await;
    browser.sees("Switch the webhook on and replay it").await;
    browser.click("Replay").await;
    browser.click("Replay this event").await;
    browser.sees("Replayed under the rules").await;
    browser.sees("matched").await;
    browser.sees("+$30.00").await;
    assert_eq!(scene.event(&paused).await["status"], "matched");
    let over = browser
        .run("return document.documentElement.scrollWidth - innerWidth")
        .await;
    assert_eq!(over, Value::from(0));
    no_complaints(&browser).await;
}
