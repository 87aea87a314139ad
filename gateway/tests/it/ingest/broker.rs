//! A broker of the test's own, out of memory and switched off, while senders go on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trueup_testkit::builders::{Webhook, WebhookSpec};
use trueup_testkit::http::Client;
use trueup_testkit::private_rabbitmq::Rabbit;
use trueup_testkit::process::{Process, Start, built};
use trueup_testkit::{eventually, eventually_or};
use uuid::Uuid;

use super::{World, door, take_all};

/// The contract's 1.5 s for a confirm, and a sender's patience of 2 s, on a busy machine.
const IN_TIME: Duration = Duration::from_millis(2500);

/// What a crowd of senders was told.
#[derive(Default)]
struct Told {
    accepted: BTreeSet<Uuid>,
    unavailable: u32,
    /// Requests whose connection broke before an answer.
    unanswered: u32,
    slowest: Duration,
}

/// Senders that never rest: each waits for its answer, and a little, and sends the next.
struct Crowd {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Crowd {
    fn start(door: SocketAddr, webhook: &Webhook, senders: usize) -> Crowd {
        let (told, stop) = (
            Arc::new(Mutex::new(Told::default())),
            Arc::new(AtomicBool::new(false)),
        );
        let mut tasks = JoinSet::new();
        for n in 0..senders {
            let (told, stop, path) = (Arc::clone(&told), Arc::clone(&stop), webhook.path());
            tasks.spawn(async move {
                let mut client = None;
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                for m in 0_u64.. {
                    pace.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let body = format!("{{\"ref_id\":\"{n}-{m}\",\"payout\":\"12.50\"}}");
                    client = send(client, door, &path, &body, &told).await;
                }
            });
        }
        Crowd { told, stop, tasks }
    }

    fn accepted(&self) -> usize {
        self.told.lock().expect("no sender panics").accepted.len()
    }

    /// Waits until so many more were accepted.
    async fn goes_on(&self, more: usize, within: Duration) {
        let before = self.accepted();
        eventually("reports are accepted", within, async || {
            (self.accepted() >= before + more).then_some(())
        })
        .await;
    }

    /// Waits until one of them was told that its report was not taken. Those in flight when the broker
    /// blocks wait for their confirm first.
    async fn is_refused(&self) {
        let refused = || self.told.lock().expect("no sender panics").unavailable > 0;
        eventually(
            "a sender is told 503",
            Duration::from_secs(20),
            async || refused().then_some(()),
        )
        .await;
    }

    async fn end(mut self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(one) = self.tasks.join_next().await {
            one.expect("no sender panics");
        }
        std::mem::take(&mut self.told.lock().expect("no sender panics"))
    }
}

async fn send(
    client: Option<Client>,
    door: SocketAddr,
    path: &str,
    body: &str,
    told: &Mutex<Told>,
) -> Option<Client> {
    let mut client = match client {
        Some(client) => client,
        // The gateway may be away for a moment: then there is no request either.
        None => Client::connect(door).await.ok()?,
    };
    let began = Instant::now();
    let answer = client
        .send(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
        .await;
    let mut told = told.lock().expect("no sender panics");
    let Ok(answer) = answer else {
        told.unanswered += 1;
        return None;
    };
    told.slowest = told.slowest.max(began.elapsed());
    match answer.status {
        200 => {
            let id = answer.json()["event_id"]
                .as_str()
                .and_then(|id| id.parse().ok())
                .expect("an id");
            assert!(told.accepted.insert(id), "an id was given twice");
        }
        503 => {
            assert!(
                answer.header("retry-after").is_some() && answer.json()["ok"] == false,
                "{}",
                answer.text()
            );
            told.unavailable += 1;
        }
        other => panic!("{other}: {}", answer.text()),
    }
    Some(client)
}

async fn broker_is(gateway: &mut Process, state: &str, word: &str) {
    eventually(word, Duration::from_secs(20), async || {
        let readiness = gateway.readiness().await;
        let broker = &readiness["dependencies"]["broker"];
        assert_eq!(readiness["ready"], true, "{readiness}");
        let detail = broker["detail"].as_str().unwrap_or_default();
        (broker["state"] == state && detail.contains(word)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broker_out_of_memory_is_a_503_in_time_and_nothing_that_was_accepted_is_lost() {
    let (world, rabbit) = tokio::join!(World::new(), Rabbit::start());
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let mut gateway = world
        .generous_gateway()
        .env("TRUEUP_AMQP_URL", &rabbit.amqp_url)
        .ready()
        .await;
    let public = door(&mut gateway, &webhook).await;
    let crowd = Crowd::start(public, &webhook, 8);
    crowd.goes_on(100, Duration::from_secs(20)).await;

    rabbit.memory_alarm().await;
    broker_is(&mut gateway, "degraded", "memory or disk alarm").await;
    assert_eq!(gateway.metric("trueup_gateway_broker_blocked").await, 1.0);
    // From here on nobody waits for it: a request is answered as soon as it is read.
    let mut client = Client::connect(public).await.expect("connects");
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(
            client
                .send("POST", &webhook.path(), &[], b"{}")
                .await
                .expect("an answer")
                .status,
            503
        );
        assert!(
            began.elapsed() < Duration::from_millis(500),
            "{:?}",
            began.elapsed()
        );
    }
    assert!(
        gateway.metric("trueup_gateway_in_flight_events").await < 100.0,
        "nothing piles up"
    );
    crowd.is_refused().await;

    rabbit.no_memory_alarm().await;
    crowd.goes_on(100, Duration::from_secs(30)).await;
    broker_is(&mut gateway, "ok", "").await;
    assert_eq!(gateway.metric("trueup_gateway_broker_blocked").await, 0.0);
    let told = crowd.end().await;
    assert_eq!(told.unanswered, 0);
    assert!(
        told.slowest < IN_TIME,
        "{} × 503, {:?}",
        told.unavailable,
        told.slowest
    );
    let found = ids(&rabbit).await;
    let lost: Vec<_> = told.accepted.difference(&found).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost",
        lost.len(),
        told.accepted.len()
    );
}

async fn ids(rabbit: &Rabbit) -> BTreeSet<Uuid> {
    let session = rabbit.session().await;
    take_all(&session)
        .await
        .into_iter()
        .flat_map(|envelope| envelope.events)
        .map(|event| event.id)
        .collect()
}

/// Long enough for whoever restarts a broker.
const OUTAGE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn with_a_spool_half_a_minute_without_a_broker_and_a_kill_lose_nothing() {
    let (world, rabbit) = tokio::join!(World::new(), Rabbit::start());
    let webhook = world.webhook(&WebhookSpec::open()).await;
    let worker = Start::new(&built("trueup-worker"))
        .env("TRUEUP_POSTGRES_URL", &world.db.url)
        .env("TRUEUP_AMQP_URL", &rabbit.amqp_url);
    let mut settling = worker.ready().await;
    let spool = tempfile::tempdir().expect("a directory");
    let start = |port: u16| {
        world
            .generous_gateway()
            .env("TRUEUP_AMQP_URL", &rabbit.amqp_url)
            .env("TRUEUP_SPOOL_DIR", spool.path().display())
            .env("TRUEUP_GATEWAY_LISTEN", format!("127.0.0.1:{port}"))
    };
    let mut gateway = start(0).ready().await;
    let public = door(&mut gateway, &webhook).await;
    let crowd = Crowd::start(public, &webhook, 8);
    crowd.goes_on(100, Duration::from_secs(20)).await;

    // time passes: the outage has its length.
    let outage = tokio::time::sleep(OUTAGE);
    rabbit.stop().await;
    crowd.goes_on(1000, OUTAGE / 2).await;
    broker_is(&mut gateway, "degraded", "kept on this disk").await;
    assert!(gateway.metric("trueup_gateway_spool_depth_events").await > 500.0);
    gateway.kill();
    let mut gateway = start(public.port()).ready().await;
    assert!(
        gateway.metric("trueup_gateway_spool_depth_events").await > 500.0,
        "what was on the disk still is"
    );
    crowd.goes_on(500, OUTAGE / 2).await;
    outage.await;
    rabbit.start_again().await;
    broker_is(&mut gateway, "ok", "").await;
    crowd.goes_on(200, Duration::from_secs(20)).await;
    let told = crowd.end().await;
    assert_eq!(told.unavailable, 0, "with a spool nobody is sent away");
    assert!(
        told.unanswered <= 8,
        "{} requests were cut off by one kill of 8 connections",
        told.unanswered
    );

    let mut rows = Vec::new();
    eventually_or(
        "each 200 has its row",
        Duration::from_secs(90),
        async || {
            let found = world
                .sql
                .query("SELECT id FROM events", &[])
                .await
                .expect("reads");
            rows = found.iter().map(|row| row.get::<_, Uuid>(0)).collect();
            let all: BTreeSet<Uuid> = rows.iter().copied().collect();
            let spooled = gateway.metric("trueup_gateway_spool_depth_events").await;
            let missing = told.accepted.difference(&all).count();
            if spooled == 0.0 && missing == 0 {
                return Ok(());
            }
            let (door, worker) = (gateway.readiness().await, settling.readiness().await);
            Err(format!(
                "{spooled} on the disk, {missing} of {} have none; {door}; {worker}",
                told.accepted.len()
            ))
        },
    )
    .await;
    let once: BTreeSet<Uuid> = rows.iter().copied().collect();
    assert_eq!(once.len(), rows.len(), "a report has one row");
    let more = once.difference(&told.accepted).count();
    // The probe of `door`, and what was durable when the kill cut off its answer.
    assert!(more <= 8 + 1, "{more} rows that nobody was told of");
    settling.terminate();
    assert_eq!(settling.exit_code(Duration::from_secs(30)).await, 0);
    assert_eq!(
        worker
            .arg("reconcile")
            .spawn()
            .exit_code(Duration::from_secs(60))
            .await,
        0,
        "the books are right"
    );
}
