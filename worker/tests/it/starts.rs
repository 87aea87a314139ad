//! How a worker starts, waits and refuses to start: settings, ports, the schema, dependencies that never come.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::eventually;
use trueup_testkit::process::{Start, check_kubelets_variables};

use crate::harness::{CallSpec, PATIENCE, WORKER, World, at};

const NOBODY_LISTENS: &str = "127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_schema_waits_for_it_and_takes_no_report_until_then() {
    let mut world = World::new().await;
    let empty = TestDatabase::empty().await;
    let start = world.start().env("TRUEUP_POSTGRES_URL", &empty.url);
    let mut worker = start.spawn();
    eventually("it says what it waits for", PATIENCE, async || {
        let postgres = worker.readiness().await["dependencies"]["postgres"].clone();
        postgres["detail"]
            .as_str()
            .is_some_and(|d| d.contains("run `trueup-worker migrate`"))
            .then_some(())
    })
    .await;
    let mut migrate = start.arg("migrate").spawn();
    assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());
    worker.wait_ready().await;

    // One whose last migration is missing is no better than none.
    world.call(&CallSpec::default()).await;
    let forget = "DELETE FROM refinery_schema_history WHERE version = (SELECT max(version) FROM refinery_schema_history) RETURNING version";
    let last: i32 = world
        .client
        .query_one(forget, &[])
        .await
        .expect("as superuser")
        .get(0);
    let mut behind = world.start().spawn();
    eventually(
        "it names the migration that is missing",
        PATIENCE,
        async || {
            let postgres = behind.readiness().await["dependencies"]["postgres"].clone();
            postgres["detail"]
                .as_str()
                .is_some_and(|d| d.contains(&format!("V{last}__")))
                .then_some(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_comes_up_ends_each_command_with_69_and_is_named() {
    let world = World::new().await;
    let no_postgres = format!("postgres://postgres@{NOBODY_LISTENS}/x");
    let no_broker = format!("amqp://guest:guest@{NOBODY_LISTENS}/%2f");
    let without_postgres = world
        .start()
        .env("TRUEUP_POSTGRES_URL", no_postgres)
        .env("TRUEUP_START_SECONDS", 1);
    let without_broker = world
        .start()
        .env("TRUEUP_AMQP_URL", no_broker)
        .env("TRUEUP_START_SECONDS", 1);
    let mut all = vec![
        (without_postgres.spawn(), "postgres"),
        (without_broker.spawn(), "broker"),
        (without_postgres.arg("reconcile").spawn(), "refused"),
        (without_broker.arg("redrive").spawn(), "refused"),
    ];
    for (process, says) in &mut all {
        assert_eq!(process.exit_code(PATIENCE).await, 69, "{}", process.log());
        assert!(process.log().contains(*says), "{says}: {}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_and_worth_another_start() {
    let world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut worker = world
        .start()
        .env("TRUEUP_WORKER_OPS_LISTEN", &address)
        .spawn();
    assert_eq!(worker.exit_code(PATIENCE).await, 69, "{}", worker.log());
    assert!(
        worker.log().contains("TRUEUP_WORKER_OPS_LISTEN") && worker.log().contains(&address),
        "{}",
        worker.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_says_good_or_what_is_wrong_and_asks_nobody() {
    let mut good = Start::new(WORKER)
        .env(
            "TRUEUP_POSTGRES_URL",
            format!("postgres://x@{NOBODY_LISTENS}/x"),
        )
        .arg("check-config")
        .spawn();
    assert_eq!(good.exit_code(PATIENCE).await, 0, "{}", good.log());
    let mut bad = Start::new(WORKER)
        .arg("check-config")
        .arg("--worker-batch=none")
        .spawn();
    assert_eq!(bad.exit_code(PATIENCE).await, 64, "{}", bad.log());
    assert!(bad.log().contains("TRUEUP_WORKER_BATCH"), "{}", bad.log());
}

/// The role that owns the database needs no more than that: `deploy/postgres/roles.sql` makes it so.
#[tokio::test(flavor = "multi_thread")]
async fn migrate_works_as_the_role_that_owns_the_database() {
    let mut world = World::new().await;
    let role = &format!("trueup_test_owner_{}", std::process::id());
    let make = format!("CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE");
    world
        .client
        .batch_execute(&make)
        .await
        .expect("as superuser");
    let mut owned = TestDatabase::empty_of(role).await;
    for _ in 0..2 {
        let mut migrate = world
            .start()
            .env("TRUEUP_POSTGRES_URL", owned.url_as(role))
            .arg("migrate")
            .spawn();
        assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());
    }
    // And what it made is the whole of it: a report is settled there.
    std::mem::swap(&mut world.database, &mut owned);
    world.client = world.database.client().await;
    world.next_account().await;
    world.call(&CallSpec::default()).await;
    let worker = world.worker().await;
    let (_, row) = world
        .report(
            at("2026-03-14T12:02:10Z"),
            json!({"ref_id": "R1", "payout": "50.00"}),
        )
        .await;
    assert_eq!(row.status, "matched");
    world.reconcile().await;

    let admin = owned.client().await;
    drop((worker, world));
    admin
        .batch_execute(&format!("DROP ROLE {role}"))
        .await
        .expect("it owns nothing any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_start_is_ready_within_its_time_and_ends_with_0() {
    let world = World::new().await;
    let mut worker = world.worker().await;
    for path in ["/live", "/ready", "/metrics"] {
        let ops = worker.address("ops").await;
        let answer = trueup_testkit::http::get(ops, path).await.expect("answers");
        assert_eq!(answer.status, 200, "{path}");
    }
    let readiness = worker.readiness().await;
    for dependency in ["postgres", "broker"] {
        assert_eq!(
            readiness["dependencies"][dependency]["state"], "ok",
            "{readiness}"
        );
    }
    worker.terminate();
    assert_eq!(worker.exit_code(Duration::from_secs(10)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelets_variables_are_no_error_and_other_unknown_ones_are() {
    check_kubelets_variables(WORKER, PATIENCE).await;
    // Its commands read the same settings: a bad one of our own is what ends them, not kubelet's.
    for command in ["run", "migrate", "redrive", "reconcile"] {
        let unreachable = format!("postgres://x@{NOBODY_LISTENS}/x");
        let of_ours = Start::new(WORKER)
            .beside_services()
            .env("TRUEUP_POSTGRES_URL", unreachable)
            .env("TRUEUP_AMQP_URL", format!("amqp://{NOBODY_LISTENS}"))
            .env("TRUEUP_WORKER_BATCH", "none")
            .arg(command);
        let mut of_ours = of_ours.spawn();
        assert_eq!(of_ours.exit_code(PATIENCE).await, 64, "{}", of_ours.log());
        let log = of_ours.log();
        assert!(
            log.contains("TRUEUP_WORKER_BATCH") && !log.contains("SERVICE"),
            "{log}"
        );
    }
}
