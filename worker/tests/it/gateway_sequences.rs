//! Ordinary days at the public door: reports over HTTP to a real gateway, calls over HTTP to a real console,
//! settled by a real worker. Nothing is put past them.

use serde_json::{Value, json};
use trueup_testkit::eventually;
use trueup_testkit::process::Start;
use trueup_testkit::tcp_proxy::FaultProxy;

use crate::harness::{PATIENCE, World};
use crate::running_system::{
    ADMIN_KEY, CALLER, RunningSystem, call_of, gateway_of, guess, minutes_ago, says,
};

#[tokio::test(flavor = "multi_thread")]
async fn m9_an_early_report_moves_to_its_call_and_its_repeats_pay_nobody_else() {
    let system = RunningSystem::new().await;
    let (first, second) = (system.publisher("P1").await, system.publisher("P2").await);
    let y = system.record_one(call_of(&first, "Y", 95)).await;
    let early = json!({"ref_id": "X", "caller_id": CALLER, "duration": 65, "payout": 50});
    let event = system.send(&early).await;
    assert_eq!(says(&system.row(&event).await), ("matched", None, Some(&y)));
    // The same without its id follows it.
    let nameless = system.send(&guess(65, 50)).await;
    let follows = ("duplicate", Some("repeat_of_matched_report"), Some(&y));
    assert_eq!(says(&system.row(&nameless).await), follows);
    assert_eq!(system.balance(&first).await, 3000);

    let x = system.record_one(call_of(&second, "X", 90)).await;
    let moved = ("matched", Some("moved_to_its_call"), Some(&x));
    let row = system.row_that_says(&event, moved).await;
    assert_eq!(row["left_call_id"], y);
    let repeat = system.report(&early).await;
    let twice = ("duplicate", Some("same_payout_within_15m"), Some(&x));
    assert_eq!(says(&repeat), twice);
    let nameless = system.row(&nameless).await;
    assert_eq!(
        (&nameless["status"], &nameless["matched_call"]["id"]),
        (&json!("duplicate"), &x)
    );
    let late = system.report(&guess(65, 50)).await;
    assert_eq!(
        (&late["status"], &late["matched_call"]["id"]),
        (&json!("duplicate"), &x)
    );
    assert_eq!(
        (system.balance(&first).await, system.balance(&second).await),
        (0, 3000)
    );
    let left = system.call(&y).await;
    assert_eq!(
        (&left["value_cents"], &left["publisher_payout_cents"]),
        (&Value::Null, &json!(0))
    );
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_of_a_ref_id_that_many_calls_share_no_strangers_call_is_paid() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let calls: Vec<Value> = (0..18)
        .map(|n| {
            json!({"ref_id": "camp-7", "caller": format!("+130555501{n:02}"), "duration_seconds": 120,
                "started_at": minutes_ago(60 - n), "assignment_id": publisher.assignment})
        })
        .collect();
    let calls = system.record(json!(calls)).await;
    let report = |caller: &str| json!({"ref_id": "camp-7", "caller_id": caller, "duration": 90, "payout": 50});
    // The reported caller's call is the oldest of them.
    let row = system.report(&report("+13055550100")).await;
    assert_eq!(says(&row), ("matched", None, Some(&calls[0])));
    let row = system.report(&report("+13055559999")).await;
    assert_eq!(says(&row), ("held", Some("ambiguous"), None));
    let named = json!({"ref_id": "camp-7", "call_id": calls[9], "payout": 50});
    let row = system.report(&named).await;
    assert_eq!(says(&row), ("matched", None, Some(&calls[9])));
    assert_eq!(system.balance(&publisher).await, 6000);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_id_that_is_sent_twice_is_one_call() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let mut call = call_of(&publisher, "R1", 120);
    call["qualified"] = json!(true);
    call["value_cents"] = json!(4000);
    let first = system.record_one(call.clone()).await;
    let again = system.record_one(call.clone()).await;
    assert_eq!(first, again);
    assert_eq!(system.balance(&publisher).await, 2400, "one estimate");
    let found = system.get("calls?ref_id=R1").await;
    assert_eq!(found["data"].as_array().expect("calls").len(), 1);
    let row = system.report(&json!({"ref_id": "R1", "payout": 50})).await;
    assert_eq!(says(&row), ("matched", None, Some(&first)));
    assert_eq!(system.balance(&publisher).await, 3000);
    // Another start is another call.
    call["started_at"] = json!(minutes_ago(30));
    assert_ne!(system.record_one(call).await, first);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_reports_that_waited_for_their_calls_are_decided_by_reception() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let first = system.send(&guess(70, 50)).await;
    let second = system.send(&guess(100, 40)).await;
    for event in [&first, &second] {
        let row = system.row(event).await;
        assert_eq!(says(&row), ("unmatched", Some("caller_not_found"), None));
    }
    let calls = system.record_short_and_long(&publisher).await;
    for (event, call) in [&first, &second].into_iter().zip(&calls) {
        let late = ("matched", Some("matched_late"), Some(call));
        system.row_that_says(event, late).await;
    }
    assert_eq!(system.balance(&publisher).await, 5400);
    system.world.reconcile().await;
}

/// Its gateway keeps a spool and has the broker behind a proxy; how the gateway is started again.
async fn house_with_spool() -> (RunningSystem, Start, FaultProxy, tempfile::TempDir) {
    let world = World::new().await;
    let broker = FaultProxy::to(world.lease.amqp_server()).await;
    let spool = tempfile::tempdir().expect("a directory");
    let start = gateway_of(&world)
        .env("TRUEUP_AMQP_URL", world.lease.amqp_through(broker.address))
        .env("TRUEUP_SPOOL_DIR", spool.path().display());
    let system = RunningSystem::with_gateway(world, &start).await;
    (system, start, broker, spool)
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_guesses_out_of_a_gateways_spool_are_decided_by_reception() {
    let (mut system, start, broker, _spool) = house_with_spool().await;
    let publisher = system.publisher("P1").await;
    let calls = system.record_short_and_long(&publisher).await;
    // Until the gateway knows the webhook.
    let nothing = json!({"ref_id": "nobody's", "payout": 1});
    system.report(&nothing).await;

    broker.cut();
    let first = system.send(&guess(70, 50)).await;
    // What is on the disk outlives the gateway.
    system.gateway.kill();
    system.gateway = start.ready().await;
    system.public = system.gateway.address("public").await;
    let second = system.send(&guess(100, 40)).await;
    let depth = "trueup_gateway_spool_depth_events";
    assert!(
        (system.gateway.metric(depth).await - 2.0).abs() < 0.5,
        "both are on the disk"
    );
    for event in [&first, &second] {
        assert_eq!(system.find_row(event).await, None);
    }
    broker.restore();
    for (event, call) in [&first, &second].into_iter().zip(&calls) {
        let row = system.row(event).await;
        assert_eq!(says(&row), ("matched", None, Some(call)));
    }
    assert_eq!(system.balance(&publisher).await, 5400);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v8_a_zero_in_another_currency_takes_the_credit_back() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let call = system.record_one(call_of(&publisher, "R1", 120)).await;
    system.report(&json!({"ref_id": "R1", "payout": 50})).await;
    assert_eq!(system.balance(&publisher).await, 3000);
    let foreign = json!({"ref_id": "R1", "payout": 20, "currency": "EUR"});
    let row = system.report(&foreign).await;
    assert_eq!(says(&row), ("held", Some("currency_mismatch"), Some(&call)));
    assert_eq!(system.balance(&publisher).await, 3000);
    let rejected = json!({"ref_id": "R1", "payout": 0, "currency": "EUR"});
    let row = system.report(&rejected).await;
    assert_eq!(says(&row), ("matched", None, Some(&call)));
    assert_eq!(system.balance(&publisher).await, 0);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m11_ten_repeats_of_a_held_report_are_one_row_to_decide() {
    let system = RunningSystem::new().await;
    let publisher = system.publisher("P1").await;
    let call = system.record_one(call_of(&publisher, "R1", 120)).await;
    let over = json!({"ref_id": "R1", "payout": 20_000});
    let held = system.report(&over).await;
    assert_eq!(says(&held), ("held", Some("payout_over_cap"), Some(&call)));
    for _ in 0..10 {
        let row = system.report(&over).await;
        let repeat = ("duplicate", Some("repeat_of_open_report"), Some(&call));
        assert_eq!(says(&row), repeat);
        assert_eq!(row["other_event_id"], held["id"]);
    }
    assert_eq!(system.rows_with("held").await, 1);
    assert_eq!(system.balance(&publisher).await, 0);
    system.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_a_spool_that_is_emptied_behind_a_later_report_is_decided_by_reception() {
    let (mut system, _, broker, _spool) = house_with_spool().await;
    let mut other = gateway_of(&system.world).ready().await;
    let other_public = other.address("public").await;
    let publisher = system.publisher("P1").await;
    let calls = system.record_short_and_long(&publisher).await;
    let nothing = json!({"ref_id": "nobody's", "payout": 1});
    system.report(&nothing).await;
    system.worker.kill();
    broker.cut();
    // The first is kept by a gateway without its broker, the second is taken by one that has it.
    let first = system.send(&guess(70, 50)).await;
    let cut_off = std::mem::replace(&mut system.public, other_public);
    let second = system.send(&guess(100, 40)).await;
    system.public = cut_off;
    broker.restore();
    eventually("both wait for a worker", PATIENCE, || async {
        (system.world.depth(trueup_queue::topology::QUEUE).await == 2).then_some(())
    })
    .await;
    system.worker = system.world.worker().await;
    for (event, call) in [&first, &second].into_iter().zip(&calls) {
        let row = system.row(event).await;
        assert_eq!(says(&row), ("matched", None, Some(call)));
    }
}

/// Told by whoever lives when no worker does; and each process tells who it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_oldest_report_without_a_row_is_told_while_no_worker_lives() {
    const AGE: &str = "trueup_oldest_unsettled_seconds";
    let mut system = RunningSystem::new().await;
    for process in [
        &mut system.gateway,
        &mut system.console_process,
        &mut system.worker,
    ] {
        let name = process.readiness().await["process"].clone();
        let info = format!(
            "trueup_build_info{{commit=\"unknown\",process={name},version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(process.metric(&info).await, 1.0);
        assert!(process.metric("process_start_time_seconds").await > 0.0);
        let log = process.log();
        assert!(
            log.contains("\"starting\"") && log.contains("TRUEUP_POSTGRES_URL="),
            "{log}"
        );
        assert!(!log.contains(ADMIN_KEY), "{log}");
    }
    system.worker.kill();
    let event = system
        .send(&json!({"caller": CALLER, "payout": "50"}))
        .await;
    eventually("it grows", PATIENCE, async || {
        (system.gateway.metric(AGE).await >= 6.0).then_some(())
    })
    .await;
    system.worker = system.world.worker().await;
    system.row(&event).await;
    eventually("every report has its row", PATIENCE, async || {
        (system.gateway.metric(AGE).await == 0.0).then_some(())
    })
    .await;
}
