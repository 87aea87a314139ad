//! Names that a sender uses and we do not know: proposed with what their values look like, set where they
//! are seen, and what came before is replayed until its money has moved.

use serde_json::json;

use crate::pages::{PageUser, scene_with_owner};
use crate::pages_browser::{no_complaints, scene, sign_in};

/// The link of the row that names this reason.
fn replay_of(reason: &str) -> String {
    format!("//tr[contains(., '{reason}')]//a[normalize-space(.)='Replay…']")
}

#[tokio::test]
async fn the_field_name_fix_ends_with_the_money() {
    let (scene, browser) = scene().await;
    for n in 1..=3 {
        scene
            .call(json!({ "ref_id": format!("rw-{n}"), "caller": null }))
            .await;
        scene
            .report(&format!("uniqueid=rw-{n}&cost=23.50&queue=7"))
            .await;
    }
    sign_in(&browser).await;
    browser
        .go(&format!("/webhooks/{}/why", scene.webhook))
        .await;
    browser.sees("Read payout from it").await;
    browser.click("Read ref_id from uniqueid").await;
    browser.sees("The field name is set").await;
    browser.click_at(&replay_of("nothing to match")).await;
    browser.click_at("//button[contains(., 'Replay 3')]").await;
    browser.sees("Replaying…").await;
    scene.work_off_replays().await;
    browser.sees("Done.").await;
    assert_eq!(scene.balance().await, 0, "matched, and no money moved yet");

    // What matched without a payout is work like any other, and says so.
    browser
        .go(&format!("/webhooks/{}/why", scene.webhook))
        .await;
    browser.sees("no payout").await;
    browser
        .click_at("//tr[contains(., 'no payout')]//a[normalize-space(.)='An example']")
        .await;
    browser.sees("Fields that were not read").await;
    let read_cost = "//tr[contains(., 'cost')]//button[normalize-space(.)='the payout']";
    browser.click_at(read_cost).await;
    browser.sees("The field name is set").await;
    browser
        .go(&format!("/webhooks/{}/why", scene.webhook))
        .await;
    browser.click_at(&replay_of("no payout")).await;
    browser.click_at("//button[contains(., 'Replay 3')]").await;
    browser.sees("Replaying…").await;
    scene.work_off_replays().await;
    browser.sees("Done.").await;
    assert_eq!(
        scene.balance().await,
        3 * 1_410,
        "60 % of $23.50, three times"
    );
    browser
        .go(&format!("/webhooks/{}/why", scene.webhook))
        .await;
    browser.sees("Everything was matched").await;
    no_complaints(&browser).await;
}

async fn why(ann: &mut PageUser, webhook: &str) -> String {
    ann.get(&format!("/webhooks/{webhook}/why")).await.text()
}

#[tokio::test]
async fn an_unknown_name_is_a_payouts_if_its_values_look_like_money() {
    let (scene, mut ann) = scene_with_owner().await;
    let page = why(&mut ann, &scene.webhook).await;
    assert!(page.contains("No report yet"), "{page}");
    for n in 0..5 {
        scene
            .report(&format!(
                "agent=10{n}&zed=%24{n}2.50&ratio=0.123{n}&billsec=9{n}&tel=305555120{n}"
            ))
            .await;
    }
    let page = why(&mut ann, &scene.webhook).await;
    assert!(page.contains("Read payout from zed"), "{page}");
    for wrong in [
        "payout from agent",
        "payout from ratio",
        "payout from billsec",
        "payout from tel",
    ] {
        assert!(!page.contains(wrong), "{wrong}: {page}");
    }
}

#[tokio::test]
async fn what_a_paused_webhook_kept_is_replayed_from_its_reason() {
    let (scene, mut ann) = scene_with_owner().await;
    scene
        .refuse(
            Some("ref_id=a&payout=5"),
            trueup_event::raw_event::Refusal {
                reason: trueup_event::reason::Reason::EndpointDisabled,
                count: 1,
            },
        )
        .await;
    let page = why(&mut ann, &scene.webhook).await;
    assert!(
        page.contains("status=refused&#38;reason=endpoint_disabled&#38;since=")
            || page.contains("status=refused&amp;reason=endpoint_disabled&amp;since="),
        "{page}"
    );
}
