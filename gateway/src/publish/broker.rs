//! Reports onto the broker: a group commit ([`crate::group_commit`]) of persistent messages, each answered
//! by the broker's confirm.
//!
//! Only an ack without a returned message is success. While there is no connection, or it is blocked, no
//! report waits for it.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use trueup_event::amount::Amount;
use trueup_event::envelope;
use trueup_ops::backoff::Backoff;
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, AttemptOutcome};
use trueup_ops::tls::TlsFiles;
use trueup_queue::QueueError;
use trueup_queue::topology::QueueBounds;

use super::connection::{ConnectionLost, PublishConnection};
use super::encoded_events::{EncodedEvents, PublishError};
use super::in_flight::{InFlightCounters, InFlightPermit, WAITING};
use super::message::{ConfirmOutcome, Message};
use crate::group_commit::{Backend, Bounds, Connected, GroupCommit, Pending, QueueFull};

pub struct BrokerSettings {
    pub amqp_url: SecretString,
    pub tls: TlsFiles,
    pub queue_bounds: QueueBounds,
    /// What happens to reports while the broker is away, for `/ready` to say.
    pub meanwhile: &'static str,
}

pub struct Broker {
    messages: GroupCommit<BrokerBackend>,
    load: InFlightCounters,
}

impl Broker {
    pub fn start_publishing(
        settings: BrokerSettings,
        health: Dependency,
        stop: CancellationToken,
    ) -> Broker {
        let backend = BrokerBackend {
            amqp_url: settings.amqp_url,
            tls: settings.tls,
            queue_bounds: settings.queue_bounds,
            backoff: Backoff::new(),
        };
        Broker {
            messages: GroupCommit::start(backend, settings.meanwhile, health, stop),
            load: InFlightCounters::default(),
        }
    }

    /// A publish now has a chance.
    pub fn is_open(&self) -> bool {
        self.messages.is_open()
    }

    pub async fn publish_events(
        &self,
        events: Arc<EncodedEvents>,
        within: Duration,
    ) -> Result<(), PublishError> {
        if !self.is_open() {
            return Err(PublishError::Away);
        }
        let kept = Arc::clone(&events);
        let _place = InFlightPermit::try_acquire(&self.load, &kept).ok_or(PublishError::Full)?;
        let publishing = async {
            // One after another: the first holds what the others have in common with it (X3).
            for piece in events.split_for_messages() {
                let confirmed = self.messages.submit(piece).await;
                confirmed
                    .map_err(|QueueFull| PublishError::Full)?
                    .ok_or(PublishError::Away)?;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(within, publishing).await;
        outcome.unwrap_or(Err(PublishError::Away))
    }
}

struct BrokerBackend {
    amqp_url: SecretString,
    tls: TlsFiles,
    queue_bounds: QueueBounds,
    backoff: Backoff,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Disconnected {
    #[error(transparent)]
    NotMade(#[from] QueueError),
    #[error("the connection was lost")]
    Lost,
    /// No confirm in time, and the broker did not say that it blocks.
    #[error("the broker did not confirm in time")]
    Silent,
    /// A message came back: nothing takes what we publish.
    #[error("the broker has no queue for reports; declaring it anew")]
    Returned,
}

impl Backend for BrokerBackend {
    const NAME: &'static str = "broker";
    const BOUNDS: Bounds = Bounds {
        queued: WAITING.events,
        gathered: envelope::USUAL_EVENTS,
        enough: 32,
    };

    type Item = Arc<EncodedEvents>;
    /// The broker has it.
    type Reply = ();
    type Connection = PublishConnection;
    type Channel = Channel;
    type Fault = Disconnected;

    async fn connect(&mut self) -> Result<Connected<Self>, Disconnected> {
        let opened = PublishConnection::open(&self.amqp_url, &self.tls, self.queue_bounds).await;
        metrics::gateway().broker_connects.inc(match &opened {
            Ok(_) => AttemptOutcome::Ok,
            Err(_) => AttemptOutcome::Failed,
        });
        let (connection, channels) = opened?;
        Ok(Connected {
            connection,
            channels,
        })
    }

    fn next_pause(&mut self) -> Duration {
        self.backoff.next_pause()
    }

    async fn disconnect(&mut self, connection: PublishConnection, _: Option<&Disconnected>) {
        if connection.was_good() {
            self.backoff.reset();
        }
        connection.close().await;
    }

    fn check_obstacle(
        &self,
        connection: &PublishConnection,
    ) -> Result<Option<&'static str>, Disconnected> {
        let is_blocked = connection
            .check_blocked()
            .map_err(|ConnectionLost| Disconnected::Lost)?;
        Ok(is_blocked.then_some("the broker takes no messages (memory or disk alarm)"))
    }

    async fn wait_obstacle_changed(
        &self,
        connection: &PublishConnection,
        was: Option<&'static str>,
    ) {
        connection.wait_blocked_changed(was.is_some()).await;
    }

    /// Uses of secrets alone are something to send, too.
    fn weight(events: &Arc<EncodedEvents>) -> usize {
        events.event_count().max(1)
    }

    /// As much as a message may hold. Whose sender was told already is left out.
    fn next_group(&self, gathered: &mut Vec<Pending<Self>>) -> Option<Vec<Pending<Self>>> {
        gathered.retain(|one| !one.is_abandoned());
        let mut amount = Amount::default();
        let fits = gathered.iter().take_while(|one| {
            let is_first = amount == Amount::default();
            amount.add(one.item.amount);
            is_first || amount.is_within(envelope::USUAL_AMOUNT)
        });
        let count = fits.count();
        (count > 0).then(|| gathered.drain(..count).collect())
    }

    async fn send_group(
        &self,
        connection: &PublishConnection,
        channel: Channel,
        group: Vec<Pending<Self>>,
    ) -> Result<Option<Channel>, Disconnected> {
        let message = Message::assemble(group.iter().map(|one| one.item.as_ref()));
        match message.publish_on(&channel).await {
            ConfirmOutcome::Taken => group.into_iter().for_each(|one| one.answer(())),
            ConfirmOutcome::No => connection.declare_again(),
            ConfirmOutcome::Nothing if connection.is_blocked() => {
                connection.leave_channel();
                return Ok(None);
            }
            ConfirmOutcome::Nothing => return Err(Disconnected::Silent),
            ConfirmOutcome::Returned => return Err(Disconnected::Returned),
        }
        Ok(Some(channel))
    }
}
