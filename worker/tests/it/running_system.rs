//! A gateway, a console and a worker, and an account that is known by its key: for what is tried at the public
//! door and the console alone.

use std::net::SocketAddr;
use std::sync::OnceLock;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use trueup_testkit::process::{Process, Start, built};
use trueup_testkit::{eventually, eventually_or, http};

use crate::harness::{PATIENCE, World};

pub const ADMIN_KEY: &str = "an-admin-key-of-the-tests-0123456789";
pub const CALLER: &str = "+13055550142";

/// The other two binaries, built once.
fn binaries() -> &'static [String; 2] {
    static BUILT: OnceLock<[String; 2]> = OnceLock::new();
    BUILT.get_or_init(|| ["trueup-gateway", "trueup-console"].map(built))
}

/// A gateway, a console and a worker, and an account with a webhook.
pub struct RunningSystem {
    // Before the database: they go first.
    pub gateway: Process,
    pub console_process: Process,
    pub worker: Process,
    pub public: SocketAddr,
    pub console: SocketAddr,
    pub key: String,
    pub webhook: String,
    /// Of the webhook's URL.
    pub path: String,
    pub world: World,
}

impl RunningSystem {
    pub async fn new() -> RunningSystem {
        let world = World::new().await;
        let gateway = gateway_of(&world);
        RunningSystem::with_gateway(world, &gateway).await
    }

    pub async fn with_gateway(world: World, gateway: &Start) -> RunningSystem {
        let worker = world.worker().await;
        let mut gateway = gateway.ready().await;
        let public = gateway.address("public").await;
        let mut console = Start::new(&binaries()[1])
            .env("TRUEUP_POSTGRES_URL", &world.database.url)
            .env("TRUEUP_ADMIN_KEY", ADMIN_KEY)
            .env("TRUEUP_PUBLIC_URL", format!("http://{public}"))
            .ready()
            .await;
        let mut system = RunningSystem {
            gateway,
            console: console.address("console").await,
            console_process: console,
            worker,
            public,
            key: ADMIN_KEY.to_owned(),
            webhook: String::new(),
            path: String::new(),
            world,
        };
        let account = system
            .create("accounts", json!({"name": "Acme Calls"}))
            .await;
        system.key = text_of(&account["api_key"]);
        let webhook = system.create("webhooks", json!({"name": "Ringba"})).await;
        system.webhook = text_of(&webhook["id"]);
        let url = text_of(&webhook["url"]);
        let path = url.strip_prefix(&format!("http://{public}"));
        system.path = path.expect("the public address").to_owned();
        system
    }

    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> http::Answer {
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

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &Value::Null).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub async fn create(&self, what: &str, body: Value) -> Value {
        let answer = self.ask("POST", what, &body).await;
        assert_eq!(answer.status, 201, "{what}: {}", answer.text());
        answer.json()
    }

    /// A publisher of 60 percent.
    pub async fn publisher(&self, name: &str) -> Publisher {
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

    pub async fn balance(&self, publisher: &Publisher) -> i64 {
        let shown = self.get(&format!("publishers/{}", publisher.id)).await;
        shown["pending_balance_cents"].as_i64().expect("cents")
    }

    /// Records calls in one request; their ids.
    pub async fn record(&self, calls: Value) -> Vec<Value> {
        let answer = self.ask("POST", "calls", &calls).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said = answer.json();
        assert_eq!(said["errors"], json!([]));
        said["ids"].as_array().expect("ids").clone()
    }

    /// Two calls of one caller, which a length tells apart.
    pub async fn record_short_and_long(&self, publisher: &Publisher) -> Vec<Value> {
        let calls = json!([
            call_of(publisher, "short", SHORT),
            call_of(publisher, "long", LONG)
        ]);
        self.record(calls).await
    }

    pub async fn record_one(&self, call: Value) -> Value {
        self.record(call).await.remove(0)
    }

    pub async fn call(&self, id: &Value) -> Value {
        self.get(&format!("calls/{}", text_of(id))).await
    }

    /// One report to the webhook's URL; the event's id. The gateway learns of a new webhook within 2 s.
    pub async fn send(&self, report: &Value) -> String {
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

    pub async fn find_row(&self, event: &str) -> Option<Value> {
        let path = format!("events/{event}");
        let answer = self.ask("GET", &path, &Value::Null).await;
        (answer.status == 200).then(|| answer.json())
    }

    pub async fn row(&self, event: &str) -> Value {
        eventually("the event's row", PATIENCE, || self.find_row(event)).await
    }

    pub async fn report(&self, report: &Value) -> Value {
        self.row(&self.send(report).await).await
    }

    /// The row, as soon as it says this.
    pub async fn row_that_says(&self, event: &str, wanted: Said<'_>) -> Value {
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

    /// A person does something to a row by the API; the answer.
    pub async fn act(&self, event: &str, action: &str, body: Value) -> http::Answer {
        self.ask("POST", &format!("events/{event}/{action}"), &body)
            .await
    }

    /// The row as the answer tells it.
    pub async fn done(&self, event: &str, action: &str, body: Value) -> Value {
        let answer = self.act(event, action, body).await;
        assert_eq!(answer.status, 200, "{action}: {}", answer.text());
        answer.json()
    }

    pub async fn rows_with(&self, status: &str) -> usize {
        let path = format!("webhooks/{}/events?status={status}", self.webhook);
        let rows = self.get(&path).await;
        rows["data"].as_array().expect("rows").len()
    }
}

pub struct Publisher {
    pub id: String,
    pub assignment: Value,
}

/// Status, reason and the call's id.
pub type Said<'a> = (&'a str, Option<&'a str>, Option<&'a Value>);

pub fn says(row: &Value) -> Said<'_> {
    (
        row["status"].as_str().expect("a status"),
        row["reason"].as_str(),
        row["matched_call"].get("id"),
    )
}

pub fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// With limits that no test reaches, and patient with Redis on a busy machine.
pub fn gateway_of(world: &World) -> Start {
    Start::new(&binaries()[0])
        .env("TRUEUP_POSTGRES_URL", &world.database.url)
        .env("TRUEUP_REDIS_URL", &world.lease.redis_url)
        .env("TRUEUP_AMQP_URL", &world.lease.amqp_url)
        .env("TRUEUP_LIMIT_IP_PER_MINUTE", 1_000_000)
        .env("TRUEUP_LIMIT_TOKEN_PER_MINUTE", 1_000_000)
        .env("TRUEUP_LIMIT_REDIS_TIMEOUT_MS", 1000)
}

pub fn minutes_ago(minutes: i64) -> String {
    (Timestamp::now() - SignedDuration::from_mins(minutes)).to_string()
}

pub fn call_of(publisher: &Publisher, ref_id: &str, duration: i64) -> Value {
    json!({"ref_id": ref_id, "caller": CALLER, "duration_seconds": duration,
        "started_at": minutes_ago(10), "assignment_id": publisher.assignment})
}

/// The first report fits the short call only, the second fits both and the short one better.
const SHORT: i64 = 100;
const LONG: i64 = 150;

pub fn guess(duration: i64, payout: i64) -> Value {
    json!({"caller_id": CALLER, "duration": duration, "payout": payout})
}
