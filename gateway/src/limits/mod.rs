//! How often an address and a webhook may knock: exact rolling minutes, over all gateways.
//!
//! One question holds everything that a request counts against; either all of it is counted or
//! nothing. Redis decides many waiting questions in one call; while it is away or slow, this process
//! decides by the same rules, or refuses, as the setting says. A refusal is remembered until it may
//! be asked again, so that a flood costs no Redis.

mod keys;
mod local;
mod recent_refusals;
mod redis;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::metrics;
use trueup_ops::settings::RedisDown;
use uuid::Uuid;

pub use keys::{LimitKey, network_of};
use local::Local;
use recent_refusals::RecentRefusals;

/// Every limit is so many in any 60 seconds.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Up to here a limit is exact: the time of each pass is kept. Above, one-second buckets are summed,
/// which may refuse a little early and never late.
pub const EXACT_UP_TO: u32 = 1000;
/// What Redis does not know of has fallen out of every window by then (microseconds).
const AFTERWARDS: u64 = (WINDOW.as_secs() + 2) * 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub key: LimitKey,
    pub per_minute: u32,
}

/// What one request counts against.
#[derive(Debug, Clone, Copy)]
pub struct LimitCheck {
    pub address: Limit,
    /// Only if the secret was right and the webhook is enabled: a stranger uses up nobody's limit.
    pub token: Option<Limit>,
    /// Decides only whether a paused webhook's request is kept whole; refuses nothing.
    pub keeping: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitDecision {
    Pass {
        keep: bool,
    },
    AddressOver {
        limit: u32,
        retry_after: Duration,
    },
    TokenOver {
        limit: u32,
        retry_after: Duration,
    },
    /// Redis is away, and the setting is to refuse then.
    Unknown,
}

pub struct Limits {
    started: Instant,
    remembered: Mutex<RecentRefusals>,
    local: Mutex<Local>,
    redis: redis::Handle,
    when_down: RedisDown,
    /// When this process last decided by itself; 0 for never.
    alone_at: AtomicU64,
}

/// Whether the URL can be used at all; asked before anything is started.
pub fn check_url(url: &SecretString) -> Result<(), String> {
    redis::parse_client(url).map(drop)
}

impl Limits {
    /// Starts the task that speaks with Redis; it ends with `stop`.
    pub fn start(
        url: &SecretString,
        when_down: RedisDown,
        answer_within: Duration,
        health: Dependency,
        stop: CancellationToken,
    ) -> Result<Limits, String> {
        Ok(Limits {
            started: Instant::now(),
            remembered: Mutex::default(),
            local: Mutex::default(),
            redis: redis::start(url, when_down, answer_within, health, stop)?,
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
            checks.inc(&["redis"]);
            let verdict = self.merge_local_counts(question, verdict);
            self.remember_refusal(question, verdict);
            return verdict;
        }
        if self.when_down == RedisDown::Refuse {
            checks.inc(&["none"]);
            return LimitDecision::Unknown;
        }
        checks.inc(&["local"]);
        let now = self.elapsed_micros();
        self.alone_at.store(now, Ordering::Relaxed);
        let verdict = self
            .local
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .decide(question, now);
        self.remember_refusal(question, verdict);
        verdict
    }

    /// Redis does not know what was let pass while it was away: for a minute after that, this process's
    /// own count has a say, too.
    fn merge_local_counts(&self, question: &LimitCheck, verdict: LimitDecision) -> LimitDecision {
        let now = self.elapsed_micros();
        let alone_at = self.alone_at.load(Ordering::Relaxed);
        let was_alone = alone_at > 0 && now.saturating_sub(alone_at) <= AFTERWARDS;
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if was_alone
            && matches!(verdict, LimitDecision::Pass { .. })
            && let Some(over) = local.check_limits(question, now)
        {
            return over;
        }
        local.passed(question, verdict, now);
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
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let retry_after = remembered.remaining_wait(limit, Instant::now())?;
        metrics::gateway().limit_checks.inc(&["remembered"]);
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
            .unwrap_or_else(PoisonError::into_inner)
            .remember_refusal(limit, now + retry_after, now);
    }
}

/// The limits of a request to a webhook, as the settings and the webhook's own say.
pub struct Policy {
    pub address_per_minute: u32,
    pub token_per_minute: u32,
}

impl Policy {
    /// The limit of an address at all webhooks that have none of their own for it.
    pub fn address(&self, source: IpAddr) -> Limit {
        Limit {
            key: LimitKey::Address(keys::network_of(source)),
            per_minute: self.address_per_minute,
        }
    }

    /// `admitted`: the secret was right, or none is required.
    pub fn limit_check(
        &self,
        source: IpAddr,
        webhook: Uuid,
        limits: (Option<u32>, Option<u32>),
        admitted: bool,
        enabled: bool,
    ) -> LimitCheck {
        let (token_limit, address_limit) = limits;
        let address = match address_limit.filter(|_| admitted) {
            Some(per_minute) => Limit {
                key: LimitKey::AddressOf(keys::network_of(source), webhook),
                per_minute,
            },
            None => self.address(source),
        };
        let per_minute = token_limit.unwrap_or(self.token_per_minute);
        LimitCheck {
            address,
            token: (admitted && enabled).then_some(Limit {
                key: LimitKey::Token(webhook),
                per_minute,
            }),
            keeping: (admitted && !enabled).then_some(Limit {
                key: LimitKey::Keeping(webhook),
                per_minute,
            }),
        }
    }
}
