//! What the runbook says of backups, done: a dump taken while reports are settled is restored, proven,
//! and brought up to the present by sending again; and what is lost with the broker's data.

use std::process::Command;

use jiff::SignedDuration;
use lapin::options::QueueDeleteOptions;
use serde_json::json;
use trueup_event::raw_event::RawEvent;
use trueup_queue::topology;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::eventually;

use crate::harness::{CallSpec, PATIENCE, World, at};

const RECEIVED: &str = "2026-03-14T12:02:10Z";
const REPORTS: i64 = 600;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn reports(world: &World) -> Vec<RawEvent> {
    let report = |n: i64| {
        let at = at(RECEIVED) + SignedDuration::from_secs(n);
        world.event(
            at,
            json!({"ref_id": format!("R{}", n % 3), "payout": format!("{}.00", n % 11)}),
        )
    };
    (0..REPORTS).map(report).collect()
}

/// What the books come to.
async fn sum(client: &tokio_postgres::Client) -> (i64, i64, i64) {
    let sum = "SELECT (SELECT count(*) FROM events), (SELECT sum(value_cents)::bigint FROM calls),
                      (SELECT sum(pending_balance_cents)::bigint FROM publishers)";
    let row = client.query_one(sum, &[]).await.expect("sums");
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_taken_under_load_is_restored_proven_and_brought_up_to_date() {
    let mut world = World::new().await;
    for ref_id in ["R0", "R1", "R2"] {
        world
            .call(&CallSpec {
                ref_id: Some(ref_id),
                ..CallSpec::default()
            })
            .await;
    }
    let worker = world.worker().await;
    let events = reports(&world);
    for envelope in events.chunks(3) {
        world.publish(envelope.to_vec()).await;
    }
    eventually("some rows", PATIENCE, || async {
        (world.count("events").await > 0).then_some(())
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder
        .path()
        .join("trueup.dump")
        .to_string_lossy()
        .into_owned();
    run(
        "pg_dump",
        &["--format=custom", "--file", &file, &world.database.url],
    );
    eventually("all rows", PATIENCE, || async {
        (world.count("events").await == REPORTS).then_some(())
    })
    .await;
    let whole = sum(&world.client).await;
    drop(worker);

    // The disaster: all there is is the dump, and an empty database.
    let restored = TestDatabase::empty().await;
    let client = restored.client().await;
    run(
        "pg_restore",
        &[
            "--no-owner",
            "--exit-on-error",
            "--dbname",
            &restored.url,
            &file,
        ],
    );
    let start = || world.start().env("TRUEUP_POSTGRES_URL", &restored.url);
    for command in [&["migrate"][..], &["reconcile", "--replay"]] {
        let mut process = command
            .iter()
            .fold(start(), |start, word| start.arg(word))
            .spawn();
        assert_eq!(
            process.exit_code(PATIENCE).await,
            0,
            "{command:?} on the restored books:\n{}",
            process.log()
        );
    }
    let (rows, ..) = sum(&client).await;
    assert!(rows <= REPORTS, "the dump is of one moment");

    // Senders send again what falls into the gap, and more: what is there already is skipped.
    let _worker = start().ready().await;
    for envelope in events.chunks(50) {
        world.publish(envelope.to_vec()).await;
    }
    eventually("the same books as before", PATIENCE, || async {
        (sum(&client).await == whole).then_some(())
    })
    .await;
    let mut process = start().arg("reconcile").arg("--replay").spawn();
    assert_eq!(process.exit_code(PATIENCE).await, 0, "{}", process.log());
}

/// Lost are the reports that were accepted and not settled yet; nothing else, and the rest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_its_data_takes_only_the_unsettled_with_it() {
    let mut world = World::new().await;
    world
        .call(&CallSpec {
            ref_id: Some("R1"),
            ..CallSpec::default()
        })
        .await;
    let worker = world.worker().await;
    world
        .report(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}))
        .await;
    drop(worker);
    let unsettled = world.event(
        at("2026-03-14T12:30:00Z"),
        json!({"ref_id": "R1", "payout": "40.00"}),
    );
    world.publish(vec![unsettled.clone()]).await;
    let broker = world.lease.broker().await;
    let channel = broker.open_channel().await.expect("a channel");
    for queue in [
        topology::QUEUE,
        topology::PARKED_QUEUE,
        topology::DEAD_QUEUE,
    ] {
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .expect("deletes");
    }

    let _worker = world.worker().await;
    assert_eq!(
        (world.count("events").await, world.balance("pubA").await),
        (1, 3_000),
        "what was settled stands"
    );
    world.reconcile().await;
    let again = world.event(
        at("2026-03-14T12:45:00Z"),
        json!({"ref_id": "R1", "payout": "40.00"}),
    );
    let id = again.id;
    world.publish(vec![again]).await;
    assert_eq!(world.row(id).await.status, "matched");
    assert!(world.find_row(unsettled.id).await.is_none());
    assert_eq!(world.balance("pubA").await, 2_400);
    world.reconcile().await;
}
