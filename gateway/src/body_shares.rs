//! What bodies may hold in memory while they arrive, in fair shares: a webhook and a network have at most
//! an eighth of what they leave to all others, an account with all its webhooks as much as it leaves. So
//! slow senders of one webhook, or from one network, leave the others their room, and whoever comes when
//! little is left still finds some.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use parking_lot::{Mutex, MutexGuard};
use trueup_ops::metrics::{self, BodyShareKind};
use uuid::Uuid;

/// All bodies that are arriving (bytes): a hundred of the largest batches at once. A body that comes in
/// one piece with its head is not counted, nor one that has come whole: it is made an event at once, and
/// the broker's waiting room has its own bound.
pub const ALL_BYTES: usize = 64 * 1024 * 1024;
/// The part of one webhook, and of one network, in what is left for all others: alone, thirteen of the
/// largest batches at once.
const SHARES: usize = 8;
/// What a body is counted for at least: the buffers of its connection.
pub const BODY_BYTES: usize = 16 * 1024;

/// Whose a body is.
#[derive(Debug, Clone, Copy)]
pub struct BodyOwner {
    pub account_id: Uuid,
    pub webhook_id: Uuid,
    pub network: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ShareKey {
    Account(Uuid),
    Webhook(Uuid),
    Network(IpAddr),
}

impl ShareKey {
    fn kind(self) -> BodyShareKind {
        match self {
            ShareKey::Account(_) => BodyShareKind::Account,
            ShareKey::Webhook(_) => BodyShareKind::Webhook,
            ShareKey::Network(_) => BodyShareKind::Network,
        }
    }
}

impl BodyOwner {
    fn share_keys(&self) -> [ShareKey; 3] {
        [
            ShareKey::Webhook(self.webhook_id),
            ShareKey::Network(self.network),
            ShareKey::Account(self.account_id),
        ]
    }
}

#[derive(Default)]
struct BodyShares {
    bytes: usize,
    of: HashMap<ShareKey, usize>,
}

/// This process's memory is one, whoever serves in it.
static HELD: LazyLock<Mutex<BodyShares>> = LazyLock::new(Mutex::default);

fn lock_shares() -> MutexGuard<'static, BodyShares> {
    HELD.lock()
}

impl BodyShares {
    /// Which share is used up, if one is.
    fn grow_shares(&mut self, keys: [ShareKey; 3], bytes: usize) -> Result<(), BodyShareKind> {
        let free = ALL_BYTES.saturating_sub(self.bytes);
        if bytes > free {
            return Err(BodyShareKind::All);
        }
        for key in keys {
            let most = match key {
                ShareKey::Account(_) => free,
                ShareKey::Webhook(_) | ShareKey::Network(_) => free / SHARES,
            };
            let held = self.of.get(&key).copied().unwrap_or_default();
            // Who has nothing yet may have one, as long as there is any room.
            if held > 0 && held.saturating_add(bytes) > most {
                return Err(key.kind());
            }
        }
        self.bytes += bytes;
        for key in keys {
            *self.of.entry(key).or_default() += bytes;
        }
        Ok(())
    }

    fn release_shares(&mut self, keys: [ShareKey; 3], bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        for key in keys {
            if let Some(held) = self.of.get_mut(&key) {
                *held = held.saturating_sub(bytes);
                if *held == 0 {
                    self.of.remove(&key);
                }
            }
        }
    }
}

/// One body's part; given back when it is dropped.
pub struct BodyPermit {
    owner: BodyOwner,
    bytes: usize,
}

/// There is no room for more of it.
#[derive(Debug, PartialEq, Eq)]
pub struct ShareUsedUp;

impl BodyPermit {
    /// For a body that has not come in one piece.
    pub fn acquire(owner: BodyOwner) -> Result<BodyPermit, ShareUsedUp> {
        let mut permit = BodyPermit { owner, bytes: 0 };
        permit.grow(BODY_BYTES)?;
        Ok(permit)
    }

    /// Makes it a permit for so many bytes, if it is for fewer.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ShareUsedUp> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let grown = lock_shares().grow_shares(self.owner.share_keys(), more);
        if let Err(share) = grown {
            metrics::gateway().bodies_refused.inc(share);
            return Err(ShareUsedUp);
        }
        self.bytes = bytes;
        metrics::gateway().body_bytes.add(more);
        Ok(())
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        lock_shares().release_shares(self.owner.share_keys(), self.bytes);
        metrics::gateway().body_bytes.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(account: u128, webhook: u128, network: u8) -> [ShareKey; 3] {
        let owner = BodyOwner {
            account_id: Uuid::from_u128(account),
            webhook_id: Uuid::from_u128(webhook),
            network: IpAddr::from([192, 0, 2, network]),
        };
        owner.share_keys()
    }

    /// As many bodies of the smallest count as they are given.
    fn fill(shares: &mut BodyShares, keys: impl Fn(u8) -> [ShareKey; 3]) -> usize {
        (0..=u8::MAX)
            .cycle()
            .take_while(|n| shares.grow_shares(keys(*n), BODY_BYTES).is_ok())
            .count()
            * BODY_BYTES
    }

    #[test]
    fn a_webhook_and_a_network_have_their_part_and_no_more() {
        let part = ALL_BYTES / 12..=ALL_BYTES / SHARES;
        let mut shares = BodyShares::default();
        let of_webhook = fill(&mut shares, |n| keys(1, 1, n));
        assert!(part.contains(&of_webhook), "{of_webhook}");
        assert_eq!(
            shares.grow_shares(keys(1, 1, 1), BODY_BYTES),
            Err(BodyShareKind::Webhook)
        );
        let of_network = fill(&mut shares, |n| keys(2, 1_000 + u128::from(n), 1));
        assert!(part.contains(&of_network), "{of_network}");
        assert_eq!(
            shares.grow_shares(keys(2, 1_000, 1), BODY_BYTES),
            Err(BodyShareKind::Network)
        );
        assert_eq!(shares.grow_shares(keys(3, 3, 2), 512 * 1024), Ok(()));
    }

    #[test]
    fn whoever_comes_last_finds_room_and_all_is_given_back() {
        let mut shares = BodyShares::default();
        // Each has webhooks, networks and an account of its own, and takes whatever it can get.
        let mut taken = Vec::new();
        for hog in 0..40 {
            let keys = keys(hog, hog, u8::try_from(hog).expect("small"));
            let bytes = fill(&mut shares, |_| keys);
            assert!(bytes > 0, "the {hog}th has found nothing");
            taken.push((keys, bytes));
        }
        assert!(shares.bytes < ALL_BYTES);
        assert_eq!(shares.grow_shares(keys(99, 99, 99), BODY_BYTES), Ok(()));
        shares.release_shares(keys(99, 99, 99), BODY_BYTES);
        for (keys, bytes) in taken {
            shares.release_shares(keys, bytes);
        }
        assert!(shares.bytes == 0 && shares.of.is_empty());
    }

    #[test]
    fn an_account_with_many_webhooks_leaves_half() {
        let mut shares = BodyShares::default();
        let bytes = fill(&mut shares, |n| keys(1, n.into(), n));
        assert!(bytes <= ALL_BYTES / 2, "{bytes}");
        assert_eq!(
            shares.grow_shares(keys(2, 999, 250), 2 * 1024 * 1024),
            Ok(())
        );
    }
}
