//! Lanes: a few settling connections, and what each of them settles next.
//!
//! Accounts take turns ([`FairQueue`]), so that nobody waits behind somebody else's flood. A lane goes from
//! batch to batch by itself: while one commits, another decides, and the next events are being decoded.
//! What waits is bounded in events and in bytes. Events that came again are settled in batches beside the
//! lanes, so that they are never in front of anybody else's (V12).

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use trueup_event::raw_event::{RawEvent, SecretUse};
use trueup_ops::backoff::Backoff;
use trueup_ops::health::Dependency;
use trueup_store::webhooks;
use uuid::Uuid;

use crate::batch_settlement::{BatchProcessor, SettleError};
use crate::fair_queue::{BatchLimit, DeliveryTag, FairQueue, QueuedBatch, QueuedEvent};

/// A batch that fails because Postgres is away is tried again for this long with its messages in hand;
/// then they go back to the broker, for a worker that can reach it. Such returns cannot add up to the
/// delivery limit (see `settle`), and no message is taken again before Postgres takes a write.
const HOLD_MESSAGES: Duration = Duration::from_secs(20);
/// Bytes of messages whose events wait (16 MiB). Beyond it nothing more is decoded; what the broker has
/// handed over is bounded by the prefetch and the largest envelope.
const WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Events that wait. The further the worker looks ahead, the longer one account's flood may be before the
/// others' reports wait in the broker's queue behind it.
const WAITING_EVENTS: usize = 20_000;
/// Bytes of messages that one transaction settles (4 MiB): each byte stands in memory several times then.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// While one lane is at work, another begins when a whole batch waits for it: a report in a batch of 400
/// costs Postgres half of what it costs in one of ten. What waits goes when the lane at work is done, or
/// has been at work for so long: it may stand before a lock that somebody holds.
const HELD_BACK_FOR: Duration = Duration::from_millis(100);
/// Between two tries of what stepped aside because somebody else holds its call (V12).
const ASIDE_FOR: Duration = Duration::from_secs(2);

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
    /// Those whose turn was taken for it.
    accounts: Vec<Uuid>,
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
    /// Since when each lane has been at work.
    lanes: Vec<Option<Instant>>,
    fresh: FairQueue,
    /// What came again.
    again: FairQueue,
    again_busy: bool,
    /// Events that stepped aside, tried again at `aside_at` (V12).
    aside: VecDeque<(RawEvent, DeliveryTag)>,
    aside_at: Option<Instant>,
    aside_busy: bool,
    uses: Vec<SecretUse>,
    uses_busy: bool,
    running: JoinSet<JobResult>,
}

impl Scheduler {
    pub fn new(
        processor: BatchProcessor,
        dead: lapin::Channel,
        postgres: Dependency,
        stop: CancellationToken,
    ) -> Scheduler {
        let lanes = vec![None; processor.lane_count()];
        Scheduler {
            tools: JobContext {
                processor,
                dead,
                postgres,
                stop,
            },
            lanes,
            fresh: FairQueue::default(),
            again: FairQueue::default(),
            again_busy: false,
            aside: VecDeque::new(),
            aside_at: None,
            aside_busy: false,
            uses: Vec::new(),
            uses_busy: false,
            running: JoinSet::new(),
        }
    }

    /// Whether another envelope may be decoded.
    pub fn has_room(&self) -> bool {
        self.waiting_events() < WAITING_EVENTS
            && self.fresh.byte_count() + self.again.byte_count() < WAITING_BYTES
    }

    fn waiting_events(&self) -> usize {
        self.fresh.event_count() + self.again.event_count()
    }

    /// Nothing waits, nothing runs.
    pub fn is_idle(&self) -> bool {
        self.waiting_events() == 0 && self.running.is_empty()
    }

    /// Nothing but what stepped aside is left: it goes back to the broker, for whoever comes then.
    pub fn give_up_aside(&mut self) {
        self.aside.clear();
        self.aside_at = None;
    }

    /// Queues the events of an envelope that came for the first time.
    pub fn enqueue_events(&mut self, events: Vec<RawEvent>, origin: DeliveryTag, bytes: usize) {
        enqueue(&mut self.fresh, events, origin, bytes);
        self.start_lanes();
    }

    /// Queues the events of an envelope that came again.
    pub fn enqueue_redelivered(
        &mut self,
        events: Vec<RawEvent>,
        origin: DeliveryTag,
        bytes: usize,
    ) {
        enqueue(&mut self.again, events, origin, bytes);
        self.start_again();
    }

    /// When a secret was last used is good to know, and holds nothing up.
    pub fn enqueue_secret_uses(&mut self, uses: Vec<SecretUse>) {
        self.uses.extend(uses);
        self.start_uses();
    }

    /// Starts each idle lane for which there is enough to do.
    fn start_lanes(&mut self) {
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

    fn batch_limit(&self) -> BatchLimit {
        BatchLimit {
            events: self.tools.processor.batch_size(),
            bytes: BATCH_BYTES,
        }
    }

    fn start_again(&mut self) {
        if self.again_busy || self.again.free_events() == 0 {
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
        let events = self.aside.drain(..count).unzip();
        self.spawn_job(JobKind::Aside, events, Vec::new());
    }

    fn spawn_settling(&mut self, who: JobKind, batch: QueuedBatch) {
        let events = batch.events.into_iter();
        let events = events.map(|queued| (queued.event, queued.origin)).unzip();
        self.spawn_job(who, events, batch.accounts);
    }

    fn spawn_job(
        &mut self,
        who: JobKind,
        (events, origins): (Vec<RawEvent>, Vec<DeliveryTag>),
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
                    // It has no events.
                    JobKind::Uses => Ok(BTreeSet::new()),
                }
            };
            let outcome = tools.retry_while_unavailable(settle).await;
            JobResult {
                who,
                accounts,
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
                accounts: Vec::new(),
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
            let waits = self.fresh.free_events() > 0 && self.lanes.contains(&None);
            let held_back_until = self.held_back_until().filter(|_| waits);
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
                self.lanes[number] = None;
                self.fresh.release_accounts(&done.accounts);
                self.start_lanes();
            }
            JobKind::Again => {
                self.again_busy = false;
                self.again.release_accounts(&done.accounts);
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

/// Each event counts as the same part of its message's bytes.
fn enqueue(queue: &mut FairQueue, events: Vec<RawEvent>, origin: DeliveryTag, bytes: usize) {
    let bytes = bytes / events.len().max(1);
    for event in events {
        queue.push_event(QueuedEvent {
            event,
            origin,
            bytes,
        });
    }
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
