//! The commands beside `run`, on the real binary: migrate, reconcile, redrive, bad settings.

use jiff::SignedDuration;
use serde_json::json;
use trueup_queue::topology;
use trueup_testkit::eventually;
use trueup_testkit::process::Start;

use crate::harness::{CallSpec, PATIENCE, WORKER, World, at};

const RECEIVED: &str = "2026-03-14T12:02:10Z";

#[tokio::test(flavor = "multi_thread")]
async fn migrate_may_be_repeated() {
    let world = World::new().await;
    for _ in 0..2 {
        let mut migrate = world.start().arg("migrate").spawn();
        assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());
        assert!(
            migrate.log().contains("queues declared"),
            "{}",
            migrate.log()
        );
    }
}

/// Everybody else would wait behind a migration that waits for a lock.
#[tokio::test(flavor = "multi_thread")]
async fn migrate_gives_way_to_a_lock_and_comes_again() {
    let world = World::new().await;
    let lock = "BEGIN; LOCK TABLE refinery_schema_history IN ACCESS EXCLUSIVE MODE";
    world
        .client
        .batch_execute(lock)
        .await
        .expect("as superuser");
    let mut migrate = world.start().arg("migrate").spawn();
    eventually("it gives way", PATIENCE, async || {
        migrate.log().contains("gave way").then_some(())
    })
    .await;
    assert!(migrate.is_running());
    world.client.batch_execute("COMMIT").await.expect("unlocks");
    assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());
}

/// The operator reads in the log what Postgres refused.
#[tokio::test(flavor = "multi_thread")]
async fn migrate_tells_what_postgres_refused() {
    let world = World::new().await;
    world
        .client
        .batch_execute("DELETE FROM refinery_schema_history WHERE version = 13")
        .await
        .expect("as superuser");
    let mut migrate = world.start().arg("migrate").spawn();
    assert_ne!(migrate.exit_code(PATIENCE).await, 0);
    let refused = r#"relation "call_reports_by_signature" does not exist"#;
    let told = migrate.log().replace(r#"\""#, r#"""#);
    assert!(told.contains(refused), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_a_cent_that_is_off() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let _worker = world.worker().await;
    world
        .report(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}))
        .await;
    world.reconcile().await;
    world
        .client
        .batch_execute("UPDATE publishers SET pending_balance_cents = pending_balance_cents + 1")
        .await
        .expect("as superuser");
    let mut reconcile = world.start().arg("reconcile").arg("--replay").spawn();
    assert_eq!(
        reconcile.exit_code(PATIENCE).await,
        1,
        "{}",
        reconcile.log()
    );
    assert!(
        reconcile
            .log()
            .contains("pending balance 3001, postings add up to 3000"),
        "{}",
        reconcile.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_envelope_is_set_aside_and_holds_nothing_up() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let _worker = world.worker().await;
    world.publish_raw(b"hello").await;
    world.publish_raw(b"{\"v\":9,\"events\":[]}").await;
    let (_, row) = world
        .report(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}))
        .await;
    assert_eq!(row.status, "matched");
    let dead = || async { (world.depth(topology::DEAD_QUEUE).await == 2).then_some(()) };
    eventually("two dead letters", PATIENCE, dead).await;
    let mut redrive = world.start().arg("redrive").spawn();
    assert_eq!(redrive.exit_code(PATIENCE).await, 0, "{}", redrive.log());
    assert!(
        redrive.log().contains("redriven: 0 envelopes; left: 2"),
        "{}",
        redrive.log()
    );
    eventually("they stay where they are", PATIENCE, dead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_refused_by_name_before_a_port_is_bound() {
    for (variable, value, says) in [
        ("TRUEUP_POSTGRES_URL", "mysql://x", "TRUEUP_POSTGRES_URL"),
        ("TRUEUP_WORKER_LANES", "0", "TRUEUP_WORKER_LANES"),
        ("TRUEUP_GRACE_SECONDS", "soon", "TRUEUP_GRACE_SECONDS"),
        ("TRUEUP_WORKER_LANE", "2", "TRUEUP_WORKER_LANES"),
    ] {
        let mut worker = Start::new(WORKER).env(variable, value).spawn();
        assert_eq!(worker.exit_code(PATIENCE).await, 64, "{}", worker.log());
        assert!(worker.log().contains(says), "{}", worker.log());
        assert!(!worker.log().contains("listening"), "{}", worker.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_broker_never_comes_says_so_in_ready() {
    let world = World::new().await;
    let mut worker = world
        .start()
        .env("TRUEUP_AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f")
        .spawn();
    let readiness = worker.readiness().await;
    assert_eq!(readiness["ready"], false);
    worker.terminate();
    assert_eq!(worker.exit_code(PATIENCE).await, 0);
}

/// The rights that `migrate` gives are enough for the work, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn the_worker_settles_as_its_own_role_and_that_role_cannot_touch_the_ledgers_past() {
    let mut world = World::new().await;
    for role in ["trueup_worker", "trueup_ingest", "trueup_console"] {
        let create = format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        world
            .client
            .batch_execute(&create)
            .await
            .expect("as superuser");
    }
    // Of a version before, which gave more: what is not given any more is taken away.
    let too_much =
        "GRANT DELETE ON events TO trueup_worker; GRANT SELECT ON publishers TO trueup_ingest";
    world
        .client
        .batch_execute(too_much)
        .await
        .expect("as superuser");
    let mut migrate = world.start().arg("migrate").spawn();
    assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());
    world.call(&CallSpec::default()).await;
    let _worker = world
        .start()
        .env(
            "TRUEUP_POSTGRES_URL",
            world.database.url_as("trueup_worker"),
        )
        .ready()
        .await;
    let (_, row) = world
        .report(at(RECEIVED), json!({"ref_id": "R1", "payout": "50.00"}))
        .await;
    assert_eq!(row.status, "matched");
    let (id, row) = world
        .report(at(RECEIVED), json!({"ref_id": "LATE", "payout": "5"}))
        .await;
    assert_eq!(row.status, "unmatched");
    world
        .call(&CallSpec {
            ref_id: Some("LATE"),
            ..CallSpec::default()
        })
        .await;
    assert_eq!(
        world.row_with_status(id, "matched").await.reason.as_deref(),
        Some("matched_late")
    );
    world.reconcile().await;

    for (role, refused) in [
        (
            "trueup_worker",
            "UPDATE postings SET credit_delta_cents = 1",
        ),
        ("trueup_worker", "DELETE FROM postings"),
        ("trueup_worker", "DELETE FROM events"),
        ("trueup_worker", "SELECT digest FROM sessions"),
        ("trueup_ingest", "SELECT value_cents FROM calls"),
        (
            "trueup_ingest",
            "SELECT pending_balance_cents FROM publishers",
        ),
        ("trueup_ingest", "SELECT trueup_drop_partitions(1, 1)"),
        ("trueup_console", "DELETE FROM postings"),
        (
            "trueup_console",
            "UPDATE postings SET credit_delta_cents = 1",
        ),
    ] {
        let tried = world
            .client
            .batch_execute(&format!("SET ROLE {role}; {refused}"))
            .await;
        world
            .client
            .batch_execute("RESET ROLE")
            .await
            .expect("as superuser");
        let code = tried
            .expect_err(refused)
            .code()
            .map(|c| c.code().to_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{role}: {refused}");
    }
    let ingest = "SET ROLE trueup_ingest; SELECT token FROM webhook_ingest; SELECT trueup_unsettled_reports('{}', '{}', '{}'); RESET ROLE";
    let ingest = world.client.batch_execute(ingest);
    ingest.await.expect("all that the public process may ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_no_breach_while_reports_are_being_settled() {
    const REPORTS: i64 = 6_000;
    let mut world = World::new().await;
    for n in 0..50 {
        let ref_id: &'static str = Box::leak(format!("L{n}").into_boxed_str());
        let call = CallSpec {
            ref_id: Some(ref_id),
            ..CallSpec::default()
        };
        world.call(&call).await;
    }
    let _worker = world.start().env("TRUEUP_WORKER_BATCH", "20").ready().await;
    for chunk in 0..REPORTS / 20 {
        let events = (0..20).map(|n| {
            let number = chunk * 20 + n;
            let at = at("2026-03-14T12:02:10Z") + SignedDuration::from_millis(number);
            let payout = format!("{}.00", 1 + number % 11);
            world.event(
                at,
                json!({"ref_id": format!("L{}", number % 50), "payout": payout}),
            )
        });
        world.publish(events.collect()).await;
    }
    let mut proofs = 0;
    while world.count("events").await < REPORTS {
        world.reconcile().await;
        proofs += 1;
    }
    assert!(
        proofs > 0,
        "all was settled before a proof began: publish more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_proves_the_books_once_a_day_and_all_tell_how_it_ended() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    world
        .client
        .execute("UPDATE calls SET publisher_payout_cents = 7", &[])
        .await
        .expect("somebody tampers with the books");
    let start = || world.start().env("TRUEUP_RECONCILE_EVERY_HOURS", "24");
    let mut workers = [start().ready().await, start().ready().await];
    let ended = "scheduled_runs WHERE succeeded_at IS NOT NULL AND breaches > 0";
    eventually("the proof", PATIENCE, || async {
        (world.count(ended).await == 1).then_some(())
    })
    .await;
    let [one, other] = &mut workers;
    eventually("a worker tells of the breach", PATIENCE, async || {
        let told = one.metric("trueup_reconcile_breaches").await
            + other.metric("trueup_reconcile_breaches").await;
        (told > 0.0).then_some(())
    })
    .await;
    eventually("it is told when it was", PATIENCE, async || {
        let at = "trueup_reconcile_last_success_timestamp_seconds";
        let told = [one.metric(at).await, other.metric(at).await];
        told.iter().any(|at| *at > 1.7e9).then_some(())
    })
    .await;
    let proofs: usize = workers
        .iter()
        .map(|worker| worker.log().matches("the books do not add up").count())
        .sum();
    assert_eq!(proofs, 1, "one of the two has read the books");
    let told = world
        .count("scheduled_runs WHERE succeeded_at > now() - interval '5 minutes'")
        .await;
    assert_eq!(told, 1);
}

/// A check of the proof waits in here until the test lets go, and sees in what kind of transaction it is.
const SLOW_CHECK: &str = "
    CREATE FUNCTION public.floor(numeric) RETURNS numeric LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('transaction_isolation') <> 'repeatable read'
           OR current_setting('transaction_read_only') <> 'on' THEN
            RAISE EXCEPTION 'the proof reads no snapshot';
        END IF;
        PERFORM pg_advisory_xact_lock(13);
        RETURN pg_catalog.floor($1);
    END $$;
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog',
        current_database()); END $$;";

#[tokio::test(flavor = "multi_thread")]
async fn the_daily_proof_reads_one_snapshot_and_stops_no_settling() {
    let mut world = World::new().await;
    world.call(&CallSpec::default()).await;
    let mut worker = world.worker().await;
    let report = |payout: i64| json!({"ref_id": "R1", "payout": payout});
    let (_, row) = world.report(at(RECEIVED), report(50)).await;
    assert_eq!(row.status, "matched");
    worker.terminate();
    assert_eq!(worker.exit_code(PATIENCE).await, 0);

    world
        .client
        .batch_execute(SLOW_CHECK)
        .await
        .expect("superuser");
    let holder = world.database.client().await;
    let lock = "SELECT pg_advisory_lock(13)";
    holder.batch_execute(lock).await.expect("the lock");
    let start = world.start().env("TRUEUP_RECONCILE_EVERY_HOURS", "24");
    let mut worker = start.ready().await;
    let waits = "pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
        AND application_name = 'trueup-worker-reconcile'";
    eventually("the proof is in the middle", PATIENCE, || async {
        (world.count(waits).await == 1).then_some(())
    })
    .await;
    // Settled while it is: what came later is not what it proves.
    for minutes in 1..=3 {
        let received_at = at(RECEIVED) + SignedDuration::from_mins(minutes);
        let (_, row) = world.report(received_at, report(50 + minutes)).await;
        assert_eq!(row.status, "matched");
    }
    assert_eq!(world.count(waits).await, 1, "it is still in the middle");
    assert_eq!(world.balance("pubA").await, 3180);
    let unlock = "SELECT pg_advisory_unlock(13)";
    holder.batch_execute(unlock).await.expect("let go");
    let ended = "scheduled_runs WHERE succeeded_at IS NOT NULL AND breaches = 0";
    eventually("the proof", PATIENCE, || async {
        (world.count(ended).await == 1).then_some(())
    })
    .await;
    let breaches = worker.metric("trueup_reconcile_breaches").await;
    assert!(breaches.abs() < 0.5, "{breaches}");
}
