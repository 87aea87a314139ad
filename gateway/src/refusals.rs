//! Requests that were refused at a webhook, counted until they are told: at most one row for each
//! webhook, reason and source network in each turn, however many there were. The source of a row is an
//! IPv4 address, or the first address of an IPv6 /64: a sender that has a whole /64 is one source.
//!
//! Bounded, so that a flood from a hundred thousand addresses is no flood of the broker and the
//! database: what does not fit is counted under no address in particular. A webhook has no more rows that
//! name an address than are left for all others, so that a flood of one leaves the others their names.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::webhook_cache::query::IngestWebhook;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use trueup_event::ids;
use trueup_event::raw_event::{RawEvent, Refusal};
use trueup_event::reason::RefusalReason;
use trueup_ops::metrics;
use trueup_ops::network::network_of;
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
    pub reason: RefusalReason,
    /// The first address of its network.
    pub source: IpAddr,
}

#[derive(Default)]
pub struct RefusalCounter(Mutex<RefusalRows>);

#[derive(Default)]
struct RefusalRows {
    counts: HashMap<RefusalKey, u32>,
    /// How many of them name an address, and at which webhooks.
    named: usize,
    named_of: HashMap<Uuid, usize>,
}

impl RefusalCounter {
    pub fn count(&self, webhook: &IngestWebhook, reason: RefusalReason, source: IpAddr) {
        metrics::gateway().refusals.inc(reason);
        let refused = RefusalKey {
            account_id: webhook.account_id,
            webhook_id: webhook.webhook_id,
            reason,
            source: network_of(source),
        };
        self.lock_rows().add_count(refused, 1);
    }

    pub fn take_counts(&self) -> HashMap<RefusalKey, u32> {
        std::mem::take(&mut *self.lock_rows()).counts
    }

    /// For another turn, after these could not be told.
    pub fn restore_counts(&self, refusals: &[(RefusalKey, u32)]) {
        let mut rows = self.lock_rows();
        for (refused, count) in refusals {
            rows.add_count(*refused, *count);
        }
    }

    fn lock_rows(&self) -> MutexGuard<'_, RefusalRows> {
        self.0.lock()
    }
}

impl RefusalRows {
    fn add_count(&mut self, refused: RefusalKey, n: u32) {
        if let Some(count) = self.counts.get_mut(&refused) {
            *count = count.saturating_add(n);
            return;
        }
        let named_of = self.named_of.entry(refused.webhook_id).or_default();
        if refused.source != NO_ADDRESS && *named_of < ROWS.saturating_sub(self.named) {
            *named_of += 1;
            self.named += 1;
            self.counts.insert(refused, n);
            return;
        }
        let nameless = RefusalKey {
            source: NO_ADDRESS,
            ..refused
        };
        let nameless_rows = self.counts.len() - self.named;
        if let Some(count) = self.counts.get_mut(&nameless) {
            *count = count.saturating_add(n);
        } else if nameless_rows < MORE_ROWS {
            self.counts.insert(nameless, n);
        } else {
            metrics::gateway().refusals_dropped.add(n);
        }
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
                reason: refused.reason.into(),
                count: *count,
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(webhook: u128, source: u32) -> RefusalKey {
        RefusalKey {
            account_id: Uuid::nil(),
            webhook_id: Uuid::from_u128(webhook),
            reason: RefusalReason::SecretMissing,
            source: IpAddr::from(source.to_be_bytes()),
        }
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_and_nothing_is_lost_of_its_count() {
        let mut rows = RefusalRows::default();
        for n in 0..100_000 {
            rows.add_count(refused(n.into(), n), 1);
        }
        assert_eq!(rows.counts.len(), ROWS + MORE_ROWS);
        let mut rows = RefusalRows::default();
        for n in 0..100_000 {
            rows.add_count(refused(1, n), 1);
        }
        assert_eq!(rows.counts.len(), ROWS / 2 + 1);
        assert_eq!(rows.counts.values().sum::<u32>(), 100_000);
    }

    #[test]
    fn a_flood_at_one_webhook_leaves_the_others_rows_with_a_name() {
        let mut rows = RefusalRows::default();
        for flooded in 0..5 {
            for n in 0..10_000 {
                rows.add_count(refused(flooded, n), 1);
            }
        }
        rows.add_count(refused(99, 7), 3);
        assert_eq!(rows.counts.get(&refused(99, 7)), Some(&3));
        assert!(rows.named <= ROWS);
    }
}
