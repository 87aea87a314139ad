//! Money in the sequences that ordinary days bring: a report before its call, ids that are shared, retries
//! without the id, corrections in another currency, persons who change their minds.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trueup_domain::call_record::{CallRecord, Caller};
use trueup_settlement::call_recording::record_calls;
use trueup_store::{TransactionName, run_tx};
use trueup_testkit::builders;
use trueup_testkit::eventually;
use uuid::Uuid;

use crate::harness::{CallSpec, PATIENCE, Row, World, at};
use crate::sequences_of_manual_actions::{MATCHED, apply};

pub const CALLER: &str = "+13055550142";

pub fn minute(n: i64) -> Timestamp {
    at("2026-03-14T12:00:00Z") + SignedDuration::from_mins(n)
}

/// What a row says, for comparison.
pub fn says(row: &Row) -> (&str, Option<&str>, Option<Uuid>) {
    (row.status.as_str(), row.reason.as_deref(), row.call_id)
}

/// Call Y of P1 is recorded, the report of call X is guessed onto it, then X of P2 is recorded.
struct Moved {
    y: Uuid,
    x: Uuid,
    report: Uuid,
}

/// Of P1; the reports of [`early`] are guessed onto it.
async fn call_y(world: &mut World) -> Uuid {
    world
        .call(&CallSpec {
            ref_id: Some("ref-Y"),
            duration: 95,
            publisher: Some("P1"),
            ..CallSpec::default()
        })
        .await
}

/// Of P2; the report's own.
async fn call_x(world: &mut World, ref_id: &'static str) -> Uuid {
    world
        .call(&CallSpec {
            ref_id: Some(ref_id),
            duration: 90,
            publisher: Some("P2"),
            ..CallSpec::default()
        })
        .await
}

async fn guessed_then_moved(world: &mut World, name: &'static str) -> Moved {
    let y = call_y(world).await;
    let (report, row) = world.report(minute(3), early(name)).await;
    assert_eq!(says(&row), ("matched", None, Some(y)));
    assert_eq!(world.balance("P1").await, 3000);
    let x = call_x(world, name).await;
    Moved { y, x, report }
}

pub fn early(ref_id: &str) -> serde_json::Value {
    json!({"ref_id": ref_id, "caller_id": CALLER, "duration": 65, "payout": 50})
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_a_guess_moves_to_its_own_call_when_that_is_recorded() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let Moved { y, x, report } = guessed_then_moved(&mut world, "ref-X").await;
    let row = eventually("it moves", PATIENCE, || async {
        Some(world.row(report).await).filter(|row| row.call_id == Some(x))
    })
    .await;
    assert_eq!(says(&row), ("matched", Some("moved_to_its_call"), Some(x)));
    assert_eq!(row.detail["left_call"], json!(y));
    assert_eq!(row.credit, 3000);
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (0, 3000)
    );
    let left = world.money(y).await;
    assert_eq!(
        (left.value, left.from_webhook, left.credit),
        (None, false, 0)
    );
    let (_, repeat) = world.report(minute(4), early("ref-X")).await;
    assert_eq!(
        says(&repeat),
        ("duplicate", Some("same_payout_within_15m"), Some(x))
    );
    // Y is free again for its own report.
    let own = json!({"caller_id": CALLER, "duration": 70, "payout": 20});
    let (_, row) = world.report(minute(5), own).await;
    assert_eq!(says(&row), ("matched", None, Some(y)));
    assert_eq!(world.count("postings WHERE kind = 'moved'").await, 1);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_m12_the_repeat_without_its_id_moves_along_and_is_not_paid() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let y = call_y(&mut world).await;
    let plain = json!({"caller_id": CALLER, "duration": 65, "payout": 50});
    let (first, _) = world.report(minute(3), plain.clone()).await;
    let (second, row) = world.report(minute(4), plain).await;
    assert_eq!(
        says(&row),
        ("duplicate", Some("repeat_of_matched_report"), Some(y))
    );
    let x = call_x(&mut world, "ref-X").await;
    // The same report comes once more, now with its id: all three stand on X.
    let (named, _) = world.report(minute(5), early("ref-X")).await;
    for event in [first, second, named] {
        assert_eq!(
            world.row(event).await.call_id,
            Some(x),
            "{:?}",
            world.row(event).await
        );
    }
    assert_eq!(
        world.row(first).await.reason.as_deref(),
        Some("moved_to_its_call")
    );
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (0, 3000)
    );
    assert_eq!(world.money(y).await.value, None);
    let (_, late) = world
        .report(
            minute(6),
            json!({"caller_id": CALLER, "duration": 65, "payout": 50}),
        )
        .await;
    assert_eq!(
        says(&late),
        ("duplicate", Some("repeat_of_matched_report"), Some(x))
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m15_a_guess_and_its_named_repeat_on_two_workers_pay_once() {
    let mut world = World::new().await;
    let _workers = (world.worker().await, world.worker().await);
    for round in 0..10 {
        world.next_account().await;
        let y = world
            .call(&CallSpec {
                ref_id: Some("ref-Y"),
                duration: 95,
                publisher: Some("P1"),
                ..CallSpec::default()
            })
            .await;
        world
            .call(&CallSpec {
                ref_id: Some("ref-X"),
                duration: 90,
                publisher: Some("P2"),
                ..CallSpec::default()
            })
            .await;
        // Without its id the report is a guess between two payees, or Y's; with it, it is X's.
        let guess = world.event(
            minute(3),
            json!({"caller_id": CALLER, "duration": 35, "payout": 50}),
        );
        let named = world.event(
            minute(3),
            json!({"ref_id": "ref-X", "caller_id": CALLER, "duration": 35, "payout": 50}),
        );
        let ids = [guess.id, named.id];
        world.publish(vec![guess]).await;
        world.publish(vec![named]).await;
        for id in ids {
            world.row(id).await;
        }
        assert_eq!(world.balance("P2").await, 3000, "round {round}");
        assert_eq!(world.balance("P1").await, 0, "round {round}");
        assert_eq!(world.money(y).await.value, None, "round {round}");
    }
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_what_was_already_reported_takes_the_call_that_is_let_go() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let y = call_y(&mut world).await;
    // Its second look would try a waiting report again in any moment, also in that of the next call.
    eventually("the call's note is gone", PATIENCE, || async {
        (world.count("call_recorded_outbox").await == 0).then_some(())
    })
    .await;
    world.report(minute(3), early("ref-X")).await;
    let own = json!({"caller_id": CALLER, "duration": 70, "payout": 20});
    let (own, row) = world.report(minute(4), own).await;
    assert_eq!(row.reason.as_deref(), Some("already_reported"));
    call_x(&mut world, "ref-X").await;
    let row = world.row_with_status(own, "matched").await;
    assert_eq!(says(&row), ("matched", Some("matched_late"), Some(y)));
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (1200, 3000)
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_of_a_shared_ref_id_the_reported_callers_call_is_paid_or_nobodys() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let callers: Vec<&'static str> = (0..18)
        .map(|n| &*Box::leak(format!("+130555501{n:02}").into_boxed_str()))
        .collect();
    let mut calls = Vec::new();
    for (n, caller) in callers.iter().enumerate() {
        let spec = CallSpec {
            ref_id: Some("camp-7"),
            caller: Some(caller),
            ended_at: minute(-60) + SignedDuration::from_mins(n as i64),
            ..CallSpec::default()
        };
        calls.push(world.call(&spec).await);
    }
    let report = |caller: &str| json!({"ref_id": "camp-7", "caller_id": caller, "duration": 90, "payout": 50});
    // The oldest of them.
    let (_, row) = world.report(minute(3), report(callers[0])).await;
    assert_eq!(says(&row), ("matched", None, Some(calls[0])));
    let (_, row) = world.report(minute(4), report(callers[5])).await;
    assert_eq!(says(&row), ("matched", None, Some(calls[5])));
    // Nobody's caller: nobody is paid by a guess.
    let (_, row) = world.report(minute(5), report("+13055559999")).await;
    assert_eq!(says(&row), ("held", Some("ambiguous"), None));
    // The call_id beside it names one of them.
    let named = json!({"ref_id": "camp-7", "call_id": calls[9], "payout": 50});
    let (_, row) = world.report(minute(6), named).await;
    assert_eq!(says(&row), ("matched", None, Some(calls[9])));
    assert_eq!(world.balance("pubA").await, 9000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v8_a_zero_in_another_currency_is_a_rejection_all_the_same() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    world
        .report(minute(3), json!({"ref_id": "R1", "payout": 50}))
        .await;
    let (_, row) = world
        .report(
            minute(4),
            json!({"ref_id": "R1", "payout": 0, "currency": "EUR"}),
        )
        .await;
    assert_eq!(says(&row), ("matched", None, Some(call)));
    assert_eq!(world.balance("pubA").await, 0);
    world
        .report(minute(30), json!({"ref_id": "R1", "payout": 70}))
        .await;
    let (_, row) = world
        .report(
            minute(31),
            json!({"ref_id": "R1", "payout": -70, "currency": "EUR", "status": "reversed"}),
        )
        .await;
    assert_eq!(says(&row), ("matched", Some("reversal"), Some(call)));
    let (_, row) = world
        .report(
            minute(32),
            json!({"ref_id": "R1", "payout": -10, "currency": "EUR"}),
        )
        .await;
    assert_eq!(says(&row), ("held", Some("currency_mismatch"), Some(call)));
    assert_eq!(world.balance("pubA").await, 0);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m11_ten_repeats_of_a_held_report_are_one_thing_to_decide() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let over = json!({"ref_id": "R1", "payout": 20_000});
    let (first, row) = world.report(minute(3), over.clone()).await;
    assert_eq!(says(&row), ("held", Some("payout_over_cap"), Some(call)));
    let repeats: Vec<_> = (0..10)
        .map(|n| world.event(minute(4 + n), over.clone()))
        .collect();
    let ids: Vec<Uuid> = repeats.iter().map(|event| event.id).collect();
    world.publish(repeats).await;
    for id in ids {
        let row = world.row(id).await;
        assert_eq!(
            says(&row),
            ("duplicate", Some("repeat_of_open_report"), Some(call))
        );
        assert_eq!(row.detail["other_event"], json!(first));
    }
    assert_eq!(world.count("events WHERE status = 'held'").await, 1);
    // Another amount is another thing; so is the same after a day.
    let (_, row) = world
        .report(minute(20), json!({"ref_id": "R1", "payout": 30_000}))
        .await;
    assert_eq!(row.status, "held");
    let (_, row) = world.report(minute(24 * 60 + 5), over).await;
    assert_eq!(row.status, "held");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v13_a_calls_fold_is_bounded_and_a_persons_apply_has_room() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let events: Vec<_> = (0..260)
        .map(|n| {
            let at = minute(3) + SignedDuration::from_secs(n);
            world.event(
                at,
                json!({"ref_id": "R1", "payout": format!("{}.00", n + 1)}),
            )
        })
        .collect();
    let last = events.last().expect("some").id;
    world.publish(events).await;
    assert_eq!(
        says(&world.row(last).await),
        ("held", Some("too_many_reports"), Some(call))
    );
    assert_eq!(
        world
            .count("events WHERE reason = 'too_many_reports'")
            .await,
        60
    );
    assert_eq!(world.count("call_reports").await, 200);
    assert_eq!(world.money(call).await.value, Some(20_000));
    let (_, row) = world
        .report(minute(9), json!({"ref_id": "R1", "payout": 200}))
        .await;
    assert_eq!(
        says(&row),
        ("duplicate", Some("same_payout_within_15m"), Some(call))
    );
    assert_eq!(world.count("call_reports").await, 200, "outside the fold");
    assert_eq!(apply(&world, last, 5000).await, MATCHED);
    assert_eq!(world.money(call).await.value, Some(5_000));
    let (_, row) = world
        .report(Timestamp::now(), json!({"ref_id": "R1", "payout": 0}))
        .await;
    assert_eq!(
        says(&row),
        ("matched", None, Some(call)),
        "a rejection always has room"
    );
    assert_eq!(world.balance("pubA").await, 0);
    world.reconcile().await;
}

fn copy(id: Uuid, assignment_id: Option<Option<Uuid>>) -> CallRecord {
    CallRecord {
        id,
        ref_id: Some(Some("R1".to_owned())),
        caller: Some(Some(Caller {
            raw: CALLER.to_owned(),
            e164: Some(CALLER.to_owned()),
        })),
        tracking_number: None,
        duration_seconds: 120,
        started_at: minute(0),
        ended_at: minute(2),
        buyer_id: None,
        assignment_id,
        value_cents: None,
        qualified: None,
    }
}

async fn record(world: &World, copy: CallRecord) -> usize {
    let account_id = world.account_id;
    let refused = run_tx(&world.pool(), TransactionName::Other, move |tx| {
        let copies = vec![copy.clone()];
        Box::pin(async move { record_calls(tx, account_id, "key:test", &copies).await })
    })
    .await
    .expect("Postgres");
    refused.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn v9_a_call_that_was_reported_without_an_assignment_is_given_its_first() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let template = world
        .call(&CallSpec {
            ref_id: Some("T"),
            ..CallSpec::default()
        })
        .await;
    let assignment = world.assignment_of(template).await;
    let call = Uuid::new_v4();
    assert_eq!(record(&world, copy(call, None)).await, 0);
    let (_, row) = world
        .report(minute(3), json!({"ref_id": "R1", "payout": 50}))
        .await;
    assert_eq!(says(&row), ("matched", Some("no_assignment"), Some(call)));
    assert_eq!(world.balance("pubA").await, 0);
    assert_eq!(record(&world, copy(call, Some(Some(assignment)))).await, 0);
    assert_eq!(world.money(call).await.credit, 3000);
    assert_eq!(world.balance("pubA").await, 3000);
    assert_eq!(record(&world, copy(call, Some(Some(assignment)))).await, 0);
    assert_eq!(world.balance("pubA").await, 3000, "once");
    let (_, row) = world
        .report(minute(30), json!({"ref_id": "R1", "payout": 70}))
        .await;
    assert_eq!((row.status.as_str(), row.credit), ("matched", 1200));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m14_a_guess_that_a_changed_copy_no_longer_admits_is_decided_again() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = Uuid::new_v4();
    let template = world
        .call(&CallSpec {
            ref_id: Some("T"),
            caller: None,
            ..CallSpec::default()
        })
        .await;
    let assignment = world.assignment_of(template).await;
    assert_eq!(record(&world, copy(call, Some(Some(assignment)))).await, 0);
    let (report, row) = world
        .report(
            minute(3),
            json!({"caller_id": CALLER, "duration": 90, "payout": 50}),
        )
        .await;
    assert_eq!(says(&row), ("matched", None, Some(call)));
    let corrected = CallRecord {
        duration_seconds: 600,
        ..copy(call, None)
    };
    assert_eq!(record(&world, corrected).await, 0);
    let row = world.row_with_status(report, "unmatched").await;
    assert_eq!(row.reason.as_deref(), Some("duration_mismatch"));
    assert_eq!(world.money(call).await.value, None);
    assert_eq!(world.balance("pubA").await, 0);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_m12_a_named_guess_takes_its_nameless_repeat_along() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let y = call_y(&mut world).await;
    let (named, row) = world.report(minute(3), early("ref-X")).await;
    assert_eq!(says(&row), ("matched", None, Some(y)));
    let plain = json!({"caller_id": CALLER, "duration": 65, "payout": 50});
    let (nameless, row) = world.report(minute(4), plain).await;
    assert_eq!(
        says(&row),
        ("duplicate", Some("repeat_of_matched_report"), Some(y))
    );
    let x = call_x(&mut world, "ref-X").await;
    eventually("both move", PATIENCE, || async {
        let calls = [world.row(named).await, world.row(nameless).await].map(|row| row.call_id);
        (calls == [Some(x); 2]).then_some(())
    })
    .await;
    assert_eq!(world.row(nameless).await.status, "duplicate");
    assert_eq!(
        (world.balance("P1").await, world.balance("P2").await),
        (0, 3000)
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_a_changed_setting_takes_back_nothing_that_was_credited() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world
        .call(&CallSpec {
            ref_id: Some("ref-Y"),
            ..CallSpec::default()
        })
        .await;
    let unknown = json!({"ref_id": "nobody's", "caller_id": CALLER, "duration": 90, "payout": 50});
    let (report, row) = world.report(minute(3), unknown).await;
    assert_eq!(row.call_id, Some(call));
    let change = "UPDATE webhooks SET duration_tolerance_seconds = 5, duration_unit = 'minutes'";
    world.client.execute(change, &[]).await.expect("a setting");
    let due = "UPDATE pending_reports SET next_try_at = now()";
    world
        .client
        .execute(due, &[])
        .await
        .expect("the schedule comes");
    eventually("it was tried again", PATIENCE, || async {
        (world
            .count("pending_reports WHERE next_try_at > now()")
            .await
            == 1)
            .then_some(())
    })
    .await;
    assert_eq!(
        says(&world.row(report).await),
        ("matched", None, Some(call))
    );
    assert_eq!(world.balance("pubA").await, 3000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_a_ref_id_shared_across_buyers_pays_no_random_call() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let buyer = builders::buyer(&world.client, world.account_id, "W").await;
    let scope = "UPDATE webhooks SET buyer_id = $1";
    world
        .client
        .execute(scope, &[&buyer])
        .await
        .expect("a scope");
    for n in 0..40 {
        let caller: &'static str = Box::leak(format!("+130555502{n:02}").into_boxed_str());
        let spec = CallSpec {
            ref_id: Some("camp-9"),
            caller: Some(caller),
            // One of the first sixteen is this buyer's, and all after them.
            buyer_id: (n == 3 || n >= 16).then_some(buyer),
            ..CallSpec::default()
        };
        world.call(&spec).await;
    }
    let (_, row) = world
        .report(minute(3), json!({"ref_id": "camp-9", "payout": 50}))
        .await;
    assert_eq!(says(&row), ("held", Some("ambiguous"), None));
    assert_eq!(world.count("postings").await, 0);
}
