//! Ordinary days at the public door in which a person at the API takes part: terms that come late, rows that are
//! assigned, applied, ignored, and all of it taken back.

use serde_json::{Value, json};

use crate::running_system::{CALLER, RunningSystem, call_of, guess, minutes_ago, says, text_of};

/// A call that nothing but its ref_id finds.
fn nameless_call(assignment: &Value, ref_id: &str) -> Value {
    json!({"ref_id": ref_id, "duration_seconds": 120, "started_at": minutes_ago(10),
        "assignment_id": assignment})
}

#[tokio::test(flavor = "multi_thread")]
async fn v9_a_call_that_was_reported_before_its_terms_were_known_is_credited_when_they_come() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let started_at = minutes_ago(10);
    let at_its_start = json!({"id": "5f0c7b43-0b4e-4c55-9d39-0a2b9a1f0001", "ref_id": "R1", "caller": CALLER,
        "duration_seconds": 120, "started_at": started_at});
    let call = system.record_one(at_its_start.clone()).await;
    let row = system.report(&json!({"ref_id": "R1", "payout": 50})).await;
    assert_eq!(says(&row), ("matched", Some("no_assignment"), Some(&call)));
    assert_eq!(system.balance(&publisher).await, 0);
    let mut at_its_end = at_its_start;
    at_its_end["assignment_id"] = publisher.assignment.clone();
    for again in 0..2 {
        system.record_one(at_its_end.clone()).await;
        assert_eq!(system.balance(&publisher).await, 3000, "copy {again}");
    }
    assert_eq!(
        system.call(&call).await["publisher_payout_cents"],
        json!(3000)
    );
    let row = system.report(&json!({"ref_id": "R1", "payout": 70})).await;
    assert_eq!(says(&row), ("matched", None, Some(&call)));
    assert_eq!(row["credit_delta_cents"], json!(1200));
    assert_eq!(system.balance(&publisher).await, 4200);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_a_displaced_report_that_is_assigned_elsewhere_and_replayed_stands_for_its_postings() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let x = system.record_one(call_of(&publisher, "X", 120)).await;
    let guessed = system.send(&guess(90, 50)).await;
    assert_eq!(
        says(&system.row(&guessed).await),
        ("matched", None, Some(&x))
    );
    let named = system.report(&json!({"ref_id": "X", "payout": 70})).await;
    let takes_over = ("matched", Some("replaced_heuristic_match"), Some(&x));
    assert_eq!(says(&named), takes_over);
    let row = system.row(&guessed).await;
    assert_eq!(
        (&row["status"], &row["credit_delta_cents"]),
        (&json!("held"), &json!(0))
    );

    // Another call has its amount by estimate already: to be assigned there moves nothing.
    let mut estimated = nameless_call(&publisher.assignment, "Y");
    estimated["qualified"] = json!(true);
    estimated["value_cents"] = json!(5000);
    let y = system.record_one(estimated).await;
    let row = system.done(&guessed, "assign", json!({"call_id": y})).await;
    assert_eq!(says(&row), ("matched", Some("no_change"), Some(&y)));
    system.world.reconcile().await;
    let row = system.done(&guessed, "replay", json!({})).await;
    assert_eq!(row["status"], json!("unmatched"), "{row}");
    system.world.reconcile().await;

    let z = nameless_call(&publisher.assignment, "Z");
    let z = system.record_one(z).await;
    let row = system.done(&guessed, "assign", json!({"call_id": z})).await;
    assert_eq!(says(&row), ("matched", None, Some(&z)));
    assert_eq!(system.act(&guessed, "replay", json!({})).await.status, 409);
    assert_eq!(system.balance(&publisher).await, 4200 + 3000 + 3000);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_ignored_report_lets_the_next_one_have_its_call_and_is_opened_again() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let call = system.record_one(call_of(&publisher, "R1", 120)).await;
    let over = system.report(&guess(90, 50_000)).await;
    assert_eq!(says(&over), ("held", Some("payout_over_cap"), Some(&call)));
    let over = text_of(&over["id"]);
    let row = system.done(&over, "ignore", json!({})).await;
    assert!(row["ignored_at"].is_string(), "{row}");
    let right = system.report(&guess(88, 50)).await;
    assert_eq!(says(&right), ("matched", None, Some(&call)));
    assert_eq!(system.balance(&publisher).await, 3000);
    let right = text_of(&right["id"]);
    assert_eq!(system.act(&right, "ignore", json!({})).await.status, 409);
    let row = system.done(&over, "unignore", json!({})).await;
    assert_eq!(says(&row), ("unmatched", Some("already_reported"), None));
    assert_eq!(row["ignored_at"], Value::Null);
    assert_eq!(system.balance(&publisher).await, 3000);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_apply_and_an_assign_bear_their_persons_name_and_are_taken_back() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let call = system.record_one(call_of(&publisher, "R1", 120)).await;
    let held = system
        .report(&json!({"ref_id": "R1", "payout": 20_000}))
        .await;
    let held = text_of(&held["id"]);
    let applied = system
        .done(&held, "apply", json!({"payout_cents": 10_000}))
        .await;
    let actor = applied["decided_by"].clone();
    assert!(
        actor.as_str().is_some_and(|who| who.starts_with("key:")),
        "{applied}"
    );
    assert_eq!(applied["postings"][0]["actor"], actor);
    let closed = system.row(&held).await;
    assert_eq!(
        (&closed["ignored_by"], &closed["decided_by"]),
        (&actor, &actor)
    );
    let shown = system.call(&call).await;
    assert_eq!(shown["reported_by_webhook_id"], Value::Null, "{shown}");
    let reports = shown["reports"].as_array().expect("reports");
    let counts = reports.iter().find(|it| it["event_id"] == applied["id"]);
    assert_eq!(counts.expect("the apply")["decided_by"], actor);
    assert_eq!(system.balance(&publisher).await, 6000);
    system.done(&held, "undo", json!({})).await;
    let row = system.row(&held).await;
    assert_eq!(says(&row), ("held", Some("payout_over_cap"), Some(&call)));
    assert_eq!(row["ignored_at"], Value::Null, "it is to be decided again");
    assert_eq!(system.balance(&publisher).await, 0);

    let lost = system
        .report(&json!({"ref_id": "nobody's", "payout": 40}))
        .await;
    let lost = text_of(&lost["id"]);
    let row = system.done(&lost, "assign", json!({"call_id": call})).await;
    assert_eq!(
        (says(&row), &row["decided_by"]),
        (("matched", None, Some(&call)), &actor)
    );
    assert_eq!(system.balance(&publisher).await, 2400);
    let again = system.report(&json!({"ref_id": "R1", "payout": 40})).await;
    assert_eq!(
        (&again["status"], &again["other_event_id"]),
        (&json!("duplicate"), &json!(lost))
    );
    let row = system.done(&lost, "undo", json!({})).await;
    assert_eq!(says(&row), ("unmatched", Some("ref_id_not_found"), None));
    // The other report of the same amount stands in its place.
    assert_eq!(system.balance(&publisher).await, 2400);
    assert_eq!(
        system.row(&text_of(&again["id"])).await["status"],
        json!("matched")
    );

    let log = system.get("audit-log?limit=50").await;
    let of = |action: &str, event: &str| {
        let entries = log["data"].as_array().expect("entries").iter();
        let mut found = entries.filter(|it| it["action"] == action && it["object_id"] == event);
        let entry = found.next().unwrap_or_else(|| panic!("{action} in {log}"));
        assert_eq!(entry["actor"], actor, "{entry}");
        [
            "value_before_cents",
            "value_after_cents",
            "credit_before_cents",
            "credit_after_cents",
        ]
        .map(|name| entry["detail"][name].clone())
    };
    assert_eq!(
        of("apply", &held),
        [Value::Null, json!(10_000), json!(0), json!(6000)]
    );
    assert_eq!(
        of("assign", &lost),
        [Value::Null, json!(4000), json!(0), json!(2400)]
    );
    system.world.reconcile().await;
}
