//! An event that breaks the worker is set aside alone (V12), and comes back when it is redriven.

use serde_json::json;
use trueup_queue::topology;
use trueup_settlement::manual_actions::{self, ActionRequest};
use trueup_testkit::eventually;

use crate::harness::{CallSpec, PATIENCE, World, at};

/// Postgres refuses the row of a report about it, and no other.
const POISON: &str = "
    CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'poison'; END $$;
    CREATE TRIGGER refuse_poison BEFORE INSERT OR UPDATE ON events
        FOR EACH ROW WHEN (NEW.ref_id = 'POISON') EXECUTE FUNCTION refuse_poison();";
const CURE: &str = "DROP TRIGGER refuse_poison ON events";

async fn redrive(world: &World) {
    let mut process = world.start().arg("redrive").spawn();
    assert_eq!(
        process.exit_code(PATIENCE).await,
        0,
        "redrive says:\n{}",
        process.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_an_event_that_postgres_refuses_is_parked_alone_and_redriven() {
    let mut world = World::new().await;
    let worker = world.worker().await;
    let mut calls = Vec::new();
    for ref_id in ["R1", "POISON", "R3"] {
        calls.push(
            world
                .call(&CallSpec {
                    ref_id: Some(ref_id),
                    ..CallSpec::default()
                })
                .await,
        );
    }
    world.client.batch_execute(POISON).await.expect("poisoned");
    let received_at = at("2026-03-14T12:02:10Z");
    let events: Vec<_> = ["R1", "POISON", "R3"]
        .map(|ref_id| world.event(received_at, json!({"ref_id": ref_id, "payout": 50})))
        .to_vec();
    let ids: Vec<_> = events.iter().map(|e| e.id).collect();
    world.publish(events.clone()).await;

    for n in [0, 2] {
        assert_eq!(
            world.row(ids[n]).await.status,
            "matched",
            "a neighbour is settled"
        );
    }
    let parked = world.row(ids[1]).await;
    assert_eq!(
        (parked.status.as_str(), parked.reason.as_deref()),
        ("held", Some("processing_failed"))
    );
    assert_eq!(world.money(calls[1]).await.value, None);
    assert_eq!(world.balance("pubA").await, 6000);
    eventually("one dead letter", PATIENCE, || async {
        (world.depth(topology::DEAD_QUEUE).await == 1).then_some(())
    })
    .await;
    assert_eq!(
        world.requests_kept().await,
        3,
        "its request is kept, so that it can be replayed"
    );
    world.reconcile().await;

    // Redriven too early, it is parked again; nothing else happens.
    redrive(&world).await;
    eventually("the dead letter again", PATIENCE, || async {
        let idle = world.depth(topology::QUEUE).await == 0;
        (idle && world.depth(topology::DEAD_QUEUE).await == 1).then_some(())
    })
    .await;
    assert_eq!(
        world.row(ids[1]).await.reason.as_deref(),
        Some("processing_failed")
    );

    world.client.batch_execute(CURE).await.expect("cured");
    redrive(&world).await;
    let row = world.row_with_status(ids[1], "matched").await;
    assert_eq!(
        (row.call_id, row.credit),
        (Some(calls[1]), 3000),
        "as if it had come now, at its own place"
    );
    assert_eq!(world.balance("pubA").await, 9000);
    assert_eq!(world.depth(topology::DEAD_QUEUE).await, 0);

    // What is settled is skipped, also by redrive: the same letter once more changes nothing.
    let dead = topology::DEAD_QUEUE;
    world.publish_dead(&events).await;
    eventually("a dead letter", PATIENCE, || async {
        (world.depth(dead).await == 1).then_some(())
    })
    .await;
    redrive(&world).await;
    eventually("it is consumed", PATIENCE, || async {
        (world.depth(topology::QUEUE).await == 0 && world.depth(dead).await == 0).then_some(())
    })
    .await;
    drop(worker);
    assert_eq!(
        (world.balance("pubA").await, world.count("events").await),
        (9000, 3)
    );
    world.reconcile().await;
}

/// V12, M8: what a person has closed is settled, also for `redrive`.
#[tokio::test(flavor = "multi_thread")]
async fn v12_an_ignored_parked_row_is_not_paid_by_redrive() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let poisoned = CallSpec {
        ref_id: Some("POISON"),
        ..CallSpec::default()
    };
    let call = world.call(&poisoned).await;
    world.client.batch_execute(POISON).await.expect("poisoned");
    let report = json!({"ref_id": "POISON", "payout": 50});
    let event = world.event(at("2026-03-14T12:02:10Z"), report);
    world.publish(vec![event.clone()]).await;
    let parked = world.row(event.id).await;
    assert_eq!(parked.reason.as_deref(), Some("processing_failed"));
    world.client.batch_execute(CURE).await.expect("cured");
    let asked = ActionRequest {
        account_id: world.account_id,
        event_id: event.id,
        actor: "anna@example.com".to_owned(),
    };
    let ignored = manual_actions::ignore_event(&world.pool(), &asked).await;
    assert_eq!(ignored.expect("Postgres"), Ok(()));
    redrive(&world).await;
    eventually("it is consumed", PATIENCE, || async {
        let depths = [topology::QUEUE, topology::DEAD_QUEUE];
        let left = (world.depth(depths[0]).await, world.depth(depths[1]).await);
        (left == (0, 0)).then_some(())
    })
    .await;
    // The next report is settled after it.
    let next = world.event(at("2026-03-14T12:02:11Z"), json!({"ref_id": "NOBODYS"}));
    world.publish(vec![next.clone()]).await;
    world.row(next.id).await;
    assert_eq!(world.money(call).await.value, None);
    assert_eq!(world.balance("pubA").await, 0);
    world.reconcile().await;
}

#[tokio::test]
async fn dead_letters_are_told_to_the_metrics_that_page_somebody() {
    let world = World::new().await;
    let event = world.event(
        at("2026-03-14T12:01:00Z"),
        json!({"ref_id": "R1", "payout": 50}),
    );
    world.publish_dead(&[event]).await;
    let mut worker = world.worker().await;
    eventually("the figure", PATIENCE, async || {
        let dead = worker
            .metric("trueup_worker_queue_messages{queue=\"dead\"}")
            .await;
        (dead >= 1.0).then_some(())
    })
    .await;
    assert_eq!(
        worker
            .metric("trueup_worker_queue_messages{queue=\"events\"}")
            .await,
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_settings_that_cannot_be_read_park_their_own_webhooks_reports_only() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let broken = world.another_webhook().await;
    let update = "UPDATE webhooks SET field_names = '{\"nonsense\": \"x\"}' WHERE id = $1";
    world
        .client
        .execute(update, &[&broken.id])
        .await
        .expect("broken");
    let received_at = at("2026-03-14T12:02:10Z");
    let bad = world.event_of(&broken, received_at, json!({"ref_id": "R1", "payout": 70}));
    let good = world.event(received_at, json!({"ref_id": "R1", "payout": 50}));
    let (bad_id, good_id) = (bad.id, good.id);
    world.publish(vec![bad, good]).await;
    assert_eq!(world.row(good_id).await.status, "matched");
    assert_eq!(
        world.row(bad_id).await.reason.as_deref(),
        Some("processing_failed")
    );
    assert_eq!(world.money(call).await.value, Some(5000));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_a_nul_that_survives_the_door_breaks_nothing() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let mut event = world.event(
        at("2026-03-14T12:02:10Z"),
        json!({"ref_id": "R\u{0}1", "payout": "5\u{0}0"}),
    );
    if let Some(request) = &mut event.request {
        request.query = "status=a%00b&caller_id=%00&currency=US%00D".into();
        request.content_type = Some("application/json\u{0}".into());
    }
    let id = event.id;
    world.publish(vec![event]).await;
    assert_eq!(
        world.row(id).await.status,
        "matched",
        "U+0000 is dropped (X1)"
    );
    assert_eq!(world.money(call).await.value, Some(5000));
    assert_eq!(world.depth(topology::DEAD_QUEUE).await, 0);
}

/// Postgres lets a recorded call be written down, and nobody take it off the list again.
const WAKE_FAILS: &str = "
    CREATE FUNCTION refuse_wake() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'nothing is woken'; END $$;
    CREATE TRIGGER refuse_wake BEFORE UPDATE OR DELETE ON call_recorded_outbox
        FOR EACH ROW EXECUTE FUNCTION refuse_wake();";

#[tokio::test(flavor = "multi_thread")]
async fn m7_what_is_due_is_settled_where_waking_fails() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let received_at = at("2026-03-14T12:02:10Z");
    let (waiting, row) = world
        .report(received_at, json!({"ref_id": "R1", "payout": 50}))
        .await;
    assert_eq!(row.status, "unmatched");
    world
        .client
        .batch_execute(WAKE_FAILS)
        .await
        .expect("broken");
    let call = world.call(&CallSpec::default()).await;
    world
        .client
        .execute("UPDATE pending_reports SET next_try_at = now()", &[])
        .await
        .expect("the schedule comes");
    let row = world.row_with_status(waiting, "matched").await;
    assert_eq!(row.call_id, Some(call));
    assert!(
        world.count("call_recorded_outbox").await >= 1,
        "waking failed all the while"
    );
    world.reconcile().await;
}
