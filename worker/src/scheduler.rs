//! Lanes: a few settling connections, and what each of them settles next.
//!
//! Accounts take turns ([`FairQueue`]), so that nobody waits behind somebody else's flood. A lane goes from
//! batch to batch by itself: while one commits, another decides, and the next events are being decoded.
//! What waits is bounded in events and in bytes; what one account sends beyond its part goes another way
//! ([`Overflow`]). Events that came again are settled in batches beside the lanes, so that they are never in
//! front of anybody else's (V12).

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use trueup_event::amount::Amount;
use trueup_event::envelope;
use trueup_event::raw_event::{RawEvent, SecretUse};
use trueup_ops::backoff::Backoff;
use trueup_ops::health::Dependency;
use trueup_queue::QueueError;
use trueup_store::webhooks;
use uuid::Uuid;

use crate::batch_settlement::{BatchProcessor, SettleError};
use crate::fair_queue::{DeliveryTag, EventOrigin, FairQueue, OVERFLOW, QueuedBatch, QueuedEvent};
use crate::overflow::{self, MovedMessage, Moving, Overflow};

/// A batch that fails because Postgres is away is tried again for this long with its messages in hand;
/// then they go back to the broker, for a worker that can reach it. Such returns cannot add up to the
/// delivery limit (see `settle`), and no message is taken again before Postgres takes a write.
const HOLD_MESSAGES: Duration = Duration::from_secs(20);
/// What may wait, in events and in bytes of messages (16 MiB). Beyond it nothing more is decoded; what the
/// broker has handed over is bounded by the prefetch and the largest envelope.
const ROOM: Amount = Amount {
    events: 20_000,
    bytes: 16 * 1024 * 1024,
};
/// What is held back is opened while less waits than this part of the room.
const OPENED_PART: usize = 8;
/// The same for what came again: as many as a worker has fetched and died with.
const ROOM_AGAIN: Amount = Amount {
    events: 60_000,
    bytes: 16 * 1024 * 1024,
};
/// What may step aside; more of it waits on the overflow queue.
const ROOM_ASIDE: Amount = Amount {
    events: 4_000,
    bytes: 8 * 1024 * 1024,
};
/// Bytes of messages that one transaction settles (4 MiB): each byte stands in memory several times then.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// While one lane is at work, another begins when a whole batch waits for it: a report in a batch of 400
/// costs Postgres half of what it costs in one of ten. What waits goes when the lane at work is done, or
/// has been at work for so long: it may stand before a lock that somebody holds.
const HELD_BACK_FOR: Duration = Duration::from_millis(100);
/// What waits on the broker when a worker begins to consume, and what comes again together, is given so long
/// to arrive: then it is decided in the order of its reception (M10).
const GATHERED_FOR: Duration = Duration::from_millis(100);
/// Between two tries of what stepped aside because somebody else holds its call (V12).
const ASIDE_FOR: Duration = Duration::from_secs(2);

/// Who settles: a lane, the one that takes what came again, or the one that tries what stepped aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobKind {
    Lane(usize),
    Again,
    Aside,
}

/// How a job came to its end.
enum JobEnd {
    Settled(JobResult),
    /// Uses of secrets were noted.
    UsesNoted,
    /// Whose each message is.
    Moved(Moving, Result<Vec<Uuid>, QueueError>),
}

struct JobResult {
    who: JobKind,
    /// Those whose turn was taken for it.
    accounts: Vec<Uuid>,
    /// The events it was given, each with the delivery that it came with.
    events: Vec<RawEvent>,
    origins: Vec<EventOrigin>,
    /// Those of them that stepped aside.
    outcome: Result<BTreeSet<Uuid>, SettleError>,
}

/// What became of a job's events.
#[derive(Debug, Default)]
pub struct Settled {
    /// How many events of which deliveries are committed now, or waiting elsewhere.
    pub events: Vec<(DeliveryTag, usize)>,
    /// Deliveries that have an event which stepped aside.
    pub aside: Vec<DeliveryTag>,
    /// Deliveries that were taken as one piece, and are settled by so many events after all.
    pub reopened: Vec<(DeliveryTag, usize)>,
}

/// What the jobs need.
#[derive(Clone)]
struct JobContext {
    processor: BatchProcessor,
    dead: lapin::Channel,
    /// What is moved has a connection of its own: in an alarm the broker reads nothing, acknowledgements
    /// neither, from one that publishes.
    moves: lapin::Channel,
    postgres: Dependency,
    stop: CancellationToken,
}

pub struct Scheduler {
    tools: JobContext,
    /// Since when each lane has been at work.
    lanes: Vec<Option<Instant>>,
    fresh: FairQueue,
    /// What came again.
    again: FairQueue,
    again_busy: bool,
    /// When what came first is to be settled.
    fresh_at: Option<Instant>,
    again_at: Option<Instant>,
    /// Events that stepped aside, tried again at `aside_at` (V12).
    aside: VecDeque<(RawEvent, EventOrigin)>,
    aside_amount: Amount,
    aside_at: Option<Instant>,
    aside_busy: bool,
    overflow: Overflow,
    /// Messages of an account that alone fills its part of the room, or that could not be moved: opened as there is
    /// room for their events, so that whoever stands behind them is seen.
    held: VecDeque<MovedMessage>,
    uses: Vec<SecretUse>,
    uses_busy: bool,
    running: JoinSet<JobEnd>,
}

impl Scheduler {
    pub fn new(
        processor: BatchProcessor,
        dead: lapin::Channel,
        moves: lapin::Channel,
        postgres: Dependency,
        stop: CancellationToken,
    ) -> Scheduler {
        let lanes = vec![None; processor.lane_count()];
        Scheduler {
            tools: JobContext {
                processor: processor.with_nothing_aside(),
                dead,
                moves,
                postgres,
                stop,
            },
            lanes,
            fresh: FairQueue::default(),
            again: FairQueue::default(),
            again_busy: false,
            fresh_at: Some(Instant::now() + GATHERED_FOR),
            again_at: None,
            aside: VecDeque::new(),
            aside_amount: Amount::default(),
            aside_at: None,
            aside_busy: false,
            overflow: Overflow::new(ROOM),
            held: VecDeque::new(),
            uses: Vec::new(),
            uses_busy: false,
            running: JoinSet::new(),
        }
    }

    /// Whether another envelope may be decoded.
    pub fn has_room(&self) -> bool {
        let mut waiting = self.fresh.amount();
        waiting.add(self.overflow.decoded());
        waiting.is_below(ROOM) && self.again.amount().is_below(ROOM_AGAIN)
    }

    /// Whether another envelope may be taken from the overflow queue; `in_hand` says whether some of its
    /// messages are not acknowledged yet.
    pub fn has_room_for_overflow(&mut self, in_hand: bool) -> bool {
        // What waits to be moved is no reason: it may wait for room on that very queue.
        let has_room =
            self.fresh.amount().is_below(ROOM) && self.again.amount().is_below(ROOM_AGAIN);
        self.overflow.may_take_back(&self.fresh, has_room, in_hand)
    }

    /// Nothing waits, nothing runs.
    pub fn is_idle(&self) -> bool {
        let waiting = self.fresh.amount().events + self.again.amount().events;
        waiting == 0 && self.overflow.is_empty() && self.held.is_empty() && self.running.is_empty()
    }

    /// What stepped aside, and what is to be moved, goes back to the broker, for whoever comes then.
    pub fn give_up_waiting(&mut self) {
        self.overflow.take_excess();
        self.held.clear();
        let given_up = self.aside.drain(..).map(|(event, _)| event.id);
        self.tools.processor.forget_aside(given_up);
        self.aside_amount = Amount::default();
        self.aside_at = None;
    }

    /// Queues the events of an envelope that came for the first time.
    pub fn enqueue_events(&mut self, events: Vec<RawEvent>, delivery: DeliveryTag, bytes: usize) {
        for event in &events {
            self.overflow.record_seen(event.account_id);
        }
        self.move_held();
        for queued in queued_events(events, delivery, bytes) {
            let account = queued.event.account_id;
            if self.overflow.is_crowded_by(account, &self.fresh) {
                self.overflow.push_excess(queued);
            } else {
                self.fresh.push_event(queued);
            }
        }
        self.start_moving();
        self.start_lanes();
    }

    /// Whether all that this account sends goes to the overflow queue.
    pub fn is_moved(&mut self, account: Uuid) -> bool {
        self.overflow.is_moved(account)
    }

    /// Whether a message of this account waits as one piece: others of it do, or it is alone and has its part of the
    /// room.
    pub fn is_held(&self, account: Uuid) -> bool {
        self.held.iter().any(|message| message.account == account)
            || self.overflow.is_filled_by(account, &self.fresh)
    }

    pub fn hold_message(&mut self, account: Uuid, bytes: Vec<u8>, delivery: DeliveryTag) {
        self.held
            .push_back(MovedMessage::new(account, bytes, delivery));
        self.move_held();
    }

    /// There are others: what was held back goes out of their way, as far as the broker takes it.
    fn move_held(&mut self) {
        if self.held.is_empty() || !self.overflow.may_move() {
            return;
        }
        for message in self.held.drain(..) {
            self.overflow.push_message(message);
        }
        self.start_moving();
    }

    /// Takes a message of such an account as one piece.
    pub fn enqueue_moved_message(
        &mut self,
        account: Uuid,
        message: Vec<u8>,
        delivery: DeliveryTag,
    ) {
        self.move_held();
        self.overflow
            .push_message(MovedMessage::new(account, message, delivery));
        self.start_moving();
    }

    /// A message came from the overflow queue, be it for the first time or again.
    pub fn record_taken_back(&mut self, account: Uuid) {
        self.overflow.record_taken_back(account);
    }

    /// Queues the events of an envelope that was moved out of the others' way.
    pub fn enqueue_taken_back(
        &mut self,
        events: Vec<RawEvent>,
        delivery: DeliveryTag,
        bytes: usize,
    ) {
        for queued in queued_events(events, delivery, bytes) {
            self.fresh.push_event(queued);
        }
        self.start_lanes();
    }

    /// Queues the events of an envelope that came again.
    pub fn enqueue_redelivered(
        &mut self,
        events: Vec<RawEvent>,
        delivery: DeliveryTag,
        bytes: usize,
    ) {
        if self.again_at.is_none() && !self.again_busy {
            self.again_at = Some(Instant::now() + GATHERED_FOR);
        }
        for queued in queued_events(events, delivery, bytes) {
            self.again.push_event(queued);
        }
        self.start_again();
    }

    /// When a secret was last used is good to know, and holds nothing up.
    pub fn enqueue_secret_uses(&mut self, uses: Vec<SecretUse>) {
        self.uses.extend(uses);
        self.start_uses();
    }

    /// Starts each idle lane for which there is enough to do.
    fn start_lanes(&mut self) {
        if !is_due(&mut self.fresh_at) {
            return;
        }
        for number in 0..self.lanes.len() {
            let held_back = self
                .held_back_until()
                .is_some_and(|until| Instant::now() < until);
            let enough = if held_back {
                self.tools.processor.batch_size()
            } else {
                1
            };
            if self.lanes[number].is_none() && self.fresh.free_events() >= enough {
                self.start_lane(number);
            }
        }
    }

    /// Until when a lane with little to do waits for those at work.
    fn held_back_until(&self) -> Option<Instant> {
        let latest = self.lanes.iter().copied().flatten().max();
        latest.map(|since| since + HELD_BACK_FOR)
    }

    fn start_lane(&mut self, number: usize) {
        let idle = self.lanes.iter().filter(|lane| lane.is_none()).count();
        let batch = self.fresh.take_batch(self.batch_limit(), idle);
        self.lanes[number] = Some(Instant::now());
        self.spawn_settling(JobKind::Lane(number), batch);
    }

    fn batch_limit(&self) -> Amount {
        Amount {
            events: self.tools.processor.batch_size(),
            bytes: BATCH_BYTES,
        }
    }

    fn start_again(&mut self) {
        if self.again_busy || !is_due(&mut self.again_at) || self.again.free_events() == 0 {
            return;
        }
        self.again_busy = true;
        let batch = self.again.take_batch(self.batch_limit(), 1);
        self.spawn_settling(JobKind::Again, batch);
    }

    /// Tries what stepped aside once more, beside everything else.
    fn start_aside(&mut self) {
        let is_time = self.aside_at.is_some_and(|at| at <= Instant::now());
        if self.aside_busy || !is_time || self.aside.is_empty() {
            return;
        }
        self.aside_busy = true;
        self.aside_at = None;
        let count = self.aside.len().min(self.tools.processor.batch_size());
        let (events, origins): (Vec<RawEvent>, Vec<EventOrigin>) =
            self.aside.drain(..count).unzip();
        for origin in &origins {
            self.aside_amount.subtract(origin.amount());
        }
        self.spawn_job(JobKind::Aside, (events, origins), Vec::new());
    }

    /// Moves what is beyond an account's part out of the others' way.
    fn start_moving(&mut self) {
        if let Some(moving) = self.overflow.next_move() {
            let moves = self.tools.moves.clone();
            self.running.spawn(async move {
                let outcome = overflow::move_out(&moves, &moving).await;
                JobEnd::Moved(moving, outcome)
            });
        }
    }

    fn spawn_settling(&mut self, who: JobKind, batch: QueuedBatch) {
        let events = batch.events.into_iter();
        let events = events.map(|queued| (queued.event, queued.origin)).unzip();
        self.spawn_job(who, events, batch.accounts);
    }

    fn spawn_job(
        &mut self,
        who: JobKind,
        (events, origins): (Vec<RawEvent>, Vec<EventOrigin>),
        accounts: Vec<Uuid>,
    ) {
        let tools = self.tools.clone();
        self.running.spawn(async move {
            let (processor, dead) = (&tools.processor, &tools.dead);
            let settle = || async {
                match who {
                    JobKind::Lane(_) => processor.settle_batch(&events, dead).await,
                    JobKind::Again => processor.settle_again(&events, dead).await,
                    JobKind::Aside => processor.settle_free(&events, dead).await,
                }
            };
            let outcome = tools.retry_while_unavailable(settle).await;
            JobEnd::Settled(JobResult {
                who,
                accounts,
                events,
                origins,
                outcome,
            })
        });
    }

    /// Puts what stepped aside by, and says what became of the rest.
    fn take_result(
        &mut self,
        events: Vec<RawEvent>,
        origins: Vec<EventOrigin>,
        aside: &BTreeSet<Uuid>,
    ) -> Settled {
        let mut settled = Settled::default();
        for (event, origin) in events.into_iter().zip(origins) {
            if aside.contains(&event.id) {
                settled.aside.push(origin.delivery);
                self.put_aside(event, origin);
                continue;
            }
            let delivery = origin.delivery;
            match settled.events.last_mut().filter(|(of, _)| *of == delivery) {
                Some((_, events)) => *events += 1,
                None => settled.events.push((delivery, 1)),
            }
        }
        if !self.aside.is_empty() && self.aside_at.is_none() && !self.aside_busy {
            self.aside_at = Some(Instant::now() + ASIDE_FOR);
        }
        self.start_moving();
        settled
    }

    /// One from the overflow queue goes back there, so that the few messages that are fetched from it do not all
    /// stand before a lock.
    fn put_aside(&mut self, event: RawEvent, origin: EventOrigin) {
        if origin.delivery.source != OVERFLOW && self.aside_amount.is_below(ROOM_ASIDE) {
            self.aside_amount.add(origin.amount());
            self.aside.push_back((event, origin));
        } else {
            self.tools.processor.forget_aside([event.id]);
            self.overflow.push_excess(QueuedEvent { event, origin });
        }
    }

    fn start_uses(&mut self) {
        if self.uses_busy || self.uses.is_empty() {
            return;
        }
        self.uses_busy = true;
        let uses = std::mem::take(&mut self.uses);
        let pool = self.tools.processor.pool().clone();
        self.running.spawn(async move {
            if let Err(error) = webhooks::touch_secrets(&pool, &uses).await {
                tracing::warn!(%error, "uses of secrets were not noted");
            }
            JobEnd::UsesNoted
        });
    }

    /// The next job that ends, and which events are settled by it; waits for ever if none runs. Nothing
    /// is lost if the future is dropped while it waits.
    pub async fn next_result(&mut self) -> Result<Settled, SettleError> {
        let joined = loop {
            let due = self.next_due();
            tokio::select! {
                Some(joined) = self.running.join_next() => break joined,
                () = sleep_until(due) => self.start_due(),
            }
        };
        match joined.map_err(|e: JoinError| SettleError::Broken(e.to_string()))? {
            JobEnd::Moved(moving, outcome) => Ok(self.take_moved(moving, outcome)),
            JobEnd::UsesNoted => {
                self.uses_busy = false;
                self.start_uses();
                Ok(Settled::default())
            }
            JobEnd::Settled(done) => {
                self.start_after(&done);
                let aside = done.outcome?;
                let mut settled = self.take_result(done.events, done.origins, &aside);
                self.open_held(&mut settled);
                Ok(settled)
            }
        }
    }

    /// When something is to be started though no job ends.
    fn next_due(&self) -> Option<Instant> {
        let waits = self.fresh.free_events() > 0 && self.lanes.contains(&None);
        let held_back_until = self.held_back_until().filter(|_| waits);
        let times = [self.aside_at, self.fresh_at, self.again_at, held_back_until];
        times.into_iter().flatten().min()
    }

    fn start_due(&mut self) {
        self.start_aside();
        self.start_moving();
        self.start_again();
        self.start_lanes();
    }

    /// What may go on now that this job has ended.
    fn start_after(&mut self, done: &JobResult) {
        match done.who {
            JobKind::Lane(number) => {
                self.lanes[number] = None;
                self.fresh.release_accounts(&done.accounts);
                self.start_lanes();
            }
            JobKind::Again => {
                self.again_busy = false;
                self.again.release_accounts(&done.accounts);
                self.start_again();
            }
            JobKind::Aside => {
                self.aside_busy = false;
                // Nobody holds anything any more: the rest need not wait.
                let all_settled = done.outcome.as_ref().is_ok_and(BTreeSet::is_empty);
                self.aside_at = (all_settled && !self.aside.is_empty()).then(Instant::now);
            }
        }
    }

    /// What could not be moved is settled here, with all that waits to be moved behind it.
    fn take_moved(&mut self, moving: Moving, outcome: Result<Vec<Uuid>, QueueError>) -> Settled {
        match outcome {
            Ok(messages) => {
                self.overflow.record_moved(&moving, &messages);
                self.start_moving();
                Settled {
                    events: moving.deliveries().map(|delivery| (delivery, 1)).collect(),
                    ..Settled::default()
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a crowding account's reports could not be moved to the overflow queue; they are settled as they come");
                self.overflow.record_refused(&moving);
                for refused in [moving, self.overflow.take_excess()] {
                    for (event, origin) in refused.events.into_iter().zip(refused.origins) {
                        self.fresh.push_event(QueuedEvent { event, origin });
                    }
                    self.held.extend(refused.messages);
                }
                let mut settled = Settled::default();
                self.open_held(&mut settled);
                settled
            }
        }
    }

    /// Opens what is held back as far as there is room, and leaves room for others.
    fn open_held(&mut self, settled: &mut Settled) {
        while self.fresh.amount().is_below(ROOM.part(OPENED_PART))
            && let Some(message) = self.held.pop_front()
        {
            let delivery = message.origin.delivery;
            let Ok(envelope) = envelope::decode_envelope(&message.bytes) else {
                // Until it can be moved; who reads it then sets it aside.
                self.overflow.push_message(message);
                continue;
            };
            settled.reopened.push((delivery, envelope.events.len()));
            for queued in queued_events(envelope.events, delivery, message.bytes.len()) {
                self.fresh.push_event(queued);
            }
        }
        self.start_lanes();
    }
}

/// True if there is no such time, or if it has come; then it is over.
fn is_due(time: &mut Option<Instant>) -> bool {
    if time.is_some_and(|time| time > Instant::now()) {
        return false;
    }
    *time = None;
    true
}

/// Never, if there is no such time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Each event counts as the same part of its message's bytes.
fn queued_events(
    events: Vec<RawEvent>,
    delivery: DeliveryTag,
    bytes: usize,
) -> impl Iterator<Item = QueuedEvent> {
    let bytes = bytes / events.len().max(1);
    let origin = EventOrigin { delivery, bytes };
    events
        .into_iter()
        .map(move |event| QueuedEvent { event, origin })
}

impl JobContext {
    /// Waits out a short absence of Postgres with the messages in hand.
    async fn retry_while_unavailable<F>(
        &self,
        mut settle: impl FnMut() -> F,
    ) -> Result<BTreeSet<Uuid>, SettleError>
    where
        F: Future<Output = Result<BTreeSet<Uuid>, SettleError>>,
    {
        let started = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            match settle().await {
                Ok(aside) => {
                    self.postgres.ok();
                    return Ok(aside);
                }
                Err(SettleError::Store(error)) if error.is_environment_error() => {
                    self.postgres.set_down(error.to_string());
                    if started.elapsed() > HOLD_MESSAGES || self.stop.is_cancelled() {
                        return Err(SettleError::Store(error));
                    }
                    backoff.wait().await;
                }
                Err(stuck) => return Err(stuck),
            }
        }
    }
}
