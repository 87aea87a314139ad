//! The inbox: what waits for somebody is there whatever its day, is counted in the menu, and is acted on in
//! one go; and the figures of a webhook lead to their rows and follow them.

use serde_json::json;
use trueup_testkit::eventually;

use crate::console_events::Scene;
use crate::pages::{PageUser, add_user, between, scene_with_owner};
use crate::pages_browser::{SOON, no_complaints, scene, sign_in};

const PICKED: &str = "return document.querySelectorAll('tbody tr[id]').length";

async fn three_open_rows(scene: &Scene) -> [String; 3] {
    scene.call(json!({ "ref_id": "R1" })).await;
    [
        scene.report_before(70, "ref_id=unknown&payout=40").await,
        scene.report_before(50, "ref_id=R1&payout=20000").await,
        scene.report("ref_id=R1&payout=").await,
    ]
}

#[tokio::test]
async fn everything_open_is_in_the_inbox_whatever_its_day_and_acted_on_at_once() {
    let (scene, browser) = scene().await;
    let [lost, _, blank] = three_open_rows(&scene).await;
    let target = scene.call(json!({ "ref_id": "R2" })).await;
    sign_in(&browser).await;
    let count = "return document.querySelector('nav a[href=\"/inbox\"] .count')?.textContent";
    assert_eq!(browser.run(count).await, json!("3"));
    browser.click_at("//nav//a[@href='/inbox']").await;
    browser.sees("ref_id not found").await;
    browser.sees("payout over cap").await;
    browser.sees("no payout").await;
    assert_eq!(browser.run(PICKED).await, json!(3));
    browser.click("Held 1").await;
    eventually("the held one alone", SOON, || async {
        (browser.run(PICKED).await == json!(1)).then_some(())
    })
    .await;

    // Ignored together, and taken back together.
    browser.go("/inbox").await;
    browser.click_at("//input[@data-selects='event']").await;
    browser.click("Ignore").await;
    browser.sees("3 rows are ignored.").await;
    browser.sees("Nothing waits").await;
    browser.click("Undo").await;
    browser.sees("Taken back.").await;
    assert_eq!(browser.run(PICKED).await, json!(3));

    // Assigned to a call: shown first, done then, taken back at last.
    browser
        .click_at(&format!("//tr[@id='e-{lost}']//input"))
        .await;
    browser.fill("Assign to the call", "R2").await;
    browser.click("Assign…").await;
    browser.sees("Nothing has been done yet").await;
    assert_eq!(scene.balance().await, 0, "it is asked first");
    browser.click("Assign 1").await;
    browser.sees("1 row is assigned.").await;
    assert_eq!(scene.balance().await, 2_400);
    assert_eq!(
        scene.event(&lost).await["matched_call"]["id"],
        json!(target)
    );
    browser.click("Undo").await;
    browser.sees("Nothing has been done yet").await;
    browser.click("Take back 1").await;
    browser.sees("Taken back.").await;
    assert_eq!(scene.balance().await, 0);

    // Replayed by the workers, as any bulk replay.
    scene.call(json!({ "ref_id": "unknown" })).await;
    browser
        .click_at(&format!("//tr[@id='e-{lost}']//input"))
        .await;
    browser.click("Replay").await;
    browser.sees("Nothing has been done yet").await;
    browser.click("Replay 1").await;
    browser.sees("Replaying…").await;
    scene.work_off_replays().await;
    browser.sees("Done.").await;
    assert_eq!(scene.event(&lost).await["status"], "matched");

    // What came without a payout is done once its call has one.
    browser.go("/inbox?kind=no_payout").await;
    browser.click_at(&format!("//tr[@id='e-{blank}']//a")).await;
    browser.sees("no payout").await;
    scene.report("ref_id=R1&payout=10").await;
    browser.go("/inbox").await;
    browser.sees("payout over cap").await;
    assert_eq!(browser.run(PICKED).await, json!(1));
    no_complaints(&browser).await;
}

#[tokio::test]
async fn nobody_acts_on_another_accounts_rows_from_the_inbox() {
    let (scene, _) = scene_with_owner().await;
    let [lost, held, _] = three_open_rows(&scene).await;
    let call = scene.call(json!({})).await;
    let other = scene.console.account().await;
    let account = other.get("/api/v1/account").await.ok()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    add_user(&scene.console, &account, "eve@example.test", "owner").await;
    let mut eve = PageUser::signed_in(&scene.console, "eve@example.test").await;
    let before = (scene.event(&lost).await, scene.event(&held).await);
    for form in ["ignore", "undo"] {
        let answer = eve
            .post(
                &format!("/inbox/{form}"),
                &[("event", &lost), ("event", &held)],
            )
            .await;
        assert_eq!(answer.status, 303, "{}", answer.text());
    }
    let answer = eve.post("/inbox/replay", &[("event", &lost)]).await;
    assert_eq!(answer.status, 303);
    scene.work_off_replays().await;
    let fields = [
        ("event", lost.as_str()),
        ("call", &call),
        ("confirmed", "yes"),
    ];
    let answer = eve.post("/inbox/assign", &fields).await;
    assert_eq!(answer.header("location"), Some("/inbox?fault=no_call"));
    assert_eq!((scene.event(&lost).await, scene.event(&held).await), before);
    let page = eve.get("/inbox").await.text();
    assert!(page.contains("Nothing waits"), "{page}");
    let other_webhook = eve.get(&format!("/inbox?webhook={}", scene.webhook)).await;
    assert_eq!(other_webhook.status, 404);

    // A viewer looks.
    add_user(
        &scene.console,
        &scene.account.to_string(),
        "view@example.test",
        "viewer",
    )
    .await;
    let mut viewer = PageUser::signed_in(&scene.console, "view@example.test").await;
    let page = viewer.get("/inbox").await.text();
    assert!(
        page.contains(&lost) && !page.contains("type=\"checkbox\""),
        "{page}"
    );
    for form in ["ignore", "undo", "replay", "assign"] {
        let answer = viewer
            .post(&format!("/inbox/{form}"), &[("event", &lost)])
            .await;
        assert_eq!(answer.status, 403, "{form}");
    }
}

#[tokio::test]
async fn a_figure_leads_to_its_rows_and_counts_no_duplicate() {
    let (scene, mut ann) = scene_with_owner().await;
    scene.call(json!({ "ref_id": "R1" })).await;
    for _ in 0..3 {
        scene.report("ref_id=R1&payout=40").await;
    }
    scene.report_before(60, "ref_id=unknown&payout=40").await;
    let panel = ann
        .get(&format!("/webhooks/{}", scene.webhook))
        .await
        .text();
    for (label, figure, leads_to) in [
        ("Matched today", "1", "status=matched&amp;since="),
        ("Unmatched", "1", "/inbox?webhook="),
        ("Held", "0", "/inbox?webhook="),
        ("No payout", "0", "/inbox?webhook="),
        ("Refused today", "0", "status=refused&amp;since="),
    ] {
        let mark = format!("<div class=\"label\">{label}</div><div class=\"figure\">");
        let inner = between(&panel, &mark, "</div>").expect(label);
        assert!(
            inner.contains(leads_to) && inner.contains(&format!(">{figure}</a>")),
            "{label}: {inner}"
        );
    }
    let list = ann.get("/webhooks").await.text();
    assert!(
        list.contains(&format!(
            "/inbox?webhook={}&amp;kind=unmatched",
            scene.webhook
        )),
        "{list}"
    );
}

#[tokio::test]
async fn the_figures_follow_the_rows_without_loading_the_page_again() {
    let (scene, browser) = scene().await;
    sign_in(&browser).await;
    browser.go(&format!("/webhooks/{}", scene.webhook)).await;
    browser.sees("No event yet").await;
    browser.run("window.same_page = true").await;
    scene.report("ref_id=nobody&payout=5").await;
    let unmatched = "return [...document.querySelectorAll('.day .stat')].find((s) => s.textContent.includes('Unmatched'))?.querySelector('a')?.textContent";
    eventually("the figure has followed", SOON, || async {
        (browser.run(unmatched).await == json!("1")).then_some(())
    })
    .await;
    assert_eq!(browser.run("return window.same_page").await, json!(true));
    no_complaints(&browser).await;
}
