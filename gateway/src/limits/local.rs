//! The same limits in this process alone: what decides while Redis is away.
//!
//! It also counts what Redis lets pass, so that an outage begins where the minute stands and not with
//! another full one. Of other gateways it knows nothing. Time comes from outside (microseconds of any
//! steady clock), so that a test can run through minutes at once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::policy::{EXACT_UP_TO, Limit, LimitCheck, LimitDecision, LimitKey, WINDOW};

const MICROS: u64 = 1_000_000;
/// Passes are kept to the millisecond: half the memory of microseconds.
const MILLI: u64 = 1_000;
const WINDOW_MILLIS: u64 = WINDOW.as_secs() * 1_000;
/// Keys at once (the list of 50 passes is a quarter of a kilobyte). When full of live ones, an address
/// that is not known yet passes uncounted: its webhook's limit still holds.
const KEYS: usize = 100_000;
/// Below this many keys nothing is ever swept.
const FEW_KEYS: usize = 10_000;
/// What is over is swept out this often, and more often only when there are too many keys.
const SWEEP_EVERY: u64 = WINDOW.as_secs() * MICROS;
const SWEEP_FULL_EVERY: u64 = MICROS;

#[derive(Default)]
pub struct Local {
    passes: HashMap<Limit, WindowCounter>,
    swept_at: u64,
}

enum WindowCounter {
    /// The times of the last passes in milliseconds (of 49 days, modulo), newest at the back.
    Exact(VecDeque<u32>),
    /// (second, passes), newest at the back.
    Buckets(VecDeque<(u64, u32)>),
}

impl WindowCounter {
    fn add_request(&mut self, limit: &Limit, now: u64) {
        match self {
            WindowCounter::Exact(times) => {
                while times.len() >= limit.per_minute as usize && times.pop_front().is_some() {}
                times.push_back(low_bits(now));
            }
            WindowCounter::Buckets(buckets) => match buckets.back_mut() {
                Some((second, n)) if *second == now / MICROS => *n = n.saturating_add(1),
                _ => buckets.push_back((now / MICROS, 1)),
            },
        }
    }
}

impl std::hash::Hash for Limit {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The milliseconds since then; a time is never compared over more than 49 days, because what is over
/// is swept.
fn millis_since(at: u32, now: u64) -> u64 {
    u64::from(low_bits(now).wrapping_sub(at))
}

fn low_bits(now: u64) -> u32 {
    u32::try_from((now / MILLI) & u64::from(u32::MAX)).unwrap_or(0)
}

impl Local {
    pub fn decide(&mut self, question: &LimitCheck, now: u64) -> LimitDecision {
        match self.check_limits(question, now) {
            Some(verdict) => verdict,
            None => {
                let keep = question
                    .keeping
                    .as_ref()
                    .is_some_and(|keeping| self.wait_for_room(keeping, now).is_none());
                let verdict = LimitDecision::Pass { keep };
                self.record_allowed(question, verdict, now);
                verdict
            }
        }
    }

    /// The refusal, if there is no room.
    pub fn check_limits(&mut self, question: &LimitCheck, now: u64) -> Option<LimitDecision> {
        if let Some(retry_after) = self.wait_for_room(&question.address, now) {
            return Some(LimitDecision::AddressOver {
                limit: question.address.per_minute,
                retry_after,
            });
        }
        let token = question.token.as_ref()?;
        let retry_after = self.wait_for_room(token, now)?;
        Some(LimitDecision::TokenOver {
            limit: token.per_minute,
            retry_after,
        })
    }

    /// Counts what was let pass, here or by Redis.
    pub fn record_allowed(&mut self, question: &LimitCheck, verdict: LimitDecision, now: u64) {
        let LimitDecision::Pass { keep } = verdict else {
            return;
        };
        self.count_request(&question.address, now);
        if let Some(token) = &question.token {
            self.count_request(token, now);
        }
        if let Some(keeping) = question.keeping.as_ref().filter(|_| keep) {
            self.count_request(keeping, now);
        }
    }

    /// How long until there is room; `None` if there is.
    fn wait_for_room(&mut self, limit: &Limit, now: u64) -> Option<Duration> {
        let micros = match self.passes.get_mut(limit)? {
            WindowCounter::Exact(times) => {
                let nth = times.len().checked_sub(limit.per_minute as usize)?;
                let ago = millis_since(*times.get(nth)?, now);
                // One more, since both ends are cut to the millisecond.
                (WINDOW_MILLIS + 1)
                    .checked_sub(ago)?
                    .saturating_add(1)
                    .saturating_mul(MILLI)
            }
            WindowCounter::Buckets(buckets) => {
                let second = now / MICROS;
                while buckets
                    .front()
                    .is_some_and(|(at, _)| at + WINDOW.as_secs() < second)
                {
                    buckets.pop_front();
                }
                let sum: u64 = buckets.iter().map(|(_, n)| u64::from(*n)).sum();
                if sum < u64::from(limit.per_minute) {
                    return None;
                }
                let oldest = buckets.front().map_or(second, |(at, _)| *at);
                ((oldest + WINDOW.as_secs() + 1) * MICROS).saturating_sub(now)
            }
        };
        Some(Duration::from_micros(micros))
    }

    fn count_request(&mut self, limit: &Limit, now: u64) {
        if let Some(passes) = self.passes.get_mut(limit) {
            passes.add_request(limit, now);
            return;
        }
        if self.passes.len() >= FEW_KEYS {
            let full = self.passes.len() >= KEYS;
            if now.saturating_sub(self.swept_at)
                >= if full { SWEEP_FULL_EVERY } else { SWEEP_EVERY }
            {
                self.swept_at = now;
                self.sweep_idle(now);
            }
            let is_address = matches!(limit.key, LimitKey::Address(_) | LimitKey::AddressOf(..));
            if self.passes.len() >= KEYS && is_address {
                return;
            }
        }
        let mut passes = if limit.per_minute > EXACT_UP_TO {
            WindowCounter::Buckets(VecDeque::new())
        } else {
            WindowCounter::Exact(VecDeque::new())
        };
        passes.add_request(limit, now);
        self.passes.insert(*limit, passes);
    }

    fn sweep_idle(&mut self, now: u64) {
        self.passes.retain(|_, passes| {
            let age = match passes {
                WindowCounter::Exact(times) => times.back().map(|at| millis_since(*at, now)),
                WindowCounter::Buckets(buckets) => buckets
                    .back()
                    .map(|(second, _)| (now / MICROS).saturating_sub(*second) * 1_000),
            };
            age.is_some_and(|age| age <= WINDOW_MILLIS + 1_000)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use uuid::Uuid;

    use super::*;

    fn question(address_limit: u32, token_limit: u32) -> LimitCheck {
        LimitCheck {
            address: Limit {
                key: LimitKey::Address(IpAddr::from([192, 0, 2, 1])),
                per_minute: address_limit,
            },
            token: Some(Limit {
                key: LimitKey::Token(Uuid::nil()),
                per_minute: token_limit,
            }),
            keeping: None,
        }
    }

    /// A small generator of our own: the same every time, and no crate for it.
    fn steps(seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 400_000
        })
    }

    #[test]
    fn never_more_than_the_limit_in_any_rolling_minute_and_never_less_than_it_could() {
        for (limit, exact) in [(1, true), (50, true), (1000, true), (1100, false)] {
            let mut local = Local::default();
            let mut passed: Vec<u64> = Vec::new();
            let mut now = 17;
            for step in steps(u64::from(limit)).take(if limit > 500 { 9_000 } else { 20_000 }) {
                now += step / if limit > 500 { 20 } else { 1 };
                let inside = passed
                    .iter()
                    .rev()
                    .take_while(|at| now - **at <= WINDOW_MILLIS * MILLI)
                    .count();
                let nearly = passed
                    .iter()
                    .rev()
                    .take_while(|at| now - **at <= (WINDOW_MILLIS + 3) * MILLI)
                    .count();
                let verdict = local.decide(&question(limit, u32::MAX), now);
                match verdict {
                    LimitDecision::Pass { .. } => {
                        assert!(inside < limit as usize, "{limit}");
                        passed.push(now);
                    }
                    LimitDecision::AddressOver { retry_after, .. } => {
                        assert!(!exact || nearly >= limit as usize, "refused too early");
                        assert!(
                            retry_after <= WINDOW + Duration::from_secs(1)
                                && !retry_after.is_zero()
                        );
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(passed.len() > limit as usize);
        }
    }

    #[test]
    fn what_is_refused_counts_for_nothing() {
        let mut local = Local::default();
        for n in 0..10 {
            let verdict = local.decide(&question(50, 3), n);
            assert_eq!(
                matches!(verdict, LimitDecision::Pass { .. }),
                n < 3,
                "{verdict:?}"
            );
        }
        let mut alone = question(50, 3);
        alone.token = None;
        let passes = (10..100)
            .filter(|n| matches!(local.decide(&alone, *n), LimitDecision::Pass { .. }))
            .count();
        assert_eq!(
            passes, 47,
            "the seven that the webhook refused did not use up the address"
        );
    }
}
