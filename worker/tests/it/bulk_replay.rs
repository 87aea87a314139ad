//! Replays of many rows go on whichever worker ends, and accounts take turns.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trueup_event::ids;
use trueup_event::raw_event::Refusal;
use trueup_event::reason::Reason;
use trueup_store::bulk_replays::{self, NewReplay, ReplayCounts};
use trueup_testkit::eventually;
use uuid::Uuid;

use crate::harness::{CallSpec, World};

/// A worker is started, a claim runs out, and rows are settled.
const SOON: Duration = Duration::from_secs(40);

/// More than one piece of a replay.
const REF_IDS: [&str; 12] = [
    "P0", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11",
];

/// Recent ones: requests beyond their retention are dropped when a worker starts.
fn second(n: usize) -> Timestamp {
    let hour_ago = ids::to_microseconds(Timestamp::now()) - SignedDuration::from_hours(1);
    hour_ago + SignedDuration::from_secs(n as i64)
}

/// Reports that came while the webhook was paused; their rows, the oldest first.
async fn paused_reports(world: &World, count: usize) -> Vec<Uuid> {
    let events: Vec<_> = (0..count)
        .map(|n| {
            let fields = json!({"ref_id": format!("P{n}"), "payout": 5});
            let mut event = world.event(second(n), fields);
            event.refusal = Some(Refusal {
                reason: Reason::EndpointDisabled,
                count: 1,
            });
            event
        })
        .collect();
    let ids = events.iter().map(|event| event.id).collect();
    world.publish(events).await;
    ids
}

async fn begin(world: &World, event_ids: &[Uuid]) -> (Uuid, bool) {
    let id = Uuid::now_v7();
    let new = NewReplay {
        id,
        account_id: world.account_id,
        actor: "ann@example.com",
        filter: "status=refused",
        event_ids,
    };
    let pool = world.pool();
    let client = pool.get().await.expect("a client");
    let is_new = bulk_replays::insert_replay(&client, &new)
        .await
        .expect("inserts");
    (id, is_new)
}

async fn counts_of(world: &World, replay: Uuid) -> ReplayCounts {
    let client = world.pool().get().await.expect("a client");
    let replay = bulk_replays::get_replay(&client, world.account_id, replay).await;
    replay.expect("reads").expect("it is there").counts
}

async fn is_over(world: &World, replay: Uuid) {
    let over = format!("bulk_replays WHERE id = '{replay}' AND finished_at IS NOT NULL");
    eventually("the replay's end", SOON, async || {
        (world.count(&over).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn m8_a_bulk_replay_goes_on_after_its_worker_was_killed() {
    let mut world = World::new().await;
    let mut worker = world.worker().await;
    let rows = paused_reports(&world, REF_IDS.len()).await;
    world.row(*rows.last().expect("some")).await;
    for ref_id in REF_IDS {
        let spec = CallSpec {
            ref_id: Some(ref_id),
            ended_at: second(0),
            ..CallSpec::default()
        };
        world.call(&spec).await;
    }
    // A piece stands before a lock: what it has done of it is not noted yet.
    let lock = world.database.client().await;
    lock.batch_execute("BEGIN; LOCK TABLE event_actions IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("locks");
    let (replay, is_new) = begin(&world, &rows).await;
    assert!(is_new);
    eventually("a worker claims it", SOON, async || {
        (world
            .count("bulk_replays WHERE claimed_until IS NOT NULL")
            .await
            == 1)
            .then_some(())
    })
    .await;
    let (_, again) = begin(&world, &rows).await;
    assert!(!again, "an account has one at a time");
    worker.kill();
    lock.batch_execute("COMMIT").await.expect("unlocks");

    let mut next = world.worker().await;
    is_over(&world, replay).await;
    let counts = counts_of(&world, replay).await;
    assert_eq!((counts.done, counts.failed), (12, 0), "{counts:?}");
    assert_eq!(counts.matched + counts.refused, 12, "{counts:?}");
    assert_eq!(world.count("events WHERE status = 'matched'").await, 12);
    let posted = world.count("postings WHERE kind = 'report'").await;
    assert_eq!(posted, 12, "once each");
    let committed =
        "trueup_transactions_total{outcome=\"committed\",transaction=\"person_replay\"}";
    assert!(next.metric(committed).await >= 11.0);
    let runs = "trueup_worker_job_runs_total{outcome=\"ok\",periodic_job=\"maintenance\"}";
    eventually("a run of a job", SOON, async || {
        (next.metric(runs).await >= 1.0).then_some(())
    })
    .await;
    world.reconcile().await;
}

#[tokio::test]
async fn m8_a_short_bulk_replay_does_not_wait_for_another_accounts_long_one() {
    let mut world = World::new().await;
    let mut worker = world.worker().await;
    let long = paused_reports(&world, 400).await;
    world.row(*long.last().expect("some")).await;
    let first = world.account_id;
    world.next_account().await;
    let short = paused_reports(&world, 3).await;
    world.row(*short.last().expect("some")).await;
    let second = std::mem::replace(&mut world.account_id, first);
    // Nobody works at them before both are there.
    worker.terminate();
    assert_eq!(worker.exit_code(SOON).await, 0);
    let (long, _) = begin(&world, &long).await;
    world.account_id = second;
    let (short, _) = begin(&world, &short).await;
    let _worker = world.worker().await;
    is_over(&world, short).await;
    is_over(&world, long).await;
    let turns = world
        .count(&format!(
            "bulk_replays s, bulk_replays l WHERE s.id = '{short}' AND l.id = '{long}' AND s.finished_at < l.finished_at"
        ))
        .await;
    assert_eq!(turns, 1);
}

#[tokio::test]
async fn v12_a_row_that_was_begun_three_times_is_left_out_and_a_lost_replay_is_over() {
    let mut world = World::new().await;
    let mut worker = world.worker().await;
    let rows = paused_reports(&world, 3).await;
    world.row(*rows.last().expect("some")).await;
    worker.terminate();
    assert_eq!(worker.exit_code(SOON).await, 0);
    let (replay, _) = begin(&world, &rows).await;
    // Three workers have died with its first row.
    world
        .client
        .batch_execute("UPDATE bulk_replays SET tries = 3")
        .await
        .expect("updates");
    world.next_account().await;
    // As a console of the version before leaves one: open, and without its rows.
    let (lost, _) = begin(&world, &rows).await;
    world
        .client
        .execute(
            "UPDATE bulk_replays SET event_ids = '{}' WHERE id = $1",
            &[&lost],
        )
        .await
        .expect("updates");
    let _worker = world.worker().await;
    is_over(&world, replay).await;
    is_over(&world, lost).await;
    let counted =
        format!("bulk_replays WHERE id = '{replay}' AND done = 3 AND failed = 1 AND tries = 0");
    assert_eq!(world.count(&counted).await, 1);
}

#[tokio::test]
async fn v12_a_row_that_somebody_holds_stops_no_other_replay_and_is_no_failure() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let held = paused_reports(&world, 1).await;
    world.row(held[0]).await;
    let first = world.account_id;
    world.next_account().await;
    let free = paused_reports(&world, 30).await;
    world.row(*free.last().expect("some")).await;
    let lock = world.database.client().await;
    let row = format!(
        "BEGIN; SELECT 1 FROM events WHERE id = '{}' FOR UPDATE",
        held[0]
    );
    lock.batch_execute(&row).await.expect("locks");
    let second = std::mem::replace(&mut world.account_id, first);
    let (held, _) = begin(&world, &held).await;
    world.account_id = second;
    let (free, _) = begin(&world, &free).await;
    is_over(&world, free).await;
    let waits = format!("bulk_replays WHERE id = '{held}' AND done = 0 AND finished_at IS NULL");
    assert_eq!(world.count(&waits).await, 1);
    lock.batch_execute("COMMIT").await.expect("unlocks");
    is_over(&world, held).await;
    let counted = format!("bulk_replays WHERE id = '{held}' AND done = 1 AND failed = 0");
    assert_eq!(world.count(&counted).await, 1);
}
