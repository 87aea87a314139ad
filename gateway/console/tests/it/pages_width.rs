//! What an operator reads first is never cut: the money, the reason and what to do stand on the screen, at
//! the width of a desk, of a small window and of a phone.

use serde_json::json;

use crate::pages_browser::{no_complaints, scene, sign_in};

/// Cells that reach out of the window or of their own box, and texts that are cut off below.
const CUT: &str = "
    const cells = [...document.querySelectorAll('main table :is(td, th)')].filter((c) => c.getClientRects().length);
    const words = (c) => (c.closest('table').tHead?.rows[0]?.cells[c.cellIndex]?.textContent || '') + ': ' + c.textContent.trim().slice(0, 40);
    const out = cells.filter((c) => c.getBoundingClientRect().right > innerWidth + 1);
    const wide = [...document.querySelectorAll('main .scroll')].filter((s) => s.scrollWidth > s.clientWidth + 1);
    const clamped = [...document.querySelectorAll('main td .sub')].filter((s) => s.scrollHeight > s.clientHeight + 2);
    return [...out.map(words), ...wide.map((s) => 'scrolls sideways by ' + (s.scrollWidth - s.clientWidth)), ...clamped.map((s) => 'cut: ' + s.textContent.slice(0, 40))];";

#[tokio::test]
async fn money_and_reasons_are_never_cut() {
    let (scene, browser) = scene().await;
    scene
        .call(json!({ "ref_id": "abc", "tracking_number": "+18005550100" }))
        .await;
    scene.report("ref_id=abc&payout=50").await;
    scene
        .report("ref_id=abc&payout=[Call:ConversionPayout]")
        .await;
    scene.report("caller_id=%2B13055551234&duration=400&payout=[tag:Some:VeryLongMacroNameThatNobodyFilledIn]&ref_id=a-long-id-0123456789-0123456789-0123456789").await;
    scene
        .report("caller_id=%2B13055551234&duration=400&payout=12345.67")
        .await;
    sign_in(&browser).await;
    let pages = [
        format!("/webhooks/{}", scene.webhook),
        "/events".to_owned(),
        "/inbox".to_owned(),
        "/webhooks".to_owned(),
        "/calls".to_owned(),
        format!("/publishers/{}", scene.publisher),
        format!("/webhooks/{}/why", scene.webhook),
        "/assignments".to_owned(),
        "/revenue?group=publisher".to_owned(),
        "/users".to_owned(),
        "/audit".to_owned(),
        "/publishers".to_owned(),
        "/buyers".to_owned(),
        "/keys".to_owned(),
    ];
    let mut cut = Vec::new();
    for width in [1360, 1024, 390] {
        browser.width(width).await;
        for page in &pages {
            browser.go(page).await;
            let found = browser.run(CUT).await;
            if found != json!([]) {
                cut.push(format!("{page} at {width}: {found}"));
            }
        }
    }
    assert!(cut.is_empty(), "{}", cut.join("\n"));
    no_complaints(&browser).await;
}
