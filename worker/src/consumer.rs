//! Takes envelopes from the broker, has their events settled in lanes, acknowledges them; forever.
//!
//! Decoding goes on while batches are being settled; what waits is bounded ([`Scheduler::has_room`]). One
//! supervisor builds connection, topology and consumers anew after every loss. A worker that
//! cannot reach Postgres takes no messages: it would only burn their delivery counts.

use std::time::Duration;

use lapin::Channel;
use lapin::message::Delivery;
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trueup_event::envelope;
use trueup_ops::backoff::Backoff;
use trueup_ops::health::{Dependency, Readiness};
use trueup_ops::metrics::{self, DependencyName, EnvelopeOutcome};
use trueup_ops::private_listener;
use trueup_ops::settings::WorkerArgs;
use trueup_ops::shutdown::{ExitReason, Failure, Shutdown, spawn_vital};
use trueup_queue::connection::BrokerConnection;
use trueup_queue::{QueueError, topology};
use trueup_store::settlement::attempts;
use trueup_store::{Pool, PoolProfile, PoolSettings, StoreError, migrate};

use crate::batch_settlement::{BatchProcessor, SettleError};
use crate::fair_queue::{DeliveryTag, EVENTS, OVERFLOW, PARKED};
use crate::periodic_jobs::run_periodically;
use crate::queue_consumer::QueueConsumer;
use crate::queue_depths::watch_depths;
use crate::scheduler::{Scheduler, Settled};
use crate::settings::WorkerSettings;
use crate::{bulk_replay, late_matching, maintenance, reconciliation};

/// Connections beside the lanes': late matches, bulk replays, upkeep, secrets' uses.
const OTHER_CONNECTIONS: usize = 5;
/// From a connection to the first delivery, declarations included: a broker that is just starting lets
/// clients in and may then say nothing, for ever.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// What is told to the broker is on its way within this. The client's own promise may stay open for ever
/// if the connection ends just then.
pub const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Envelopes fetched ahead from the queues beside the main one.
const ASIDE_PREFETCH: u16 = 32;
/// Giving messages back is a courtesy: a broker that does not answer takes them by itself.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Why this worker takes no messages; told by `/ready` until it is over.
#[derive(Debug, thiserror::Error)]
enum DatabaseNotReady {
    /// Somebody has to migrate it.
    #[error("{0}")]
    Unmigrated(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why consuming ended. What was not settled is the broker's again; all is built anew after a pause.
#[derive(Debug, thiserror::Error)]
enum ConsumeError {
    #[error("the connection to the broker is lost")]
    ConnectionLost,
    /// Its queue is gone, or it held messages for too long.
    #[error("the broker ended the consumer")]
    ConsumerEnded,
    #[error(transparent)]
    Broker(#[from] QueueError),
    #[error("deliveries could not be acknowledged: {0}")]
    NotAcknowledged(#[from] lapin::Error),
    #[error("Postgres is away; messages go back to the broker")]
    PostgresAway,
    /// Events that can be neither settled nor set aside.
    #[error(transparent)]
    Stuck(SettleError),
}

pub async fn run(settings: WorkerSettings) -> Result<ExitReason, Failure> {
    let shutdown = Shutdown::install_signals(settings.grace.grace)
        .map_err(|e| Failure::new(ExitReason::Bug, e))?;
    let lanes = settings.worker.worker_lanes.get();
    let pool = Pool::new(
        settings.postgres.postgres_url.expose_secret(),
        &PoolSettings {
            profile: PoolProfile::Settlement,
            tls: settings.postgres.tls(),
            ..PoolSettings::for_application("trueup-worker", lanes as usize + OTHER_CONNECTIONS)
        },
    )
    .map_err(|e| Failure::bad_setting("TRUEUP_POSTGRES_URL", e))?;
    let readiness = Readiness::new("trueup-worker");
    let postgres = readiness.add_dependency(DependencyName::Postgres);
    let broker = readiness.add_dependency(DependencyName::Broker);
    let ops = settings.worker.ops_listen;
    let listener = private_listener::bind_private(ops)
        .await
        .map_err(|e| Failure::unbound_address("TRUEUP_WORKER_OPS_LISTEN", ops, &e))?;
    let ops_stop = CancellationToken::new();
    spawn_vital(
        "private listener",
        private_listener::serve_private(listener, readiness.clone(), ops_stop.clone()),
    );

    let processor = BatchProcessor::new(pool.clone(), lanes, settings.worker.worker_batch.get());
    let settling_jobs = spawn_jobs(&settings, &pool, shutdown.stop())?;
    let (up, within) = (CancellationToken::new(), settings.start.within);
    let supervisor = ConsumerSupervisor {
        settings,
        processor,
        postgres,
        broker,
        shutdown: shutdown.clone(),
        up: up.clone(),
    };
    let consuming = spawn_vital("consumer", async move { supervisor.run().await });

    tokio::select! {
        () = shutdown.stop().cancelled() => {}
        () = never_up(&up, within) => {
            let why = format!("never came up within {} s: {}", within.as_secs(), readiness.down_summary());
            return Err(Failure::new(ExitReason::Unavailable, why));
        }
    }
    readiness.start_draining();
    let exit = shutdown
        .drain(async {
            // Both see the stop by themselves and finish what they have begun.
            let _ = tokio::join!(consuming, settling_jobs);
        })
        .await;
    ops_stop.cancel();
    Ok(exit)
}

/// Starts what is done again and again. Returns the jobs that settle, whose run is finished before the end.
fn spawn_jobs(
    settings: &WorkerSettings,
    pool: &Pool,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>, Failure> {
    let proof_pool = reconciliation::open_pool(&settings.postgres)
        .map_err(|e| Failure::bad_setting("TRUEUP_POSTGRES_URL", e))?;
    let (pool, args, stop) = (pool.clone(), settings.worker.clone(), stop.clone());
    spawn_vital(
        "housekeeping",
        run_periodic_jobs(pool.clone(), proof_pool, args, stop.clone()),
    );
    Ok(spawn_vital("settling jobs", settle_waiting(pool, stop)))
}

async fn run_periodic_jobs(
    pool: Pool,
    proof_pool: Pool,
    args: WorkerArgs,
    stop: CancellationToken,
) {
    tokio::join!(
        run_periodically(maintenance::JOB, stop.clone(), || {
            maintenance::run_maintenance(&pool, &args)
        }),
        run_periodically(maintenance::FIGURES, stop.clone(), async || {
            maintenance::publish_connection_counts(&pool);
            Ok(())
        }),
        run_periodically(reconciliation::JOB, stop, || {
            reconciliation::reconcile_if_due(&proof_pool, args.reconcile_every_hours)
        }),
    );
}

/// Settles what waits elsewhere than with the broker.
async fn settle_waiting(pool: Pool, stop: CancellationToken) {
    tokio::join!(
        run_periodically(late_matching::JOB, stop.clone(), || {
            late_matching::retry_pending_reports(&pool, &stop)
        }),
        run_periodically(bulk_replay::JOB, stop.clone(), || {
            bulk_replay::replay_until_done(&pool, &stop)
        }),
    );
}

/// Ends if the worker has not begun to consume in time; whoever restarts processes should see that.
async fn never_up(up: &CancellationToken, within: Duration) {
    if tokio::time::timeout(within, up.cancelled()).await.is_ok() {
        std::future::pending().await
    }
}

struct ConsumerSupervisor {
    settings: WorkerSettings,
    processor: BatchProcessor,
    postgres: Dependency,
    broker: Dependency,
    shutdown: Shutdown,
    /// Cancelled when it consumes for the first time.
    up: CancellationToken,
}

impl ConsumerSupervisor {
    async fn run(&self) {
        let mut backoff = Backoff::new();
        let stop = self.shutdown.stop();
        while !stop.is_cancelled() && !self.work_until_lost(&mut backoff).await {
            stop.run_until_cancelled(backoff.wait()).await;
        }
    }

    /// True when it was told to stop, and has finished; false when something is away, and `/ready` says what.
    async fn work_until_lost(&self, backoff: &mut Backoff) -> bool {
        if let Err(why) = self.postgres_can_work().await {
            self.postgres.set_down(why.to_string());
            return false;
        }
        self.postgres.ok();
        match self.consume_until_lost(backoff).await {
            Ok(()) => true,
            Err(error) => {
                self.broker.set_down(error.to_string());
                false
            }
        }
    }

    /// It has the schema that this worker knows, and takes a write.
    async fn postgres_can_work(&self) -> Result<(), DatabaseNotReady> {
        let pool = self.processor.pool();
        match migrate::pending_migration(pool).await? {
            None => Ok(attempts::probe_database(pool).await?),
            Some(why) => Err(DatabaseNotReady::Unmigrated(why)),
        }
    }

    /// Consumes until told to stop (`Ok`) or until something breaks.
    async fn consume_until_lost(&self, backoff: &mut Backoff) -> Result<(), ConsumeError> {
        let (url, tls) = (&self.settings.amqp.amqp_url, &self.settings.amqp.tls());
        let (session, moving) = tokio::try_join!(
            BrokerConnection::connect_over(url, tls, "trueup-worker"),
            BrokerConnection::connect_over(url, tls, "trueup-worker-overflow"),
        )?;
        let outcome = tokio::select! {
            outcome = self.consume_session(&session, &moving, backoff) => outcome,
            () = moving.wait_closed() => Err(ConsumeError::ConnectionLost),
            never = watch_depths(&session) => match never {},
        };
        moving.close().await;
        session.close().await;
        outcome
    }

    async fn consume_session(
        &self,
        session: &BrokerConnection,
        moving: &BrokerConnection,
        backoff: &mut Backoff,
    ) -> Result<(), ConsumeError> {
        let opening =
            async { tokio::try_join!(self.open_consumers(session), moving.confirm_channel()) };
        let ((dead, mut sources), moves) = tokio::time::timeout(OPEN_WITHIN, opening)
            .await
            .map_err(|_| QueueError::TimedOut(OPEN_WITHIN))
            .flatten()?;
        self.broker.ok();
        self.up.cancel();
        // With its end, what it is doing is cut short: nothing is settled any more that is given back.
        let lanes = Scheduler::new(
            self.processor.clone(),
            dead.clone(),
            moves,
            self.postgres.clone(),
            self.shutdown.stop().clone(),
        );
        let outcome = self
            .settle_until_stopped(session, lanes, &mut sources, &dead, backoff)
            .await;
        for source in &mut sources {
            if tokio::time::timeout(LEAVE_WITHIN, source.cancel_and_requeue(&dead))
                .await
                .is_err()
            {
                break;
            }
        }
        outcome
    }

    async fn settle_until_stopped(
        &self,
        session: &BrokerConnection,
        mut lanes: Scheduler,
        sources: &mut [QueueConsumer; 3],
        dead: &Channel,
        backoff: &mut Backoff,
    ) -> Result<(), ConsumeError> {
        while let Some(step) = self.next_step(session, &mut lanes, sources).await? {
            match step {
                // Acknowledged after the commit (V12), and before anything else is taken.
                ConsumerInput::Settled(done) => {
                    with_broker_timeout(session, acknowledge_settled(done, sources)).await?;
                    backoff.reset();
                }
                ConsumerInput::Delivered(source, delivery) => {
                    let from = &mut sources[source];
                    let dispatching = dispatch_delivery(source, from, &delivery, &mut lanes, dead);
                    with_broker_timeout(session, dispatching).await?;
                }
            }
        }
        finish_in_hand(session, lanes, sources).await
    }

    /// `None` when it is told to stop.
    async fn next_step(
        &self,
        session: &BrokerConnection,
        lanes: &mut Scheduler,
        [events, parked, overflow]: &mut [QueueConsumer; 3],
    ) -> Result<Option<ConsumerInput>, ConsumeError> {
        let (source, delivery) = tokio::select! {
            biased;
            () = self.shutdown.stop().cancelled() => return Ok(None),
            () = session.wait_closed() => return Err(ConsumeError::ConnectionLost),
            done = lanes.next_result() => return Ok(Some(ConsumerInput::Settled(done))),
            // First, for the little that it may give: else a flood behind it would be in front of it.
            delivery = overflow.next(), if lanes.has_room_for_overflow(!overflow.unacked.is_empty()) => (OVERFLOW, delivery),
            delivery = events.next(), if lanes.has_room() => (EVENTS, delivery),
            delivery = parked.next(), if lanes.has_room() => (PARKED, delivery),
        };
        // The broker ends a consumer whose queue is gone, or that held messages for too long.
        let delivery = delivery.ok_or(ConsumeError::ConsumerEnded)?;
        Ok(Some(ConsumerInput::Delivered(source, Box::new(delivery))))
    }

    /// The topology, a channel for dead letters, the consumers of the three queues.
    async fn open_consumers(
        &self,
        session: &BrokerConnection,
    ) -> Result<(Channel, [QueueConsumer; 3]), QueueError> {
        topology::declare_topology(session.connection(), self.settings.queue_bounds()).await?;
        let dead = session.confirm_channel().await?;
        let prefetch =
            u16::try_from(self.settings.worker.worker_prefetch.get()).unwrap_or(u16::MAX);
        let events = QueueConsumer::open_consumer(session, topology::QUEUE, prefetch).await?;
        let parked =
            QueueConsumer::open_consumer(session, topology::PARKED_QUEUE, ASIDE_PREFETCH).await?;
        let overflow =
            QueueConsumer::open_consumer(session, topology::OVERFLOW_QUEUE, ASIDE_PREFETCH).await?;
        Ok((dead, [events, parked, overflow]))
    }
}

/// What is to be done next.
enum ConsumerInput {
    Settled(Result<Settled, SettleError>),
    /// From which of the queues it came.
    Delivered(usize, Box<Delivery>),
}

/// Settles what is being settled, and gives back what waits.
async fn finish_in_hand(
    session: &BrokerConnection,
    mut lanes: Scheduler,
    sources: &mut [QueueConsumer; 3],
) -> Result<(), ConsumeError> {
    for source in &*sources {
        // A failure is the connection's end, which is met below.
        let _ = tokio::time::timeout(LEAVE_WITHIN, source.cancel()).await;
    }
    lanes.give_up_waiting();
    while !lanes.is_idle() {
        let done = tokio::select! {
            () = session.wait_closed() => return Err(ConsumeError::ConnectionLost),
            done = lanes.next_result() => done,
        };
        with_broker_timeout(session, acknowledge_settled(done, sources)).await?;
        lanes.give_up_waiting();
    }
    Ok(())
}

/// Whatever speaks to the broker, for as long as there is one to speak to.
async fn with_broker_timeout(
    session: &BrokerConnection,
    telling: impl Future<Output = Result<(), ConsumeError>>,
) -> Result<(), ConsumeError> {
    tokio::select! {
        biased;
        told = telling => told,
        () = session.wait_closed() => Err(ConsumeError::ConnectionLost),
        () = tokio::time::sleep(TOLD_WITHIN) => Err(QueueError::TimedOut(TOLD_WITHIN).into()),
    }
}

/// Decodes a delivery and deals its events out.
async fn dispatch_delivery(
    source: usize,
    from: &mut QueueConsumer,
    delivery: &Delivery,
    lanes: &mut Scheduler,
    dead: &Channel,
) -> Result<(), ConsumeError> {
    let bytes = delivery.data.len();
    // Whose events go another way anyhow need not be read here.
    if source == EVENTS
        && !delivery.redelivered
        && let Some(account) = topology::account_of(&delivery.properties)
    {
        let is_moved = lanes.is_moved(account);
        if is_moved || lanes.is_held(account) {
            let number = from.unacked.add_delivery(delivery, 1);
            let tag = DeliveryTag { source, number };
            let bytes = delivery.data.clone();
            if is_moved {
                lanes.enqueue_moved_message(account, bytes, tag);
            } else {
                lanes.hold_message(account, bytes, tag);
            }
            return Ok(());
        }
    }
    if source == OVERFLOW
        && let Some(account) = topology::account_of(&delivery.properties)
    {
        lanes.record_taken_back(account);
    }
    match envelope::decode_envelope(&delivery.data) {
        Ok(envelope) => {
            let number = from.unacked.add_delivery(delivery, envelope.events.len());
            let origin = DeliveryTag { source, number };
            if !envelope.secrets_used.is_empty() {
                lanes.enqueue_secret_uses(envelope.secrets_used);
            }
            if envelope.events.is_empty() {
                return Ok(from.acknowledge().await?);
            }
            if delivery.redelivered {
                metrics::worker()
                    .envelopes
                    .inc(EnvelopeOutcome::Redelivered);
                lanes.enqueue_redelivered(envelope.events, origin, bytes);
            } else if source == OVERFLOW {
                lanes.enqueue_taken_back(envelope.events, origin, bytes);
            } else {
                lanes.enqueue_events(envelope.events, origin, bytes);
            }
            Ok(())
        }
        Err(error) => {
            // Not ours, or of a version to come: a person must look, nothing else waits for it.
            tracing::error!(%error, "a message is no envelope and was put among the dead letters");
            topology::publish_dead(dead, &delivery.data).await?;
            metrics::worker().envelopes.inc(EnvelopeOutcome::Unreadable);
            from.unacked.add_delivery(delivery, 0);
            Ok(from.acknowledge().await?)
        }
    }
}

/// Tells the deliveries which of their events are committed, and the broker which deliveries are.
async fn acknowledge_settled(
    done: Result<Settled, SettleError>,
    sources: &mut [QueueConsumer; 3],
) -> Result<(), ConsumeError> {
    let done = done.map_err(|stuck| match stuck {
        SettleError::Store(error) if error.is_environment_error() => ConsumeError::PostgresAway,
        stuck => ConsumeError::Stuck(stuck),
    })?;
    for (at, source) in sources.iter_mut().enumerate() {
        for (of, events) in done.reopened.iter().filter(|(of, _)| of.source == at) {
            source.unacked.set_events(of.number, *events);
        }
        for (origin, events) in done.events.iter().filter(|(origin, _)| origin.source == at) {
            source.unacked.mark_settled(origin.number, *events);
        }
        for origin in done.aside.iter().filter(|origin| origin.source == at) {
            source.unacked.mark_aside(origin.number);
        }
        source.acknowledge().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Instant;

    use trueup_testkit::broker_and_redis::Lease;
    use trueup_testkit::tcp_proxy::FaultProxy;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_client_never_answers_ends_with_the_connection() {
        let lease = Lease::acquire().await;
        let cutter = FaultProxy::to(lease.amqp_server()).await;
        let url = lease.amqp_through(cutter.address).to_string();
        let session = BrokerConnection::connect_to(&url.as_str().into(), "test")
            .await
            .expect("connects");
        let told = with_broker_timeout(&session, async { Ok(()) }).await;
        assert!(told.is_ok(), "{told:?}");
        let began = Instant::now();
        let (said, ()) = tokio::join!(with_broker_timeout(&session, pending()), async {
            cutter.cut()
        });
        assert!(
            matches!(said, Err(ConsumeError::ConnectionLost)),
            "{said:?}"
        );
        assert!(
            began.elapsed() < TOLD_WITHIN,
            "the end of the connection was not noticed: {:?}",
            began.elapsed()
        );
    }
}
