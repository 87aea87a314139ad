//! One clock: every time, day, chart and sentence of a page is in the zone that the page names; the account's
//! unless a user has chosen their own.

use serde_json::json;

use crate::pages_browser::{no_complaints, scene, sign_in};

#[tokio::test]
async fn all_of_a_page_is_in_the_one_zone_that_it_names() {
    let (scene, browser) = scene().await;
    let client = scene.console.database.client().await;
    client
        .execute(
            "UPDATE accounts SET time_zone = 'America/New_York' WHERE id = $1",
            &[&scene.account],
        )
        .await
        .expect("set");
    let event = scene.report("ref_id=nobody&payout=5").await;
    scene
        .report_before(60, "ref_id=three-days-ago&payout=5")
        .await;
    browser.zone("Asia/Tokyo").await;
    sign_in(&browser).await;
    browser.go(&format!("/events/{event}")).await;
    // What the zone's clock shows at the moments that the page tells.
    let off = |zone: &str| {
        format!(
            "return [...document.querySelectorAll('main time')].map((t) => {{
                const at = new Date(t.dateTime);
                const part = (o) => new Intl.DateTimeFormat('en-US', {{ timeZone: '{zone}', ...o }}).format(at);
                const clock = part({{ hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' }});
                const day = part({{ month: 'short', day: 'numeric' }});
                const today = new Intl.DateTimeFormat('en-US', {{ timeZone: '{zone}', month: 'short', day: 'numeric' }}).format(new Date());
                return [t.textContent, day === today ? clock : `${{day}}, ${{clock}}`];
            }}).filter(([shown, wanted]) => shown !== wanted)"
        )
    };
    browser.sees("Times in America/New_York").await;
    let count = "return document.querySelectorAll('main time').length";
    assert_ne!(browser.run(count).await, json!(0));
    assert_eq!(browser.run(&off("America/New_York")).await, json!([]));
    let text = browser.text().await;
    assert!(
        text.contains(" EST.") || text.contains(" EDT."),
        "the sentence is in the same clock: {text}"
    );
    assert!(!text.contains("UTC"), "{text}");
    browser.go("/events").await;
    browser.sees("three-days-ago").await;
    assert_eq!(browser.run(&off("America/New_York")).await, json!([]));

    browser.click("Use Asia/Tokyo").await;
    browser.sees("Times in Asia/Tokyo").await;
    assert_eq!(browser.run(&off("Asia/Tokyo")).await, json!([]));
    browser.go(&format!("/events/{event}")).await;
    assert_eq!(browser.run(&off("Asia/Tokyo")).await, json!([]));
    assert!(browser.text().await.contains(" JST."));
    // A day of the filter is a day of the same clock.
    let today = browser
        .run("return new Intl.DateTimeFormat('sv-SE', { timeZone: 'Asia/Tokyo' }).format(new Date())")
        .await;
    let today = today.as_str().expect("a day").to_owned();
    browser
        .go(&format!("/events?since={today}&until={today}"))
        .await;
    browser.sees("nobody").await;
    assert!(!browser.text().await.contains("three-days-ago"));
    browser.click("Use America/New_York").await;
    browser.sees("Times in America/New_York").await;
    no_complaints(&browser).await;
}
