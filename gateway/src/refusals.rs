//! Requests that were refused at a webhook, counted until they are told: at most one row for each
//! webhook, reason and source address in each turn, however many there were.
//!
//! Bounded, so that a flood from a hundred thousand addresses is no flood of the broker and the
//! database: what does not fit is counted under no address in particular.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use crate::webhook_cache::query::IngestWebhook;
use jiff::Timestamp;
use trueup_event::ids;
use trueup_event::raw_event::{RawEvent, Refusal};
use trueup_event::reason::Reason;
use trueup_ops::metrics;
use uuid::Uuid;

/// Rows in one turn that name an address.
const ROWS: usize = 1000;
/// Rows in one turn that name none: webhooks times reasons.
const MORE_ROWS: usize = 1000;
const NO_ADDRESS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefusalKey {
    pub account_id: Uuid,
    pub webhook_id: Uuid,
    pub reason: Reason,
    pub source: IpAddr,
}

#[derive(Default)]
pub struct RefusalCounter(Mutex<HashMap<RefusalKey, u32>>);

impl RefusalCounter {
    pub fn count(&self, webhook: &IngestWebhook, reason: Reason, source: IpAddr) {
        metrics::gateway().refusals.inc(&[reason.code()]);
        let refused = RefusalKey {
            account_id: webhook.account_id,
            webhook_id: webhook.webhook_id,
            reason,
            source,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        add_count(&mut all, refused, 1);
    }

    pub fn take_counts(&self) -> HashMap<RefusalKey, u32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For another turn, after these could not be told.
    pub fn restore_counts(&self, refusals: &[(RefusalKey, u32)]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (refused, count) in refusals {
            add_count(&mut all, *refused, *count);
        }
    }
}

fn add_count(all: &mut HashMap<RefusalKey, u32>, refused: RefusalKey, n: u32) {
    if let Some(count) = all.get_mut(&refused) {
        *count = count.saturating_add(n);
        return;
    }
    if all.len() < ROWS {
        all.insert(refused, n);
        return;
    }
    let nameless = RefusalKey {
        source: NO_ADDRESS,
        ..refused
    };
    if let Some(count) = all.get_mut(&nameless) {
        *count = count.saturating_add(n);
    } else if all.len() < ROWS + MORE_ROWS {
        all.insert(nameless, n);
    } else {
        metrics::gateway().refusals_dropped.add(&[], u64::from(n));
    }
}

/// A new event id of that moment.
pub fn event_id(received_at: Timestamp) -> Uuid {
    let mut random = [0_u8; 10];
    rand::fill(&mut random);
    ids::event_id(received_at, &random)
}

/// The rows for what was refused since the last turn.
pub fn refusal_events(refusals: &[(RefusalKey, u32)]) -> Vec<RawEvent> {
    let received_at = ids::to_microseconds(Timestamp::now());
    refusals
        .iter()
        .map(|(refused, count)| RawEvent {
            id: event_id(received_at),
            received_at,
            account_id: refused.account_id,
            webhook_id: refused.webhook_id,
            position: 0,
            source_ip: refused.source,
            request: None,
            refusal: Some(Refusal {
                reason: refused.reason,
                count: *count,
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_nothing_is_lost_of_its_count() {
        let mut all = HashMap::new();
        for n in 0..100_000_u32 {
            let refused = RefusalKey {
                account_id: Uuid::nil(),
                webhook_id: Uuid::nil(),
                reason: Reason::SecretMissing,
                source: IpAddr::from(n.to_be_bytes()),
            };
            add_count(&mut all, refused, 1);
        }
        assert_eq!(all.len(), ROWS + 1);
        assert_eq!(all.values().sum::<u32>(), 100_000);
    }
}
