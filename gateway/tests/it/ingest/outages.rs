//! The neighbours fail, each in its ways; the door goes on, or says honestly that it cannot.

use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use trueup_queue::topology;
use trueup_testkit::builders::WebhookSpec;
use trueup_testkit::eventually;
use trueup_testkit::http::Answer;
use trueup_testkit::process::Process;
use trueup_testkit::tcp_proxy::{FaultProxy, NetworkFault};

use super::{KNOWN_WITHIN, World, door, post};

/// A 503 in time, with its word on when to come again (contract).
pub fn assert_unavailable(answer: &Answer, began: Instant) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.json()["ok"], false);
    assert!(
        began.elapsed() < Duration::from_millis(2500),
        "{:?}",
        began.elapsed()
    );
}

pub async fn state(gateway: &mut Process, dependency: &str) -> String {
    let readiness = gateway.readiness().await;
    assert_eq!(readiness["ready"], true, "{readiness}");
    readiness["dependencies"][dependency]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn without_the_broker_it_is_503_in_time_and_then_it_works_again() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let url = world.lease.amqp_through(cutter.address);
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", url)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    let send = async |n: u8| {
        post(
            door,
            &webhook,
            &format!("198.51.100.{n}"),
            &[],
            "{\"payout\":1}",
        )
        .await
    };

    for network_fault in [NetworkFault::Cut, NetworkFault::Hung] {
        eventually(
            "the broker takes reports",
            Duration::from_secs(10),
            || async { (send(1).await.status == 200).then_some(()) },
        )
        .await;
        assert_eq!(state(&mut gateway, "broker").await, "ok");
        world.events().await;
        cutter.set(network_fault);
        for n in 0..5 {
            let began = Instant::now();
            assert_unavailable(&send(2 + n).await, began);
        }
        assert_eq!(state(&mut gateway, "broker").await, "degraded");
        if network_fault == NetworkFault::Cut {
            assert_eq!(
                world.events().await,
                [],
                "a 503 of a cut connection is on no disk"
            );
        }
        cutter.restore();
    }
    eventually(
        "the broker takes reports",
        Duration::from_secs(15),
        || async { (send(1).await.status == 200).then_some(()) },
    )
    .await;
}

#[tokio::test]
async fn what_may_wait_for_the_broker_is_bounded_and_more_is_a_503_at_once() {
    const REQUESTS: usize = 60;
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let url = world.lease.amqp_through(cutter.address);
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", url)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    eventually(
        "the broker takes reports",
        Duration::from_secs(10),
        || async {
            (post(door, &webhook, "198.51.100.1", &[], "{}").await.status == 200).then_some(())
        },
    )
    .await;
    cutter.set(NetworkFault::Hung);
    // 30,000 reports of one account, of which 5,000 may wait.
    let batch = format!("[{}]", vec!["{}"; 500].join(","));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let (webhook, batch) = (webhook.clone(), batch.clone());
        senders.spawn(async move {
            let began = Instant::now();
            let answer = post(door, &webhook, "198.51.100.2", &[], &batch).await;
            assert_unavailable(&answer, began);
            (answer.text().contains("too many reports"), began.elapsed())
        });
    }
    let answers = senders.join_all().await;
    let slowest = |busy: bool| {
        answers
            .iter()
            .filter(|(was, _)| *was == busy)
            .map(|(_, took)| *took)
            .max()
    };
    let at_once = answers.iter().filter(|(busy, _)| *busy).count();
    // Not all 50, if some come so late that the broker is known to be away by then.
    assert!((1..=REQUESTS - 10).contains(&at_once), "{answers:?}");
    assert!(
        slowest(true) < slowest(false),
        "nobody waits who has no place to wait in: {answers:?}"
    );
}

#[tokio::test]
async fn a_slow_broker_gets_no_200_out_of_the_door_before_its_confirm() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let url = world.lease.amqp_through(cutter.address);
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", url)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    eventually(
        "the broker takes reports",
        Duration::from_secs(10),
        || async {
            (post(door, &webhook, "198.51.100.1", &[], "{}").await.status == 200).then_some(())
        },
    )
    .await;
    cutter.set(NetworkFault::Slow(Duration::from_millis(300)));
    let began = Instant::now();
    assert_eq!(
        post(door, &webhook, "198.51.100.2", &[], "{}").await.status,
        200
    );
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "there and back"
    );
    cutter.set(NetworkFault::Slow(Duration::from_millis(1200)));
    let began = Instant::now();
    assert_unavailable(
        &post(door, &webhook, "198.51.100.3", &[], "{}").await,
        began,
    );
}

#[tokio::test]
async fn a_deleted_queue_loses_nothing_and_is_made_again() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let mut gateway = world.generous_gateway().ready().await;
    let door = door(&mut gateway, &webhook).await;
    let broker = world.lease.broker().await;
    let channel = broker.open_channel().await.expect("a channel");
    for queue in [
        topology::QUEUE,
        topology::OVERFLOW_QUEUE,
        topology::PARKED_QUEUE,
    ] {
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .expect("deletes");
    }
    let mut accepted = 0_u32;
    let mut unavailable = 0;
    eventually("it is made again", Duration::from_secs(10), async || {
        match post(door, &webhook, "198.51.100.1", &[], "{}").await.status {
            200 => accepted += 1,
            503 => unavailable += 1,
            other => panic!("{other}"),
        }
        (accepted == 3).then_some(())
    })
    .await;
    assert!(unavailable > 0);
    assert_eq!(world.events().await.len(), 3, "every 200 is in the queue");
    assert!(
        gateway
            .metric("trueup_gateway_publishes_total{outcome=\"returned\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn a_full_queue_is_a_503() {
    let world = World::new().await;
    let webhook = world
        .webhook(&WebhookSpec {
            limit_per_minute: Some(1000),
            ..WebhookSpec::open()
        })
        .await;
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_QUEUE_MAX_LENGTH", 1)
        .ready()
        .await;
    let door = door(&mut gateway, &webhook).await;
    let (mut accepted, mut refused) = (1, 0); // the probe
    eventually("the queue is full", Duration::from_secs(10), async || {
        let began = Instant::now();
        let answer = post(door, &webhook, "198.51.100.1", &[], "{}").await;
        if answer.status == 200 {
            accepted += 1;
        } else {
            assert_unavailable(&answer, began);
            refused += 1;
        }
        (refused == 3).then_some(())
    })
    .await;
    assert!(
        gateway
            .metric("trueup_gateway_publishes_total{outcome=\"nacked\"}")
            .await
            >= 3.0
    );
    assert_eq!(world.events().await.len(), accepted);
}

#[tokio::test]
async fn without_postgres_it_goes_on_and_can_even_start_from_its_copy() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::with_secret("s3cret")).await;
    let cutter = FaultProxy::to(&world.db.server()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("webhooks.json");
    let start = world
        .generous_gateway()
        .env("TRUEUP_POSTGRES_URL", world.db.url_through(cutter.address))
        .env("TRUEUP_SNAPSHOT_FILE", file.display());
    let send = async |door, status| {
        let answer = post(
            door,
            &webhook,
            "198.51.100.1",
            &[("X-Webhook-Secret", "s3cret")],
            "{}",
        )
        .await;
        assert_eq!(answer.status, status, "{}", answer.text());
    };

    let mut gateway = start.ready().await;
    let public = door(&mut gateway, &webhook).await;
    cutter.cut();
    eventually("/ready tells it", Duration::from_secs(10), async || {
        (gateway.readiness().await["dependencies"]["postgres"]["state"] == "degraded").then_some(())
    })
    .await;
    send(public, 200).await;
    eventually("the copy", Duration::from_secs(5), || async {
        file.exists().then_some(())
    })
    .await;
    let copy = std::fs::read_to_string(&file).expect("reads");
    assert!(!copy.contains("s3cret"));
    gateway.kill();

    let mut gateway = start.ready().await;
    let readiness = gateway.readiness().await;
    assert_eq!(
        readiness["dependencies"]["snapshot"]["state"], "degraded",
        "{readiness}"
    );
    let public = gateway.address("public").await;
    eventually("the broker is there", Duration::from_secs(10), || async {
        (post(
            public,
            &webhook,
            "198.51.100.1",
            &[("X-Webhook-Secret", "s3cret")],
            "{}",
        )
        .await
        .status
            == 200)
            .then_some(())
    })
    .await;
    gateway.kill();

    // Without the copy it knows nothing: it says so, and does not call a good URL wrong.
    std::fs::remove_file(&file).expect("removes");
    let mut gateway = start.spawn();
    let public = gateway.address("public").await;
    send(public, 503).await;
    assert_eq!(gateway.readiness().await["ready"], false);
    cutter.restore();
    gateway.wait_ready().await;
    eventually("it knows", Duration::from_secs(10), || async {
        (post(
            public,
            &webhook,
            "198.51.100.1",
            &[("X-Webhook-Secret", "s3cret")],
            "{}",
        )
        .await
        .status
            == 200)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn with_a_spool_no_report_of_an_outage_is_lost_though_the_gateway_is_killed() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let start = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", world.lease.amqp_through(cutter.address))
        .env("TRUEUP_SPOOL_DIR", directory.path().join("spool").display());
    let mut gateway = start.ready().await;
    let mut public = door(&mut gateway, &webhook).await;
    world.events().await;
    let mut accepted = std::collections::BTreeSet::new();
    let mut send = async |public| {
        let began = Instant::now();
        let answer = post(public, &webhook, "198.51.100.7", &[], "{\"payout\":1}").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        accepted.insert(
            answer.json()["event_id"]
                .as_str()
                .expect("an id")
                .to_owned(),
        );
    };

    for network_fault in [NetworkFault::Hung, NetworkFault::Cut] {
        cutter.set(network_fault);
        for _ in 0..40 {
            send(public).await;
        }
        assert_eq!(state(&mut gateway, "broker").await, "degraded");
        assert_eq!(state(&mut gateway, "spool").await, "degraded");
        assert!(gateway.metric("trueup_gateway_spool_depth_events").await >= 40.0);
    }
    gateway.kill();
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::metadata(directory.path().join("spool/reports.redb")).expect("a file");
    assert_eq!(
        file.permissions().mode() & 0o077,
        0,
        "nobody else may read what is in it"
    );
    let mut gateway = start.ready().await;
    public = gateway.address("public").await;
    for _ in 0..20 {
        send(public).await;
    }
    cutter.restore();
    eventually("the spool is empty", Duration::from_secs(20), async || {
        (gateway.metric("trueup_gateway_spool_depth_events").await == 0.0).then_some(())
    })
    .await;
    send(public).await;
    assert_eq!(state(&mut gateway, "spool").await, "ok");
    let events: Vec<String> = world
        .events()
        .await
        .into_iter()
        .map(|e| e.id.to_string())
        .collect();
    let found: std::collections::BTreeSet<String> = events.iter().cloned().collect();
    assert!(
        accepted.is_subset(&found),
        "{} of {} came",
        found.len(),
        accepted.len()
    );
}

#[tokio::test]
async fn a_full_spool_is_a_503_and_a_bad_one_is_said_before_the_start() {
    let world = World::new().await;
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let cutter = FaultProxy::to(world.lease.amqp_server()).await;
    let directory = tempfile::tempdir().expect("a directory");
    let start = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", world.lease.amqp_through(cutter.address))
        .env("TRUEUP_SPOOL_MAX_BYTES", "3MiB");
    let good = start.env("TRUEUP_SPOOL_DIR", directory.path().display());
    let mut gateway = good.ready().await;
    let public = door(&mut gateway, &webhook).await;
    cutter.cut();
    let body = format!("{{\"note\":\"{}\"}}", "x".repeat(60_000));
    let mut taken = 0;
    let answer = loop {
        let answer = post(public, &webhook, "198.51.100.7", &[], &body).await;
        match answer.status {
            200 => taken += 1,
            _ => break answer,
        }
        assert!(taken < 100, "it is bounded");
    };
    assert_unavailable(&answer, Instant::now());
    assert!(taken > 5, "{taken}");
    assert!(
        gateway
            .metric("trueup_gateway_spool_events_total{op=\"full\"}")
            .await
            >= 1.0
    );

    std::fs::write(directory.path().join("a-file"), b"").expect("writes");
    let bad = world.gateway().env(
        "TRUEUP_SPOOL_DIR",
        directory.path().join("a-file").display(),
    );
    let mut never = bad.spawn();
    assert_eq!(never.exit_code(Duration::from_secs(10)).await, 64);
    assert!(!never.log().contains("\"listening\""), "{}", never.log());
}

/// The order of reports is that of the gateways' clocks (V3): how far one is off is told, both ways.
#[tokio::test(flavor = "multi_thread")]
async fn v3_a_gateway_tells_how_far_its_clock_is_off_postgress() {
    const SKEW: &str = "trueup_gateway_clock_skew_seconds";
    let world = World::new().await;
    let shifted = "
        CREATE SCHEMA shifted;
        CREATE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$;
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = shifted, pg_catalog, public',
            current_database()); END $$;";
    world.sql.batch_execute(shifted).await.expect("superuser");
    let mut gateway = world.gateway().ready().await;
    let told = gateway.metric(SKEW).await;
    assert!((told - 3600.0).abs() < 30.0, "an hour ahead: {told}");
    let behind = "
        CREATE OR REPLACE FUNCTION shifted.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS $$ SELECT pg_catalog.clock_timestamp() + interval '10 minutes' $$;";
    world.sql.batch_execute(behind).await.expect("superuser");
    eventually("ten minutes behind", KNOWN_WITHIN * 5, async || {
        let told = gateway.metric(SKEW).await;
        ((told + 600.0).abs() < 30.0).then_some(())
    })
    .await;
    world
        .sql
        .batch_execute("DROP FUNCTION shifted.clock_timestamp()")
        .await
        .expect("superuser");
    eventually("right again", KNOWN_WITHIN * 5, async || {
        (gateway.metric(SKEW).await.abs() < 30.0).then_some(())
    })
    .await;
}
