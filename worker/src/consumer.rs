//! Takes envelopes from the broker, has their events settled in lanes, acknowledges them; forever.
//!
//! Decoding goes on while batches are being settled; what waits is bounded ([`Lanes::has_room`]). One
//! supervisor builds connection, topology and consumers anew after every loss. A worker that
//! cannot reach Postgres takes no messages: it would only burn their delivery counts.

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use secrecy::ExposeSecret;
use trueup_shared::ops::http::{self, Dependency, Readiness};
use trueup_shared::ops::metrics;
use trueup_shared::ops::shutdown::{Exit, Failure, Shutdown};
use trueup_shared::queue::session::{Backoff, Session};
use trueup_shared::queue::{QueueError, envelope, topology};
use trueup_shared::store::{Pool, PoolSettings};

use crate::lanes::{Lanes, Origin};
use crate::process::{Processor, Stuck, wait_for_postgres};
use crate::settings::Settings;
use crate::settle::Unacked;
use crate::{late, upkeep as housekeeping};

/// Connections beside the lanes': late matches, upkeep, secrets' uses.
const OTHER_CONNECTIONS: usize = 4;
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
        let mut lanes = Lanes::new(self.processor.clone(), dead.clone(), self.postgres.clone(), stop.clone());
        loop {
            let (source, delivery) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = session.closed() => return Err("the connection to the broker is lost".to_owned()),
                done = lanes.done() => {
                    settled(done, [&mut events, &mut parked]).await?;
                    continue;
                }
                delivery = events.consumer.next(), if lanes.has_room() => (EVENTS, delivery),
                delivery = parked.consumer.next(), if lanes.has_room() => (PARKED, delivery),
            };
            // The broker ends a consumer whose queue is gone, or that held messages for too long.
            let delivery = delivery.and_then(Result::ok).ok_or("the broker ended the consumer")?;
            let from = if source == EVENTS { &mut events } else { &mut parked };
            take(source, from, &delivery, &mut lanes, &dead).await?;
        }
        events.cancel().await;
        parked.cancel().await;
        while !lanes.is_idle() {
            tokio::select! {
                () = session.closed() => return Err("the connection to the broker is lost".to_owned()),
                done = lanes.done() => settled(done, [&mut events, &mut parked]).await?,
            }
        }
        Ok(())
    }

    async fn source(&self, session: &Session, queue: &'static str) -> Result<Source, QueueError> {
        let channel = session.channel().await?;
        let prefetch = u16::try_from(self.settings.worker.worker_prefetch.get()).unwrap_or(u16::MAX);
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(QueueError::doing("set the prefetch"))?;
        let consumer = channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
            .await
            .map_err(QueueError::doing(format!("consume {queue}")))?;
        Ok(Source { channel, consumer, unacked: Unacked::default() })
    }
}

/// The places of the two queues in an [`Origin`].
const EVENTS: usize = 0;
const PARKED: usize = 1;

/// One queue's consumer on a channel of its own, so that acking many at once is safe.
struct Source {
    channel: Channel,
    consumer: Consumer,
    unacked: Unacked,
}

impl Source {
    async fn acknowledge(&mut self) -> Result<(), String> {
        self.unacked.ack().await.map_err(|e| format!("deliveries could not be acknowledged: {e}"))
    }

    async fn cancel(&self) {
        // The connection is closed right after; the broker then takes back what was not acked.
        let _ = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
    }
}

/// Decodes a delivery and deals its events out.
async fn take(
    source: usize,
    from: &mut Source,
    delivery: &Delivery,
    lanes: &mut Lanes,
    dead: &Channel,
) -> Result<(), String> {
    let bytes = delivery.data.len();
    match envelope::decode(&delivery.data) {
        Ok(envelope) => {
            let number = from.unacked.take(delivery, envelope.events.len());
            let origin = Origin { source, number };
            if !envelope.secrets_used.is_empty() {
                lanes.note_uses(envelope.secrets_used);
            }
            if envelope.events.is_empty() {
                return from.acknowledge().await;
            }
            if delivery.redelivered {
                metrics::worker().envelopes.inc(&["redelivered"]);
                lanes.deal_again(envelope.events, origin, bytes);
            } else {
                lanes.deal(envelope.events, origin, bytes);
            }
            Ok(())
        }
        Err(error) => {
            // Not ours, or of a version to come: a person must look, nothing else waits for it.
            tracing::error!(%error, "a message is no envelope and was put among the dead letters");
            topology::publish_dead(dead, &delivery.data).await.map_err(|e| e.to_string())?;
            metrics::worker().envelopes.inc(&["unreadable"]);
            from.unacked.take(delivery, 0);
            from.acknowledge().await
        }
    }
}

/// Tells the deliveries which of their events are committed, and the broker which deliveries are.
async fn settled(done: Result<Vec<(Origin, usize)>, Stuck>, sources: [&mut Source; 2]) -> Result<(), String> {
    let done = done.map_err(|stuck| match stuck {
        Stuck::Store(error) if error.is_unreachable() => "Postgres is away; messages go back to the broker".to_owned(),
        stuck => stuck.to_string(),
    })?;
    for (at, source) in sources.into_iter().enumerate() {
        for (origin, events) in done.iter().filter(|(origin, _)| origin.source == at) {
            source.unacked.settled(origin.number, *events);
        }
        source.acknowledge().await?;
    }
    Ok(())
}
