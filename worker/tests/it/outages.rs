//! Neighbours that are there and do not work: a worker waits, takes nothing that it cannot settle, and
//! comes back by itself.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lapin::options::{BasicGetOptions, BasicNackOptions, QueueDeleteOptions};
use serde_json::json;
use trueup_queue::topology;
use trueup_testkit::eventually;
use trueup_testkit::process::Process;

use crate::harness::{CallSpec, PATIENCE, World, at};

const RECEIVED: &str = "2026-03-14T12:02:10Z";

async fn says(worker: &mut Process, dependency: &str, state: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while worker.readiness().await["dependencies"][dependency]["state"] != state {
        assert!(
            std::time::Instant::now() < deadline,
            "{dependency} is not {state}:\n{}",
            worker.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How often the broker has delivered the one message that waits, after one more look at it.
async fn look_at_the_message(world: &World) -> Option<i64> {
    let broker = world.lease.broker().await;
    let channel = broker.open_channel().await.expect("a channel");
    let got = channel
        .basic_get(topology::QUEUE.into(), BasicGetOptions::default())
        .await
        .expect("asks")?;
    let headers = got.properties.headers().as_ref();
    let before =
        headers.and_then(|table| table.inner().get("x-delivery-count")?.as_long_long_int());
    got.nack(BasicNackOptions {
        requeue: true,
        multiple: false,
    })
    .await
    .expect("gives it back");
    broker.close().await;
    Some(before.unwrap_or(0))
}

/// A database that answers and does not work (its schema is older than the program, its disk is full)
/// must not use up the 50 deliveries of healthy messages, however long it lasts.
#[tokio::test(flavor = "multi_thread")]
async fn v12_outages_of_postgres_cannot_use_up_a_messages_deliveries() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let event = world.event(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}));
    let id = event.id;
    world.publish(vec![event]).await;
    for _ in 0..30 {
        look_at_the_message(&world).await;
    }
    let before = look_at_the_message(&world).await.expect("it waits");
    assert!(before >= 30, "the broker counts: {before}");

    world
        .client
        .batch_execute("ALTER TABLE postings RENAME TO postings_away")
        .await
        .expect("as superuser");
    // It is ready until it meets the event, which may be for too short to be seen.
    let mut worker = world.start().spawn();
    let gave_back = || async {
        worker
            .log()
            .contains("messages go back to the broker")
            .then_some(())
    };
    eventually("the worker gives its message back", PATIENCE, gave_back).await;
    assert_eq!(
        worker.readiness().await["ready"],
        false,
        "a worker that cannot settle says so"
    );
    worker.kill();
    let after = eventually("the message", PATIENCE, || look_at_the_message(&world)).await;
    assert!(
        after < 5,
        "it came back as a new one, and has {after} deliveries"
    );
    let tries = "event_attempts WHERE attempts > 1";
    assert_eq!(
        world.count(tries).await,
        0,
        "tries that Postgres cut short are not counted against the event"
    );
    assert!(world.find_row(id).await.is_none());

    world
        .client
        .batch_execute("ALTER TABLE postings_away RENAME TO postings")
        .await
        .expect("as superuser");
    let _worker = world.worker().await;
    assert_eq!(world.row(id).await.status, "matched");
    assert_eq!(world.depth(topology::DEAD_QUEUE).await, 0);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_without_a_free_connection_is_waited_for() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let role = "DO $$ BEGIN CREATE ROLE trueup_worker LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
    world
        .client
        .batch_execute(role)
        .await
        .expect("as superuser");
    let mut migrate = world.start().arg("migrate").spawn();
    assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());
    let limit = |n: i32| {
        format!(
            "ALTER DATABASE {} CONNECTION LIMIT {n}",
            world.database.name
        )
    };
    world
        .client
        .batch_execute(&limit(0))
        .await
        .expect("as superuser");

    let mut worker = world
        .start()
        .env(
            "TRUEUP_POSTGRES_URL",
            world.database.url_as("trueup_worker"),
        )
        .spawn();
    says(&mut worker, "postgres", "down").await;
    let event = world.event(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}));
    let id = event.id;
    world.publish(vec![event]).await;
    assert_eq!(
        world.depth(topology::QUEUE).await,
        1,
        "it takes no message that it cannot settle"
    );

    world
        .client
        .batch_execute(&limit(-1))
        .await
        .expect("as superuser");
    assert_eq!(world.row(id).await.status, "matched");
    says(&mut worker, "postgres", "ok").await;
    world.reconcile().await;
}

/// The broker ends the consumer (basic.cancel): here because its queue is gone; from RabbitMQ 4.3 on
/// also when messages were held for too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_cancels_is_made_anew() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let mut worker = world.worker().await;
    let broker = world.lease.broker().await;
    let channel = broker.open_channel().await.expect("a channel");
    channel
        .queue_delete(topology::QUEUE.into(), QueueDeleteOptions::default())
        .await
        .expect("deletes");
    eventually("the worker makes the queue again", PATIENCE, || async {
        topology::queue_depth(broker.connection(), topology::QUEUE)
            .await
            .ok()?
    })
    .await;
    let (_, row) = world
        .report(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}))
        .await;
    assert_eq!(row.status, "matched");
    says(&mut worker, "broker", "ok").await;
}

/// The order of reception is the gateways' clocks' (V3): a correction through a gateway whose clock is
/// 10 s behind counts as the earlier one if less than 10 s lie between. The row says so, no cent is
/// lost between the two, and a person can apply it.
#[tokio::test(flavor = "multi_thread")]
async fn v3_a_gateway_whose_clock_is_ten_seconds_behind_is_put_in_its_place() {
    let mut world = World::new().await;
    let call = world.call(&CallSpec::default()).await;
    let _worker = world.worker().await;
    let right = at(RECEIVED);
    let behind = |after: i64| right + SignedDuration::from_secs(after - 10);
    world
        .report(right, json!({"ref_id": "R1", "payout": "50.00"}))
        .await;
    let (_, row) = world
        .report(behind(4), json!({"ref_id": "R1", "payout": "40.00"}))
        .await;
    assert_eq!(
        (row.status.as_str(), row.reason.as_deref()),
        ("superseded", Some("older_than_applied"))
    );
    assert_eq!(
        world.money(call).await.value,
        Some(5_000),
        "the one that was received last by the clocks"
    );
    let (_, row) = world
        .report(behind(12), json!({"ref_id": "R1", "payout": "30.00"}))
        .await;
    assert_eq!(
        (row.status.as_str(), world.money(call).await.value),
        ("matched", Some(3_000))
    );
    world.reconcile().await;
}

/// An event keeps its partition by its own time, and comes once, also at a month's border.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_unique_across_partitions() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let row = world
        .client
        .query_one("SELECT date_trunc('month', now(), 'UTC')", &[])
        .await
        .expect("a month");
    let border: Timestamp = row.get(0);
    let before = world.event(
        border - SignedDuration::from_micros(1),
        json!({"ref_id": "A", "payout": 1}),
    );
    let after = world.event(border, json!({"ref_id": "B", "payout": 1}));
    for _ in 0..2 {
        world.publish(vec![before.clone(), after.clone()]).await;
    }
    let marker = world.event(border, json!({"ref_id": "C", "payout": 1}));
    world.publish(vec![marker.clone()]).await;
    world.row(marker.id).await;
    let tables = "SELECT count(*), count(DISTINCT tableoid), count(DISTINCT id) FROM events WHERE id IN ($1, $2)";
    let row = world
        .client
        .query_one(tables, &[&before.id, &after.id])
        .await
        .expect("counts");
    let found: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(found, (2, 2, 2), "rows, partitions, ids");
    world.reconcile().await;

    // No partition's key can see another's: that an id is nowhere twice is `reconcile`'s to prove.
    let copy = "INSERT INTO events (received_at, id, account_id, webhook_id, status)
                SELECT received_at - interval '1 day', id, account_id, webhook_id, 'unmatched' FROM events WHERE id = $1";
    world
        .client
        .execute(copy, &[&after.id])
        .await
        .expect("as superuser");
    let mut reconcile = world.start().arg("reconcile").spawn();
    assert_eq!(
        reconcile.exit_code(PATIENCE).await,
        1,
        "{}",
        reconcile.log()
    );
    assert!(
        reconcile
            .log()
            .contains(&format!("event {} has 2 rows", after.id)),
        "{}",
        reconcile.log()
    );
}
