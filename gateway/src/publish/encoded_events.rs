//! Events as they travel, and why nobody may have them.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use trueup_event::envelope;
use trueup_event::raw_event::{RawEvent, SecretUse, encode_batch, is_batch_part};

/// Events in the form in which they travel, written once whatever way they go.
pub struct EncodedEvents {
    /// An event each, or a whole batch: what its elements have in common stands in it once (X3).
    pub(super) parts: Vec<Vec<u8>>,
    events: usize,
    pub(super) bytes: usize,
    pub(super) uses: Vec<SecretUse>,
}

impl EncodedEvents {
    pub fn from_events(events: &[RawEvent]) -> Arc<EncodedEvents> {
        EncodedEvents::from_events_and_uses(events, Vec::new())
    }

    pub fn from_events_and_uses(events: &[RawEvent], uses: Vec<SecretUse>) -> Arc<EncodedEvents> {
        let is_batch = |event: &RawEvent| {
            let request = event.request.as_ref();
            request.is_some_and(|request| request.batch_of.is_some())
        };
        let parts: Vec<Vec<u8>> = if events.get(1).is_some_and(is_batch) {
            vec![encode_batch(events)]
        } else {
            events.iter().map(envelope::encode_event).collect()
        };
        let bytes = parts.iter().map(Vec::len).sum();
        Arc::new(EncodedEvents {
            parts,
            events: events.len(),
            bytes,
            uses,
        })
    }

    /// Of parts that were written before.
    pub(super) fn from_parts(parts: Vec<Vec<u8>>) -> Arc<EncodedEvents> {
        let bytes = parts.iter().map(Vec::len).sum();
        let events = parts.iter().map(|part| count_events(part)).sum();
        Arc::new(EncodedEvents {
            parts,
            events,
            bytes,
            uses: Vec::new(),
        })
    }

    pub fn event_count(&self) -> usize {
        self.events
    }
}

/// How many events a part holds that was written before.
fn count_events(part: &[u8]) -> usize {
    #[derive(Deserialize)]
    struct Batch {
        elements: Vec<IgnoredAny>,
    }
    if !is_batch_part(part) {
        return 1;
    }
    serde_json::from_slice::<Batch>(part).map_or(1, |batch| batch.elements.len())
}

/// Why nobody has the events. (Or, after a lost confirm, perhaps somebody has; their ids are unique,
/// so that sending them again does no harm.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// No broker, or it blocks publishers, or did not say in time that it has them.
    Away,
    /// As much is waiting for the broker as may wait.
    Full,
}
