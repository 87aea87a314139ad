//! Group commit into the broker: what arrives while confirms are out rides in the next message.
//!
//! The broker's cost is per message and not per byte, so a busy door puts many events into one, and an
//! idle one sends each at once: the more messages are out, the more must be waiting for the next. There
//! is no timer; what waits goes at the latest with the next confirm. Only an ack without a returned
//! message is success. One supervisor builds the connection, forever; while there is none, or it is
//! blocked, nothing waits for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trueup_event::amount::Amount;
use trueup_event::envelope;
use trueup_event::raw_event::SecretUse;
use trueup_ops::backoff::Backoff;
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, AttemptOutcome, BrokerReply};
use trueup_ops::shutdown::spawn_vital;
use trueup_ops::tls::TlsFiles;
use trueup_queue::connection::BrokerConnection;
use trueup_queue::topology::QueueBounds;
use trueup_queue::{QueueError, topology};
use uuid::Uuid;

use super::encoded_events::{EncodedEvents, PublishError};

/// From handing events over to the broker's word; senders give up after 2 s.
const CONFIRM_WITHIN: Duration = Duration::from_millis(1500);
/// Messages that may be unconfirmed at once. Few, so that under load the messages grow instead. Each
/// has a channel to itself: the broker's word on a channel, and a message that comes back, can then
/// belong to one message only.
const UNCONFIRMED: usize = 2;
/// With a message out, the next goes when so many events wait for it.
const ENOUGH: usize = 32;
/// What may wait for the broker in all; more is answered 503 at once.
const WAITING: Amount = Amount {
    events: 20_000,
    bytes: 64 * 1024 * 1024,
};
/// The part of it that one account may have waiting: a slow broker is not one account's to fill.
const ACCOUNT_PART: usize = 4;
/// Declaring the topology anew.
const DECLARE_WITHIN: Duration = Duration::from_secs(10);
/// A connection that lasted this long was a good one: the next attempt need not wait.
const GOOD_AFTER: Duration = Duration::from_secs(5);
/// A queue that says no is declared anew at most this often.
const DECLARE_EVERY: Duration = Duration::from_secs(5);

pub struct BrokerSettings {
    pub amqp_url: SecretString,
    pub tls: TlsFiles,
    pub queue_bounds: QueueBounds,
    /// What happens to reports while the broker is away, for `/ready` to say.
    pub meanwhile: &'static str,
}

struct PendingPublish {
    events: Arc<EncodedEvents>,
    reply: oneshot::Sender<Result<(), PublishError>>,
}

/// What waits for the broker.
#[derive(Default)]
struct InFlightCounters {
    /// A publish now has a chance.
    open: AtomicBool,
    waiting: Mutex<WaitingEvents>,
}

#[derive(Default)]
struct WaitingEvents {
    all: Amount,
    /// Of each account that has something waiting.
    of_accounts: HashMap<Uuid, Amount>,
}

impl WaitingEvents {
    /// False if there is no room for them; then nothing was added.
    fn try_add(&mut self, events: &EncodedEvents) -> bool {
        let more = events.amount;
        let mut all = self.all;
        all.add(more);
        if !all.is_within(WAITING) {
            return false;
        }
        if let Some(id) = events.account {
            let before = self.of_accounts.get(&id).copied().unwrap_or_default();
            let mut of_account = before;
            of_account.add(more);
            // One alone may be larger.
            let is_first = before == Amount::default();
            if !is_first && !of_account.is_within(WAITING.part(ACCOUNT_PART)) {
                return false;
            }
            self.of_accounts.insert(id, of_account);
        }
        self.all = all;
        true
    }

    fn subtract(&mut self, events: &EncodedEvents) {
        let less = events.amount;
        self.all.subtract(less);
        if let Some(id) = events.account
            && let Some(of_account) = self.of_accounts.get_mut(&id)
        {
            of_account.subtract(less);
            if *of_account == Amount::default() {
                self.of_accounts.remove(&id);
            }
        }
    }
}

pub struct Broker {
    parcels: mpsc::Sender<PendingPublish>,
    load: Arc<InFlightCounters>,
}

/// Takes its part off the load again, however the request ends.
struct InFlightPermit<'a> {
    load: &'a InFlightCounters,
    events: &'a EncodedEvents,
}

impl<'a> InFlightPermit<'a> {
    fn try_acquire(
        load: &'a InFlightCounters,
        events: &'a EncodedEvents,
    ) -> Option<InFlightPermit<'a>> {
        let has_room = load.change_waiting(|waiting| waiting.try_add(events));
        has_room.then_some(InFlightPermit { load, events })
    }
}

impl InFlightCounters {
    fn change_waiting<T>(&self, change: impl FnOnce(&mut WaitingEvents) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let outcome = change(&mut waiting);
        metrics::gateway().in_flight.set(waiting.all.events);
        outcome
    }
}

impl Drop for InFlightPermit<'_> {
    fn drop(&mut self) {
        self.load
            .change_waiting(|waiting| waiting.subtract(self.events));
    }
}

impl Broker {
    pub fn start_publishing(
        settings: BrokerSettings,
        health: Dependency,
        stop: CancellationToken,
    ) -> Broker {
        let (parcels, waiting) = mpsc::channel(WAITING.events);
        let load = Arc::new(InFlightCounters::default());
        let supervisor = BrokerSupervisor {
            settings,
            health,
            load: Arc::clone(&load),
            waiting,
            gathered: Vec::new(),
        };
        spawn_vital("broker", supervisor.run(stop));
        Broker { parcels, load }
    }

    /// A publish now has a chance.
    pub fn is_open(&self) -> bool {
        self.load.open.load(Ordering::Relaxed)
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
                self.publish_piece(piece).await?;
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(within, publishing).await;
        outcome.unwrap_or(Err(PublishError::Away))
    }

    async fn publish_piece(&self, events: Arc<EncodedEvents>) -> Result<(), PublishError> {
        let (reply, answer) = oneshot::channel();
        self.parcels
            .try_send(PendingPublish { events, reply })
            .map_err(|_| PublishError::Full)?;
        answer.await.unwrap_or(Err(PublishError::Away))
    }
}

struct BrokerSupervisor {
    settings: BrokerSettings,
    health: Dependency,
    load: Arc<InFlightCounters>,
    waiting: mpsc::Receiver<PendingPublish>,
    /// What has come and is in no message yet.
    gathered: Vec<PendingPublish>,
}

/// Why a connection is given up.
enum DisconnectReason {
    Lost,
    /// The broker is silent: no confirm in time, and it did not say that it blocks.
    Silent,
    /// A message came back: nothing takes what we publish.
    Returned,
    /// Nobody publishes any more.
    Finished,
}

impl BrokerSupervisor {
    #[allow(
        clippy::cognitive_complexity,
        reason = "one select over the six states of a connection; apart they would hide which may follow which"
    )]
    async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let opened = tokio::select! {
                () = stop.cancelled() => return,
                opened = open_channels(&self.settings) => opened,
            };
            match opened {
                Ok((session, channels)) => {
                    metrics::gateway().broker_connects.inc(AttemptOutcome::Ok);
                    let since = Instant::now();
                    let end = tokio::select! {
                        () = stop.cancelled() => DisconnectReason::Finished,
                        end = self.serve_connection(&session, channels) => end,
                    };
                    self.set_open(false);
                    session.close().await;
                    match end {
                        DisconnectReason::Finished => return,
                        DisconnectReason::Lost => self.mark_away("the connection was lost"),
                        DisconnectReason::Silent => {
                            self.mark_away("the broker did not confirm in time")
                        }
                        DisconnectReason::Returned => {
                            self.mark_away("the broker has no queue for reports; declaring it anew")
                        }
                    }
                    if since.elapsed() >= GOOD_AFTER {
                        backoff.reset();
                    }
                }
                Err(e) => {
                    metrics::gateway()
                        .broker_connects
                        .inc(AttemptOutcome::Failed);
                    self.mark_away(&e.to_string());
                }
            }
            // Whoever slipped in before the way was closed is told now, not when time is up.
            report_outcome(std::mem::take(&mut self.gathered), ConfirmOutcome::Nothing);
            while let Ok(parcel) = self.waiting.try_recv() {
                let _ = parcel.reply.send(Err(PublishError::Away));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    fn mark_away(&self, why: &str) {
        self.health
            .set_degraded(format!("{}: {why}", self.settings.meanwhile));
    }

    fn set_open(&self, open: bool) {
        self.load.open.store(open, Ordering::Relaxed);
    }

    #[allow(
        clippy::cognitive_complexity,
        reason = "one loop that gathers, sends and hears confirms at once"
    )]
    async fn serve_connection(
        &mut self,
        session: &Arc<BrokerConnection>,
        mut free: Vec<Channel>,
    ) -> DisconnectReason {
        let mut out = FuturesUnordered::new();
        let mut closed = std::pin::pin!(session.wait_closed());
        let mut declared = Instant::now();
        let mut was_blocked = None;
        loop {
            let blocked = session.is_blocked();
            if !blocked && free.len() + out.len() < UNCONFIRMED {
                // Channels were left to messages that the broker never answered while it blocked.
                return DisconnectReason::Lost;
            }
            if was_blocked != Some(blocked) {
                was_blocked = Some(blocked);
                self.set_open(!blocked);
                metrics::gateway().broker_blocked.set(blocked);
                match blocked {
                    true => self.mark_away("the broker takes no messages (memory or disk alarm)"),
                    false => self.health.ok(),
                }
            }
            while !blocked
                && !free.is_empty()
                && is_enough(&self.gathered, out.len())
                && let Some(parcels) = self.next_message()
            {
                out.extend(free.pop().map(|channel| send_envelope(channel, parcels)));
            }
            tokio::select! {
                biased;
                () = &mut closed => return DisconnectReason::Lost,
                () = session.wait_changed() => {}
                Some(PublishOutcome { said, parcels, channel }) = out.next(), if !out.is_empty() => {
                    report_outcome(parcels, said);
                    match said {
                        ConfirmOutcome::Taken => free.push(channel),
                        ConfirmOutcome::Nothing if session.is_blocked() => {}
                        ConfirmOutcome::Nothing => return DisconnectReason::Silent,
                        ConfirmOutcome::Returned => return DisconnectReason::Returned,
                        ConfirmOutcome::No => {
                            free.push(channel);
                            if declared.elapsed() >= DECLARE_EVERY {
                                declared = Instant::now();
                                declare_again(Arc::clone(session), self.settings.queue_bounds);
                            }
                        }
                    }
                }
                came = self.waiting.recv_many(&mut self.gathered, envelope::USUAL_EVENTS), if self.gathered.len() < envelope::USUAL_EVENTS => {
                    if came == 0 {
                        return DisconnectReason::Finished;
                    }
                }
            }
        }
    }

    /// Of what waits, as much as a message may hold. Whose sender was told already is left out.
    fn next_message(&mut self) -> Option<Vec<PendingPublish>> {
        self.gathered.retain(|parcel| !parcel.reply.is_closed());
        let mut amount = Amount::default();
        let fits = self.gathered.iter().take_while(|parcel| {
            let is_first = amount == Amount::default();
            amount.add(parcel.events.amount);
            is_first || amount.is_within(envelope::USUAL_AMOUNT)
        });
        let count = fits.count();
        (count > 0).then(|| self.gathered.drain(..count).collect())
    }
}

/// Something, if no message is out, so that an idle door waits for nothing.
fn is_enough(gathered: &[PendingPublish], out: usize) -> bool {
    let events: usize = gathered
        .iter()
        .map(|parcel| parcel.events.event_count().max(1))
        .sum();
    events > 0 && events >= ENOUGH * out
}

async fn open_channels(
    settings: &BrokerSettings,
) -> Result<(Arc<BrokerConnection>, Vec<Channel>), QueueError> {
    let session =
        BrokerConnection::connect_over(&settings.amqp_url, &settings.tls, "trueup-gateway").await?;
    let declaring = topology::declare_topology(session.connection(), settings.queue_bounds);
    tokio::time::timeout(DECLARE_WITHIN, declaring)
        .await
        .map_err(|_| QueueError::TimedOut(DECLARE_WITHIN))??;
    let mut channels = Vec::with_capacity(UNCONFIRMED);
    for _ in 0..UNCONFIRMED {
        channels.push(session.confirm_channel().await?);
    }
    Ok((Arc::new(session), channels))
}

fn declare_again(session: Arc<BrokerConnection>, bounds: QueueBounds) {
    tokio::spawn(async move {
        let declaring = topology::declare_topology(session.connection(), bounds);
        if let Ok(Err(e)) = tokio::time::timeout(DECLARE_WITHIN, declaring).await {
            tracing::warn!(error = %e, "the topology could not be declared anew");
        }
    });
}

/// What the broker said to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConfirmOutcome {
    Taken,
    No,
    Returned,
    Nothing,
}

struct PublishOutcome {
    said: ConfirmOutcome,
    parcels: Vec<PendingPublish>,
    channel: Channel,
}

async fn send_envelope(channel: Channel, parcels: Vec<PendingPublish>) -> PublishOutcome {
    let figures = metrics::gateway();
    let events = parcels
        .iter()
        .flat_map(|parcel| parcel.events.parts.iter())
        .map(|part| part.bytes.as_slice());
    let bytes = parcels
        .iter()
        .map(|parcel| parcel.events.amount.bytes + parcel.events.event_count())
        .sum();
    let uses: Vec<SecretUse> = parcels
        .iter()
        .flat_map(|parcel| parcel.events.uses.iter().cloned())
        .collect();
    let message = envelope::assemble_envelope(events, bytes, &uses);
    let account = parcels.first().and_then(|parcel| parcel.events.account);
    let account = account.filter(|_| {
        let mut accounts = parcels.iter().map(|parcel| parcel.events.account);
        uses.is_empty() && accounts.all(|of| of == account)
    });
    let count: usize = parcels
        .iter()
        .map(|parcel| parcel.events.event_count())
        .sum();
    figures.envelope_events.observe_count(count);
    let began = Instant::now();
    let publishing = async {
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let (exchange, key) = (topology::EXCHANGE.into(), topology::ROUTING_KEY.into());
        channel
            .basic_publish(
                exchange,
                key,
                options,
                &message,
                topology::message_properties(account),
            )
            .await?
            .await
    };
    let (said, label) = match tokio::time::timeout(CONFIRM_WITHIN, publishing).await {
        Ok(Ok(confirmation)) => {
            figures.confirm_seconds.since(began);
            read_confirmation(&confirmation)
        }
        Ok(Err(_)) => (ConfirmOutcome::Nothing, BrokerReply::Error),
        Err(_) => (ConfirmOutcome::Nothing, BrokerReply::NoConfirm),
    };
    figures.publishes.inc(label);
    PublishOutcome {
        said,
        parcels,
        channel,
    }
}

/// Only an ack that brings nothing back is success: an unroutable message is acked, too.
fn read_confirmation(confirmation: &Confirmation) -> (ConfirmOutcome, BrokerReply) {
    match confirmation {
        Confirmation::Ack(None) => (ConfirmOutcome::Taken, BrokerReply::Confirmed),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
            (ConfirmOutcome::Returned, BrokerReply::Returned)
        }
        Confirmation::Nack(None) => (ConfirmOutcome::No, BrokerReply::Nacked),
        // A channel without confirms would be a bug of ours.
        Confirmation::NotRequested => (ConfirmOutcome::Nothing, BrokerReply::Error),
    }
}

fn report_outcome(parcels: Vec<PendingPublish>, said: ConfirmOutcome) {
    for parcel in parcels {
        let _ = parcel.reply.send(if said == ConfirmOutcome::Taken {
            Ok(())
        } else {
            Err(PublishError::Away)
        });
    }
}

#[cfg(test)]
mod tests {
    use trueup_event::raw_event::RawEvent;

    use super::*;

    fn parcels(count: usize, events_each: usize) -> Vec<PendingPublish> {
        let event = RawEvent {
            id: uuid::Uuid::nil(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            account_id: uuid::Uuid::nil(),
            webhook_id: uuid::Uuid::nil(),
            position: 0,
            source_ip: std::net::IpAddr::from([192, 0, 2, 7]),
            request: None,
            refusal: None,
        };
        let events = EncodedEvents::from_events(&vec![event; events_each]);
        std::iter::repeat_with(|| PendingPublish {
            events: Arc::clone(&events),
            reply: oneshot::channel().0,
        })
        .take(count)
        .collect()
    }

    #[test]
    fn one_account_fills_only_its_part_of_what_may_wait() {
        let load = InFlightCounters::default();
        let of = |account: u128, events: usize| {
            Arc::new(EncodedEvents::of_account(Uuid::from_u128(account), events))
        };
        let (flood, other) = (of(1, 500), of(2, 500));
        let mut places = Vec::new();
        while let Some(place) = InFlightPermit::try_acquire(&load, &flood) {
            places.push(place);
        }
        assert_eq!(places.len() * 500, WAITING.part(ACCOUNT_PART).events);
        let others = InFlightPermit::try_acquire(&load, &other);
        assert!(others.is_some());
        drop((places, others));
        load.change_waiting(|waiting| {
            assert!(waiting.all == Amount::default() && waiting.of_accounts.is_empty());
        });
        let whole = of(3, WAITING.part(ACCOUNT_PART).events + 1);
        assert!(InFlightPermit::try_acquire(&load, &whole).is_some());
    }

    #[test]
    fn an_idle_door_sends_at_once_and_a_busy_one_fills_its_messages() {
        assert!(!is_enough(&[], 0));
        assert!(is_enough(&parcels(1, 1), 0));
        assert!(is_enough(&parcels(1, 0), 0), "uses of secrets alone");
        assert!(!is_enough(&parcels(ENOUGH - 1, 1), 1));
        assert!(is_enough(&parcels(ENOUGH, 1), 1));
        assert!(!is_enough(&parcels(ENOUGH, 1), 2));
        assert!(
            is_enough(&parcels(1, 2 * ENOUGH), 2),
            "a batch is as many events"
        );
    }
}
