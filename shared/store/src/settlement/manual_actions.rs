//! The rows that persons act on (M8), and the record of what they did.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use rand::RngExt;
use trueup_domain::batch_decision::SettleResult;
use trueup_domain::report::closing_keys;
use trueup_event::ids;
use trueup_event::reason::{Reason, Status, Strategy};
use uuid::Uuid;

use crate::settlement::stored_events::{reason_of, report_of_row};
use crate::{StoreError, audit_log};

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
    pub strategy: Option<Strategy>,
    pub call_id: Option<Uuid>,
    pub payout_cents: Option<i64>,
    /// The ledger holds money under it, on whatever call (M8).
    pub stands_for_money: bool,
    /// The request is there to be read; a row that only counts requests has none.
    pub has_request: bool,
    /// A person has closed it.
    pub ignored: bool,
    /// It is a person's apply, made from that row.
    pub applied_from: Option<Uuid>,
}

const TARGET: &str = "/* person_target */
    SELECT e.received_at, e.status, e.reason, e.strategy, e.matched_call_id, e.payout_cents,
           e.ignored_at IS NOT NULL AS ignored, e.applied_from,
           e.request_place IS NOT NULL
               OR EXISTS (SELECT 1 FROM event_requests q WHERE q.received_at = e.received_at AND q.id = e.id) AS has_request
      FROM events e
     WHERE e.received_at >= $1 AND e.received_at < $2 AND e.id = $3 AND e.account_id = $4
       FOR NO KEY UPDATE OF e";

/// Asked in a statement of its own, after the row is locked: waiting for the lock does not refresh the
/// first one's view, and whoever held it may have posted.
const STANDS_FOR_MONEY: &str = "/* person_stands_for_money */
    SELECT EXISTS (SELECT 1 FROM postings WHERE account_id = $1 AND event_id = $2 GROUP BY call_id
                   HAVING sum(revenue_delta_cents) <> 0 OR sum(credit_delta_cents) <> 0)";

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
    let statement = tx.prepare_cached(STANDS_FOR_MONEY).await?;
    let stands_for_money = tx
        .query_one(&statement, &[&key.account_id, &key.event_id])
        .await?
        .get(0);
    let corrupt = |what: &str| StoreError::Corrupt(format!("events.{what}"));
    Ok(Some(ActionTarget {
        received_at: row.get("received_at"),
        status: Status::from_code(row.get("status")).ok_or_else(|| corrupt("status"))?,
        reason: reason_of(row.get("reason"))?,
        strategy: row
            .get::<_, Option<&str>>("strategy")
            .and_then(Strategy::from_code),
        call_id: row.get("matched_call_id"),
        payout_cents: row.get("payout_cents"),
        stands_for_money,
        has_request: row.get("has_request"),
        ignored: row.get("ignored"),
        applied_from: row.get("applied_from"),
    }))
}

impl ActionTarget {
    /// False for a row that only counts refused requests, and for one whose request held no report.
    pub fn is_report(&self) -> bool {
        match self.reason {
            Some(Reason::UnparseableBody | Reason::UnparseableElement | Reason::EmptyBatch) => {
                false
            }
            Some(Reason::EndpointDisabled) => self.has_request,
            _ => self.status != Status::Refused,
        }
    }
}

const ACTION: &str = "/* person_action */
    INSERT INTO event_actions (id, account_id, event_id, action, actor, detail, outcome)
    VALUES ($1, $2, $3, $4, $5, $6::text::json, $7)";

/// Writes down who did what to which row, and what it did to the call: in the row's history and in the
/// audit log.
pub async fn record_action(
    tx: &Transaction<'_>,
    key: &ActionKey<'_>,
    action: &'static str,
    detail: serde_json::Value,
    outcome: Option<&SettleResult>,
) -> Result<(), StoreError> {
    let id = ids::event_id(Timestamp::now(), &rand::rng().random());
    let outcome = outcome
        .and_then(|s| s.decision.as_ref())
        .map(|d| match d.reason() {
            Some(reason) => format!("{} · {reason}", d.status()),
            None => d.status().to_string(),
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
            &detail.to_string(),
            &outcome,
        ],
    )
    .await?;
    let change = audit_log::Change {
        account_id: key.account_id,
        actor: key.actor,
        action,
        object_kind: "event",
        object_id: key.event_id,
        detail,
    };
    audit_log::record_change(tx, change).await
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

/// The call is locked first, so that nothing is reported about it meanwhile.
const LOCK_CALL: &str = "/* person_lock_call */
    SELECT 1 FROM calls WHERE account_id = $1 AND id = $2 FOR NO KEY UPDATE";
const LAST_REPORT: &str = "/* person_last_report */
    SELECT max(received_at) FROM call_reports WHERE account_id = $1 AND call_id = $2";

/// When the last report of a call was received; the call is locked.
pub async fn lock_last_report(
    tx: &Transaction<'_>,
    account_id: Uuid,
    call_id: Uuid,
) -> Result<Option<Timestamp>, StoreError> {
    let lock = tx.prepare_cached(LOCK_CALL).await?;
    tx.execute(&lock, &[&account_id, &call_id]).await?;
    let statement = tx.prepare_cached(LAST_REPORT).await?;
    Ok(tx
        .query_one(&statement, &[&account_id, &call_id])
        .await?
        .get(0))
}

/// What a person did last to a row of what can be undone, and the apply's own event.
const LAST_ACTION: &str = "/* person_last_action */
    SELECT action, (detail ->> 'event_id')::uuid AS event_id FROM event_actions
     WHERE account_id = $1 AND event_id = $2 AND action = ANY($3)
     ORDER BY created_at DESC, id DESC LIMIT 1";

/// The last of these actions on a row, and the event that an apply made.
pub async fn last_action(
    tx: &Transaction<'_>,
    key: &ActionKey<'_>,
    among: &[&str],
) -> Result<Option<(String, Option<Uuid>)>, StoreError> {
    let statement = tx.prepare_cached(LAST_ACTION).await?;
    let row = tx
        .query_opt(&statement, &[&key.account_id, &key.event_id, &among])
        .await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

const IGNORE: &str = "/* person_ignore */
    UPDATE events SET ignored_at = now(), ignored_by = $3, decided_by = $3, retry_until = NULL
     WHERE received_at = $1 AND id = $2
 RETURNING status, webhook_id, position, reason, caller, caller_raw, duration_seconds, ref_id, call_id, payout_raw, payout_cents,
           currency, rejection_word";
const STOP_WAITING: &str =
    "/* person_stop_waiting */ DELETE FROM pending_reports WHERE event_id = $1";
const CLOSE_REPEATS: &str = "/* person_close_repeats */
    INSERT INTO open_reports (digest, event_id, received_at, position, reason, ignored)
    SELECT digest, $2, $3, $4, $5, true FROM unnest($1::uuid[]) AS row (digest)
        ON CONFLICT (digest) DO UPDATE SET event_id = EXCLUDED.event_id, received_at = EXCLUDED.received_at,
           position = EXCLUDED.position, reason = EXCLUDED.reason, ignored = true";

/// Closes the row, stops its waiting, and has its repeats closed, too (M12).
pub async fn close_event(
    tx: &Transaction<'_>,
    received_at: Timestamp,
    event_id: Uuid,
    actor: &str,
) -> Result<(), StoreError> {
    let row = tx
        .query_one(
            &tx.prepare_cached(IGNORE).await?,
            &[&received_at, &event_id, &actor],
        )
        .await?;
    tx.execute(&tx.prepare_cached(STOP_WAITING).await?, &[&event_id])
        .await?;
    let reason = reason_of(row.get("reason"))?;
    // A duplicate is no row of its own: to close it closes nothing that comes later.
    let is_open = matches!(row.get::<_, &str>("status"), "held" | "unmatched");
    if is_open && let Ok(report) = report_of_row(&row, reason) {
        let mut digests = closing_keys(row.get("webhook_id"), &report);
        // In the order of the key, as every lock.
        digests.sort_unstable();
        let position: i32 = row.get("position");
        tx.execute(
            &tx.prepare_cached(CLOSE_REPEATS).await?,
            &[
                &digests,
                &event_id,
                &received_at,
                &position,
                &reason.map(Reason::code),
            ],
        )
        .await?;
    }
    Ok(())
}

const REOPEN: &str = "/* person_reopen */
    UPDATE events SET ignored_at = NULL, ignored_by = NULL, decided_by = $3 WHERE received_at = $1 AND id = $2";
const REOPEN_REPEATS: &str = "/* person_reopen_repeats */
    DELETE FROM open_reports WHERE event_id = $1 AND received_at = $2";

/// The row is open again.
pub async fn reopen_event(
    tx: &Transaction<'_>,
    received_at: Timestamp,
    event_id: Uuid,
    actor: &str,
) -> Result<(), StoreError> {
    tx.execute(
        &tx.prepare_cached(REOPEN).await?,
        &[&received_at, &event_id, &actor],
    )
    .await?;
    tx.execute(
        &tx.prepare_cached(REOPEN_REPEATS).await?,
        &[&event_id, &received_at],
    )
    .await?;
    Ok(())
}
