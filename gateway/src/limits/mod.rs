//! How often an address and a webhook may knock: exact rolling minutes, over all gateways.
//!
//! One question holds everything that a request counts against; either all of it is counted or
//! nothing. Redis decides many waiting questions in one call; while it is away or slow, this process
//! decides by the same rules, or refuses, as the setting says. A refusal is remembered until it may
//! be asked again, so that a flood costs no Redis.

mod keys;
mod local;
mod policy;
mod recent_refusals;
mod redis;
mod script;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, LimitDecider};
use trueup_ops::settings::{RedisArgs, RedisDown};
use trueup_ops::tls::TlsFiles;

use local::Local;
pub use policy::{EXACT_UP_TO, Limit, LimitCheck, LimitDecision, LimitKey, Policy, WINDOW};
use recent_refusals::RecentRefusals;
pub use redis::RedisUrlError;

use redis::RedisLimits;

/// What Redis does not know of has fallen out of every window by then (microseconds).
const AFTERWARDS: u64 = (WINDOW.as_secs() + 2) * 1_000_000;

pub struct Limits {
    started: Instant,
    remembered: Mutex<RecentRefusals>,
    local: Mutex<Local>,
    redis: RedisLimits,
    when_down: RedisDown,
    /// When this process last decided by itself; 0 for never.
    alone_at: AtomicU64,
}

/// Whether the URL can be used at all; asked before anything is started.
pub fn check_url(url: &SecretString, tls: &TlsFiles) -> Result<(), RedisUrlError> {
    redis::parse_client(url, tls).map(drop)
}

impl Limits {
    /// Starts the task that speaks with Redis; it ends with `stop`.
    pub fn start(
        redis: &RedisArgs,
        when_down: RedisDown,
        answer_within: Duration,
        health: Dependency,
        stop: CancellationToken,
    ) -> Result<Limits, RedisUrlError> {
        Ok(Limits {
            started: Instant::now(),
            remembered: Mutex::default(),
            local: Mutex::default(),
            redis: RedisLimits::start(redis, when_down, answer_within, health, stop)?,
            when_down,
            alone_at: AtomicU64::new(0),
        })
    }

    pub async fn decide(&self, question: &LimitCheck) -> LimitDecision {
        let checks = &metrics::gateway().limit_checks;
        if let Some(refused) = self.recall_refusal(question) {
            return refused;
        }
        if let Some(verdict) = self.redis.ask_redis(question).await {
            checks.inc(LimitDecider::Redis);
            let verdict = self.merge_local_counts(question, verdict);
            self.remember_refusal(question, verdict);
            return verdict;
        }
        if self.when_down == RedisDown::Refuse {
            checks.inc(LimitDecider::None);
            return LimitDecision::Unknown;
        }
        checks.inc(LimitDecider::Local);
        let now = self.elapsed_micros();
        self.alone_at.store(now, Ordering::Relaxed);
        let verdict = self.local.lock().decide(question, now);
        self.remember_refusal(question, verdict);
        verdict
    }

    /// Redis does not know what was let pass while it was away: for a minute after that, this process's
    /// own count has a say, too.
    fn merge_local_counts(&self, question: &LimitCheck, verdict: LimitDecision) -> LimitDecision {
        let now = self.elapsed_micros();
        let alone_at = self.alone_at.load(Ordering::Relaxed);
        let was_alone = alone_at > 0 && now.saturating_sub(alone_at) <= AFTERWARDS;
        let mut local = self.local.lock();
        if was_alone
            && matches!(verdict, LimitDecision::Pass { .. })
            && let Some(over) = local.check_limits(question, now)
        {
            return over;
        }
        local.record_allowed(question, verdict, now);
        verdict
    }

    /// Microseconds of a clock that nobody sets.
    fn elapsed_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .saturating_add(1)
    }

    fn recall_refusal(&self, question: &LimitCheck) -> Option<LimitDecision> {
        if let Some(retry_after) = self.recall_limit(&question.address) {
            return Some(LimitDecision::AddressOver {
                limit: question.address.per_minute,
                retry_after,
            });
        }
        let token = question.token.as_ref()?;
        Some(LimitDecision::TokenOver {
            limit: token.per_minute,
            retry_after: self.recall_limit(token)?,
        })
    }

    /// For how long this limit is known to be over.
    pub fn recall_limit(&self, limit: &Limit) -> Option<Duration> {
        let remembered = self.remembered.lock();
        let retry_after = remembered.remaining_wait(limit, Instant::now())?;
        metrics::gateway()
            .limit_checks
            .inc(LimitDecider::Remembered);
        Some(retry_after)
    }

    fn remember_refusal(&self, question: &LimitCheck, verdict: LimitDecision) {
        let (limit, retry_after) = match (verdict, question.token) {
            (LimitDecision::AddressOver { retry_after, .. }, _) => (question.address, retry_after),
            (LimitDecision::TokenOver { retry_after, .. }, Some(token)) => (token, retry_after),
            _ => return,
        };
        let now = Instant::now();
        self.remembered
            .lock()
            .remember_refusal(limit, now + retry_after, now);
    }
}
