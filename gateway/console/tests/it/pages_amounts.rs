//! Money on the pages: an amount is read as the door reads it wherever a person types one, and whoever
//! moved money is named with it.

use serde_json::{Value, json};

use crate::pages::{ANN, scene_with_owner};

#[tokio::test]
async fn x7_a_comma_is_read_alike_in_terms_and_in_a_cap() {
    let (scene, mut ann) = scene_with_owner().await;
    let terms = [("kind", "flat"), ("amount", "12,50")];
    let path = format!("/assignments/{}", scene.assignment);
    let answer = ann.post(&path, &terms).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let saved = scene
        .key
        .get(&format!("/api/v1/assignments/{}", scene.assignment))
        .await
        .ok();
    assert_eq!(saved["payout"]["amount_cents"], 1250, "{saved}");

    let settings = [
        ("name", "Ringba"),
        ("payout_cap", "1.000,50"),
        ("duration_tolerance_seconds", "30"),
        ("match_window_hours", "24"),
        ("duration_unit", "seconds"),
        ("payout_unit", "dollars"),
        ("on_currency_mismatch", "hold"),
        ("on_rejection_word", "hold"),
    ];
    let path = format!("/webhooks/{}/settings", scene.webhook);
    let answer = ann.post(&path, &settings).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let saved = scene
        .key
        .get(&format!("/api/v1/webhooks/{}", scene.webhook))
        .await
        .ok();
    assert_eq!(saved["payout_cap_cents"], 100_050, "{saved}");
}

#[tokio::test]
async fn m8_who_moved_money_stands_in_the_export_and_with_the_amounts_in_the_audit_log() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({})).await;
    let lost = scene.report("ref_id=unknown&payout=40").await;
    let assign = [("call_id", call.as_str()), ("confirmed", "yes")];
    let answer = ann.post(&format!("/events/{lost}/assign"), &assign).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(scene.balance().await, 2400);
    let answer = ann
        .post(&format!("/events/{lost}/undo"), &[("confirmed", "yes")])
        .await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(scene.balance().await, 0);

    let ledger = ann
        .get(&format!("/publishers/{}/ledger.csv", scene.publisher))
        .await
        .text();
    let of_ann: Vec<&str> = ledger.lines().filter(|line| line.contains(ANN)).collect();
    assert_eq!(of_ann.len(), 2, "{ledger}");
    assert!(
        of_ann.iter().any(|line| line.contains("\"24.00\"")),
        "{ledger}"
    );
    assert!(
        of_ann.iter().any(|line| line.contains("\"-24.00\"")),
        "{ledger}"
    );

    let audit = scene.key.get("/api/v1/audit-log?limit=50").await.ok();
    let detail_of = |action: &str| {
        let entries = audit["data"].as_array().expect("entries");
        let entry = entries
            .iter()
            .find(|entry| entry["action"] == action && entry["object_id"] == json!(lost))
            .unwrap_or_else(|| panic!("no {action} in {audit}"));
        let actor = entry["actor"].as_str().expect("who");
        assert!(actor.contains(ANN), "{entry}");
        entry["detail"].clone()
    };
    let values = |detail: &Value| {
        (
            detail["value_before_cents"].clone(),
            detail["value_after_cents"].clone(),
        )
    };
    assert_eq!(values(&detail_of("assign")), (json!(null), json!(4000)));
    let left = &detail_of("undo")["left"];
    assert_eq!(values(left), (json!(4000), json!(null)));
    assert_eq!(
        [
            &left["call_id"],
            &left["credit_before_cents"],
            &left["credit_after_cents"]
        ],
        [&json!(call), &json!(2400), &json!(0)]
    );
}

#[tokio::test]
async fn v2_a_duplicate_names_the_event_that_it_repeats() {
    let (scene, mut ann) = scene_with_owner().await;
    scene.call(json!({ "ref_id": "R1" })).await;
    let first = scene.report("ref_id=R1&payout=40").await;
    let second = scene.report("ref_id=R1&payout=40").await;
    let repeat = scene.event(&second).await;
    assert_eq!(
        [
            &repeat["status"],
            &repeat["reason"],
            &repeat["other_event_id"]
        ],
        [
            &json!("duplicate"),
            &json!("same_payout_within_15m"),
            &json!(first)
        ]
    );
    let page = ann.get(&format!("/events/{second}")).await.text();
    assert!(
        page.contains(&format!("href=\"/events/{first}\"")),
        "{page}"
    );
}

#[tokio::test]
async fn v7_a_held_negative_does_not_count_on_its_calls_page() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({ "ref_id": "R1" })).await;
    scene.report("ref_id=R1&payout=40").await;
    let held = scene.report("ref_id=R1&payout=-10").await;
    assert_eq!(scene.event(&held).await["status"], "held");
    let page = ann.get(&format!("/calls/{call}")).await.text();
    let row = page
        .lines()
        .find(|line| line.contains(&format!("/events/{held}")))
        .expect("its row");
    assert!(row.contains("<td>held</td>"), "{row}");
    assert_eq!(
        page.matches("<td>counts</td>").count(),
        1,
        "the first alone"
    );
}

#[tokio::test]
async fn m8_an_apply_takes_effect_after_a_report_from_a_clock_that_is_ahead() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene.call(json!({ "ref_id": "R1" })).await;
    let ahead = scene.report_before(-1, "ref_id=R1&payout=50").await;
    assert_eq!(scene.balance().await, 3000);
    // A buyer's own correction stands before it in the order of reception.
    let corrected = scene.report("ref_id=R1&payout=45").await;
    assert_eq!(scene.event(&corrected).await["status"], "superseded");
    assert_eq!(scene.balance().await, 3000);
    let page = ann.get(&format!("/calls/{call}")).await.text();
    assert!(page.contains("Value reported by"), "{page}");

    let applied = scene.act(&ahead, "apply", json!({ "payout_cents": 4500 }));
    assert_eq!(applied.await.ok()["status"], "matched");
    assert_eq!(scene.balance().await, 2700);
    let again = [("amount", "40,00"), ("confirmed", "yes")];
    let answer = ann.post(&format!("/events/{ahead}/apply"), &again).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(scene.balance().await, 2400);
    let shown = scene.key.get(&format!("/api/v1/calls/{call}")).await.ok();
    assert_eq!(shown["value_cents"], 4000);
    let page = ann.get(&format!("/calls/{call}")).await.text();
    assert!(
        page.contains("Value set by") && page.contains(ANN),
        "{page}"
    );
    assert!(!page.contains("Value reported by"), "{page}");
}

/// Money that a replay, an opening, a bulk replay or an undo moves is somebody's, too.
#[tokio::test]
async fn m8_whoever_has_rows_decided_again_is_named_with_the_amounts() {
    let (scene, mut ann) = scene_with_owner().await;
    let replayed = scene.report("ref_id=R1&payout=40").await;
    let opened = scene.report("ref_id=R2&payout=20").await;
    let in_bulk = scene.report("ref_id=R3&payout=10").await;
    ann.post(&format!("/events/{opened}/ignore"), &[]).await;
    for ref_id in ["R1", "R2", "R3"] {
        scene.call(json!({ "ref_id": ref_id })).await;
    }
    let confirmed = [("confirmed", "yes")];
    ann.post(&format!("/events/{replayed}/replay"), &confirmed)
        .await;
    ann.post(&format!("/events/{opened}/unignore"), &confirmed)
        .await;
    let picked = [("event", in_bulk.as_str()), confirmed[0]];
    ann.post("/inbox/replay", &picked).await;
    scene.work_off_replays().await;
    assert_eq!(scene.balance().await, 2400 + 1200 + 600);

    let ledger = ann
        .get(&format!("/publishers/{}/ledger.csv", scene.publisher))
        .await
        .text();
    let audit = scene.key.get("/api/v1/audit-log?limit=50").await.ok();
    for (action, event, value, credit, posted) in [
        ("replay", &replayed, 4000, 2400, "\"24.00\""),
        ("unignore", &opened, 2000, 1200, "\"12.00\""),
        ("replay", &in_bulk, 1000, 600, "\"6.00\""),
    ] {
        let line = ledger.lines().find(|line| line.contains(event.as_str()));
        let line = line.unwrap_or_else(|| panic!("{event} in {ledger}"));
        assert!(line.contains(ANN) && line.contains(posted), "{line}");
        let shown = scene.event(event).await;
        let named = |it: &Value| it.as_str().is_some_and(|who| who.contains(ANN));
        assert!(named(&shown["decided_by"]), "{shown}");
        assert!(named(&shown["postings"][0]["actor"]), "{shown}");
        let mut entries = audit["data"].as_array().expect("entries").iter();
        let entry = entries
            .find(|it| it["action"] == action && it["object_id"] == json!(event))
            .unwrap_or_else(|| panic!("{action} of {event} in {audit}"));
        assert!(named(&entry["actor"]), "{entry}");
        let amounts = [
            "value_before_cents",
            "value_after_cents",
            "credit_before_cents",
            "credit_after_cents",
        ]
        .map(|name| entry["detail"][name].clone());
        assert_eq!(
            amounts,
            [Value::Null, json!(value), json!(0), json!(credit)]
        );
    }
}
