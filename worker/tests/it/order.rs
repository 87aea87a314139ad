//! Orders of processing that the door cannot be made to show: reversed, repeated, in one batch or one
//! by one (V3, V12, invariant 3). And: nothing of another account is ever looked at.

use jiff::SignedDuration;
use serde_json::json;
use trueup_event::raw_event::RawEvent;
use trueup_queue::topology;
use trueup_testkit::builders::{self, Call};
use trueup_testkit::eventually;
use trueup_testkit::tcp_proxy::{FaultProxy, NetworkFault};
use uuid::Uuid;

use crate::harness::{CallSpec, Money, PATIENCE, Row, World, at};

/// Call, minutes after noon, payout: corrections, retries, a zero, a reversal, all of them folded.
const REPORTS: [(&str, i64, &str); 12] = [
    ("R1", 5, "50"),
    ("R2", 6, "20"),
    ("R1", 8, "50"),
    ("R1", 30, "70"),
    ("R2", 31, "0"),
    ("R1", 40, "50"),
    ("R2", 50, "33.33"),
    ("R2", 55, "33.33"),
    ("R3", 60, "12.50"),
    ("R3", 70, "-12.50"),
    ("R2", 80, "40"),
    ("R1", 90, "70"),
];

async fn cast(world: &mut World) -> Vec<uuid::Uuid> {
    let mut calls = Vec::new();
    for ref_id in ["R1", "R2", "R3"] {
        calls.push(
            world
                .call(&CallSpec {
                    ref_id: Some(ref_id),
                    ..CallSpec::default()
                })
                .await,
        );
    }
    calls
}

fn events(world: &World) -> Vec<RawEvent> {
    let noon = at("2026-03-14T12:00:00Z");
    let event = |(ref_id, minutes, payout): &(&str, i64, &str)| {
        world.event(
            noon + SignedDuration::from_mins(*minutes),
            json!({"ref_id": ref_id, "payout": payout}),
        )
    };
    REPORTS.iter().map(event).collect()
}

async fn books(world: &World, calls: &[uuid::Uuid], events: &[RawEvent]) -> (Vec<Money>, i64) {
    for event in events {
        world.row(event.id).await;
    }
    let mut money = Vec::new();
    for call in calls {
        money.push(world.money(*call).await);
    }
    (money, world.balance("pubA").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_one_by_one_reversed_and_in_one_batch_end_in_the_same_books() {
    let mut world = World::new().await;
    let _worker = world.worker().await;

    let calls = cast(&mut world).await;
    let in_order = events(&world);
    for event in &in_order {
        world.publish(vec![event.clone()]).await;
        world.row(event.id).await;
    }
    let expected = books(&world, &calls, &in_order).await;
    let value = |m: &Money| (m.value, m.qualified, m.credit);
    let values: Vec<_> = expected.0.iter().map(value).collect();
    assert_eq!(
        values,
        [
            (Some(7000), Some(true), 4200),
            (Some(4000), Some(true), 2400),
            (Some(0), Some(false), 0)
        ],
        "and they are those of the rules"
    );

    world.next_account().await;
    let calls = cast(&mut world).await;
    let mut reversed = events(&world);
    reversed.reverse();
    for event in &reversed {
        world.publish(vec![event.clone()]).await;
        world.row(event.id).await;
    }
    assert_eq!(
        books(&world, &calls, &reversed).await,
        expected,
        "in reverse order of reception"
    );

    world.next_account().await;
    let calls = cast(&mut world).await;
    let mut batch = events(&world);
    batch.rotate_left(5);
    world.publish(batch.clone()).await;
    assert_eq!(
        books(&world, &calls, &batch).await,
        expected,
        "in one batch, out of order"
    );

    // The same envelope once more, as a gateway sends it that saw no confirm.
    let before: Vec<Option<Row>> =
        futures_util::future::join_all(batch.iter().map(|e| world.find_row(e.id))).await;
    let rows = world.count("events").await;
    world.publish(batch.clone()).await;
    let (probe, _) = world
        .report(
            at("2026-03-14T15:00:00Z"),
            json!({"ref_id": "R3", "payout": "0"}),
        )
        .await;
    assert_eq!(
        world.row(probe).await.reason.as_deref(),
        Some("no_change"),
        "what came after it is settled"
    );
    assert_eq!(
        books(&world, &calls, &batch).await,
        expected,
        "an applied event that comes again"
    );
    assert_eq!(world.count("events").await, rows + 1);
    let after: Vec<Option<Row>> =
        futures_util::future::join_all(batch.iter().map(|e| world.find_row(e.id))).await;
    assert_eq!(after, before, "its rows are as they were");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_elements_of_one_batch_count_in_their_order() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let together = at("2026-03-14T12:02:10Z");
    let mut elements: Vec<RawEvent> = ["50", "60", "70"]
        .map(|payout| world.event(together, json!({"ref_id": "R1", "payout": payout})))
        .to_vec();
    for (position, element) in (0..).zip(&mut elements) {
        element.position = position;
    }
    let ids: Vec<_> = elements.iter().map(|e| e.id).collect();
    elements.reverse();
    world.publish(elements).await;
    for id in ids {
        assert_eq!(world.row(id).await.status, "matched");
    }
    assert_eq!(
        world.money(call).await.value,
        Some(7000),
        "the last element stands"
    );
    assert_eq!(world.balance("pubA").await, 4200);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_account_is_ever_looked_at() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let theirs = world.call(&CallSpec::default()).await;
    world.next_account().await;
    let report = json!({"ref_id": "R1", "call_id": theirs, "caller_id": "+13055550142", "duration": 90, "payout": 50});
    let (_, row) = world.report(at("2026-03-14T12:02:10Z"), report).await;
    assert_eq!(
        (row.status.as_str(), row.reason.as_deref()),
        ("unmatched", Some("ref_id_not_found"))
    );
    assert_eq!(row.detail, json!({}), "not even as a near miss");
    assert_eq!(world.money(theirs).await.value, None);

    // The same id in both accounts is two calls.
    let ours = world.call_as(theirs, &CallSpec::default()).await;
    world
        .row_with_status(world.newest_event().await, "matched")
        .await;
    let select = "SELECT count(*) FROM calls WHERE value_cents = 5000";
    let matched: i64 = world
        .client
        .query_one(select, &[])
        .await
        .expect("a count")
        .get(0);
    assert_eq!((ours, matched), (theirs, 1));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_a_call_that_was_numbered_first_and_committed_last_wakes_its_report() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let received_at = at("2026-03-14T12:03:00Z");
    let report = json!({"caller_id": "+13055550142", "duration": 65, "payout": 50});
    let (id, row) = world.report(received_at, report).await;
    assert_eq!(row.status, "unmatched");

    // The call that the report is about is written, and not yet committed.
    let mut slow = world.database.client().await;
    let recording = slow.transaction().await.expect("a transaction");
    let call = Call {
        caller: Some("+13055550142"),
        duration_seconds: 70,
        ended_at: Some(at("2026-03-14T12:02:00Z")),
        noted: true,
        ..Call::default()
    };
    let own = builders::call(&recording, world.account_id, &call).await;
    // Meanwhile another call of that caller comes: the report is tried again, in vain.
    world
        .call(&CallSpec {
            duration: 600,
            ..CallSpec::default()
        })
        .await;
    eventually("it was tried again", PATIENCE, || async {
        let tried = "pending_reports WHERE woken_in > 0 AND next_try_at > now()";
        (world.count(tried).await == 1).then_some(())
    })
    .await;
    world
        .client
        .execute(
            "UPDATE pending_reports SET next_try_at = now() + interval '1 day'",
            &[],
        )
        .await
        .expect("the schedule is far away");
    recording.commit().await.expect("committed");
    let row = world.row_with_status(id, "matched").await;
    assert_eq!(row.call_id, Some(own));
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_what_one_recorded_call_wakes_is_decided_by_reception() {
    let mut world = World::new().await;
    let _workers = [world.worker().await, world.worker().await];
    let report = |duration: i64, payout: i64| json!({"caller_id": "+13055550142", "duration": duration, "payout": payout});
    // They are settled in another order than they came in, and wait for one call that all of them fit.
    let mut waiting = Vec::new();
    for (received_at, duration) in [
        ("2026-03-14T12:05:00Z", 101),
        ("2026-03-14T12:03:00Z", 102),
        ("2026-03-14T12:04:00Z", 103),
    ] {
        let (id, row) = world
            .report(at(received_at), report(duration, duration))
            .await;
        assert_eq!(row.status, "unmatched");
        waiting.push(id);
    }
    let call = world.call(&CallSpec::default()).await;
    let first = world.row_with_status(waiting[1], "matched").await;
    assert_eq!(first.call_id, Some(call));
    for later in [waiting[0], waiting[2]] {
        let row = eventually("it was tried again", PATIENCE, || async {
            Some(world.row(later).await)
                .filter(|row| row.reason.as_deref() == Some("already_reported"))
        })
        .await;
        assert_eq!(row.status, "unmatched");
    }
    assert_eq!(world.money(call).await.value, Some(10_200));
}

/// The row of a report about it is written when the test lets go of this lock.
const HOLD_UP: &str = "
    CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock(10); RETURN NEW; END $$;
    CREATE TRIGGER hold_up BEFORE INSERT ON events
        FOR EACH ROW WHEN (NEW.ref_id = 'HELD-UP') EXECUTE FUNCTION hold_up();";

/// A short call and a long one of a caller, and two reports of it in order of reception: the first fits the
/// short one only, the second fits both and the short one better.
async fn two_calls_and_two_guesses(world: &mut World) -> ([Uuid; 2], [RawEvent; 2]) {
    let short = world
        .call(&CallSpec {
            ref_id: Some("short"),
            duration: 100,
            ..CallSpec::default()
        })
        .await;
    let long = world
        .call(&CallSpec {
            ref_id: Some("long"),
            duration: 150,
            ..CallSpec::default()
        })
        .await;
    let guess = |received_at: &str, duration: i64| {
        let report = json!({"caller_id": "+13055550142", "duration": duration, "payout": 50});
        world.event(at(received_at), report)
    };
    let first = guess("2026-03-14T12:03:00Z", 70);
    let second = guess("2026-03-14T12:04:00Z", 100);
    ([short, long], [first, second])
}

/// A worker takes the events, in an envelope each and in this order, and dies before it has settled any.
async fn take_and_die(world: &World, events: Vec<RawEvent>) {
    let count = u32::try_from(events.len()).expect("a few");
    let postgres = FaultProxy::to(&world.database.server()).await;
    let mut dying = world
        .start()
        .env(
            "TRUEUP_POSTGRES_URL",
            world.database.url_through(postgres.address),
        )
        .ready()
        .await;
    postgres.set(NetworkFault::Hung);
    for event in events {
        world.publish(vec![event]).await;
    }
    eventually("it has all of them", PATIENCE, || async {
        (world.depth(topology::QUEUE).await == 0).then_some(())
    })
    .await;
    dying.kill();
    assert_eq!(world.count("events").await, 0, "it settled none");
    eventually("the broker has them again", PATIENCE, || async {
        (world.depth(topology::QUEUE).await == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_guesses_that_come_again_in_one_batch_are_decided_by_reception() {
    let mut world = World::new().await;
    let ([short, long], [first, second]) = two_calls_and_two_guesses(&mut world).await;
    let ids = [first.id, second.id];
    let held_up = json!({"ref_id": "HELD-UP", "payout": 1});
    let held_up = world.event(at("2026-03-14T12:02:30Z"), held_up);
    let held_up_id = held_up.id;
    take_and_die(&world, vec![held_up, second, first]).await;

    // The next worker is held up by the first envelope, while both guesses come: they are one batch.
    world
        .client
        .batch_execute(HOLD_UP)
        .await
        .expect("a trigger");
    let holder = world.database.client().await;
    let lock = "SELECT pg_advisory_lock(10)";
    holder.batch_execute(lock).await.expect("the lock");
    let mut worker = world.worker().await;
    let again = "trueup_worker_envelopes_total{outcome=\"redelivered\"}";
    let deadline = std::time::Instant::now() + PATIENCE;
    while worker.metric(again).await < 3.0 {
        assert!(std::time::Instant::now() < deadline, "{}", worker.log());
    }
    let unlock = "SELECT pg_advisory_unlock(10)";
    holder.batch_execute(unlock).await.expect("let go");
    let mut calls = Vec::new();
    for id in ids {
        let row = world.row(id).await;
        assert_eq!(row.status, "matched", "{row:?}");
        calls.push(row.call_id);
    }
    assert_eq!(calls, [Some(short), Some(long)]);
    world.row(held_up_id).await;
    assert_eq!(world.balance("pubA").await, 6000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_guesses_that_come_again_newest_first_are_decided_by_reception() {
    let mut world = World::new().await;
    let ([short, long], [first, second]) = two_calls_and_two_guesses(&mut world).await;
    let ids = [first.id, second.id];
    take_and_die(&world, vec![second, first]).await;

    let _worker = world.worker().await;
    let mut calls = Vec::new();
    for id in ids {
        let row = world.row(id).await;
        assert_eq!(row.status, "matched", "{row:?}");
        calls.push(row.call_id);
    }
    assert_eq!(calls, [Some(short), Some(long)]);
    assert_eq!(world.balance("pubA").await, 6000);
    world.reconcile().await;
}

/// M15: where a guess steps aside, its caller's later guesses do too, also those of the next batches.
#[tokio::test(flavor = "multi_thread")]
async fn m15_a_later_guess_waits_behind_one_of_its_caller_that_stepped_aside() {
    const OTHER: &str = "+13055550143";
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let mut calls = Vec::new();
    for (ref_id, duration) in [("short", 115), ("long", 300)] {
        let spec = CallSpec {
            ref_id: Some(ref_id),
            duration,
            ..CallSpec::default()
        };
        calls.push(world.call(&spec).await);
    }
    let report = |second: &str, caller: &str, duration: i64| {
        let said = json!({"caller_id": caller, "duration": duration, "payout": 50});
        world.event(at(&format!("2026-03-14T12:03:{second}Z")), said)
    };
    let first = report("01", "+13055550142", 100);
    let later = report("03", "+13055550142", 290);
    let others = [report("02", OTHER, 70), report("04", OTHER, 71)];
    let mut holder = world.database.client().await;
    let holding = holder.transaction().await.expect("begins");
    holding
        .execute(
            "SELECT 1 FROM calls WHERE id = $1 FOR NO KEY UPDATE",
            &[&calls[0]],
        )
        .await
        .expect("held");
    // An account has one batch at work: when the stranger's row is there, the first one has stepped aside.
    world.publish(vec![first.clone()]).await;
    world.publish(vec![others[0].clone()]).await;
    world.row(others[0].id).await;
    world.publish(vec![later.clone()]).await;
    world.publish(vec![others[1].clone()]).await;
    world.row(others[1].id).await;
    assert!(world.find_row(first.id).await.is_none(), "its call is held");
    assert!(world.find_row(later.id).await.is_none(), "it waits behind");
    holding.rollback().await.expect("let go");
    for (event, call) in [(&first, calls[0]), (&later, calls[1])] {
        let row = world.row_with_status(event.id, "matched").await;
        assert_eq!(row.call_id, Some(call));
    }
    world.reconcile().await;
}
