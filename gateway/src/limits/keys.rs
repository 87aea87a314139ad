//! The names that passes are counted under, in this process and in Redis. Never a token.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use super::{EXACT_UP_TO, Limit};

/// All of the limiter's keys carry this hash tag, so that on a cluster they live on one shard and one
/// script may touch them all.
const PREFIX: &str = "{trueup:limit}:";

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

/// What one customer of an internet provider has: a single IPv4 address, or an IPv6 /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_customer_has_one_key_and_a_mapped_address_is_the_ipv4_one() {
        let key = |text: &str| network_of(text.parse().expect("an address"));
        assert_eq!(key("2001:db8:1:2:3::9"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::9"), key("2001:db8:1:3::9"));
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
    }
}
