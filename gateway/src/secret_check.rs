//! Whether a sender's secret is one of the webhook's, told in constant time; and which were used.
//!
//! Several are valid at once while a rotation overlaps. Only digests are known here, and the uses are
//! bundled: this process may write nothing to the database.

use std::collections::HashMap;

use crate::webhook_cache::query::IngestWebhook;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use trueup_event::raw_event::SecretUse;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretCheck {
    /// None is required.
    Open,
    /// The secret with this id.
    By(Uuid),
    Missing,
    Wrong,
}

impl SecretCheck {
    pub fn is_granted(self) -> bool {
        matches!(self, SecretCheck::Open | SecretCheck::By(_))
    }
}

/// Compares with every secret, also after one has matched: the time taken tells nothing.
pub fn check_secret(webhook: &IngestWebhook, given: Option<&[u8]>, now: Timestamp) -> SecretCheck {
    if !webhook.require_secret {
        return SecretCheck::Open;
    }
    let Some(given) = given else {
        return SecretCheck::Missing;
    };
    let digest: [u8; 32] = Sha256::digest(given).into();
    let mut found = SecretCheck::Wrong;
    for secret in &webhook.secrets {
        let equal = bool::from(secret.digest.ct_eq(&digest));
        let valid = secret.expires_at.is_none_or(|until| now < until);
        if equal && valid {
            found = SecretCheck::By(secret.id);
        }
    }
    found
}

/// When each secret was last used, since the last time that anybody asked.
#[derive(Default)]
pub struct SecretUsage(Mutex<HashMap<Uuid, Timestamp>>);

impl SecretUsage {
    pub fn record_use(&self, secret: Uuid, at: Timestamp) {
        // Bounded by the number of secrets in the snapshot.
        self.0.lock().insert(secret, at);
    }

    pub fn take_uses(&self) -> Vec<SecretUse> {
        let uses = std::mem::take(&mut *self.0.lock());
        uses.into_iter()
            .map(|(secret_id, at)| SecretUse { secret_id, at })
            .collect()
    }

    /// For another try; a later use stands.
    pub fn restore_uses(&self, uses: Vec<SecretUse>) {
        let mut all = self.0.lock();
        for used in uses {
            all.entry(used.secret_id).or_insert(used.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::webhook_cache::query::IngestSecret;

    use super::*;

    #[test]
    fn an_old_secret_is_good_until_it_expires() {
        let now: Timestamp = "2026-03-14T12:00:00Z".parse().expect("a time");
        let secret = |n: u128, text: &str, expires_at: Option<&str>| IngestSecret {
            id: Uuid::from_u128(n),
            digest: Sha256::digest(text.as_bytes()).into(),
            expires_at: expires_at.map(|t| t.parse().expect("a time")),
        };
        let mut webhook = IngestWebhook {
            webhook_id: Uuid::nil(),
            account_id: Uuid::nil(),
            token: "t".into(),
            enabled: true,
            require_secret: true,
            secret_query_param: None,
            limit_per_minute: None,
            ip_limit_per_minute: None,
            archived: false,
            secrets: vec![
                secret(1, "old", Some("2026-03-14T12:00:01Z")),
                secret(2, "new", None),
                secret(3, "gone", Some("2026-03-14T12:00:00Z")),
            ],
        };
        assert_eq!(
            check_secret(&webhook, Some(b"old"), now),
            SecretCheck::By(Uuid::from_u128(1))
        );
        assert_eq!(
            check_secret(&webhook, Some(b"new"), now),
            SecretCheck::By(Uuid::from_u128(2))
        );
        assert_eq!(
            check_secret(&webhook, Some(b"gone"), now),
            SecretCheck::Wrong
        );
        assert_eq!(check_secret(&webhook, Some(b""), now), SecretCheck::Wrong);
        assert_eq!(check_secret(&webhook, None, now), SecretCheck::Missing);
        webhook.require_secret = false;
        assert_eq!(check_secret(&webhook, None, now), SecretCheck::Open);
    }
}
