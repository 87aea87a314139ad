//! From envelopes to settled rows: load → decide → commit, by batches, and by halves of a batch that fails.
//!
//! One bad event never spoils its neighbours: what fails alone, or had its worker die with it, is tried in a
//! transaction of its own, and an event that fails five times is set aside alone (V12).

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use trueup_domain::batch_decision::{SettleJob, SettleResult};
use trueup_event::envelope;
use trueup_event::raw_event::{Envelope, RawEvent};
use trueup_event::reason::{Reason, Status};
use trueup_ops::crash_points::{self, Point};
use trueup_ops::metrics::{self, FailureKind};
use trueup_queue::{QueueError, topology};
use trueup_settlement::attempt_counter::{AttemptCounter, MAX_ATTEMPTS};
use trueup_settlement::{AccountCaller, SteppedAside, settle_batch, settle_what_is_free};
use trueup_store::settlement::attempts;
use trueup_store::settlement::loading::LockMode;
use trueup_store::{Pool, StoreError, TransactionName, run_tx};
use uuid::Uuid;

/// Between two tries of one event that fails.
const PAUSE_BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Why events could not be dealt with now. They stay with the broker.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("events could not be put on another queue: {0}")]
    Queue(#[from] QueueError),
    #[error("a lane broke: {0}")]
    Broken(String),
}

#[derive(Clone)]
pub struct BatchProcessor {
    pool: Pool,
    lanes: usize,
    batch: usize,
    attempts: AttemptCounter,
    /// What stepped aside and waits in this process: its callers' later guesses wait behind it (M15).
    aside: Arc<Mutex<SteppedAside>>,
}

impl BatchProcessor {
    pub fn new(pool: Pool, lanes: u32, batch: u32) -> Self {
        BatchProcessor {
            attempts: AttemptCounter::new(pool.clone()),
            aside: Arc::default(),
            pool,
            lanes: lanes.max(1) as usize,
            batch: batch.max(1) as usize,
        }
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    pub fn lane_count(&self) -> usize {
        self.lanes
    }

    /// Events that one transaction settles at most.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// For another scheduler, with which nothing waits as yet.
    pub fn with_nothing_aside(self) -> Self {
        BatchProcessor {
            aside: Arc::default(),
            ..self
        }
    }

    /// These wait in this process no longer: somebody else may be the next to settle them.
    pub fn forget_aside(&self, events: impl IntoIterator<Item = Uuid>) {
        let mut aside = self.lock_aside();
        for event in events {
            aside.remove(&event);
        }
    }

    fn lock_aside(&self) -> MutexGuard<'_, SteppedAside> {
        // A map is whole after any panic.
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The callers of what stepped aside before, other than these events.
    fn waiting_callers(&self, events: &[RawEvent]) -> BTreeSet<AccountCaller> {
        let aside = self.lock_aside();
        if aside.is_empty() {
            return BTreeSet::new();
        }
        let own: BTreeSet<Uuid> = events.iter().map(|event| event.id).collect();
        let others = aside.iter().filter(|(id, _)| !own.contains(id));
        others.filter_map(|(_, caller)| caller.clone()).collect()
    }

    /// Settles events that came for the first time, in one transaction; where that fails, in parts. Returns
    /// those that stepped aside, because somebody else holds what they need (V12).
    pub async fn settle_batch(
        &self,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        let waiting = self.waiting_callers(events);
        let mode = if waiting.is_empty() {
            LockMode::Wait
        } else {
            LockMode::SkipBusy
        };
        match self.settle_behind(events, mode, waiting).await {
            Ok(aside) => {
                metrics::worker().stepped_aside.add(aside.len());
                Ok(aside)
            }
            Err(error) if error.is_busy() => self.settle_free(events, dead).await,
            Err(error) => self.split_failed(error, events, dead).await,
        }
    }

    /// Settles those of the events that need nothing which somebody else holds; returns the others.
    pub async fn settle_free(
        &self,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        match self.settle_once(events).await {
            Ok(aside) => {
                metrics::worker().stepped_aside.add(aside.len());
                Ok(aside)
            }
            // What is held is no call and no caller: a publisher, say. All of them come again.
            Err(error) if error.is_busy() => Ok(events.iter().map(|event| event.id).collect()),
            Err(error) => self.split_failed(error, events, dead).await,
        }
    }

    /// The events of envelopes that came again: what is settled is skipped, the rest is settled as any other.
    /// Only what a worker has already died with goes one by one, and what fails together.
    pub async fn settle_again(
        &self,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        let left = attempts::drop_settled(&self.pool, events.to_vec()).await?;
        metrics::worker().skipped.add(events.len() - left.len());
        if left.is_empty() {
            return Ok(BTreeSet::new());
        }
        let tried = self.attempts.find_tried(&left).await?;
        let (again, first): (Vec<RawEvent>, Vec<RawEvent>) = left
            .into_iter()
            .partition(|event| tried.contains(&event.id));
        let mut aside = BTreeSet::new();
        if !first.is_empty() {
            self.attempts.begin_attempts(&first).await?;
            aside.extend(self.settle_together(&first, dead).await?);
        }
        aside.extend(self.settle_alone(&again, dead).await?);
        Ok(aside)
    }

    /// Settles events whose first try has been noted, in one transaction.
    async fn settle_together(
        &self,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
        let waiting = self.waiting_callers(events);
        match self
            .settle_behind(events, LockMode::SkipBusy, waiting)
            .await
        {
            Ok(aside) => {
                self.attempts.forget_attempts(&ids).await?;
                Ok(aside)
            }
            Err(error) if error.is_busy() => {
                self.attempts.forget_attempts(&ids).await?;
                Ok(ids.into_iter().collect())
            }
            Err(error) => {
                if error.is_environment_error() {
                    ids.into_iter()
                        .for_each(|id| self.attempts.record_cut_short(id));
                } else {
                    // What failed together says nothing about each: their tries are counted anew.
                    self.attempts.forget_attempts(&ids).await?;
                }
                self.split_failed(error, events, dead).await
            }
        }
    }

    /// After a batch failed: its events stay with the broker if Postgres is away, else it is settled in parts.
    async fn split_failed(
        &self,
        error: StoreError,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        if error.is_environment_error() {
            return Err(count_postgres_failure(error));
        }
        tracing::warn!(%error, events = events.len(), "a batch failed and is settled in parts");
        self.settle_in_parts(events, dead).await
    }

    /// Settles halves of a failed batch, and halves of those that fail; what fails alone is tried again after
    /// all the others, so that they wait for none of its tries.
    async fn settle_in_parts(
        &self,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        let mut aside = BTreeSet::new();
        let mut failing = Vec::new();
        let mut parts = Vec::new();
        push_halves(&mut parts, events);
        while let Some(part) = parts.pop() {
            match self.settle_once(part).await {
                Ok(busy) => aside.extend(busy),
                Err(error) if error.is_busy() => aside.extend(part.iter().map(|event| event.id)),
                Err(error) if error.is_environment_error() => {
                    return Err(count_postgres_failure(error));
                }
                Err(_) if part.len() == 1 => failing.extend_from_slice(part),
                Err(_) => push_halves(&mut parts, part),
            }
        }
        aside.extend(self.settle_alone(&failing, dead).await?);
        Ok(aside)
    }

    /// Settles each event in its own transaction, counting its tries. Returns those that stepped aside.
    async fn settle_alone(
        &self,
        events: &[RawEvent],
        dead: &lapin::Channel,
    ) -> Result<BTreeSet<Uuid>, SettleError> {
        let mut aside = BTreeSet::new();
        for event in events {
            if !self.settle_one(event, dead).await? {
                aside.insert(event.id);
            }
        }
        Ok(aside)
    }

    /// False if it stepped aside.
    async fn settle_one(
        &self,
        event: &RawEvent,
        dead: &lapin::Channel,
    ) -> Result<bool, SettleError> {
        loop {
            let begun = self
                .attempts
                .begin_attempts(std::slice::from_ref(event))
                .await?;
            let attempt = begun.get(&event.id).copied().unwrap_or(1);
            if attempt > MAX_ATTEMPTS {
                self.park_event(event, dead).await?;
                return Ok(true);
            }
            let alone = std::slice::from_ref(event);
            match self.settle_once(alone).await {
                Ok(aside) => {
                    self.attempts.forget_attempts(&[event.id]).await?;
                    return Ok(aside.is_empty());
                }
                // Waiting for a lock is no failure (V12).
                Err(error) if error.is_busy() => {
                    self.attempts.forget_attempts(&[event.id]).await?;
                    return Ok(false);
                }
                Err(error) if error.is_environment_error() => {
                    self.attempts.record_cut_short(event.id);
                    return Err(count_postgres_failure(error));
                }
                Err(error) => {
                    metrics::worker().failures.inc(FailureKind::Event);
                    tracing::warn!(event_id = %event.id, attempt, %error, "an event could not be settled");
                    tokio::time::sleep(PAUSE_BETWEEN_ATTEMPTS).await;
                }
            }
        }
    }

    /// First the dead letter, then the row: a death in between parks it twice rather than not at all.
    async fn park_event(&self, event: &RawEvent, dead: &lapin::Channel) -> Result<(), SettleError> {
        let message = envelope::encode_envelope(&Envelope::from_events(vec![event.clone()]));
        topology::publish_dead(dead, &message).await?;
        attempts::park_event(&self.pool, event).await?;
        self.forget_aside([event.id]);
        self.attempts.forget_attempts(&[event.id]).await?;
        metrics::worker().parked.inc();
        metrics::worker().settled.inc(Status::Held);
        metrics::worker()
            .reasons
            .inc(Some(Reason::ProcessingFailed));
        tracing::error!(event_id = %event.id, "an event failed five times and was set aside; see the runbook: dead letters");
        Ok(())
    }

    /// What is free of them, behind nobody that waits.
    async fn settle_once(&self, events: &[RawEvent]) -> Result<BTreeSet<Uuid>, StoreError> {
        self.settle_behind(events, LockMode::SkipBusy, BTreeSet::new())
            .await
    }

    /// One transaction; returns the events that stepped aside, also those behind a caller that waits. A panic in
    /// it is the event's failure, not the worker's end.
    async fn settle_behind(
        &self,
        events: &[RawEvent],
        mode: LockMode,
        waiting: BTreeSet<AccountCaller>,
    ) -> Result<BTreeSet<Uuid>, StoreError> {
        let started = Instant::now();
        crash_points::event(events);
        let settling = run_tx(&self.pool, TransactionName::Settle, |tx| {
            let work = events.iter().cloned().map(SettleJob::Fresh).collect();
            let waiting = waiting.clone();
            Box::pin(async move {
                let settled = match mode {
                    LockMode::Wait => (settle_batch(tx, work).await?, SteppedAside::new()),
                    LockMode::SkipBusy => settle_what_is_free(tx, work, &waiting).await?,
                };
                crash_points::point(Point::BeforeCommit);
                Ok(settled)
            })
        });
        let (settled, aside) = match AssertUnwindSafe(settling).catch_unwind().await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(StoreError::Corrupt("settling panicked".to_owned())),
        };
        crash_points::point(Point::AfterCommit);
        metrics::worker().batch_seconds.since(started);
        metrics::worker().batch_events.observe_count(events.len());
        count_results(&settled);
        self.forget_aside(events.iter().map(|event| event.id));
        let ids = aside.keys().copied().collect();
        self.lock_aside().extend(aside);
        Ok(ids)
    }
}

fn count_postgres_failure(error: StoreError) -> SettleError {
    metrics::worker().failures.inc(FailureKind::Postgres);
    error.into()
}

/// Puts the first half on top.
fn push_halves<'a>(parts: &mut Vec<&'a [RawEvent]>, events: &'a [RawEvent]) {
    let (first, second) = events.split_at(events.len() / 2);
    parts.extend([second, first].into_iter().filter(|half| !half.is_empty()));
}

/// Tells the metrics what became of reports.
pub fn count_results(settled: &[SettleResult]) {
    let worker = metrics::worker();
    let now = Timestamp::now();
    for one in settled {
        match &one.decision {
            None => worker.skipped.inc(),
            Some(decision) => {
                worker.settled.inc(decision.status());
                worker.reasons.inc(decision.reason());
                // A clock that is off makes a lag below zero: that is the clock's, not a lag.
                let lag = now.duration_since(one.received_at).as_secs_f64();
                worker.lag_seconds.observe_value(lag.max(0.0));
            }
        }
    }
}
