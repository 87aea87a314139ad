//! Pulls envelopes from the broker in rounds, has them settled, acknowledges them; forever.
//!
//! One supervisor builds connection, topology and consumers anew after every loss. A worker that
//! cannot reach Postgres takes no messages: it would only burn their delivery counts.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use secrecy::ExposeSecret;
use trueup_shared::domain::event::{RawEvent, SecretUse};
use trueup_shared::ops::http::{self, Dependency, Readiness};
use trueup_shared::ops::metrics;
use trueup_shared::ops::shutdown::{Exit, Failure, Shutdown};
use trueup_shared::queue::session::{Backoff, Session};
use trueup_shared::queue::{QueueError, envelope, topology};
use trueup_shared::store::{Pool, PoolSettings, upkeep};

use crate::process::{Processor, Stuck, wait_for_postgres};
use crate::settings::Settings;
use crate::settle::ack_round;
use crate::{late, upkeep as housekeeping};

/// Connections beside the lanes': late matches, upkeep, secrets' uses.
const OTHER_CONNECTIONS: usize = 4;
/// A round that fails because Postgres is away is tried again for this long with its messages in hand;
/// then they go back to the broker, which counts one delivery for the whole outage.
const HOLD_MESSAGES: Duration = Duration::from_secs(20);

pub async fn run(settings: Settings) -> Result<Exit, Failure> {
    let shutdown = Shutdown::install(settings.grace.grace).map_err(|e| Failure::new(Exit::Bug, e))?;
    let lanes = settings.worker.worker_lanes.get();
    let pool = Pool::new(
        settings.postgres.postgres_url.expose_secret(),
        &PoolSettings { settling: true, ..PoolSettings::of("trueup-worker", lanes as usize + OTHER_CONNECTIONS) },
    )
    .map_err(|e| Failure::new(Exit::BadConfig, e))?;
    let readiness = Readiness::new("trueup-worker");
    let postgres = readiness.dependency("postgres");
    let broker = readiness.dependency("broker");
    let listener = http::bind(settings.worker.ops_listen)
        .await
        .map_err(|e| Failure::new(Exit::BadConfig, format!("TRUEUP_WORKER_OPS_LISTEN: cannot listen there: {e}")))?;
    let ops_stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(http::serve(listener, readiness.clone(), ops_stop.clone()));

    let processor = Processor::new(pool.clone(), lanes, settings.worker.worker_batch.get());
    let late = tokio::spawn(late::run(pool.clone(), shutdown.stop().clone()));
    tokio::spawn(housekeeping::run(pool, settings.worker.clone(), shutdown.stop().clone()));
    let supervisor = Supervisor { settings, processor, postgres, broker, shutdown: shutdown.clone() };
    let consuming = tokio::spawn(async move { supervisor.run().await });

    shutdown.stop().cancelled().await;
    readiness.draining();
    let exit = shutdown
        .drain(async {
            // Both see the stop by themselves and finish what they have begun.
            let _ = tokio::join!(consuming, late);
        })
        .await;
    ops_stop.cancel();
    Ok(exit)
}

struct Supervisor {
    settings: Settings,
    processor: Processor,
    postgres: Dependency,
    broker: Dependency,
    shutdown: Shutdown,
}

impl Supervisor {
    async fn run(&self) {
        let mut backoff = Backoff::new();
        let stop = self.shutdown.stop();
        while !stop.is_cancelled() {
            if let Err(error) = self.processor.pool().ping().await {
                self.postgres.down(error.to_string());
                if !wait_for_postgres(self.processor.pool(), stop).await {
                    return;
                }
            }
            self.postgres.ok();
            match self.consume(&mut backoff).await {
                Ok(()) => return,
                Err(error) => self.broker.down(error),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    /// Consumes until told to stop (`Ok`) or until something breaks. The text is for operators.
    async fn consume(&self, backoff: &mut Backoff) -> Result<(), String> {
        let session =
            Session::connect(&self.settings.amqp.amqp_url, "trueup-worker").await.map_err(|e| e.to_string())?;
        let outcome = self.consume_session(&session, backoff).await;
        session.close().await;
        outcome
    }

    async fn consume_session(&self, session: &Session, backoff: &mut Backoff) -> Result<(), String> {
        topology::declare(session.connection(), self.settings.amqp.queue_max_length)
            .await
            .map_err(|e| e.to_string())?;
        let dead = session.confirm_channel().await.map_err(|e| e.to_string())?;
        let mut events = self.source(session, topology::QUEUE).await.map_err(|e| e.to_string())?;
        let mut parked = self.source(session, topology::PARKED_QUEUE).await.map_err(|e| e.to_string())?;
        self.broker.ok();
        backoff.reset();
        let stop = self.shutdown.stop();
        loop {
            let round = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    events.cancel().await;
                    parked.cancel().await;
                    return Ok(());
                }
                () = session.closed() => return Err("the connection to the broker is lost".to_owned()),
                round = events.round(self.processor.round()) => round,
                round = parked.round(self.processor.round()) => round,
            };
            // The broker ends a consumer whose queue is gone, or that held messages for too long.
            let round = round.ok_or("the broker ended the consumer")?;
            self.settle_round(&round, &dead).await?;
            ack_round(&round).await.map_err(|e| format!("a round could not be acknowledged: {e}"))?;
        }
    }

    async fn source(&self, session: &Session, queue: &'static str) -> Result<Source, QueueError> {
        let channel = session.channel().await?;
        let prefetch = u16::try_from(self.settings.worker.worker_prefetch.get()).unwrap_or(u16::MAX);
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(QueueError::doing("set the prefetch"))?;
        let consumer = channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(QueueError::doing(format!("consume {queue}")))?;
        Ok(Source { channel, consumer })
    }

    /// Settles what a round holds, waiting out a short absence of Postgres with the messages in hand.
    async fn settle_round(&self, round: &[Delivery], dead: &Channel) -> Result<(), String> {
        let started = std::time::Instant::now();
        let mut backoff = Backoff::new();
        loop {
            match self.try_round(round, dead).await {
                Ok(()) => {
                    self.postgres.ok();
                    return Ok(());
                }
                Err(Stuck::Store(error)) if error.is_unreachable() => {
                    self.postgres.down(error.to_string());
                    if started.elapsed() > HOLD_MESSAGES || self.shutdown.stop().is_cancelled() {
                        return Err("Postgres is away; messages go back to the broker".to_owned());
                    }
                    backoff.wait().await;
                }
                Err(stuck) => return Err(stuck.to_string()),
            }
        }
    }

    async fn try_round(&self, round: &[Delivery], dead: &Channel) -> Result<(), Stuck> {
        let mut first_time: Vec<RawEvent> = Vec::new();
        let mut uses: Vec<SecretUse> = Vec::new();
        for delivery in round {
            match envelope::decode(&delivery.data) {
                Ok(envelope) => {
                    uses.extend(envelope.secrets_used);
                    if delivery.redelivered {
                        metrics::worker().envelopes.inc(&["redelivered"]);
                        self.processor.settle_again(envelope.events, dead).await?;
                    } else {
                        first_time.extend(envelope.events);
                    }
                }
                Err(error) => {
                    // Not ours, or of a version to come: a person must look, nothing else waits for it.
                    tracing::error!(%error, "a message is no envelope and was put among the dead letters");
                    topology::publish_dead(dead, &delivery.data).await?;
                    metrics::worker().envelopes.inc(&["unreadable"]);
                }
            }
        }
        if !first_time.is_empty() {
            self.processor.settle_first_time(first_time, dead).await?;
        }
        note_uses(self.processor.pool(), &uses).await;
        Ok(())
    }
}

/// When a secret was last used is good to know, and worth holding nothing up.
async fn note_uses(pool: &Pool, uses: &[SecretUse]) {
    if uses.is_empty() {
        return;
    }
    if let Err(error) = upkeep::secrets_used(pool, uses).await {
        tracing::warn!(%error, "uses of secrets were not noted");
    }
}

/// One queue's consumer on a channel of its own, so that acking many at once is safe.
struct Source {
    channel: Channel,
    consumer: Consumer,
}

impl Source {
    /// The next delivery, and whatever else has arrived, up to `events` events or so. `None` when the
    /// consumer is over. Nothing is lost if the future is dropped while it waits.
    async fn round(&mut self, events: usize) -> Option<Vec<Delivery>> {
        let first = self.consumer.next().await?.ok()?;
        let mut size = count_events(&first);
        let mut round = vec![first];
        while size < events {
            match self.consumer.next().now_or_never() {
                Some(Some(Ok(delivery))) => {
                    size += count_events(&delivery);
                    round.push(delivery);
                }
                // Its end or error is met again by the next round.
                Some(_) | None => break,
            }
        }
        Some(round)
    }

    async fn cancel(&self) {
        // The connection is closed right after; the broker then takes back what was not acked.
        let _ = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
    }
}

/// A cheap estimate, without parsing: each event bears the key `"webhook_id":` once, outside of text.
fn count_events(delivery: &Delivery) -> usize {
    const SMALLEST_EVENT_BYTES: usize = 250;
    (delivery.data.len() / SMALLEST_EVENT_BYTES).max(1)
}
