//! Lanes: events dealt out by account to a few settling connections.
//!
//! Each lane takes accounts of its own, so that lanes never wait for each other's locks, and goes from
//! batch to batch by itself: while one commits, another decides, and the next events are being decoded.
//! What waits for a lane is bounded in events and in bytes. Envelopes that came again are settled in
//! batches beside the lanes, so that they are never in front of anybody else's (V12).

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use trueup_event::raw_event::{RawEvent, SecretUse};
use trueup_ops::backoff::Backoff;
use trueup_ops::health::Dependency;
use trueup_store::webhooks;
use uuid::Uuid;

use crate::batch_settlement::{BatchProcessor, SettleError};

/// A batch that fails because Postgres is away is tried again for this long with its messages in hand;
/// then they go back to the broker, for a worker that can reach it. Such returns cannot add up to the
/// delivery limit (see `settle`), and no message is taken again before Postgres takes a write.
const HOLD_MESSAGES: Duration = Duration::from_secs(20);
/// Bytes of messages whose events wait for a lane (16 MiB). Beyond it nothing more is decoded; what the
/// broker has handed over is bounded by the prefetch and the door's largest envelope.
const WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Batches for each lane that may wait beside the one that is being settled.
const BATCHES_AHEAD: usize = 2;
/// While one lane is at work, another begins when a whole batch waits for it: a report in a batch of 400
/// costs Postgres half of what it costs in one of ten. What waits goes when the lane at work is done, or
/// has been at work for so long: it may stand before a lock that somebody holds.
const HELD_BACK_FOR: Duration = Duration::from_millis(100);
/// Between two tries of what stepped aside because somebody else holds its call (V12).
const ASIDE_FOR: Duration = Duration::from_secs(2);

/// Which delivery an event came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTag {
    pub source: usize,
    pub number: u64,
}

struct QueuedEvent {
    event: RawEvent,
    origin: DeliveryTag,
    /// Its part of the message's bytes.
    bytes: usize,
}

/// An envelope that came again.
struct RedeliveredEnvelope {
    events: Vec<RawEvent>,
    origin: DeliveryTag,
    bytes: usize,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<QueuedEvent>,
    at_work_since: Option<Instant>,
}

/// Who does a job: a lane, the one that takes what came again, or the one that notes uses of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobKind {
    Lane(usize),
    Again,
    Aside,
    Uses,
}

struct JobResult {
    who: JobKind,
    /// The events it was given, each with the delivery that it came with.
    events: Vec<RawEvent>,
    origins: Vec<DeliveryTag>,
    /// Those of them that stepped aside.
    outcome: Result<BTreeSet<Uuid>, SettleError>,
}

/// What became of a job's events.
#[derive(Debug, Default)]
pub struct Settled {
    /// How many events of which deliveries are committed now.
    pub events: Vec<(DeliveryTag, usize)>,
    /// Deliveries that have an event which stepped aside.
    pub aside: Vec<DeliveryTag>,
}

/// What the jobs need.
#[derive(Clone)]
struct JobContext {
    processor: BatchProcessor,
    dead: lapin::Channel,
    postgres: Dependency,
    stop: CancellationToken,
}

pub struct Scheduler {
    tools: JobContext,
    lanes: Vec<Lane>,
    /// Who began last: the next one is the first to be asked.
    turn: usize,
    again: VecDeque<RedeliveredEnvelope>,
    again_busy: bool,
    /// Events that stepped aside, tried again at `aside_at` (V12).
    aside: VecDeque<(RawEvent, DeliveryTag)>,
    aside_at: Option<Instant>,
    aside_busy: bool,
    uses: Vec<SecretUse>,
    uses_busy: bool,
    running: JoinSet<JobResult>,
    waiting_events: usize,
    waiting_bytes: usize,
}

impl Scheduler {
    pub fn new(
        processor: BatchProcessor,
        dead: lapin::Channel,
        postgres: Dependency,
        stop: CancellationToken,
    ) -> Scheduler {
        let lanes = (0..processor.lane_count())
            .map(|_| Lane::default())
            .collect();
        Scheduler {
            tools: JobContext {
                processor,
                dead,
                postgres,
                stop,
            },
            lanes,
            turn: 0,
            again: VecDeque::new(),
            again_busy: false,
            aside: VecDeque::new(),
            aside_at: None,
            aside_busy: false,
            uses: Vec::new(),
            uses_busy: false,
            running: JoinSet::new(),
            waiting_events: 0,
            waiting_bytes: 0,
        }
    }

    /// Whether another envelope may be decoded.
    pub fn has_room(&self) -> bool {
        let events = self.tools.processor.batch_size() * self.lanes.len() * BATCHES_AHEAD;
        self.waiting_events < events && self.waiting_bytes < WAITING_BYTES
    }

    /// Nothing waits, nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting_events == 0 && self.running.is_empty()
    }

    /// Nothing but what stepped aside is left: it goes back to the broker, for whoever comes then.
    pub fn give_up_aside(&mut self) {
        self.aside.clear();
        self.aside_at = None;
    }

    /// Deals out the events of an envelope that came for the first time.
    pub fn enqueue_events(&mut self, events: Vec<RawEvent>, origin: DeliveryTag, bytes: usize) {
        let each = bytes / events.len().max(1);
        for event in events {
            let lane = lane_of(event.account_id, self.lanes.len());
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.waiting.push_back(QueuedEvent {
                    event,
                    origin,
                    bytes: each,
                });
                self.waiting_events += 1;
                self.waiting_bytes += each;
            }
        }
        self.start_lanes();
    }

    /// Puts by an envelope that came again.
    pub fn enqueue_redelivered(
        &mut self,
        events: Vec<RawEvent>,
        origin: DeliveryTag,
        bytes: usize,
    ) {
        self.waiting_events += events.len();
        self.waiting_bytes += bytes;
        self.again.push_back(RedeliveredEnvelope {
            events,
            origin,
            bytes,
        });
        self.start_again();
    }

    /// When a secret was last used is good to know, and holds nothing up.
    pub fn enqueue_secret_uses(&mut self, uses: Vec<SecretUse>) {
        self.uses.extend(uses);
        self.start_uses();
    }

    /// Starts each lane that has enough to do, in turn, so that none waits for ever.
    fn start_lanes(&mut self) {
        let (first, lanes) = (self.turn + 1, self.lanes.len());
        for number in (first..first + lanes).map(|n| n % lanes) {
            let held_back = self
                .held_back_until()
                .is_some_and(|until| Instant::now() < until);
            let enough = if held_back {
                self.tools.processor.batch_size()
            } else {
                1
            };
            let lane = &self.lanes[number];
            if lane.at_work_since.is_none() && lane.waiting.len() >= enough {
                self.turn = number;
                self.start_lane(number);
            }
        }
    }

    /// Until when a lane with little to do waits for those at work.
    fn held_back_until(&self) -> Option<Instant> {
        self.lanes
            .iter()
            .filter_map(|lane| lane.at_work_since)
            .max()
            .map(|since| since + HELD_BACK_FOR)
    }

    fn start_lane(&mut self, number: usize) {
        let Some(lane) = self.lanes.get_mut(number) else {
            return;
        };
        lane.at_work_since = Some(Instant::now());
        let count = lane.waiting.len().min(self.tools.processor.batch_size());
        let mut events = Vec::with_capacity(count);
        let mut origins = Vec::with_capacity(count);
        for waiting in lane.waiting.drain(..count) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting.bytes);
            origins.push(waiting.origin);
            events.push(waiting.event);
        }
        self.waiting_events = self.waiting_events.saturating_sub(count);
        self.spawn_settling(JobKind::Lane(number), events, origins);
    }

    fn start_again(&mut self) {
        if self.again_busy {
            return;
        }
        let (mut events, mut origins) = (Vec::new(), Vec::new());
        while let Some(envelope) = self.again.front() {
            let more = events.len() + envelope.events.len();
            if !events.is_empty() && more > self.tools.processor.batch_size() {
                break;
            }
            let Some(envelope) = self.again.pop_front() else {
                break;
            };
            self.waiting_events = self.waiting_events.saturating_sub(envelope.events.len());
            self.waiting_bytes = self.waiting_bytes.saturating_sub(envelope.bytes);
            origins.extend(envelope.events.iter().map(|_| envelope.origin));
            events.extend(envelope.events);
        }
        if events.is_empty() {
            return;
        }
        self.again_busy = true;
        self.spawn_settling(JobKind::Again, events, origins);
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
        let (events, origins) = self.aside.drain(..count).unzip();
        self.spawn_settling(JobKind::Aside, events, origins);
    }

    fn spawn_settling(&mut self, who: JobKind, events: Vec<RawEvent>, origins: Vec<DeliveryTag>) {
        let tools = self.tools.clone();
        self.running.spawn(async move {
            let (processor, dead) = (&tools.processor, &tools.dead);
            let settle = || async {
                match who {
                    JobKind::Lane(_) => processor.settle_batch(&events, dead).await,
                    JobKind::Again => processor.settle_again(&events, dead).await,
                    JobKind::Aside => processor.settle_free(&events, dead).await,
                    // It has no events.
                    JobKind::Uses => Ok(BTreeSet::new()),
                }
            };
            let outcome = tools.retry_while_unavailable(settle).await;
            JobResult {
                who,
                events,
                origins,
                outcome,
            }
        });
    }

    /// Puts what stepped aside by, and says what became of the rest.
    fn take_result(
        &mut self,
        events: Vec<RawEvent>,
        origins: Vec<DeliveryTag>,
        aside: &BTreeSet<Uuid>,
    ) -> Settled {
        let mut settled = Settled::default();
        for (event, origin) in events.into_iter().zip(origins) {
            if aside.contains(&event.id) {
                settled.aside.push(origin);
                self.aside.push_back((event, origin));
                continue;
            }
            match settled.events.last_mut().filter(|(of, _)| *of == origin) {
                Some((_, events)) => *events += 1,
                None => settled.events.push((origin, 1)),
            }
        }
        if !self.aside.is_empty() && self.aside_at.is_none() && !self.aside_busy {
            self.aside_at = Some(Instant::now() + ASIDE_FOR);
        }
        settled
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
            JobResult {
                who: JobKind::Uses,
                origins: Vec::new(),
                outcome: Ok(BTreeSet::new()),
                events: Vec::new(),
            }
        });
    }

    /// The next job that ends, and which events are settled by it; waits for ever if none runs. Nothing
    /// is lost if the future is dropped while it waits.
    pub async fn next_result(&mut self) -> Result<Settled, SettleError> {
        let joined = loop {
            if self.running.is_empty() {
                sleep_until(self.aside_at).await;
                self.start_aside();
                continue;
            }
            let waits = |lane: &Lane| lane.at_work_since.is_none() && !lane.waiting.is_empty();
            let held_back_until = self
                .held_back_until()
                .filter(|_| self.lanes.iter().any(waits));
            tokio::select! {
                Some(joined) = self.running.join_next() => break joined,
                () = sleep_until(held_back_until) => {}
                () = sleep_until(self.aside_at) => self.start_aside(),
            }
            self.start_lanes();
        };
        let done = joined.map_err(|e: JoinError| SettleError::Broken(e.to_string()))?;
        match done.who {
            JobKind::Lane(number) => {
                if let Some(lane) = self.lanes.get_mut(number) {
                    lane.at_work_since = None;
                }
                self.start_lanes();
            }
            JobKind::Again => {
                self.again_busy = false;
                self.start_again();
            }
            JobKind::Aside => self.aside_busy = false,
            JobKind::Uses => {
                self.uses_busy = false;
                self.start_uses();
            }
        }
        let aside = done.outcome?;
        Ok(self.take_result(done.events, done.origins, &aside))
    }
}

/// Never, if there is no such time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn lane_of(account_id: Uuid, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    account_id.hash(&mut hasher);
    let lanes = lanes.max(1) as u64;
    usize::try_from(hasher.finish() % lanes).unwrap_or(0)
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
