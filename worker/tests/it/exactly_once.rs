//! Nothing lost, nothing twice: two workers at once, kills, outages of each neighbour.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use trueup_queue::topology;
use trueup_testkit::eventually;
use trueup_testkit::tcp_proxy::FaultProxy;

use crate::harness::{CallSpec, Money, PATIENCE, World, at};

const RECEIVED: &str = "2026-03-14T12:02:10Z";

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_identical_reports_on_two_workers_are_one_credit() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let _workers = (world.worker().await, world.worker().await);
    let events: Vec<_> = (0..100)
        .map(|n| {
            let at = at(RECEIVED) + SignedDuration::from_millis(n);
            world.event(at, json!({"ref_id": "R1", "payout": "50.00"}))
        })
        .collect();
    for event in events {
        world.publish(vec![event]).await;
    }
    eventually("100 rows", PATIENCE, || async {
        (world.count("events").await == 100).then_some(())
    })
    .await;
    assert_eq!(world.count("events WHERE status = 'matched'").await, 1);
    assert_eq!(
        world
            .count("events WHERE reason = 'same_payout_within_15m'")
            .await,
        99
    );
    assert_eq!(world.count("postings").await, 1);
    assert_eq!(world.balance("pubA").await, 3_000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_in_the_middle_lose_nothing_and_pay_nothing_twice() {
    const CALLS: usize = 40;
    const REPORTS: usize = 4_000;
    let mut world = World::new().await;
    for n in 0..CALLS {
        let ref_id: &'static str = Box::leak(format!("K{n}").into_boxed_str());
        world
            .call(&CallSpec {
                ref_id: Some(ref_id),
                ..CallSpec::default()
            })
            .await;
    }
    let mut events = Vec::new();
    for n in 0..REPORTS {
        let at = at(RECEIVED) + SignedDuration::from_millis(i64::try_from(n).expect("small"));
        let payout = format!("{}.00", 1 + n % 7);
        events.push(world.event(
            at,
            json!({"ref_id": format!("K{}", n % CALLS), "payout": payout}),
        ));
    }
    for envelope in events.chunks(25) {
        world.publish(envelope.to_vec()).await;
    }
    let mut kills = 0;
    while world.count("events").await < i64::try_from(REPORTS).expect("small") {
        let mut worker = world.worker().await;
        let seen = world.count("events").await;
        let progress = || async {
            let now = world.count("events").await;
            (now > seen || now == i64::try_from(REPORTS).expect("small")).then_some(())
        };
        eventually("some progress", PATIENCE, progress).await;
        if kills < 5 {
            worker.kill();
            kills += 1;
        } else {
            eventually("all rows", PATIENCE, || async {
                (world.count("events").await == i64::try_from(REPORTS).expect("small"))
                    .then_some(())
            })
            .await;
        }
    }
    assert!(
        kills > 0,
        "the worker was faster than the test: publish more"
    );
    assert_eq!(
        world.depth(topology::DEAD_QUEUE).await,
        0,
        "no healthy envelope is parked"
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_a_worker_without_postgres_keeps_its_messages_and_comes_back() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let cutter = FaultProxy::to(&world.database.server()).await;
    let through = world.database.url_through(cutter.address);
    let mut worker = world
        .start()
        .env("TRUEUP_POSTGRES_URL", through)
        .ready()
        .await;
    cutter.cut();
    let event = world.event(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}));
    let id = event.id;
    world.publish(vec![event]).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while worker.readiness().await["dependencies"]["postgres"]["state"] == "ok" {
        assert!(
            std::time::Instant::now() < deadline,
            "/ready still says ok:\n{}",
            worker.log()
        );
    }
    cutter.restore();
    assert_eq!(world.row(id).await.status, "matched");
    assert_eq!(
        world.count("event_attempts").await,
        0,
        "an absence of Postgres is no failure of the event"
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_its_broker_comes_back_and_skips_what_is_settled() {
    let mut world = World::new().await;
    let call = world.call(&CallSpec::default()).await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let through = world.lease.amqp_through(cutter.address);
    let mut worker = world.start().env("TRUEUP_AMQP_URL", through).ready().await;
    let event = world.event(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}));
    let id = event.id;
    world.publish(vec![event.clone()]).await;
    world.row(id).await;
    cutter.cut();
    let deadline = std::time::Instant::now() + PATIENCE;
    while worker.readiness().await["dependencies"]["broker"]["state"] == "ok" {
        assert!(
            std::time::Instant::now() < deadline,
            "/ready still says ok:\n{}",
            worker.log()
        );
    }
    cutter.restore();
    // The same event once more, and another one.
    let correction = world.event(
        at("2026-03-14T12:30:00Z"),
        json!({"ref_id": "R1", "payout": "40.00"}),
    );
    let second = correction.id;
    world.publish(vec![event, correction]).await;
    world.row(second).await;
    let money = Money {
        value: Some(4_000),
        from_webhook: true,
        qualified: Some(true),
        credit: 2_400,
    };
    assert_eq!(world.money(call).await, money);
    assert_eq!(world.count("events").await, 2);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_a_call_recorded_after_its_report_is_matched_within_two_seconds() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let (id, row) = world
        .report(at(RECEIVED), json!({"ref_id": "LATE", "payout": "50.00"}))
        .await;
    assert_eq!(
        (row.status.as_str(), row.reason.as_deref()),
        ("unmatched", Some("ref_id_not_found"))
    );
    assert_eq!(world.count("events WHERE retry_until IS NOT NULL").await, 1);
    let call = world
        .call(&CallSpec {
            ref_id: Some("LATE"),
            ..CallSpec::default()
        })
        .await;
    let row = eventually("a late match", Duration::from_secs(2), || async {
        world
            .find_row(id)
            .await
            .filter(|row| row.status == "matched")
    })
    .await;
    assert_eq!(
        (row.reason.as_deref(), row.call_id, row.credit),
        (Some("matched_late"), Some(call), 3_000)
    );
    assert_eq!(world.count("pending_reports").await, 0);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_leaves_the_rest_to_the_next() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let mut worker = world.worker().await;
    let events: Vec<_> = (0..500)
        .map(|n| {
            world.event(
                at(RECEIVED) + SignedDuration::from_secs(n),
                json!({"ref_id": "R1", "payout": n}),
            )
        })
        .collect();
    for envelope in events.chunks(10) {
        world.publish(envelope.to_vec()).await;
    }
    worker.terminate();
    assert_eq!(worker.exit_code(PATIENCE).await, 0, "{}", worker.log());
    let _next = world.worker().await;
    eventually("all rows", PATIENCE, || async {
        (world.count("events").await == 500).then_some(())
    })
    .await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_a_call_that_somebody_holds_locked_holds_up_nobody_else() {
    const OTHERS: i64 = 600;
    let mut world = World::new().await;
    let held = world.call(&CallSpec::default()).await;
    let free = world
        .call(&CallSpec {
            ref_id: Some("R2"),
            caller: Some("+13055550199"),
            ..CallSpec::default()
        })
        .await;
    let mut client = world.database.client().await;
    let holding = client.transaction().await.expect("a transaction");
    holding
        .execute("SELECT FROM calls WHERE id = $1 FOR UPDATE", &[&held])
        .await
        .expect("a lock");
    let mut worker = world.worker().await;
    let event = world.event(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}));
    let behind = event.id;
    world.publish(vec![event]).await;
    // The same account, another call; and more envelopes than a worker holds unacknowledged.
    for n in 0..OTHERS {
        let at = at(RECEIVED) + SignedDuration::from_millis(n);
        let payout = format!("{}.00", 1 + n % 5);
        world
            .publish(vec![
                world.event(at, json!({"ref_id": "R2", "payout": payout})),
            ])
            .await;
    }
    eventually("all the others", PATIENCE, || async {
        (world.count("events").await == OTHERS).then_some(())
    })
    .await;
    assert!(world.money(free).await.from_webhook);
    assert!(world.find_row(behind).await.is_none(), "its call is held");
    assert_eq!(world.count("event_attempts WHERE attempts > 0").await, 0);
    assert!(
        worker
            .metric("trueup_worker_events_stepped_aside_total")
            .await
            >= 1.0
    );
    holding.rollback().await.expect("released");
    let row = world.row(behind).await;
    assert_eq!(row.status, "matched", "waiting for a lock is no failure");
    assert_eq!(world.depth(topology::DEAD_QUEUE).await, 0);
    world.reconcile().await;
}
