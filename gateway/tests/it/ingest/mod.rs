//! The public door, as a real process between real services.

mod answers;
mod batches;
mod broker;
mod clients;
mod crowds;
mod encodings;
mod fair_shares;
mod fuzz;
mod limits;
mod outages;
mod redis;
mod refusals;
mod restarts;

use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use tokio_postgres::Client;
use trueup_event::envelope;
use trueup_event::raw_event::{Envelope, RawEvent, SecretUse};
use trueup_queue::connection::BrokerConnection;
use trueup_queue::topology;
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::builders::{self, Webhook, WebhookSpec};
use trueup_testkit::database::TestDatabase;
use trueup_testkit::http::{self, Answer};
use trueup_testkit::process::{Process, Start};
use uuid::Uuid;

/// A change of settings must be known within this (contract), and a slow machine needs some of it.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

pub struct World {
    pub db: TestDatabase,
    pub lease: Lease,
    pub sql: Client,
    pub account: Uuid,
}

impl World {
    pub async fn new() -> World {
        let (db, lease) = tokio::join!(TestDatabase::fresh(), Lease::acquire());
        let sql = db.client().await;
        let account = builders::account(&sql).await;
        World {
            db,
            lease,
            sql,
            account,
        }
    }

    /// A gateway on this world's services. The test is its trusted proxy, so that it can come from
    /// any address. It is patient with Redis: on a machine that is busy with other tests, a late answer
    /// is no outage.
    pub fn gateway(&self) -> Start {
        Start::new(env!("CARGO_BIN_EXE_trueup-gateway"))
            .env("TRUEUP_POSTGRES_URL", &self.db.url)
            .env("TRUEUP_REDIS_URL", &self.lease.redis_url)
            .env("TRUEUP_AMQP_URL", &self.lease.amqp_url)
            .env("TRUEUP_TRUSTED_PROXIES", "127.0.0.1/32")
            .env("TRUEUP_LIMIT_REDIS_TIMEOUT_MS", 1000)
    }

    /// One whose limits no test reaches by asking again and again until something is so.
    pub fn generous_gateway(&self) -> Start {
        self.gateway()
            .env("TRUEUP_LIMIT_IP_PER_MINUTE", 1_000_000)
            .env("TRUEUP_LIMIT_TOKEN_PER_MINUTE", 1_000_000)
    }

    pub async fn webhook(&self, spec: &WebhookSpec) -> Webhook {
        builders::webhook(&self.sql, self.account, spec).await
    }

    /// Everything that waits in the events' queue, taken out of it.
    pub async fn envelopes(&self) -> Vec<Envelope> {
        let broker = self.lease.broker().await;
        take_all(&broker).await
    }

    pub async fn events(&self) -> Vec<RawEvent> {
        self.envelopes()
            .await
            .into_iter()
            .flat_map(|envelope| envelope.events)
            .collect()
    }

    pub async fn secrets_used(&self) -> Vec<SecretUse> {
        self.envelopes()
            .await
            .into_iter()
            .flat_map(|envelope| envelope.secrets_used)
            .collect()
    }
}

pub async fn take_all(broker: &BrokerConnection) -> Vec<Envelope> {
    let channel = broker.open_channel().await.expect("a channel");
    let mut found = Vec::new();
    while let Some(message) = channel
        .basic_get(topology::QUEUE.into(), BasicGetOptions::default())
        .await
        .expect("the queue is there")
    {
        message.ack(BasicAckOptions::default()).await.expect("acks");
        found.push(envelope::decode_envelope(&message.data).expect("an envelope"));
    }
    found
}

/// The gateway's public address, when it knows the webhook.
pub async fn door(gateway: &mut Process, webhook: &Webhook) -> SocketAddr {
    let public = gateway.address("public").await;
    // OPTIONS is answered 405 for any path of the door: it counts nowhere, so ask the figures instead.
    trueup_testkit::eventually("the webhook is known", KNOWN_WITHIN * 5, || async {
        let path = format!("{}?probe", webhook.path());
        // A stranger's address of its own, so that no test's limit is touched.
        let from = [("X-Forwarded-For", "203.0.113.254")];
        (http::send(public, "GET", &path, &from, b"")
            .await
            .ok()?
            .status
            != 404)
            .then_some(())
    })
    .await;
    public
}

/// A report from an address.
pub async fn post(
    door: SocketAddr,
    webhook: &Webhook,
    from: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut all = vec![
        ("X-Forwarded-For", from),
        ("Content-Type", "application/json"),
    ];
    all.extend_from_slice(headers);
    http::send(door, "POST", &webhook.path(), &all, body.as_bytes())
        .await
        .expect("an answer")
}
