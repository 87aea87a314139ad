//! Money in the sequences that persons bring: they assign, apply, ignore, and change their minds, while
//! reports go on coming.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trueup_domain::batch_decision::SettleResult;
use trueup_event::reason::{Reason, Status};
use trueup_settlement::manual_actions::{self, ActionError, ActionRequest};
use trueup_testkit::eventually;
use uuid::Uuid;

use crate::harness::{CallSpec, PATIENCE, World};
use crate::sequences::{CALLER, early, minute, says};

fn asked(world: &World, event_id: Uuid) -> ActionRequest {
    ActionRequest {
        account_id: world.account_id,
        event_id,
        actor: "anna@example.com".to_owned(),
    }
}

fn outcome(
    done: Result<Result<SettleResult, ActionError>, trueup_store::StoreError>,
) -> Result<(Status, Option<Reason>), ActionError> {
    done.expect("Postgres").map(|s| {
        s.decision
            .map(|d| (d.status(), d.reason()))
            .expect("decided")
    })
}

async fn assign(
    world: &World,
    event: Uuid,
    call: Uuid,
) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(manual_actions::assign_event(&world.pool(), &asked(world, event), call).await)
}

pub async fn apply(
    world: &World,
    event: Uuid,
    cents: i64,
) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(manual_actions::apply_event(&world.pool(), &asked(world, event), Some(cents)).await)
}

async fn undo(world: &World, event: Uuid) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(manual_actions::undo_event(&world.pool(), &asked(world, event)).await)
}

async fn ignore(world: &World, event: Uuid) -> Result<(), ActionError> {
    manual_actions::ignore_event(&world.pool(), &asked(world, event))
        .await
        .expect("Postgres")
}

async fn unignore(world: &World, event: Uuid) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(manual_actions::unignore_event(&world.pool(), &asked(world, event)).await)
}

pub const MATCHED: Result<(Status, Option<Reason>), ActionError> = Ok((Status::Matched, None));

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_apply_takes_effect_also_after_a_report_from_the_future() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let ahead = Timestamp::now() + SignedDuration::from_hours(1);
    let (early, _) = world
        .report(ahead, json!({"ref_id": "R1", "payout": 50}))
        .await;
    assert_eq!(apply(&world, early, 4000).await, MATCHED);
    assert_eq!(world.money(call).await.value, Some(4000));
    assert_eq!(world.balance("pubA").await, 2400);
    assert_eq!(
        undo(&world, early).await,
        Ok((Status::Superseded, Some(Reason::Undone)))
    );
    assert_eq!(world.money(call).await.value, Some(5000));
    assert_eq!(world.balance("pubA").await, 3000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_ignored_row_lets_go_of_its_call_and_can_be_opened_again() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world
        .call(&CallSpec {
            ref_id: None,
            duration: 95,
            ..CallSpec::default()
        })
        .await;
    let over = json!({"caller_id": CALLER, "duration": 90, "payout": 50_000});
    let (held, row) = world.report(minute(3), over.clone()).await;
    assert_eq!(says(&row), ("held", Some("payout_over_cap"), Some(call)));
    assert_eq!(ignore(&world, held).await, Ok(()));
    let (_, repeat) = world.report(minute(4), over).await;
    assert_eq!(repeat.reason.as_deref(), Some("repeat_of_open_report"));
    let (true_one, row) = world
        .report(
            minute(5),
            json!({"caller_id": CALLER, "duration": 88, "payout": 50}),
        )
        .await;
    assert_eq!(says(&row), ("matched", None, Some(call)));
    assert_eq!(ignore(&world, true_one).await, Err(ActionError::HasPosting));
    assert_eq!(
        unignore(&world, held).await,
        Ok((Status::Unmatched, Some(Reason::AlreadyReported)))
    );
    assert_eq!(world.balance("pubA").await, 3000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_apply_closes_its_held_row_and_an_undo_opens_it_again() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let (held, _) = world
        .report(minute(3), json!({"ref_id": "R1", "payout": 20_000}))
        .await;
    assert_eq!(apply(&world, held, 10_000).await, MATCHED);
    assert_eq!(
        world
            .count("events WHERE ignored_by = 'anna@example.com'")
            .await,
        1
    );
    assert_eq!(
        world
            .count("events WHERE status = 'held' AND ignored_at IS NULL")
            .await,
        0
    );
    let by = "SELECT DISTINCT actor FROM postings WHERE kind = 'apply'";
    let actor: String = world.client.query_one(by, &[]).await.expect("one").get(0);
    assert_eq!(actor, "anna@example.com");
    let reported: Option<Uuid> = world
        .client
        .query_one(
            "SELECT reported_by_webhook_id FROM calls WHERE id = $1",
            &[&call],
        )
        .await
        .expect("the call")
        .get(0);
    assert_eq!(
        reported, None,
        "a person's value is not reported by the webhook"
    );
    assert_eq!(
        undo(&world, held).await,
        Ok((Status::Superseded, Some(Reason::Undone)))
    );
    assert_eq!(world.money(call).await.value, None);
    assert_eq!(world.balance("pubA").await, 0);
    let row = world.row(held).await;
    assert_eq!(says(&row), ("held", Some("payout_over_cap"), Some(call)));
    assert_eq!(
        world
            .count("events WHERE status = 'held' AND ignored_at IS NULL")
            .await,
        1
    );
    assert_eq!(undo(&world, held).await, Err(ActionError::NothingToUndo));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_assign_is_undone_whatever_came_in_between() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let (lost, _) = world
        .report(minute(3), json!({"ref_id": "NOPE", "payout": 50}))
        .await;
    assert_eq!(assign(&world, lost, call).await, MATCHED);
    let (_, repeat) = world
        .report(minute(4), json!({"ref_id": "R1", "payout": 50}))
        .await;
    assert_eq!(repeat.status, "duplicate");
    assert_eq!(
        undo(&world, lost).await,
        Ok((Status::Unmatched, Some(Reason::RefIdNotFound)))
    );
    // What was a repeat is now the report that sets the value, and the money stands under it.
    let row = world
        .find_row(world.newest_event().await)
        .await
        .expect("the repeat");
    assert_eq!((row.status.as_str(), row.credit), ("matched", 3000));
    assert_eq!(world.balance("pubA").await, 3000);
    assert_eq!(world.count("pending_reports").await, 1, "it waits again");
    // Assigned once more, it is the first of the two again.
    assert!(assign(&world, lost, call).await.is_ok());
    assert_eq!(world.balance("pubA").await, 3000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_what_a_person_assigned_takes_its_repeats_along() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let guessed = world
        .call(&CallSpec {
            ref_id: None,
            ..CallSpec::default()
        })
        .await;
    let right = world
        .call(&CallSpec {
            ref_id: Some("R2"),
            caller: None,
            ..CallSpec::default()
        })
        .await;
    let over = json!({"caller_id": CALLER, "duration": 90, "payout": 20_000});
    let (held, row) = world.report(minute(3), over).await;
    assert_eq!(row.call_id, Some(guessed));
    let (follower, row) = world
        .report(
            minute(4),
            json!({"caller_id": CALLER, "duration": 90, "payout": 50}),
        )
        .await;
    assert_eq!(says(&row), ("matched", None, Some(guessed)));
    let raise = "UPDATE webhooks SET payout_cap_cents = 3000000";
    world
        .client
        .execute(raise, &[])
        .await
        .expect("a higher cap");
    assert_eq!(
        assign(&world, held, right).await.map(|d| d.0),
        Ok(Status::Matched)
    );
    assert_eq!(world.row(follower).await.call_id, Some(right));
    assert_eq!(
        world.money(guessed).await.value,
        None,
        "one report, one call"
    );
    // A repeat that an id would find elsewhere goes along, too.
    let other = world
        .call(&CallSpec {
            ref_id: Some("R3"),
            caller: None,
            ..CallSpec::default()
        })
        .await;
    let (_, row) = world
        .report(
            minute(5),
            json!({"ref_id": "R3", "caller_id": CALLER, "duration": 90, "payout": 50}),
        )
        .await;
    assert_eq!(row.call_id, Some(right));
    assert_eq!(world.money(other).await.value, None);
    world.reconcile().await;
}
#[tokio::test(flavor = "multi_thread")]
async fn m12_assigning_the_second_report_leaves_the_first_on_its_call() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let first_call = world
        .call(&CallSpec {
            ref_id: None,
            publisher: Some("P1"),
            ..CallSpec::default()
        })
        .await;
    let second_call = world
        .call(&CallSpec {
            ref_id: None,
            duration: 125,
            publisher: Some("P1"),
            ..CallSpec::default()
        })
        .await;
    let report = |payout: i64| json!({"caller_id": CALLER, "duration": 95, "payout": payout});
    let (first, row) = world.report(minute(3), report(50)).await;
    assert_eq!(says(&row), ("matched", None, row.call_id));
    let taken = row.call_id.expect("a call");
    let other = if taken == first_call {
        second_call
    } else {
        first_call
    };
    let (second, row) = world.report(minute(30), report(70)).await;
    assert_eq!(says(&row), ("held", Some("ambiguous"), None));
    assert_eq!(assign(&world, second, other).await, MATCHED);
    assert_eq!(
        world.row(first).await.call_id,
        Some(taken),
        "an earlier report is no repeat"
    );
    assert_eq!(world.balance("P1").await, 3000 + 4200);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_tidying_up_a_duplicate_leaves_the_report_it_repeats_alive() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    world
        .call(&CallSpec {
            ref_id: Some("ref-Y"),
            duration: 95,
            publisher: Some("P1"),
            ..CallSpec::default()
        })
        .await;
    let (report, _) = world.report(minute(3), early("ref-X")).await;
    let (repeat, row) = world.report(minute(4), early("ref-X")).await;
    assert_eq!(row.status, "duplicate");
    assert_eq!(ignore(&world, repeat).await, Ok(()));
    let x = world
        .call(&CallSpec {
            ref_id: Some("ref-X"),
            duration: 90,
            publisher: Some("P2"),
            ..CallSpec::default()
        })
        .await;
    eventually("it moves", PATIENCE, || async {
        (world.row(report).await.call_id == Some(x)).then_some(())
    })
    .await;
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (0, 3000)
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_an_apply_on_a_held_report_sends_its_repeats_nowhere() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world
        .call(&CallSpec {
            publisher: Some("P1"),
            ..CallSpec::default()
        })
        .await;
    let other = world
        .call(&CallSpec {
            ref_id: None,
            duration: 125,
            publisher: Some("P2"),
            ..CallSpec::default()
        })
        .await;
    let held = json!({"ref_id": "R1", "caller_id": CALLER, "duration": 90, "payout": 50, "currency": "EUR"});
    let (held, row) = world.report(minute(3), held).await;
    assert_eq!(says(&row), ("held", Some("currency_mismatch"), Some(call)));
    let plain = json!({"ref_id": "R1", "caller_id": CALLER, "duration": 90, "payout": 50});
    let (follower, row) = world.report(minute(4), plain).await;
    assert_eq!(row.call_id, Some(call));
    assert_eq!(apply(&world, held, 4500).await, MATCHED);
    assert_eq!(world.row(follower).await.call_id, Some(call));
    assert_eq!(world.money(other).await.value, None);
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (2700, 0)
    );
    world.reconcile().await;
}

/// It was held when it came; a report that was settled later made it a reversal (V3, V7).
#[tokio::test(flavor = "multi_thread")]
async fn m8_a_held_negative_that_took_effect_is_not_ignored() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let (negative, row) = world
        .report(minute(5), json!({"ref_id": "R1", "payout": -50}))
        .await;
    assert_eq!(row.reason.as_deref(), Some("negative_payout"));
    world
        .report(minute(3), json!({"ref_id": "R1", "payout": 50}))
        .await;
    assert_eq!(world.money(call).await.value, Some(0));
    assert_eq!(ignore(&world, negative).await, Err(ActionError::HasPosting));
    assert_eq!(world.money(call).await.value, Some(0));
    assert_eq!(world.balance("pubA").await, 0);
    world.reconcile().await;
}

/// M12: the same report with its id is no other report.
#[tokio::test(flavor = "multi_thread")]
async fn m12_an_ignored_report_is_not_paid_when_it_comes_with_its_id() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let plain = json!({"caller_id": CALLER, "duration": 65, "payout": 50});
    let (first, row) = world.report(minute(3), plain).await;
    assert_eq!(row.status, "unmatched");
    assert_eq!(ignore(&world, first).await, Ok(()));
    let call = world
        .call(&CallSpec {
            ref_id: Some("ref-X"),
            duration: 90,
            ..CallSpec::default()
        })
        .await;
    let (_, repeat) = world.report(minute(4), early("ref-X")).await;
    assert_eq!(
        says(&repeat),
        ("duplicate", Some("repeat_of_open_report"), None)
    );
    assert_eq!(world.money(call).await.value, None);
    world.reconcile().await;
}

/// A report that an id put on its call goes along where a person assigns its first copy, and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn m12_an_assign_takes_along_the_repeat_that_stands_by_its_id() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let far = |ref_id: &'static str, publisher: &'static str| CallSpec {
        ref_id: Some(ref_id),
        duration: 500,
        publisher: Some(publisher),
        ..CallSpec::default()
    };
    let y = world.call(&far("ref-Y", "P1")).await;
    let x = world.call(&far("ref-X", "P2")).await;
    let plain = json!({"caller_id": CALLER, "duration": 65, "payout": 50});
    let (first, _) = world.report(minute(3), plain).await;
    let (_, row) = world.report(minute(4), early("ref-X")).await;
    assert_eq!(says(&row), ("matched", None, Some(x)));
    assert_eq!(assign(&world, first, y).await, MATCHED);
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (3000, 0)
    );
    undo(&world, first).await.expect("undone");
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (0, 3000)
    );
    world.reconcile().await;
}

/// M9: a person has decided it, by an amount of their own.
#[tokio::test(flavor = "multi_thread")]
async fn m9_a_guess_that_a_person_gave_another_amount_is_not_moved() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let near = |ref_id: &'static str, publisher: &'static str| CallSpec {
        ref_id: Some(ref_id),
        duration: 95,
        publisher: Some(publisher),
        ..CallSpec::default()
    };
    let y = world.call(&near("ref-Y", "P1")).await;
    let (guess, row) = world.report(minute(3), early("ref-X")).await;
    assert_eq!(says(&row), ("matched", None, Some(y)));
    assert_eq!(apply(&world, guess, 4000).await, MATCHED);
    world.call(&near("ref-X", "P2")).await;
    let (_, repeat) = world.report(Timestamp::now(), early("ref-X")).await;
    assert_eq!(repeat.call_id, Some(y), "{repeat:?}");
    assert_eq!(world.row(guess).await.call_id, Some(y));
    assert_eq!(world.balance("P2").await, 0);
    world.reconcile().await;
}

/// What goes along with a person's action moves money for that person, too: it bears the name, and the audit log
/// has the amounts.
#[tokio::test(flavor = "multi_thread")]
async fn m8_what_an_assign_takes_along_bears_its_persons_name() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let unnamed = |publisher: &'static str| CallSpec {
        ref_id: None,
        publisher: Some(publisher),
        ..CallSpec::default()
    };
    let guessed = world.call(&unnamed("P1")).await;
    let right = world
        .call(&CallSpec {
            caller: None,
            ..unnamed("P2")
        })
        .await;
    let report = |payout: i64| json!({"caller_id": CALLER, "duration": 90, "payout": payout});
    let (held, _) = world.report(minute(3), report(20_000)).await;
    let (follower, row) = world.report(minute(4), report(50)).await;
    assert_eq!(says(&row), ("matched", None, Some(guessed)));
    assert!(assign(&world, held, right).await.is_ok());
    assert_eq!(world.row(follower).await.call_id, Some(right));
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (0, 3000)
    );

    let anna = "actor = 'anna@example.com'";
    let of_follower = format!(
        "postings WHERE event_id = '{follower}' AND created_at >
        (SELECT min(created_at) FROM postings)"
    );
    assert_eq!(world.count(&of_follower).await, 2, "away and there");
    let named = format!("{of_follower} AND {anna}");
    assert_eq!(world.count(&named).await, 2, "both in her name");
    let decided = format!("events WHERE id = '{follower}' AND decided_by = 'anna@example.com'");
    assert_eq!(world.count(&decided).await, 1);
    let audit = format!("SELECT detail::text FROM audit_log WHERE action = 'assign' AND {anna}");
    let detail: String = world
        .client
        .query_one(&audit, &[])
        .await
        .expect("one")
        .get(0);
    let detail: serde_json::Value = serde_json::from_str(&detail).expect("json");
    let along = &detail["along"][0];
    assert_eq!(along["event_id"], json!(follower), "{detail}");
    assert_eq!(
        [
            &along["matched_call_id"],
            &along["value_before_cents"],
            &along["value_after_cents"],
            &along["credit_after_cents"]
        ],
        [&json!(right), &json!(null), &json!(5000), &json!(3000)]
    );
    let left = &along["left"];
    assert_eq!(
        [
            &left["call_id"],
            &left["value_before_cents"],
            &left["value_after_cents"],
            &left["credit_before_cents"],
            &left["credit_after_cents"]
        ],
        [
            &json!(guessed),
            &json!(5000),
            &json!(null),
            &json!(3000),
            &json!(0)
        ]
    );
    world.reconcile().await;
}
