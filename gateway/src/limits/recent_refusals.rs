//! Refusals, until they may be asked again: a sender that goes on knocking is told without Redis.
//!
//! Bounded: when it is full of live ones, a new refusal is not remembered, and costs Redis again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::policy::{Limit, LimitKey};

/// About 100 bytes each.
const ENTRIES: usize = 100_000;
/// A full memory is swept at most this often: sweeping is a walk through all of it.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct RecentRefusals {
    /// With the limit that was over: a changed one is asked about at once.
    until: HashMap<LimitKey, (u32, Instant)>,
    swept: Option<Instant>,
}

impl RecentRefusals {
    pub fn remaining_wait(&self, limit: &Limit, now: Instant) -> Option<Duration> {
        let (per_minute, until) = self.until.get(&limit.key)?;
        if *per_minute != limit.per_minute {
            return None;
        }
        until
            .checked_duration_since(now)
            .filter(|wait| !wait.is_zero())
    }

    pub fn remember_refusal(&mut self, limit: Limit, until: Instant, now: Instant) {
        if self.until.len() >= ENTRIES && !self.until.contains_key(&limit.key) {
            if self
                .swept
                .is_some_and(|at| now.duration_since(at) < SWEEP_EVERY)
            {
                return;
            }
            self.swept = Some(now);
            self.until.retain(|_, (_, until)| *until > now);
            if self.until.len() >= ENTRIES {
                return;
            }
        }
        self.until.insert(limit.key, (limit.per_minute, until));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn it_forgets_at_the_time_and_when_the_limit_is_another() {
        let mut remembered = RecentRefusals::default();
        let now = Instant::now();
        let limit = Limit {
            key: LimitKey::Token(Uuid::nil()),
            per_minute: 50,
        };
        remembered.remember_refusal(limit, now + Duration::from_secs(7), now);
        assert_eq!(
            remembered.remaining_wait(&limit, now),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            remembered.remaining_wait(&limit, now + Duration::from_secs(7)),
            None
        );
        assert_eq!(
            remembered.remaining_wait(
                &Limit {
                    per_minute: 51,
                    ..limit
                },
                now
            ),
            None
        );
    }

    #[test]
    fn it_is_bounded() {
        let mut remembered = RecentRefusals::default();
        let now = Instant::now();
        for n in 0..ENTRIES as u128 + 10 {
            let limit = Limit {
                key: LimitKey::Token(Uuid::from_u128(n)),
                per_minute: 50,
            };
            remembered.remember_refusal(limit, now + Duration::from_secs(7), now);
        }
        assert_eq!(remembered.until.len(), ENTRIES);
        let later = now + Duration::from_secs(8);
        remembered.remember_refusal(
            Limit {
                key: LimitKey::Token(Uuid::from_u128(u128::MAX)),
                per_minute: 50,
            },
            later,
            later,
        );
        assert_eq!(remembered.until.len(), 1);
    }
}
