//! An account with publishers, calls and a webhook, a broker of its own, and workers on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use trueup_event::raw_event::{Envelope, RawEvent, RawRequest};
use trueup_event::{envelope, ids};
use trueup_queue::connection::BrokerConnection;
use trueup_queue::topology::{self, QueueBounds};
use trueup_store::{Pool, PoolSettings};
use trueup_testkit::broker_and_redis::Lease;
pub use trueup_testkit::builders::Terms;
use trueup_testkit::builders::{self, Webhook, WebhookSpec};
use trueup_testkit::database::TestDatabase;
use trueup_testkit::eventually;
use trueup_testkit::process::{Process, Start};
use uuid::Uuid;

pub const WORKER: &str = env!("CARGO_BIN_EXE_trueup-worker");
/// A row is there within this, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct World {
    pub database: TestDatabase,
    pub lease: Lease,
    pub client: tokio_postgres::Client,
    pub account_id: Uuid,
    pub webhook: Webhook,
    broker: BrokerConnection,
    publishers: BTreeMap<String, Uuid>,
}

/// A call as a test wants it; the rest is as plain as can be.
#[derive(Clone)]
pub struct CallSpec {
    pub ref_id: Option<&'static str>,
    pub caller: Option<&'static str>,
    pub duration: i32,
    pub ended_at: Timestamp,
    pub publisher: Option<&'static str>,
    pub terms: Terms,
    pub buyer_id: Option<Uuid>,
}

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

impl Default for CallSpec {
    fn default() -> Self {
        CallSpec {
            ref_id: Some("R1"),
            caller: Some("+13055550142"),
            duration: 120,
            ended_at: at("2026-03-14T12:02:00Z"),
            publisher: Some("pubA"),
            terms: Terms::Share(600_000),
            buyer_id: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub status: String,
    pub reason: Option<String>,
    pub strategy: Option<String>,
    pub call_id: Option<Uuid>,
    pub credit: i64,
    pub detail: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Money {
    pub value: Option<i64>,
    pub from_webhook: bool,
    pub qualified: Option<bool>,
    pub credit: i64,
}

impl World {
    pub async fn new() -> World {
        let database = TestDatabase::fresh().await;
        let lease = Lease::acquire().await;
        let client = database.client().await;
        let account_id = builders::account(&client).await;
        let webhook = builders::webhook(&client, account_id, &WebhookSpec::open()).await;
        let broker = lease.broker().await;
        topology::declare_topology(broker.connection(), QueueBounds::UNBOUNDED)
            .await
            .expect("a topology");
        World {
            database,
            lease,
            client,
            account_id,
            webhook,
            broker,
            publishers: BTreeMap::new(),
        }
    }

    /// Goes on in a new, empty account.
    pub async fn next_account(&mut self) {
        self.account_id = builders::account(&self.client).await;
        self.webhook = builders::webhook(&self.client, self.account_id, &WebhookSpec::open()).await;
        self.publishers.clear();
    }

    pub fn start(&self) -> Start {
        Start::new(WORKER)
            .env("TRUEUP_POSTGRES_URL", &self.database.url)
            .env("TRUEUP_AMQP_URL", &self.lease.amqp_url)
            // Tests prove their books when they are at rest.
            .env("TRUEUP_RECONCILE_EVERY_HOURS", "0")
    }

    pub async fn worker(&self) -> Process {
        self.start().ready().await
    }

    async fn publisher(&mut self, name: &str) -> Uuid {
        if let Some(id) = self.publishers.get(name) {
            return *id;
        }
        let id = builders::publisher(&self.client, self.account_id, name).await;
        self.publishers.insert(name.to_owned(), id);
        id
    }

    pub async fn call(&mut self, spec: &CallSpec) -> Uuid {
        self.call_as(Uuid::new_v4(), spec).await
    }

    /// Records a call under an id that a report may have named before.
    pub async fn call_as(&mut self, id: Uuid, spec: &CallSpec) -> Uuid {
        let assignment = match spec.publisher {
            Some(name) => Some(self.assignment(name, spec.terms).await),
            None => None,
        };
        let call = builders::Call {
            id: Some(id),
            ref_id: spec.ref_id,
            caller: spec.caller,
            duration_seconds: spec.duration,
            ended_at: Some(spec.ended_at),
            buyer_id: spec.buyer_id,
            assignment_id: assignment,
            noted: true,
        };
        builders::call(&self.client, self.account_id, &call).await
    }

    async fn assignment(&mut self, publisher: &str, terms: Terms) -> Uuid {
        let publisher = self.publisher(publisher).await;
        builders::assignment(&self.client, self.account_id, publisher, terms).await
    }

    pub fn event(&self, received_at: Timestamp, fields: Value) -> RawEvent {
        self.event_of(&self.webhook, received_at, fields)
    }

    pub fn event_of(&self, webhook: &Webhook, received_at: Timestamp, fields: Value) -> RawEvent {
        RawEvent {
            id: event_id(received_at),
            received_at,
            account_id: webhook.account_id,
            webhook_id: webhook.id,
            position: 0,
            source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            request: Some(RawRequest {
                method: "POST".into(),
                body: serde_json::to_vec(&fields).expect("json"),
                ..RawRequest::default()
            }),
            refusal: None,
        }
    }

    /// As a gateway does: the message says whose its events are, if they are all of one account.
    pub async fn publish(&self, events: Vec<RawEvent>) {
        let channel = self.broker.confirm_channel().await.expect("a channel");
        let account = events.first().map(|event| event.account_id);
        let account = account.filter(|id| events.iter().all(|event| event.account_id == *id));
        topology::publish_event(
            &channel,
            account,
            &envelope::encode_envelope(&Envelope::from_events(events)),
        )
        .await
        .expect("a confirm");
    }

    pub async fn publish_raw(&self, message: &[u8]) {
        let channel = self.broker.confirm_channel().await.expect("a channel");
        topology::publish_event(&channel, None, message)
            .await
            .expect("a confirm");
    }

    /// Among the dead letters, as one envelope.
    pub async fn publish_dead(&self, events: &[RawEvent]) {
        let channel = self.broker.confirm_channel().await.expect("a channel");
        let message = envelope::encode_envelope(&Envelope::from_events(events.to_vec()));
        topology::publish_dead(&channel, &message)
            .await
            .expect("a confirm");
    }

    /// What the console would settle through.
    pub fn pool(&self) -> Pool {
        Pool::new(
            &self.database.url,
            &PoolSettings::for_application("trueup-test", 2),
        )
        .expect("a good URL")
    }

    /// A second webhook of the account.
    pub async fn another_webhook(&self) -> Webhook {
        builders::webhook(&self.client, self.account_id, &WebhookSpec::open()).await
    }

    pub async fn assignment_of(&self, call_id: Uuid) -> Uuid {
        let select = "SELECT assignment_id FROM calls WHERE id = $1";
        self.client
            .query_one(select, &[&call_id])
            .await
            .expect("the call")
            .get(0)
    }

    pub async fn newest_event(&self) -> Uuid {
        let select = "SELECT id FROM events ORDER BY received_at DESC, id DESC LIMIT 1";
        self.client
            .query_one(select, &[])
            .await
            .expect("an event")
            .get(0)
    }

    /// Publishes one report and waits for its row.
    pub async fn report(&self, received_at: Timestamp, fields: Value) -> (Uuid, Row) {
        let event = self.event(received_at, fields);
        let id = event.id;
        self.publish(vec![event]).await;
        (id, self.row(id).await)
    }

    pub async fn depth(&self, queue: &str) -> u32 {
        topology::queue_depth(self.broker.connection(), queue)
            .await
            .expect("the broker")
            .expect("the queue")
    }

    pub async fn find_row(&self, id: Uuid) -> Option<Row> {
        let select = "SELECT status, reason, strategy, matched_call_id, credit_delta_cents, detail::text FROM events WHERE id = $1";
        let row = self
            .client
            .query_opt(select, &[&id])
            .await
            .expect("at most one row")?;
        let detail: Option<String> = row.get(5);
        Some(Row {
            status: row.get(0),
            reason: row.get(1),
            strategy: row.get(2),
            call_id: row.get(3),
            credit: row.get(4),
            detail: detail.map_or(json!({}), |d| serde_json::from_str(&d).expect("json")),
        })
    }

    pub async fn row(&self, id: Uuid) -> Row {
        eventually("the event's row", PATIENCE, || self.find_row(id)).await
    }

    pub async fn row_with_status(&self, id: Uuid, status: &str) -> Row {
        eventually(status, PATIENCE, || async move {
            self.find_row(id).await.filter(|row| row.status == status)
        })
        .await
    }

    pub async fn money(&self, call_id: Uuid) -> Money {
        let select = "SELECT value_cents, value_from_webhook, qualified, publisher_payout_cents FROM calls WHERE id = $1";
        let row = self
            .client
            .query_one(select, &[&call_id])
            .await
            .expect("the call");
        Money {
            value: row.get(0),
            from_webhook: row.get(1),
            qualified: row.get(2),
            credit: row.get(3),
        }
    }

    pub async fn balance(&self, publisher: &str) -> i64 {
        let id = self
            .publishers
            .get(publisher)
            .expect("a publisher of this test");
        let select = "SELECT pending_balance_cents FROM publishers WHERE id = $1";
        self.client
            .query_one(select, &[id])
            .await
            .expect("the publisher")
            .get(0)
    }

    pub async fn count(&self, from_where: &str) -> i64 {
        self.client
            .query_one(&format!("SELECT count(*) FROM {from_where}"), &[])
            .await
            .expect("a count")
            .get(0)
    }

    /// Rows whose raw request is kept, in either form.
    pub async fn requests_kept(&self) -> i64 {
        self.count("events e WHERE request_place IS NOT NULL OR EXISTS (SELECT FROM event_requests q WHERE q.id = e.id)")
            .await
    }

    /// `reconcile --replay` on the real binary: the books are true.
    pub async fn reconcile(&self) {
        let mut process = self.start().arg("reconcile").arg("--replay").spawn();
        let code = process.exit_code(PATIENCE).await;
        assert_eq!(code, 0, "reconcile says:\n{}", process.log());
    }
}

/// Unique, and of the right millisecond.
pub fn event_id(received_at: Timestamp) -> Uuid {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number);
    ids::event_id(received_at, &random)
}
