//! The worker dies at each of its points, in the middle of what it does; the next one makes it good.

use serde_json::json;
use trueup_event::raw_event::RawEvent;
use trueup_ops::crash_points::Point;
use trueup_queue::topology;
use trueup_testkit::eventually;

use crate::harness::{CallSpec, Money, PATIENCE, World, at};

/// A process that aborted: 128 and SIGABRT.
const ABORTED: i32 = 134;

/// Two envelopes, so that there is a between: reports of two calls, then a correction and a rejection.
fn envelopes(world: &World) -> [Vec<RawEvent>; 2] {
    let first = at("2026-03-14T12:02:10Z");
    let later = at("2026-03-14T12:30:00Z");
    [
        vec![
            world.event(first, json!({"ref_id": "R1", "payout": "50.00"})),
            world.event(first, json!({"ref_id": "R2", "payout": "20.00"})),
            world.event(first, json!({"ref_id": "nobody's", "payout": "20.00"})),
        ],
        vec![
            world.event(later, json!({"ref_id": "R1", "payout": "40.00"})),
            world.event(later, json!({"ref_id": "R2", "payout": "0.00"})),
        ],
    ]
}

async fn dies_at(point: Point) {
    let mut world = World::new().await;
    let first = world.call(&CallSpec::default()).await;
    let second = world
        .call(&CallSpec {
            ref_id: Some("R2"),
            ..CallSpec::default()
        })
        .await;
    for events in envelopes(&world) {
        world.publish(events).await;
    }
    // One envelope at a time, so that the first is acknowledged by itself. The second death is met by
    // what was delivered before, which goes event by event.
    let start = world
        .start()
        .env("TRUEUP_WORKER_PREFETCH", 1)
        .env("CRASH_AT", point.name());
    for death in 1..=2 {
        let mut worker = start.spawn();
        assert_eq!(
            worker.exit_code(PATIENCE).await,
            ABORTED,
            "{point:?}, death {death}:\n{}",
            worker.log()
        );
        let rows = world.count("events").await;
        match point {
            Point::BeforeLock | Point::AfterWrite | Point::BeforeCommit => {
                assert_eq!(
                    (rows, world.count("postings").await),
                    (0, 0),
                    "{point:?}: nothing is half done"
                );
            }
            Point::AfterCommit | Point::BetweenAcks => {
                assert!(rows > 0, "{point:?}: committed is committed")
            }
        }
        world.reconcile().await;
    }
    let _worker = world.worker().await;
    eventually("all rows", PATIENCE, || async {
        (world.count("events").await == 5).then_some(())
    })
    .await;
    eventually("an empty queue", PATIENCE, || async {
        (world.depth(topology::QUEUE).await == 0).then_some(())
    })
    .await;
    let money = Money {
        value: Some(4_000),
        from_webhook: true,
        qualified: Some(true),
        credit: 2_400,
    };
    assert_eq!(world.money(first).await, money, "{point:?}");
    let money = Money {
        value: Some(0),
        from_webhook: true,
        qualified: Some(false),
        credit: 0,
    };
    assert_eq!(world.money(second).await, money, "{point:?}");
    assert_eq!(world.balance("pubA").await, 2_400, "{point:?}");
    assert_eq!(world.depth(topology::DEAD_QUEUE).await, 0, "{point:?}");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_death_before_the_lock_does_no_harm() {
    dies_at(Point::BeforeLock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_death_after_the_write_does_no_harm() {
    dies_at(Point::AfterWrite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_death_before_the_commit_does_no_harm() {
    dies_at(Point::BeforeCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_death_after_the_commit_and_before_the_ack_does_no_harm() {
    dies_at(Point::AfterCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v12_death_between_two_acks_does_no_harm() {
    dies_at(Point::BetweenAcks).await;
}

/// It cannot even be caught: each try of it ends the process. Its neighbours, and the envelopes that
/// the dying worker had taken ahead, come through.
#[tokio::test(flavor = "multi_thread")]
async fn v12_an_event_that_kills_the_worker_is_parked_alone() {
    let mut world = World::new().await;
    let call = world.call(&CallSpec::default()).await;
    let first = at("2026-03-14T12:02:10Z");
    let poison = world.event(first, json!({"ref_id": "R1", "payout": "70.00"}));
    let id = poison.id;
    let before = world.event(first, json!({"ref_id": "nobody's", "payout": "1.00"}));
    let after = world.event(first, json!({"ref_id": "nobody's", "payout": "2.00"}));
    world.publish(vec![before, poison, after]).await;
    for n in 0..20 {
        world
            .publish(vec![
                world.event(first, json!({"ref_id": "nobody's", "payout": n})),
            ])
            .await;
    }
    let start = world.start().env("CRASH_ON_EVENT", id);
    // Once in its batch, then five times alone (V12).
    for death in 1..=6 {
        let mut worker = start.spawn();
        assert_eq!(
            worker.exit_code(PATIENCE).await,
            ABORTED,
            "death {death}:\n{}",
            worker.log()
        );
        assert!(world.find_row(id).await.is_none(), "death {death}");
    }
    let mut worker = start.ready().await;
    assert_eq!(
        world.row(id).await.reason.as_deref(),
        Some("processing_failed")
    );
    eventually("all rows", PATIENCE, || async {
        (world.count("events").await == 23).then_some(())
    })
    .await;
    assert_eq!(
        world
            .count("events WHERE reason = 'processing_failed'")
            .await,
        1,
        "alone"
    );
    assert_eq!(
        worker
            .metric("trueup_worker_events_dead_lettered_total")
            .await,
        1.0
    );
    eventually("its letter", PATIENCE, || async {
        (world.depth(topology::DEAD_QUEUE).await == 1).then_some(())
    })
    .await;
    assert_eq!(world.money(call).await.value, None);
    world.reconcile().await;
    drop(worker);

    // A repaired worker, and the letter put back.
    let _worker = world.worker().await;
    let mut redrive = world.start().arg("redrive").spawn();
    assert_eq!(redrive.exit_code(PATIENCE).await, 0, "{}", redrive.log());
    world.row_with_status(id, "matched").await;
    assert_eq!(world.balance("pubA").await, 4_200);
    world.reconcile().await;
}
