//! Ordinary days at the public door: reports over HTTP to a real gateway, calls over HTTP to a real console,
//! settled by a real worker. Nothing is put past them.

use std::net::SocketAddr;
use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use trueup_testkit::process::{Process, Start, built};
use trueup_testkit::tcp_proxy::FaultProxy;
use trueup_testkit::{eventually, eventually_or, http};

use crate::harness::{PATIENCE, World};

const ADMIN_KEY: &str = "an-admin-key-of-the-tests-0123456789";
const CALLER: &str = "+13055550142";

/// The other two binaries, built once.
fn binaries() -> &'static [String; 2] {
    static BUILT: OnceLock<[String; 2]> = OnceLock::new();
    BUILT.get_or_init(|| ["trueup-gateway", "trueup-console"].map(built))
}

/// A gateway, a console and a worker, and an account with a webhook.
struct House {
    // Before the database: they go first.
    gateway: Process,
    _console: Process,
    _worker: Process,
    public: SocketAddr,
    console: SocketAddr,
    key: String,
    webhook: String,
    /// Of the webhook's URL.
    path: String,
    world: World,
}

impl House {
    async fn new() -> House {
        let world = World::new().await;
        let gateway = gateway_of(&world);
        House::with_gateway(world, &gateway).await
    }

    async fn with_gateway(world: World, gateway: &Start) -> House {
        let worker = world.worker().await;
        let mut gateway = gateway.ready().await;
        let public = gateway.address("public").await;
        let mut console = Start::new(&binaries()[1])
            .env("TRUEUP_POSTGRES_URL", &world.database.url)
            .env("TRUEUP_ADMIN_KEY", ADMIN_KEY)
            .env("TRUEUP_PUBLIC_URL", format!("http://{public}"))
            .ready()
            .await;
        let mut house = House {
            gateway,
            console: console.address("console").await,
            _console: console,
            _worker: worker,
            public,
            key: ADMIN_KEY.to_owned(),
            webhook: String::new(),
            path: String::new(),
            world,
        };
        let account = house
            .create("accounts", json!({"name": "Acme Calls"}))
            .await;
        house.key = text_of(&account["api_key"]);
        let webhook = house.create("webhooks", json!({"name": "Ringba"})).await;
        house.webhook = text_of(&webhook["id"]);
        let url = text_of(&webhook["url"]);
        let path = url.strip_prefix(&format!("http://{public}"));
        house.path = path.expect("the public address").to_owned();
        house
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> http::Answer {
        let bearer = format!("Bearer {}", self.key);
        let headers = [("Authorization", bearer.as_str())];
        let body = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let path = format!("/api/v1/{path}");
        http::send(self.console, method, &path, &headers, &body)
            .await
            .expect("the console answers")
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn create(&self, what: &str, body: Value) -> Value {
        let answer = self.ask("POST", what, &body).await;
        assert_eq!(answer.status, 201, "{what}: {}", answer.text());
        answer.json()
    }

    /// A publisher of 60 percent.
    async fn publisher(&self, name: &str) -> Publisher {
        let campaign = self.create("campaigns", json!({"name": name})).await;
        let publisher = self.create("publishers", json!({"name": name})).await;
        let terms = json!({"kind": "rev_share", "percent": "60"});
        let assignment = json!({"campaign_id": campaign["id"], "publisher_id": publisher["id"], "payout": terms});
        let assignment = self.create("assignments", assignment).await;
        Publisher {
            id: text_of(&publisher["id"]),
            assignment: assignment["id"].clone(),
        }
    }

    async fn balance(&self, publisher: &Publisher) -> i64 {
        let shown = self.get(&format!("publishers/{}", publisher.id)).await;
        shown["pending_balance_cents"].as_i64().expect("cents")
    }

    /// Records calls in one request; their ids.
    async fn record(&self, calls: Value) -> Vec<Value> {
        let answer = self.ask("POST", "calls", &calls).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said = answer.json();
        assert_eq!(said["errors"], json!([]));
        said["ids"].as_array().expect("ids").clone()
    }

    /// Two calls of one caller, which a length tells apart.
    async fn record_short_and_long(&self, publisher: &Publisher) -> Vec<Value> {
        let calls = json!([
            call_of(publisher, "short", SHORT),
            call_of(publisher, "long", LONG)
        ]);
        self.record(calls).await
    }

    async fn record_one(&self, call: Value) -> Value {
        self.record(call).await.remove(0)
    }

    async fn call(&self, id: &Value) -> Value {
        self.get(&format!("calls/{}", text_of(id))).await
    }

    /// One report to the webhook's URL; the event's id. The gateway learns of a new webhook within 2 s.
    async fn send(&self, report: &Value) -> String {
        let body = report.to_string();
        let headers = [("Content-Type", "application/json")];
        let answer = eventually("the webhook is known", PATIENCE, || async {
            let sent = http::send(self.public, "POST", &self.path, &headers, body.as_bytes()).await;
            sent.ok().filter(|answer| answer.status != 404)
        })
        .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        text_of(&answer.json()["event_id"])
    }

    async fn find_row(&self, event: &str) -> Option<Value> {
        let path = format!("events/{event}");
        let answer = self.ask("GET", &path, &Value::Null).await;
        (answer.status == 200).then(|| answer.json())
    }

    async fn row(&self, event: &str) -> Value {
        eventually("the event's row", PATIENCE, || self.find_row(event)).await
    }

    async fn report(&self, report: &Value) -> Value {
        self.row(&self.send(report).await).await
    }

    /// The row, as soon as it says this.
    async fn row_that_says(&self, event: &str, wanted: Said<'_>) -> Value {
        eventually_or(&format!("{wanted:?}"), PATIENCE, || async {
            let row = self.row(event).await;
            if says(&row) == wanted {
                Ok(row)
            } else {
                Err(row.to_string())
            }
        })
        .await
    }

    async fn rows_with(&self, status: &str) -> usize {
        let path = format!("webhooks/{}/events?status={status}", self.webhook);
        let rows = self.get(&path).await;
        rows["data"].as_array().expect("rows").len()
    }
}

struct Publisher {
    id: String,
    assignment: Value,
}

/// Status, reason and the call's id.
type Said<'a> = (&'a str, Option<&'a str>, Option<&'a Value>);

fn says(row: &Value) -> Said<'_> {
    (
        row["status"].as_str().expect("a status"),
        row["reason"].as_str(),
        row["matched_call"].get("id"),
    )
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// With limits that no test reaches, and patient with Redis on a busy machine.
fn gateway_of(world: &World) -> Start {
    Start::new(&binaries()[0])
        .env("TRUEUP_POSTGRES_URL", &world.database.url)
        .env("TRUEUP_REDIS_URL", &world.lease.redis_url)
        .env("TRUEUP_AMQP_URL", &world.lease.amqp_url)
        .env("TRUEUP_LIMIT_IP_PER_MINUTE", 1_000_000)
        .env("TRUEUP_LIMIT_TOKEN_PER_MINUTE", 1_000_000)
        .env("TRUEUP_LIMIT_REDIS_TIMEOUT_MS", 1000)
}

fn minutes_ago(minutes: i64) -> String {
    (Timestamp::now() - SignedDuration::from_mins(minutes)).to_string()
}

fn call_of(publisher: &Publisher, ref_id: &str, duration: i64) -> Value {
    json!({"ref_id": ref_id, "caller": CALLER, "duration_seconds": duration,
        "started_at": minutes_ago(10), "assignment_id": publisher.assignment})
}

fn guess(duration: i64, payout: i64) -> Value {
    json!({"caller_id": CALLER, "duration": duration, "payout": payout})
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_an_early_report_moves_to_its_call_and_its_repeats_pay_nobody_else() {
    let house = House::new().await;
    let (first, second) = (house.publisher("P1").await, house.publisher("P2").await);
    let y = house.record_one(call_of(&first, "Y", 95)).await;
    let early = json!({"ref_id": "X", "caller_id": CALLER, "duration": 65, "payout": 50});
    let event = house.send(&early).await;
    assert_eq!(says(&house.row(&event).await), ("matched", None, Some(&y)));
    // The same without its id follows it.
    let nameless = house.send(&guess(65, 50)).await;
    let follows = ("duplicate", Some("repeat_of_matched_report"), Some(&y));
    assert_eq!(says(&house.row(&nameless).await), follows);
    assert_eq!(house.balance(&first).await, 3000);

    let x = house.record_one(call_of(&second, "X", 90)).await;
    let moved = ("matched", Some("moved_to_its_call"), Some(&x));
    let row = house.row_that_says(&event, moved).await;
    assert_eq!(row["left_call_id"], y);
    let repeat = house.report(&early).await;
    let twice = ("duplicate", Some("same_payout_within_15m"), Some(&x));
    assert_eq!(says(&repeat), twice);
    let nameless = house.row(&nameless).await;
    assert_eq!(
        (&nameless["status"], &nameless["matched_call"]["id"]),
        (&json!("duplicate"), &x)
    );
    let late = house.report(&guess(65, 50)).await;
    assert_eq!(
        (&late["status"], &late["matched_call"]["id"]),
        (&json!("duplicate"), &x)
    );
    assert_eq!(
        (house.balance(&first).await, house.balance(&second).await),
        (0, 3000)
    );
    let left = house.call(&y).await;
    assert_eq!(
        (&left["value_cents"], &left["publisher_payout_cents"]),
        (&Value::Null, &json!(0))
    );
    house.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_of_a_ref_id_that_many_calls_share_no_strangers_call_is_paid() {
    let house = House::new().await;
    let publisher = house.publisher("P1").await;
    let calls: Vec<Value> = (0..18)
        .map(|n| {
            json!({"ref_id": "camp-7", "caller": format!("+130555501{n:02}"), "duration_seconds": 120,
                "started_at": minutes_ago(60 - n), "assignment_id": publisher.assignment})
        })
        .collect();
    let calls = house.record(json!(calls)).await;
    let report = |caller: &str| json!({"ref_id": "camp-7", "caller_id": caller, "duration": 90, "payout": 50});
    // The reported caller's call is the oldest of them.
    let row = house.report(&report("+13055550100")).await;
    assert_eq!(says(&row), ("matched", None, Some(&calls[0])));
    let row = house.report(&report("+13055559999")).await;
    assert_eq!(says(&row), ("held", Some("ambiguous"), None));
    let named = json!({"ref_id": "camp-7", "call_id": calls[9], "payout": 50});
    let row = house.report(&named).await;
    assert_eq!(says(&row), ("matched", None, Some(&calls[9])));
    assert_eq!(house.balance(&publisher).await, 6000);
    house.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_id_that_is_sent_twice_is_one_call() {
    let house = House::new().await;
    let publisher = house.publisher("P1").await;
    let mut call = call_of(&publisher, "R1", 120);
    call["qualified"] = json!(true);
    call["value_cents"] = json!(4000);
    let first = house.record_one(call.clone()).await;
    let again = house.record_one(call.clone()).await;
    assert_eq!(first, again);
    assert_eq!(house.balance(&publisher).await, 2400, "one estimate");
    let found = house.get("calls?ref_id=R1").await;
    assert_eq!(found["data"].as_array().expect("calls").len(), 1);
    let row = house.report(&json!({"ref_id": "R1", "payout": 50})).await;
    assert_eq!(says(&row), ("matched", None, Some(&first)));
    assert_eq!(house.balance(&publisher).await, 3000);
    // Another start is another call.
    call["started_at"] = json!(minutes_ago(30));
    assert_ne!(house.record_one(call).await, first);
    house.world.reconcile().await;
}

/// The first report fits the short call only, the second fits both and the short one better.
const SHORT: i64 = 100;
const LONG: i64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn m10_reports_that_waited_for_their_calls_are_decided_by_reception() {
    let house = House::new().await;
    let publisher = house.publisher("P1").await;
    let first = house.send(&guess(70, 50)).await;
    let second = house.send(&guess(100, 40)).await;
    for event in [&first, &second] {
        let row = house.row(event).await;
        assert_eq!(says(&row), ("unmatched", Some("caller_not_found"), None));
    }
    let calls = house.record_short_and_long(&publisher).await;
    for (event, call) in [&first, &second].into_iter().zip(&calls) {
        let late = ("matched", Some("matched_late"), Some(call));
        house.row_that_says(event, late).await;
    }
    assert_eq!(house.balance(&publisher).await, 5400);
    house.world.reconcile().await;
}

/// Its gateway keeps a spool and has the broker behind a proxy; how the gateway is started again.
async fn house_with_spool() -> (House, Start, FaultProxy, tempfile::TempDir) {
    let world = World::new().await;
    let broker = FaultProxy::to(world.lease.amqp_server()).await;
    let spool = tempfile::tempdir().expect("a directory");
    let start = gateway_of(&world)
        .env("TRUEUP_AMQP_URL", world.lease.amqp_through(broker.address))
        .env("TRUEUP_SPOOL_DIR", spool.path().display());
    let house = House::with_gateway(world, &start).await;
    (house, start, broker, spool)
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_guesses_out_of_a_gateways_spool_are_decided_by_reception() {
    let (mut house, start, broker, _spool) = house_with_spool().await;
    let publisher = house.publisher("P1").await;
    let calls = house.record_short_and_long(&publisher).await;
    // Until the gateway knows the webhook.
    let nothing = json!({"ref_id": "nobody's", "payout": 1});
    house.report(&nothing).await;

    broker.cut();
    let first = house.send(&guess(70, 50)).await;
    // What is on the disk outlives the gateway.
    house.gateway.kill();
    house.gateway = start.ready().await;
    house.public = house.gateway.address("public").await;
    let second = house.send(&guess(100, 40)).await;
    let depth = "trueup_gateway_spool_depth_events";
    assert!(
        (house.gateway.metric(depth).await - 2.0).abs() < 0.5,
        "both are on the disk"
    );
    for event in [&first, &second] {
        assert_eq!(house.find_row(event).await, None);
    }
    broker.restore();
    for (event, call) in [&first, &second].into_iter().zip(&calls) {
        let row = house.row(event).await;
        assert_eq!(says(&row), ("matched", None, Some(call)));
    }
    assert_eq!(house.balance(&publisher).await, 5400);
    house.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v8_a_zero_in_another_currency_takes_the_credit_back() {
    let house = House::new().await;
    let publisher = house.publisher("P1").await;
    let call = house.record_one(call_of(&publisher, "R1", 120)).await;
    house.report(&json!({"ref_id": "R1", "payout": 50})).await;
    assert_eq!(house.balance(&publisher).await, 3000);
    let foreign = json!({"ref_id": "R1", "payout": 20, "currency": "EUR"});
    let row = house.report(&foreign).await;
    assert_eq!(says(&row), ("held", Some("currency_mismatch"), Some(&call)));
    assert_eq!(house.balance(&publisher).await, 3000);
    let rejected = json!({"ref_id": "R1", "payout": 0, "currency": "EUR"});
    let row = house.report(&rejected).await;
    assert_eq!(says(&row), ("matched", None, Some(&call)));
    assert_eq!(house.balance(&publisher).await, 0);
    house.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m11_ten_repeats_of_a_held_report_are_one_row_to_decide() {
    let house = House::new().await;
    let publisher = house.publisher("P1").await;
    let call = house.record_one(call_of(&publisher, "R1", 120)).await;
    let over = json!({"ref_id": "R1", "payout": 20_000});
    let held = house.report(&over).await;
    assert_eq!(says(&held), ("held", Some("payout_over_cap"), Some(&call)));
    for _ in 0..10 {
        let row = house.report(&over).await;
        let repeat = ("duplicate", Some("repeat_of_open_report"), Some(&call));
        assert_eq!(says(&row), repeat);
        assert_eq!(row["other_event_id"], held["id"]);
    }
    assert_eq!(house.rows_with("held").await, 1);
    assert_eq!(house.balance(&publisher).await, 0);
    house.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_a_spool_that_is_emptied_behind_a_later_report_is_decided_by_reception() {
    let (mut house, _, broker, _spool) = house_with_spool().await;
    let mut other = gateway_of(&house.world).ready().await;
    let other_public = other.address("public").await;
    let publisher = house.publisher("P1").await;
    let calls = house.record_short_and_long(&publisher).await;
    let nothing = json!({"ref_id": "nobody's", "payout": 1});
    house.report(&nothing).await;
    house._worker.kill();
    broker.cut();
    // The first is kept by a gateway without its broker, the second is taken by one that has it.
    let first = house.send(&guess(70, 50)).await;
    let cut_off = std::mem::replace(&mut house.public, other_public);
    let second = house.send(&guess(100, 40)).await;
    house.public = cut_off;
    broker.restore();
    eventually("both wait for a worker", PATIENCE, || async {
        (house.world.depth(trueup_queue::topology::QUEUE).await == 2).then_some(())
    })
    .await;
    house._worker = house.world.worker().await;
    for (event, call) in [&first, &second].into_iter().zip(&calls) {
        let row = house.row(event).await;
        assert_eq!(says(&row), ("matched", None, Some(call)));
    }
}

/// Told by whoever lives when no worker does; and each process tells who it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_oldest_report_without_a_row_is_told_while_no_worker_lives() {
    const AGE: &str = "trueup_oldest_unsettled_seconds";
    let mut house = House::new().await;
    for process in [&mut house.gateway, &mut house._console, &mut house._worker] {
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
    house._worker.kill();
    let event = house.send(&json!({"caller": CALLER, "payout": "50"})).await;
    eventually("it grows", PATIENCE, async || {
        (house.gateway.metric(AGE).await >= 6.0).then_some(())
    })
    .await;
    house._worker = house.world.worker().await;
    house.row(&event).await;
    eventually("every report has its row", PATIENCE, async || {
        (house.gateway.metric(AGE).await == 0.0).then_some(())
    })
    .await;
}
