//! What may wait for the broker, of all accounts and of each: a slow broker fills no memory, and is not one
//! account's to fill.

use std::collections::HashMap;

use parking_lot::Mutex;
use trueup_event::amount::Amount;
use trueup_ops::metrics;
use uuid::Uuid;

use super::encoded_events::EncodedEvents;

/// What may wait for the broker in all; more is answered 503 at once.
pub const WAITING: Amount = Amount {
    events: 20_000,
    bytes: 64 * 1024 * 1024,
};
/// The part of it that one account may have waiting.
const ACCOUNT_PART: usize = 4;

/// What waits for the broker.
#[derive(Default)]
pub struct InFlightCounters {
    waiting: Mutex<WaitingEvents>,
}

#[derive(Default)]
struct WaitingEvents {
    all: Amount,
    /// Of each account that has something waiting.
    of_accounts: HashMap<Uuid, Amount>,
}

impl WaitingEvents {
    /// False if there is no room for them; then nothing was added.
    fn try_add(&mut self, events: &EncodedEvents) -> bool {
        let more = events.amount;
        let mut all = self.all;
        all.add(more);
        if !all.is_within(WAITING) {
            return false;
        }
        if let Some(id) = events.account {
            let before = self.of_accounts.get(&id).copied().unwrap_or_default();
            let mut of_account = before;
            of_account.add(more);
            // One alone may be larger.
            let is_first = before == Amount::default();
            if !is_first && !of_account.is_within(WAITING.part(ACCOUNT_PART)) {
                return false;
            }
            self.of_accounts.insert(id, of_account);
        }
        self.all = all;
        true
    }

    fn subtract(&mut self, events: &EncodedEvents) {
        let less = events.amount;
        self.all.subtract(less);
        if let Some(id) = events.account
            && let Some(of_account) = self.of_accounts.get_mut(&id)
        {
            of_account.subtract(less);
            if *of_account == Amount::default() {
                self.of_accounts.remove(&id);
            }
        }
    }
}

/// Takes its part off the load again, however the request ends.
pub struct InFlightPermit<'a> {
    load: &'a InFlightCounters,
    events: &'a EncodedEvents,
}

impl<'a> InFlightPermit<'a> {
    /// `None` if there is no room for them.
    pub fn try_acquire(
        load: &'a InFlightCounters,
        events: &'a EncodedEvents,
    ) -> Option<InFlightPermit<'a>> {
        let has_room = load.change_waiting(|waiting| waiting.try_add(events));
        has_room.then_some(InFlightPermit { load, events })
    }
}

impl InFlightCounters {
    fn change_waiting<T>(&self, change: impl FnOnce(&mut WaitingEvents) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let outcome = change(&mut waiting);
        metrics::gateway().in_flight.set(waiting.all.events);
        outcome
    }
}

impl Drop for InFlightPermit<'_> {
    fn drop(&mut self) {
        self.load
            .change_waiting(|waiting| waiting.subtract(self.events));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn one_account_fills_only_its_part_of_what_may_wait() {
        let load = InFlightCounters::default();
        let of = |account: u128, events: usize| {
            Arc::new(EncodedEvents::of_account(Uuid::from_u128(account), events))
        };
        let (flood, other) = (of(1, 500), of(2, 500));
        let mut places = Vec::new();
        while let Some(place) = InFlightPermit::try_acquire(&load, &flood) {
            places.push(place);
        }
        assert_eq!(places.len() * 500, WAITING.part(ACCOUNT_PART).events);
        let others = InFlightPermit::try_acquire(&load, &other);
        assert!(others.is_some());
        drop((places, others));
        load.change_waiting(|waiting| {
            assert!(waiting.all == Amount::default() && waiting.of_accounts.is_empty());
        });
        let whole = of(3, WAITING.part(ACCOUNT_PART).events + 1);
        assert!(InFlightPermit::try_acquire(&load, &whole).is_some());
    }
}
