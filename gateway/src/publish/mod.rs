//! Making a report durable before it is answered 200: on the broker's disk, else on this one's, else
//! not at all, and then the sender is told.

mod batch_allowance;
mod broker;
mod connection;
mod encoded_events;
mod in_flight;
mod message;
mod spool;

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Readiness;
use trueup_ops::metrics::DependencyName;
use trueup_ops::shutdown::spawn_vital;
use trueup_ops::tls::TlsFiles;
pub use trueup_queue::topology::QueueBounds;

use batch_allowance::AccountAllowances;
pub use batch_allowance::BatchAllowance;
use broker::Broker;
pub use encoded_events::{EncodedEvents, PublishError};
pub use spool::{OpenSpool, Spool, SpoolError};

/// With a spool, how long the broker may take before the disk is used instead: both together must be
/// quicker than a sender's patience (2 s).
const BROKER_FIRST: Duration = Duration::from_millis(1000);
/// Without one, how long the broker has.
const BROKER_ALONE: Duration = Duration::from_millis(1500);
/// Between looks at a spool that could not be emptied.
const DRAIN_AGAIN: Duration = Duration::from_millis(500);

pub struct DurablePublisher {
    broker: Arc<Broker>,
    spool: Option<Arc<Spool>>,
    batches: AccountAllowances,
}

pub struct PublishSettings {
    pub batches: BatchAllowance,
    pub amqp_url: SecretString,
    pub tls: TlsFiles,
    pub queue_bounds: QueueBounds,
    pub spool: Option<OpenSpool>,
}

impl DurablePublisher {
    /// The dependencies are the broker and, where there is one, the spool.
    pub fn start_publishing(
        settings: PublishSettings,
        readiness: &Readiness,
        stop: CancellationToken,
    ) -> Result<DurablePublisher, SpoolError> {
        let meanwhile = match settings.spool {
            Some(_) => "reports are kept on this disk",
            None => "reports are answered 503",
        };
        let broker = broker::BrokerSettings {
            amqp_url: settings.amqp_url,
            tls: settings.tls,
            queue_bounds: settings.queue_bounds,
            meanwhile,
        };
        let broker = Arc::new(Broker::start_publishing(
            broker,
            readiness.add_dependency(DependencyName::Broker),
            stop.clone(),
        ));
        let spool = match settings.spool {
            Some(opened) => {
                let spool =
                    Arc::new(opened.start(readiness.add_dependency(DependencyName::Spool))?);
                spawn_vital(
                    "spool",
                    drain_spool(Arc::clone(&spool), Arc::clone(&broker), stop),
                );
                Some(spool)
            }
            None => None,
        };
        Ok(DurablePublisher {
            broker,
            spool,
            batches: AccountAllowances::new(settings.batches),
        })
    }

    /// `Ok` only when the events will survive whatever happens to this process.
    pub async fn persist_events(&self, events: Arc<EncodedEvents>) -> Result<(), PublishError> {
        let Some(account) = events.account.filter(|_| events.is_large()) else {
            return self.store_events(events).await;
        };
        let used = self
            .batches
            .try_take(account, events.amount, Instant::now())
            .ok_or(PublishError::Full)?;
        let stored = self.store_events(events).await;
        if stored.is_err() {
            self.batches.release_unused(&used, Instant::now());
        }
        stored
    }

    async fn store_events(&self, events: Arc<EncodedEvents>) -> Result<(), PublishError> {
        let Some(spool) = &self.spool else {
            return self.broker.publish_events(events, BROKER_ALONE).await;
        };
        match self
            .broker
            .publish_events(Arc::clone(&events), BROKER_FIRST)
            .await
        {
            Ok(()) => Ok(()),
            // Uses of secrets are not worth a place on the disk: who has them notes them again.
            Err(not_taken) if events.parts.is_empty() => Err(not_taken),
            Err(_) => spool.append_group(events).await,
        }
    }
}

/// Brings the spool's reports to the broker when it is there, one message at a time: the new ones,
/// which go straight to it, come first.
async fn drain_spool(spool: Arc<Spool>, broker: Arc<Broker>, stop: CancellationToken) {
    let forever = async {
        // On the broker, and not yet off the disk: a disk that cannot be written must not have the same
        // reports sent again and again.
        let mut sent: Option<u64> = None;
        loop {
            if let Some(last) = sent {
                if spool.remove_through(last).await {
                    sent = None;
                } else {
                    tokio::time::sleep(DRAIN_AGAIN).await;
                }
                continue;
            }
            if spool.is_empty() {
                spool.wait_non_empty().await;
            }
            if broker.is_open()
                && let Some(batch) = spool.oldest_batch().await
                && broker
                    .publish_events(batch.events, BROKER_ALONE)
                    .await
                    .is_ok()
            {
                sent = Some(batch.last);
                continue;
            }
            tokio::time::sleep(DRAIN_AGAIN).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = forever => {}
    }
}
