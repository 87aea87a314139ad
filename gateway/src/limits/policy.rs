//! What a request counts against, and what may come of it.

use std::net::IpAddr;
use std::time::Duration;

use trueup_ops::network::network_of;
use uuid::Uuid;

/// Every limit is so many in any 60 seconds.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Up to here a limit is exact: the time of each pass is kept. Above, one-second buckets are summed,
/// which may refuse a little early and never late.
pub const EXACT_UP_TO: u32 = 1000;
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKey {
    Address(IpAddr),
    /// An address at a webhook that sets its own limit for addresses.
    AddressOf(IpAddr, Uuid),
    Token(Uuid),
    /// Requests to a paused webhook that are kept whole.
    Keeping(Uuid),
    /// Nobody's: whether Redis counts at all.
    Probe,
}

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

/// The limits of a request to a webhook, as the settings and the webhook's own say.
pub struct Policy {
    pub address_per_minute: u32,
    pub token_per_minute: u32,
}

impl Policy {
    /// The limit of an address at all webhooks that have none of their own for it.
    pub fn address(&self, source: IpAddr) -> Limit {
        Limit {
            key: LimitKey::Address(network_of(source)),
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
                key: LimitKey::AddressOf(network_of(source), webhook),
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
