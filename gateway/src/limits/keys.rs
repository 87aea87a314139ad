//! The names that passes are counted under, in this process and in Redis. Never a token.

use std::fmt::Write as _;

use super::policy::{EXACT_UP_TO, Limit, LimitKey};

/// All of the limiter's keys carry this hash tag, so that on a cluster they live on one shard and one
/// script may touch them all.
const PREFIX: &str = "{trueup:limit}:";

impl Limit {
    /// An exact limit is a list in Redis and the others a hash: different names, so that a changed
    /// limit never meets the other kind.
    pub fn write_redis_key(&self, name: &mut String) {
        name.push_str(PREFIX);
        name.push(if self.per_minute > EXACT_UP_TO {
            'b'
        } else {
            'l'
        });
        // A String takes whatever is written.
        let _ = match self.key {
            LimitKey::Address(address) => write!(name, ":ip:{address}"),
            LimitKey::AddressOf(address, webhook) => {
                write!(name, ":ip:{address}:{}", webhook.simple())
            }
            LimitKey::Token(webhook) => write!(name, ":wh:{}", webhook.simple()),
            LimitKey::Keeping(webhook) => write!(name, ":paused:{}", webhook.simple()),
            LimitKey::Probe => write!(name, ":probe"),
        };
    }
}
