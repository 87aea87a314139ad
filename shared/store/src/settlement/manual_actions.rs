//! The rows that persons act on (M8), and the record of what they did.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use rand::RngExt;
use trueup_domain::batch_decision::SettleResult;
use trueup_event::ids;
use trueup_event::reason::{Detail, Reason, Status};
use uuid::Uuid;

use crate::StoreError;
use crate::settlement::stored_events::reason_of;

/// Who acts, and on which row.
pub struct ActionKey<'a> {
    pub account_id: Uuid,
    pub event_id: Uuid,
    pub actor: &'a str,
}

/// The row that an action is asked for, locked.
pub struct ActionTarget {
    pub received_at: Timestamp,
    pub status: Status,
    pub reason: Option<Reason>,
    pub displaced: bool,
    pub call_id: Option<Uuid>,
    pub payout_cents: Option<i64>,
    pub has_posting: bool,
}

const TARGET: &str = "/* person_target */
    SELECT e.received_at, e.status, e.reason, e.detail::text AS detail, e.matched_call_id, e.payout_cents
      FROM events e
     WHERE e.received_at >= $1 AND e.received_at < $2 AND e.id = $3 AND e.account_id = $4
       FOR NO KEY UPDATE OF e";

/// Asked in a statement of its own, after the row is locked: waiting for the lock does not refresh the
/// first one's view, and whoever held it may have posted.
const HAS_POSTING: &str = "/* person_has_posting */
    SELECT EXISTS (SELECT 1 FROM postings p WHERE p.account_id = $1 AND p.call_id = $2 AND p.event_id = $3)";

/// Locks the row and says what it stands for.
pub async fn lock_target(
    tx: &Transaction<'_>,
    key: &ActionKey<'_>,
) -> Result<Option<ActionTarget>, StoreError> {
    let Some((low, high)) = ids::time_of_event_id(key.event_id) else {
        return Ok(None);
    };
    let statement = tx.prepare_cached(TARGET).await?;
    let row = tx
        .query_opt(&statement, &[&low, &high, &key.event_id, &key.account_id])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let call_id: Option<Uuid> = row.get("matched_call_id");
    let statement = tx.prepare_cached(HAS_POSTING).await?;
    let has_posting = tx
        .query_one(&statement, &[&key.account_id, &call_id, &key.event_id])
        .await?
        .get(0);
    let corrupt = |what: &str| StoreError::Corrupt(format!("events.{what}"));
    let detail: Option<&str> = row.get("detail");
    let detail: Detail = detail
        .and_then(|d| serde_json::from_str(d).ok())
        .unwrap_or_default();
    Ok(Some(ActionTarget {
        received_at: row.get("received_at"),
        status: Status::from_code(row.get("status")).ok_or_else(|| corrupt("status"))?,
        reason: reason_of(row.get("reason"))?,
        displaced: detail.displaced,
        call_id,
        payout_cents: row.get("payout_cents"),
        has_posting,
    }))
}

impl ActionTarget {
    /// False for a row that only counts refused requests.
    pub fn is_report(&self) -> bool {
        self.status != Status::Refused || self.reason == Some(Reason::EndpointDisabled)
    }
}

const ACTION: &str = "/* person_action */
    INSERT INTO event_actions (id, account_id, event_id, action, actor, detail, outcome)
    VALUES ($1, $2, $3, $4, $5, $6::text::json, $7)";

/// Writes down who did what to which row.
pub async fn record(
    tx: &Transaction<'_>,
    key: &ActionKey<'_>,
    action: &str,
    detail: Option<String>,
    outcome: Option<&SettleResult>,
) -> Result<(), StoreError> {
    let id = ids::event_id(Timestamp::now(), &rand::rng().random());
    let outcome = outcome
        .and_then(|s| s.decision.as_ref())
        .map(|d| match d.reason {
            Some(reason) => format!("{} · {reason}", d.status),
            None => d.status.to_string(),
        });
    let statement = tx.prepare_cached(ACTION).await?;
    tx.execute(
        &statement,
        &[
            &id,
            &key.account_id,
            &key.event_id,
            &action,
            &key.actor,
            &detail,
            &outcome,
        ],
    )
    .await?;
    Ok(())
}

const CALL_EXISTS: &str =
    "/* person_call_exists */ SELECT 1 FROM calls WHERE account_id = $1 AND id = $2";

/// True if the account has that call.
pub async fn call_exists(
    tx: &Transaction<'_>,
    account_id: Uuid,
    call_id: Uuid,
) -> Result<bool, StoreError> {
    let statement = tx.prepare_cached(CALL_EXISTS).await?;
    Ok(tx
        .query_opt(&statement, &[&account_id, &call_id])
        .await?
        .is_some())
}

const IGNORE: &str = "/* person_ignore */
    UPDATE events SET ignored_at = COALESCE(ignored_at, now()), ignored_by = COALESCE(ignored_by, $3), retry_until = NULL
     WHERE received_at = $1 AND id = $2";
const STOP_WAITING: &str =
    "/* person_stop_waiting */ DELETE FROM pending_reports WHERE event_id = $1";

/// Closes the row and stops its waiting.
pub async fn close_event(
    tx: &Transaction<'_>,
    received_at: Timestamp,
    event_id: Uuid,
    actor: &str,
) -> Result<(), StoreError> {
    tx.execute(
        &tx.prepare_cached(IGNORE).await?,
        &[&received_at, &event_id, &actor],
    )
    .await?;
    tx.execute(&tx.prepare_cached(STOP_WAITING).await?, &[&event_id])
        .await?;
    Ok(())
}
