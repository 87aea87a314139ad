//! What one account may send in batches and in bodies as large as one.
//!
//! A batch counts once against a webhook's and an address's limits (X3), but costs the broker, the workers and the
//! database as much as all that is in it. So an account has an allowance: so many elements a second, and a burst;
//! a kilobyte counts as an element. Beyond it that account's batches are answered 503 with Retry-After, and nobody
//! else waits for them. Single reports are not counted. Each gateway counts for itself.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trueup_event::amount::Amount;
use uuid::Uuid;

/// Bytes that count as an element.
const ELEMENT_BYTES: usize = 1024;
/// Accounts that are remembered before those that have their whole burst again are forgotten.
const ACCOUNTS: usize = 1_000;

#[derive(Debug, Clone, Copy)]
pub struct BatchAllowance {
    /// Elements a second.
    pub per_second: NonZeroU32,
    /// Elements that may come at once.
    pub burst: NonZeroU32,
}

/// The accounts' allowances: by when each has used up what it was given, if it gets no more than its rate.
pub struct AccountAllowances {
    allowance: BatchAllowance,
    used_until: Mutex<HashMap<Uuid, Instant>>,
}

/// What one batch has taken of its account's allowance: the time that the account's rate takes for it.
pub struct AllowanceUse {
    account: Uuid,
    from: Instant,
    until: Instant,
}

impl AccountAllowances {
    pub fn new(allowance: BatchAllowance) -> AccountAllowances {
        AccountAllowances {
            allowance,
            used_until: Mutex::default(),
        }
    }

    /// `None` if the account has to wait; then nothing was taken.
    pub fn try_take(&self, account: Uuid, amount: Amount, now: Instant) -> Option<AllowanceUse> {
        let cost = u32::try_from(amount.events + amount.bytes / ELEMENT_BYTES).unwrap_or(u32::MAX);
        let mut used_until = self.used_until.lock();
        if used_until.len() >= ACCOUNTS {
            used_until.retain(|_, until| *until > now);
        }
        let from = used_until.get(&account).copied().unwrap_or(now).max(now);
        let until = from + self.time_for(cost);
        // Whoever has used up nothing may send one batch, however small the burst.
        if from > now && until.duration_since(now) > self.time_for(self.allowance.burst.get()) {
            return None;
        }
        used_until.insert(account, until);
        Some(AllowanceUse {
            account,
            from,
            until,
        })
    }

    /// What was not stored after all uses nothing up. The time that has gone by is given back by itself.
    pub fn release_unused(&self, used: &AllowanceUse, now: Instant) {
        let rest = used.until.saturating_duration_since(used.from.max(now));
        if let Some(until) = self.used_until.lock().get_mut(&used.account) {
            *until = until.checked_sub(rest).unwrap_or(now);
        }
    }

    /// How long the account's rate takes for so many.
    fn time_for(&self, elements: u32) -> Duration {
        Duration::from_secs(1) * elements / self.allowance.per_second.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(events: usize, bytes: usize) -> Amount {
        Amount { events, bytes }
    }

    const ALLOWANCE: BatchAllowance = BatchAllowance {
        per_second: NonZeroU32::new(100).expect("not zero"),
        burst: NonZeroU32::new(1_000).expect("not zero"),
    };

    #[test]
    fn an_account_has_its_burst_then_its_rate_and_the_others_have_theirs() {
        let allowances = AccountAllowances::new(ALLOWANCE);
        let (flood, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let now = Instant::now();
        let taken = (0..50)
            .filter(|_| allowances.try_take(flood, of(100, 0), now).is_some())
            .count();
        assert_eq!(taken, 10);
        assert!(allowances.try_take(other, of(500, 0), now).is_some());
        let later = now + Duration::from_secs(2);
        let taken = (0..50)
            .filter(|_| allowances.try_take(flood, of(100, 0), later).is_some())
            .count();
        assert_eq!(taken, 2);
        let much_later = now + Duration::from_secs(60);
        let taken = (0..50)
            .filter(|_| allowances.try_take(flood, of(100, 0), much_later).is_some())
            .count();
        assert_eq!(taken, 10, "no more than a burst is saved up");
    }

    #[test]
    fn the_largest_batch_comes_in_whatever_the_burst() {
        let allowances = AccountAllowances::new(BatchAllowance {
            burst: NonZeroU32::MIN,
            ..ALLOWANCE
        });
        let now = Instant::now();
        let largest = of(500, 512 * 1024);
        assert!(allowances.try_take(Uuid::nil(), largest, now).is_some());
        assert!(allowances.try_take(Uuid::nil(), of(1, 0), now).is_none());
    }

    #[test]
    fn bytes_count_as_elements() {
        let allowances = AccountAllowances::new(ALLOWANCE);
        let now = Instant::now();
        let taken = (0..50)
            .filter(|_| {
                let large = of(1, 512 * 1024);
                allowances.try_take(Uuid::nil(), large, now).is_some()
            })
            .count();
        assert_eq!(taken, 1);
    }

    #[test]
    fn what_is_given_back_is_what_is_left_of_it_and_no_more() {
        let allowances = AccountAllowances::new(ALLOWANCE);
        let account = Uuid::nil();
        let now = Instant::now();
        let take = |events, at| allowances.try_take(account, of(events, 0), at);
        let (first, second) = (take(500, now), take(500, now));
        assert!(take(1, now).is_none());
        let first = first.expect("within the burst");
        let second = second.expect("within the burst");
        allowances.release_unused(&second, now);
        assert!(take(500, now).is_some());
        // The first is over after its five seconds: what came later is not given back with it.
        let later = now + Duration::from_secs(11);
        assert!(take(1_000, later).is_some());
        allowances.release_unused(&first, later);
        assert!(take(1, later).is_none());
    }
}
