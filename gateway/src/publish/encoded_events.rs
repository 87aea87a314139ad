//! Events as they travel, and why nobody may have them.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use trueup_event::amount::Amount;
use trueup_event::envelope;
use trueup_event::limits;
use trueup_event::raw_event::{EventPart, RawEvent, SecretUse, is_batch_part};
use uuid::Uuid;

/// Events in the form in which they travel, written once whatever way they go.
pub struct EncodedEvents {
    /// Whose they are, if they are all of one account.
    pub(super) account: Option<Uuid>,
    pub(super) parts: Vec<EventPart>,
    pub(super) amount: Amount,
    pub(super) uses: Vec<SecretUse>,
}

impl EncodedEvents {
    pub fn from_events(events: &[RawEvent]) -> Arc<EncodedEvents> {
        EncodedEvents::from_events_and_uses(events, Vec::new())
    }

    pub fn from_events_and_uses(events: &[RawEvent], uses: Vec<SecretUse>) -> Arc<EncodedEvents> {
        let parts = envelope::encode_in_parts(events, envelope::USUAL_BYTES);
        let account = events.first().map(|first| first.account_id);
        let account = account.filter(|id| events.iter().all(|event| event.account_id == *id));
        Arc::new(EncodedEvents::new(account, parts, uses))
    }

    /// Of parts that were written before.
    pub(super) fn from_parts(parts: Vec<Vec<u8>>) -> Arc<EncodedEvents> {
        let parts = parts.into_iter().map(|bytes| EventPart {
            events: count_events(&bytes),
            bytes,
        });
        Arc::new(EncodedEvents::new(None, parts.collect(), Vec::new()))
    }

    fn new(account: Option<Uuid>, parts: Vec<EventPart>, uses: Vec<SecretUse>) -> EncodedEvents {
        let mut amount = Amount::default();
        parts.iter().for_each(|part| amount.add(part.amount()));
        EncodedEvents {
            account,
            amount,
            parts,
            uses,
        }
    }

    /// The same in pieces, of which none is too much for a message.
    pub(super) fn split_for_messages(self: Arc<Self>) -> Vec<Arc<EncodedEvents>> {
        if self.amount.is_within(envelope::USUAL_AMOUNT) {
            return vec![self];
        }
        let pieces = envelope::split_for_messages(&self.parts).into_iter();
        let pieces =
            pieces.map(|parts| EncodedEvents::new(self.account, parts.to_vec(), Vec::new()));
        let mut pieces: Vec<EncodedEvents> = pieces.collect();
        if let Some(first) = pieces.first_mut() {
            first.uses.clone_from(&self.uses);
        }
        pieces.into_iter().map(Arc::new).collect()
    }

    pub fn event_count(&self) -> usize {
        self.amount.events
    }

    /// A batch, or a body that is as large as one.
    pub(super) fn is_large(&self) -> bool {
        match self.parts.as_slice() {
            [one] => one.events > 1 || one.bytes.len() > limits::BODY_BYTES,
            [first, ..] => is_batch_part(&first.bytes),
            [] => false,
        }
    }
}

/// How many events a part holds.
fn count_events(part: &[u8]) -> usize {
    #[derive(Deserialize)]
    struct BatchPart {
        elements: Vec<IgnoredAny>,
    }
    if !is_batch_part(part) {
        return 1;
    }
    serde_json::from_slice::<BatchPart>(part).map_or(1, |batch| batch.elements.len())
}

/// Why nobody has the events, or not all of them. (Or, after a lost confirm, perhaps somebody has; their ids are
/// unique, so that sending them again does no harm.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishError {
    /// No broker, or it blocks publishers, or did not say in time that it has them.
    Away,
    /// As much is waiting for the broker as may wait.
    Full,
}

#[cfg(test)]
impl EncodedEvents {
    /// As many events of nothing.
    pub(super) fn of_account(account: Uuid, events: usize) -> EncodedEvents {
        let part = EventPart {
            bytes: Vec::new(),
            events,
        };
        EncodedEvents::new(Some(account), vec![part], Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sizes: &[(usize, usize)]) -> Arc<EncodedEvents> {
        let part = |(bytes, events): &(usize, usize)| EventPart {
            bytes: vec![b'x'; *bytes],
            events: *events,
        };
        Arc::new(EncodedEvents::new(
            None,
            sizes.iter().map(part).collect(),
            Vec::new(),
        ))
    }

    #[test]
    fn what_is_too_much_for_a_message_goes_in_pieces() {
        let amounts = |events: Arc<EncodedEvents>| -> Vec<(usize, usize)> {
            let pieces = events.split_for_messages();
            pieces
                .iter()
                .map(|piece| (piece.amount.bytes, piece.amount.events))
                .collect()
        };
        let (half, one) = (envelope::USUAL_BYTES / 2, envelope::USUAL_BYTES + 1);
        assert_eq!(amounts(parts(&[])), [(0, 0)], "uses of secrets alone");
        assert_eq!(amounts(parts(&[(half, 1), (half, 1)])), [(2 * half, 2)]);
        assert_eq!(
            amounts(parts(&[(half, 1), (half, 1), (half, 1)])),
            [(2 * half, 2), (half, 1)]
        );
        assert_eq!(
            amounts(parts(&[(1, 1), (one, 1), (1, 1)])),
            [(1, 1), (one, 1), (1, 1)]
        );
        assert_eq!(
            amounts(parts(&[(1, 300), (1, 200), (1, 1)])),
            [(2, 500), (1, 1)]
        );
    }
}
