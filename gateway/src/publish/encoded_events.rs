//! Events as they travel, and why nobody may have them.

use std::sync::Arc;

use trueup_event::envelope;
use trueup_event::raw_event::{RawEvent, SecretUse};

/// Events in the form in which they travel, written once whatever way they go.
pub struct EncodedEvents {
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) bytes: usize,
    pub(super) uses: Vec<SecretUse>,
}

impl EncodedEvents {
    pub fn from_events(events: &[RawEvent]) -> Arc<EncodedEvents> {
        EncodedEvents::from_events_and_uses(events, Vec::new())
    }

    pub fn from_events_and_uses(events: &[RawEvent], uses: Vec<SecretUse>) -> Arc<EncodedEvents> {
        let parts: Vec<Vec<u8>> = events.iter().map(envelope::encode_event).collect();
        let bytes = parts.iter().map(Vec::len).sum();
        Arc::new(EncodedEvents { parts, bytes, uses })
    }

    /// Of parts that were written before.
    pub(super) fn from_parts(parts: Vec<Vec<u8>>) -> Arc<EncodedEvents> {
        let bytes = parts.iter().map(Vec::len).sum();
        Arc::new(EncodedEvents {
            parts,
            bytes,
            uses: Vec::new(),
        })
    }

    pub fn event_count(&self) -> usize {
        self.parts.len()
    }
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
