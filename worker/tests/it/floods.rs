//! One account sends more than is settled: the others' reports do not wait for it, and nothing of it is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use trueup_event::raw_event::RawEvent;
use trueup_queue::topology;
use trueup_testkit::eventually;
use trueup_testkit::http;
use uuid::Uuid;

use crate::harness::{CallSpec, World, at};

/// Events in an envelope of the flood.
const EACH: usize = 500;
const PATIENCE: Duration = Duration::from_secs(120);

/// Publishes so many envelopes of reports about one call; returns the events' ids.
async fn flood(world: &World, envelopes: usize, ref_id: &str) -> BTreeSet<Uuid> {
    let mut ids = BTreeSet::new();
    for n in 0..envelopes {
        let events: Vec<RawEvent> = (0..EACH)
            .map(|m| {
                let cents = n * EACH + m;
                world.event(
                    at("2026-03-14T12:02:10Z"),
                    json!({"ref_id": ref_id, "payout": format!("{}.{:02}", 1 + cents / 100, cents % 100)}),
                )
            })
            .collect();
        ids.extend(events.iter().map(|event| event.id));
        world.publish(events).await;
    }
    ids
}

async fn rows_of(world: &World, account_id: Uuid) -> BTreeSet<Uuid> {
    let select = "SELECT id FROM events WHERE account_id = $1";
    let rows = world.client.query(select, &[&account_id]).await;
    rows.expect("rows").iter().map(|row| row.get(0)).collect()
}

/// How much was moved out of the others' way: events, and messages in one piece.
async fn overflowed(ops: SocketAddr) -> u64 {
    let metrics = http::get(ops, "/metrics").await.expect("metrics").text();
    let value = |name: &str| -> u64 {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    value("trueup_worker_events_overflowed_total ")
        + value("trueup_worker_messages_overflowed_total ")
}

async fn all_settled(world: &World, account_id: Uuid, sent: &BTreeSet<Uuid>) {
    eventually("a row for each", PATIENCE, || async {
        (rows_of(world, account_id).await == *sent).then_some(())
    })
    .await;
    eventually("empty queues", PATIENCE, || async {
        let main = world.depth(topology::QUEUE).await;
        (main + world.depth(topology::OVERFLOW_QUEUE).await == 0).then_some(())
    })
    .await;
}

/// 30,000 events of one account, more than may wait, and one of another behind them: how many of the 30,000 are
/// left when that one is settled, and how many were moved out of its way. `is_known`: the other sent one before.
async fn left_behind(is_known: bool) -> (i64, u64) {
    let mut world = World::new().await;
    let (flooding, webhook) = (world.account_id, world.webhook.clone());
    world.next_account().await;
    let (quiet, quiet_webhook) = (world.account_id, world.webhook.clone());
    let report = |n: usize| {
        world.event(
            at("2026-03-14T12:02:10Z"),
            json!({"ref_id": n, "payout": 5}),
        )
    };
    let (first, last) = (report(1), report(2));
    if is_known {
        world.publish(vec![first]).await;
    }
    (world.account_id, world.webhook) = (flooding, webhook);
    let sent = flood(&world, 60, "nobody's").await;
    (world.account_id, world.webhook) = (quiet, quiet_webhook);
    let behind = last.id;
    world.publish(vec![last]).await;

    let mut worker = world.worker().await;
    world.row(behind).await;
    all_settled(&world, flooding, &sent).await;
    let select = "SELECT count(*) FROM events WHERE account_id = $1 AND processed_at > (SELECT processed_at FROM events WHERE id = $2)";
    let later = world
        .client
        .query_one(select, &[&flooding, &behind])
        .await
        .expect("a count")
        .get(0);
    (later, overflowed(worker.address("ops").await).await)
}

#[tokio::test]
async fn who_sends_a_report_behind_a_flood_does_not_wait_for_it() {
    let (later, moved) = left_behind(true).await;
    assert!(later > 22_000, "it was settled when {later} were left");
    assert!(moved > 0);
}

/// A worker that has just begun looks behind the flood, instead of filling its room with it.
#[tokio::test]
async fn who_is_not_known_yet_does_not_wait_for_a_flood_either() {
    let (later, moved) = left_behind(false).await;
    assert!(later > 22_000, "it was settled when {later} were left");
    assert!(moved > 0);
}

/// Nobody is in its way: what is held back in one piece is settled here, and in its order.
#[tokio::test]
async fn who_is_alone_is_settled_without_a_detour() {
    let world = World::new().await;
    let sent = flood(&world, 60, "nobody's").await;
    let mut worker = world.worker().await;
    all_settled(&world, world.account_id, &sent).await;
    assert_eq!(overflowed(worker.address("ops").await).await, 0);
}

#[tokio::test]
async fn v12_what_waits_for_a_held_lock_is_bounded_and_all_of_it_is_settled_at_last() {
    let mut world = World::new().await;
    let call_id = world.call(&CallSpec::default()).await;
    let (flooding, webhook) = (world.account_id, world.webhook.clone());
    let holder = world.database.client().await;
    holder
        .batch_execute(&format!(
            "BEGIN; SELECT 1 FROM calls WHERE id = '{call_id}' FOR UPDATE"
        ))
        .await
        .expect("the lock");
    let mut worker = world.worker().await;
    let sent = flood(&world, 14, "R1").await;
    world.next_account().await;
    let report = json!({"ref_id": "nobody's", "payout": 5});
    world.report(at("2026-03-14T12:02:10Z"), report).await;
    (world.account_id, world.webhook) = (flooding, webhook);
    let ops = worker.address("ops").await;
    eventually("too much to wait here", PATIENCE, || async move {
        (overflowed(ops).await > 0).then_some(())
    })
    .await;
    assert!(rows_of(&world, flooding).await.is_empty());
    holder.batch_execute("COMMIT").await.expect("given back");
    all_settled(&world, flooding, &sent).await;
}
