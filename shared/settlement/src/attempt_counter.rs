//! Tries of events (V12): noted before each, forgotten when it ends well, at most five.
//!
//! The note is committed before the try begins, so that an event which kills its worker counts too. A try
//! that Postgres cut short by going away is no try of the event's: the next one makes up for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use trueup_event::raw_event::RawEvent;
use trueup_store::settlement::attempts;
use trueup_store::{Pool, StoreError};
use uuid::Uuid;

/// Tries of one event before it is set aside (V12).
pub const MAX_ATTEMPTS: i32 = 5;

#[derive(Clone)]
pub struct AttemptCounter {
    pool: Pool,
    /// Events whose last try was cut short.
    cut_short: Arc<Mutex<HashSet<Uuid>>>,
}

impl AttemptCounter {
    pub fn new(pool: Pool) -> Self {
        AttemptCounter {
            pool,
            cut_short: Arc::default(),
        }
    }

    /// Notes a try of each; returns which one it is, from 1.
    pub async fn begin_attempts(
        &self,
        events: &[RawEvent],
    ) -> Result<HashMap<Uuid, i32>, StoreError> {
        let again = self.forget_cut_short(events);
        let tries: Vec<(Uuid, bool)> = events
            .iter()
            .map(|event| (event.id, !again.contains(&event.id)))
            .collect();
        let begun = attempts::begin_attempts(&self.pool, &tries).await;
        if begun.is_err() {
            again.into_iter().for_each(|id| self.record_cut_short(id));
        }
        begun
    }

    /// The events were settled, or failed together, which says nothing about each.
    pub async fn forget_attempts(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        attempts::forget_attempts(&self.pool, ids).await
    }

    /// Those of the events that a worker has begun before, by themselves or in a batch, and not finished.
    pub async fn find_tried(&self, events: &[RawEvent]) -> Result<HashSet<Uuid>, StoreError> {
        attempts::tried_before(&self.pool, events).await
    }

    pub fn record_cut_short(&self, id: Uuid) {
        self.cut_short.lock().insert(id);
    }

    fn forget_cut_short(&self, events: &[RawEvent]) -> HashSet<Uuid> {
        let mut ids = self.cut_short.lock();
        let of_these = events.iter().map(|event| event.id);
        of_these.filter(|id| ids.remove(id)).collect()
    }
}
