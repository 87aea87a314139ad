//! Making a report durable before it is answered 200: on the broker's disk, else on this one's, else
//! not at all, and then the sender is told.

mod broker;

use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use trueup_shared::domain::event::{RawEvent, SecretUse};
use trueup_shared::ops::http::Dependency;
use trueup_shared::queue::envelope;

use broker::Broker;

/// Events in the form in which they travel, written once whatever way they go.
pub struct Events {
    parts: Vec<Vec<u8>>,
    bytes: usize,
    uses: Vec<SecretUse>,
}

impl Events {
    pub fn of(events: &[RawEvent]) -> Arc<Events> {
        Events::with_uses(events, Vec::new())
    }

    pub fn with_uses(events: &[RawEvent], uses: Vec<SecretUse>) -> Arc<Events> {
        let parts: Vec<Vec<u8>> = events.iter().map(envelope::encode_event).collect();
        let bytes = parts.iter().map(Vec::len).sum();
        Arc::new(Events { parts, bytes, uses })
    }

    pub fn len(&self) -> usize {
        self.parts.len()
    }
}

/// Why nobody has the events. (Or, after a lost confirm, perhaps somebody has; their ids are unique,
/// so that sending them again does no harm.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// No broker, or it blocks publishers, or did not say in time that it has them.
    Away,
    /// As much is waiting for the broker as may wait.
    Full,
}

pub struct Durable {
    broker: Broker,
}

pub struct Settings {
    pub amqp_url: SecretString,
    pub queue_max_length: std::num::NonZeroU32,
}

impl Durable {
    pub fn start(settings: Settings, health: Dependency, stop: CancellationToken) -> Durable {
        Durable { broker: Broker::start(settings, health, stop) }
    }

    /// `Ok` only when the events will survive whatever happens to this process.
    pub async fn take(&self, events: Arc<Events>) -> Result<(), NotTaken> {
        self.broker.publish(events).await
    }
}
