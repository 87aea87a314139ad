//! What a person's action says afterwards, and what it does to the figures: an assign that moves nothing is
//! not told as one that did, and an ignored row is counted no more until it is opened again. A call without an
//! assignment is given one.

use serde_json::{Value, json};

use crate::console_events::Scene;
use crate::pages::{PageUser, between, scene_with_owner};

/// Assigns on the page, looks at the question first, and gives what the page says afterwards.
async fn assign_on_page(ann: &mut PageUser, event: &str, call: &str) -> (String, String) {
    let path = format!("/events/{event}/assign");
    let question = ann.post(&path, &[("call_id", call)]).await;
    assert_eq!(question.status, 200, "{}", question.text());
    let confirmed = [("call_id", call), ("confirmed", "yes")];
    let answer = ann.post(&path, &confirmed).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let page = answer.header("location").expect("a place").to_owned();
    (question.text(), ann.get(&page).await.text())
}

const IN_VAIN: &str = "Assigned to the call, but it moves no money there";
const DONE: &str = "Assigned to the call.";

#[tokio::test]
async fn m8_an_assign_that_ends_held_is_not_told_as_done() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({})).await;
    let over = scene.report("ref_id=unknown&payout=20000").await;
    assert_eq!(scene.event(&over).await["status"], "unmatched");
    let (question, page) = assign_on_page(&mut ann, &over, &call).await;
    for text in [&question, &page] {
        assert!(text.contains(">held<"), "{text}");
        assert!(text.contains("over this webhook&#39;s cap"), "{text}");
    }
    assert!(page.contains(IN_VAIN) && !page.contains(DONE), "{page}");
    assert_eq!(scene.balance().await, 0);
    let row = scene.event(&over).await;
    assert_eq!(
        [
            &row["status"],
            &row["reason"],
            &row["actions"][0]["outcome"]
        ],
        [
            &json!("held"),
            &json!("payout_over_cap"),
            &json!("held · payout_over_cap")
        ],
        "{row}"
    );

    // By the API, on another one; the answer is the row as it stands.
    let eur = scene.report("ref_id=unknown&payout=40&currency=EUR").await;
    let answer = scene
        .act(&eur, "assign", json!({ "call_id": call }))
        .await
        .ok();
    assert_eq!(
        [&answer["status"], &answer["reason"]],
        [&json!("held"), &json!("currency_mismatch")]
    );
    // And one that takes effect is told as such.
    let good = scene.report("ref_id=unknown&payout=40").await;
    let (question, page) = assign_on_page(&mut ann, &good, &call).await;
    assert!(question.contains(">matched<"), "{question}");
    assert!(page.contains(DONE) && !page.contains(IN_VAIN), "{page}");
    assert_eq!(scene.balance().await, 2400);
}

#[tokio::test]
async fn m8_an_assign_of_an_unreadable_amount_is_not_told_as_done() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({})).await;
    let garbled = scene.report("ref_id=unknown&payout=fifty").await;
    assert_eq!(scene.event(&garbled).await["reason"], "payout_unparseable");
    let (_, page) = assign_on_page(&mut ann, &garbled, &call).await;
    assert!(page.contains(IN_VAIN) && !page.contains(DONE), "{page}");
    assert_eq!(scene.balance().await, 0);
}

/// A figure above the rows of a webhook.
fn figure(page: &str, label: &str) -> String {
    let mark = format!("<div class=\"label\">{label}</div><div class=\"figure\">");
    let inner = between(page, &mark, "</div>").expect("the figure");
    // Where it is a link, its text.
    between(&inner, ">", "</a>").unwrap_or(inner)
}

/// Unmatched and held: above the rows of the webhook, in the list of webhooks, and by reason.
async fn figures(scene: &Scene, ann: &mut PageUser) -> Value {
    let panel = ann
        .get(&format!("/webhooks/{}", scene.webhook))
        .await
        .text();
    let list = ann.get("/webhooks").await.text();
    let cell = |label: &str| {
        let mark = format!("data-label=\"{label}\">");
        let cell = between(&list, &mark, "</td>").expect("a cell");
        between(&cell, ">", "</a>").unwrap_or(cell)
    };
    let why = ann
        .get(&format!("/webhooks/{}/why", scene.webhook))
        .await
        .text();
    let by_reason = |words: &str| {
        let row = why.split("<tr>").find(|row| row.contains(words));
        row.and_then(|row| between(row, "<td class=\"num\">", "</td>"))
    };
    json!({
        "panel": [figure(&panel, "Unmatched"), figure(&panel, "Held")],
        "list": [cell("Unmatched"), cell("Held")],
        "why": [by_reason("ref_id not found"), by_reason("payout over cap")],
    })
}

fn told(unmatched: &str, held: &str) -> Value {
    let by_reason = [unmatched, held].map(|n| (n != "0").then_some(n));
    json!({ "panel": [unmatched, held], "list": [unmatched, held], "why": by_reason })
}

#[tokio::test]
async fn m8_ignoring_a_row_lowers_the_figures_and_opening_it_again_raises_them() {
    let (scene, mut ann) = scene_with_owner().await;
    scene.call(json!({ "ref_id": "R1" })).await;
    let lost = scene.report("ref_id=unknown&payout=40").await;
    scene.report("ref_id=unknown-2&payout=40").await;
    let held = scene.report("ref_id=R1&payout=20000").await;
    assert_eq!(figures(&scene, &mut ann).await, told("2", "1"));

    // One on its page, one by the API.
    let answer = ann.post(&format!("/events/{lost}/ignore"), &[]).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(figures(&scene, &mut ann).await, told("1", "1"));
    let ignored = scene.act(&held, "ignore", json!({})).await.ok();
    assert!(ignored["ignored_at"].is_string(), "{ignored}");
    assert_eq!(figures(&scene, &mut ann).await, told("1", "0"));

    let answer = ann.post(&format!("/events/{held}/unignore"), &[]).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(figures(&scene, &mut ann).await, told("1", "1"));
    let opened = scene.act(&lost, "unignore", json!({})).await.ok();
    assert_eq!(
        [&opened["ignored_at"], &opened["status"]],
        [&Value::Null, &json!("unmatched")]
    );
    assert_eq!(figures(&scene, &mut ann).await, told("2", "1"));
}

const NOT_YET: &str = "Nothing has been done yet";

/// Asks for an action that moves money: it is shown with its amount, and done when it is confirmed.
async fn asked_and_confirmed(scene: &Scene, ann: &mut PageUser, path: &str, amount: &str) {
    let before = scene.balance().await;
    let question = ann.post(path, &[]).await;
    assert_eq!(question.status, 200, "{path}: {}", question.text());
    let text = question.text();
    assert!(text.contains(NOT_YET), "{path}: {text}");
    assert!(text.contains(amount), "{path}: {text}");
    assert_eq!(scene.balance().await, before, "{path}: it is asked first");
    let answer = ann.post(path, &[("confirmed", "yes")]).await;
    assert_eq!(answer.status, 303, "{path}: {}", answer.text());
    assert_ne!(scene.balance().await, before, "{path}");
}

#[tokio::test]
async fn m8_a_replay_an_undo_and_an_opening_ask_before_money_moves() {
    let (scene, mut ann) = scene_with_owner().await;
    let late = scene.report("ref_id=late&payout=40").await;
    let ignored = scene.report("ref_id=late-too&payout=20").await;
    // What moves nothing is done at once.
    for action in ["replay", "ignore", "unignore", "ignore"] {
        let answer = ann.post(&format!("/events/{ignored}/{action}"), &[]).await;
        assert_eq!(answer.status, 303, "{action}: {}", answer.text());
    }
    scene.call(json!({ "ref_id": "late" })).await;
    scene.call(json!({ "ref_id": "late-too" })).await;
    let replay = format!("/events/{late}/replay");
    asked_and_confirmed(&scene, &mut ann, &replay, "+$24.00").await;
    let open = format!("/events/{ignored}/unignore");
    asked_and_confirmed(&scene, &mut ann, &open, "+$12.00").await;
    assert_eq!(scene.balance().await, 3600);

    let call = scene.call(json!({})).await;
    let lost = scene.report("ref_id=unknown&payout=30").await;
    assign_on_page(&mut ann, &lost, &call).await;
    assert_eq!(scene.balance().await, 5400);
    let undo = format!("/events/{lost}/undo");
    asked_and_confirmed(&scene, &mut ann, &undo, "-$18.00").await;
    // Twice, as a second tab would: what is gone is not asked about.
    let again = ann.post(&undo, &[]).await;
    assert_eq!(again.status, 409, "{}", again.text());
    assert_eq!(scene.balance().await, 3600);
}

/// The same from the inbox, where several rows are acted on at once.
#[tokio::test]
async fn m8_the_inbox_asks_before_money_moves_and_tells_what_was_in_vain() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({})).await;
    let good = scene.report("ref_id=unknown&payout=40").await;
    let over = scene.report("ref_id=unknown&payout=20000").await;
    let picked = [
        ("event", good.as_str()),
        ("event", over.as_str()),
        ("call", call.as_str()),
        ("confirmed", "yes"),
    ];
    let page = ann.post_and_follow("/inbox/assign", &picked).await.text();
    assert!(page.contains("1 row is assigned."), "{page}");
    assert!(page.contains("1 moves no money there"), "{page}");
    assert_eq!(scene.balance().await, 2400);

    // Taking it back moves money back, and is asked first.
    let picked = [("event", good.as_str()), ("event", over.as_str())];
    let question = ann.post("/inbox/undo", &picked).await;
    assert_eq!(question.status, 200, "{}", question.text());
    let text = question.text();
    assert!(text.contains(NOT_YET) && text.contains("-$24.00"), "{text}");
    assert_eq!(scene.balance().await, 2400);
    let confirmed = [picked[0], picked[1], ("confirmed", "yes")];
    let page = ann.post_and_follow("/inbox/undo", &confirmed).await.text();
    assert!(page.contains("Taken back."), "{page}");
    assert_eq!(scene.balance().await, 0);

    // So is a replay, which the workers do.
    scene.call(json!({ "ref_id": "unknown" })).await;
    let question = ann.post("/inbox/replay", &picked).await;
    assert_eq!(question.status, 200, "{}", question.text());
    let text = question.text();
    assert!(text.contains(NOT_YET) && text.contains("+$24.00"), "{text}");
    scene.work_off_replays().await;
    assert_eq!(scene.balance().await, 0);
    let page = ann.post_and_follow("/inbox/replay", &confirmed).await;
    assert_eq!(page.status, 200, "{}", page.text());
    scene.work_off_replays().await;
    assert_eq!(scene.balance().await, 2400);
}

#[tokio::test]
async fn v9_a_person_gives_a_call_its_first_assignment_and_its_reports_are_credited() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({ "assignment_id": Value::Null })).await;
    let event = scene.report(&format!("call_id={call}&payout=50")).await;
    assert_eq!(scene.event(&event).await["reason"], "no_assignment");
    let page = ann.get(&format!("/calls/{call}")).await.text();
    assert!(page.contains(&scene.assignment), "it is offered: {page}");

    let path = format!("/calls/{call}/assignment");
    let chosen = ("assignment_id", scene.assignment.as_str());
    let question = ann.post(&path, &[chosen]).await;
    assert_eq!(question.status, 200, "{}", question.text());
    assert!(question.text().contains("$30.00"), "{}", question.text());
    assert_eq!(scene.balance().await, 0, "nothing has been done yet");

    let answer = ann.post(&path, &[chosen, ("confirmed", "yes")]).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(scene.balance().await, 3_000);
    let page = ann.get(&format!("/calls/{call}")).await.text();
    assert!(page.contains("by ann@example.test"), "{page}");
    assert!(!page.contains(&path), "it is offered once: {page}");
    let audit = ann.get("/audit").await.text();
    assert!(audit.contains("3000"), "what it moved: {audit}");

    // A second one is refused, and so is one of another account.
    let again = ann.post(&path, &[chosen, ("confirmed", "yes")]).await;
    assert_eq!(again.status, 409, "{}", again.text());
    let other = scene.call(json!({ "assignment_id": Value::Null })).await;
    let strange = uuid::Uuid::now_v7().to_string();
    let refused = ann
        .post(
            &format!("/calls/{other}/assignment"),
            &[("assignment_id", strange.as_str()), ("confirmed", "yes")],
        )
        .await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert_eq!(scene.balance().await, 3_000);
}
