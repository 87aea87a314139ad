//! What the gateway knows of webhooks: one SELECT on the view `webhook_ingest`.
//!
//! It reads what changed since a horizon, in one statement, so that a gateway can ask twice a second.
//! It writes nothing: uses of secrets and refusals travel as events.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use uuid::Uuid;

use trueup_postgres::{Pool, StoreError};

/// A webhook as the door needs it. Has no `Debug`: its token opens the door.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IngestWebhook {
    pub webhook_id: Uuid,
    pub account_id: Uuid,
    pub token: String,
    pub enabled: bool,
    pub require_secret: bool,
    /// A query parameter that may carry the secret, for senders that cannot set headers.
    pub secret_query_param: Option<String>,
    pub limit_per_minute: Option<u32>,
    pub ip_limit_per_minute: Option<u32>,
    pub archived: bool,
    pub secrets: Vec<IngestSecret>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IngestSecret {
    pub id: Uuid,
    /// SHA-256.
    pub digest: [u8; 32],
    /// Set when it was rotated: valid until then.
    pub expires_at: Option<Timestamp>,
}

/// The webhooks that changed, and from where to ask the next time.
pub struct ChangedWebhooks {
    pub webhooks: Vec<IngestWebhook>,
    pub horizon: i64,
    /// How far our clock is ahead of the database's, half of the round trip allowed for.
    pub clock_skew: SignedDuration,
}

/// Everything.
pub const FROM_THE_START: i64 = 0;

/// The horizon is read in the same statement: a transaction that was still running in its snapshot
/// has a number at or above it, so that its change is seen the next time.
const CHANGED: &str = "/* ingest_changed */
    SELECT h.horizon, h.clock, w.webhook_id, w.account_id, w.token, w.enabled, w.require_secret, w.secret_query_param,
           w.limit_per_minute, w.ip_limit_per_minute, w.archived,
           w.secret_ids, w.secret_digests, w.secret_expiries
      FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon, clock_timestamp() AS clock) h
      LEFT JOIN webhook_ingest w ON w.changed_xid >= $1";

/// Webhooks changed at or after the horizon; [`FROM_THE_START`] for all.
pub async fn changed_since(pool: &Pool, horizon: i64) -> Result<ChangedWebhooks, StoreError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(CHANGED).await?;
    let asked_at = Timestamp::now();
    let rows = client.query(&statement, &[&horizon]).await?;
    let answered_at = Timestamp::now();
    let (horizon, theirs): (i64, Timestamp) = match rows.first() {
        Some(row) => (row.try_get("horizon")?, row.try_get("clock")?),
        None => {
            return Err(StoreError::Corrupt(
                "a query of one row or more gave none".into(),
            ));
        }
    };
    let mut webhooks = Vec::with_capacity(rows.len());
    for row in &rows {
        // No webhook changed: the outer join leaves one row with the horizon alone.
        if row.try_get::<_, Option<Uuid>>("webhook_id")?.is_some() {
            webhooks.push(webhook_of_row(row)?);
        }
    }
    Ok(ChangedWebhooks {
        webhooks,
        horizon,
        clock_skew: clock_skew(asked_at, answered_at, theirs),
    })
}

fn webhook_of_row(row: &Row) -> Result<IngestWebhook, StoreError> {
    let ids: Vec<Uuid> = row.try_get("secret_ids")?;
    let digests: Vec<Vec<u8>> = row.try_get("secret_digests")?;
    let expiries: Vec<Option<Timestamp>> = row.try_get("secret_expiries")?;
    let mut secrets = Vec::with_capacity(ids.len());
    for ((id, digest), expires_at) in ids.into_iter().zip(digests).zip(expiries) {
        let digest = <[u8; 32]>::try_from(digest.as_slice()).map_err(|_| {
            StoreError::Corrupt(format!(
                "the secret {id} has a digest of {} bytes",
                digest.len()
            ))
        })?;
        secrets.push(IngestSecret {
            id,
            digest,
            expires_at,
        });
    }
    // The schema allows 1 to 1,000,000.
    let limit = |name: &str| -> Result<Option<u32>, StoreError> {
        Ok(row
            .try_get::<_, Option<i32>>(name)?
            .and_then(|n| u32::try_from(n).ok()))
    };
    Ok(IngestWebhook {
        webhook_id: row.try_get("webhook_id")?,
        account_id: row.try_get("account_id")?,
        token: row.try_get("token")?,
        enabled: row.try_get("enabled")?,
        require_secret: row.try_get("require_secret")?,
        secret_query_param: row.try_get("secret_query_param")?,
        limit_per_minute: limit("limit_per_minute")?,
        ip_limit_per_minute: limit("ip_limit_per_minute")?,
        archived: row.try_get("archived")?,
        secrets,
    })
}

/// How far our clock is ahead of theirs, which was read about half-way between our two.
fn clock_skew(asked_at: Timestamp, answered_at: Timestamp, theirs: Timestamp) -> SignedDuration {
    let half = answered_at.duration_since(asked_at) / 2;
    asked_at
        .checked_add(half)
        .unwrap_or(asked_at)
        .duration_since(theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_round_trip_is_allowed_for() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (asked, answered) = (at("2026-03-14T13:00:00Z"), at("2026-03-14T13:00:02Z"));
        let skew = |theirs: &str| clock_skew(asked, answered, at(theirs)).as_secs();
        assert_eq!(skew("2026-03-14T13:00:01Z"), 0);
        assert_eq!(skew("2026-03-14T12:00:01Z"), 3_600, "ours is an hour ahead");
        assert_eq!(skew("2026-03-14T13:00:11Z"), -10);
    }
}
