//! A connection to the broker with its confirm channels: opened with the topology declared, watched for a
//! block or an end, the topology declared anew when a queue says no.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lapin::Channel;
use parking_lot::Mutex;
use secrecy::SecretString;
use trueup_ops::metrics;
use trueup_ops::tls::TlsFiles;
use trueup_queue::connection::{BrokerConnection, ConnectionHealth};
use trueup_queue::topology::QueueBounds;
use trueup_queue::{QueueError, topology};

/// Messages that may be unconfirmed at once. Few, so that under load the messages grow instead. Each
/// has a channel to itself: the broker's word on a channel, and a message that comes back, can then
/// belong to one message only.
const UNCONFIRMED: usize = 2;
/// Declaring the topology anew.
const DECLARE_WITHIN: Duration = Duration::from_secs(10);
/// A connection that lasted this long was a good one: the next attempt need not wait.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// A queue that says no is declared anew at most this often.
const DECLARE_EVERY: Duration = Duration::from_secs(5);

pub struct PublishConnection {
    session: Arc<BrokerConnection>,
    queue_bounds: QueueBounds,
    since: Instant,
    declared: Mutex<Instant>,
    has_stuck_channel: AtomicBool,
}

/// The connection takes nothing any more.
pub struct ConnectionLost;

impl PublishConnection {
    pub async fn open(
        amqp_url: &SecretString,
        tls: &TlsFiles,
        queue_bounds: QueueBounds,
    ) -> Result<(PublishConnection, Vec<Channel>), QueueError> {
        let session = BrokerConnection::connect_over(amqp_url, tls, "trueup-gateway").await?;
        declare_topology(&session, queue_bounds).await?;
        let mut channels = Vec::with_capacity(UNCONFIRMED);
        for _ in 0..UNCONFIRMED {
            channels.push(session.confirm_channel().await?);
        }
        let connection = PublishConnection {
            session: Arc::new(session),
            queue_bounds,
            since: Instant::now(),
            declared: Mutex::new(Instant::now()),
            has_stuck_channel: AtomicBool::new(false),
        };
        Ok((connection, channels))
    }

    /// The broker takes nothing for the moment.
    pub fn is_blocked(&self) -> bool {
        self.session.health() == ConnectionHealth::Blocked
    }

    /// Whether it is blocked, for `/metrics` too.
    pub fn check_blocked(&self) -> Result<bool, ConnectionLost> {
        let health = self.session.health();
        if health == ConnectionHealth::Closed {
            return Err(ConnectionLost);
        }
        let is_blocked = health == ConnectionHealth::Blocked;
        metrics::gateway().broker_blocked.set(is_blocked);
        if !is_blocked && self.has_stuck_channel.load(Ordering::Relaxed) {
            return Err(ConnectionLost);
        }
        Ok(is_blocked)
    }

    /// Ready when [`PublishConnection::check_blocked`] would say something else than this.
    pub async fn wait_blocked_changed(&self, was_blocked: bool) {
        let was = if was_blocked {
            ConnectionHealth::Blocked
        } else {
            ConnectionHealth::Flowing
        };
        self.session.wait_health_changed(was).await;
    }

    /// A channel was left to a message that the broker never answered while it blocked: with the block,
    /// the connection ends.
    pub fn leave_channel(&self) {
        self.has_stuck_channel.store(true, Ordering::Relaxed);
    }

    pub fn was_good(&self) -> bool {
        self.since.elapsed() >= GOOD_AFTER
    }

    pub async fn close(&self) {
        self.session.close().await;
    }

    /// In the background; a queue that says no may be gone.
    pub fn declare_again(&self) {
        {
            let mut declared = self.declared.lock();
            if declared.elapsed() < DECLARE_EVERY {
                return;
            }
            *declared = Instant::now();
        }
        let (session, queue_bounds) = (Arc::clone(&self.session), self.queue_bounds);
        tokio::spawn(async move {
            if let Err(e) = declare_topology(&session, queue_bounds).await {
                tracing::warn!(error = %e, "the topology could not be declared anew");
            }
        });
    }
}

async fn declare_topology(
    session: &BrokerConnection,
    bounds: QueueBounds,
) -> Result<(), QueueError> {
    let declaring = topology::declare_topology(session.connection(), bounds);
    tokio::time::timeout(DECLARE_WITHIN, declaring)
        .await
        .map_err(|_| QueueError::TimedOut(DECLARE_WITHIN))?
}
