//! What a person may do with a row (M8): replay, assign, apply, ignore; and try a sample.
//!
//! Each is recorded with who did it, and moves money at most once: a row with a posting is not
//! replayed or assigned, and an apply is a report of its own.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use rand::RngExt;
use uuid::Uuid;

use super::{Settled, Work, settle};
use crate::domain::decide::Course;
use crate::domain::event::RawEvent;
use crate::domain::ids;
use crate::domain::reason::{Detail, Reason, Status};
use crate::store::{Pool, StoreError, run_tx};

/// Why a person's action cannot be done; each says what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("no such event")]
    NoSuchEvent,
    #[error("no such call in this account")]
    NoSuchCall,
    #[error(
        "this row has already moved money; to change the call's value, apply the right amount instead"
    )]
    HasPosting,
    #[error(
        "this row moved money on the call that it was first matched to, and on this call it would count for nothing or be held; apply the right amount to the call instead"
    )]
    WouldNotMatch,
    #[error(
        "this row stands for requests that were refused and not kept; there is no report in it"
    )]
    NotAReport,
    #[error("this row has no call; assign it to one first")]
    NoCall,
    #[error("this row has no amount; give payout_cents")]
    NoAmount,
    #[error("payout_cents must be 0 or more: give what the buyer pays for the call in the end")]
    NegativeAmount,
}

/// Who asks, and for which row.
#[derive(Debug, Clone)]
pub struct Asked {
    pub account_id: Uuid,
    pub event_id: Uuid,
    /// Such as `key 3f2a…` or a person's e-mail; shown in the row's history.
    pub actor: String,
}

struct Target {
    received_at: Timestamp,
    status: Status,
    reason: Option<Reason>,
    displaced: bool,
    call_id: Option<Uuid>,
    payout_cents: Option<i64>,
    has_posting: bool,
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

async fn target(tx: &Transaction<'_>, asked: &Asked) -> Result<Option<Target>, StoreError> {
    let Some((low, high)) = ids::time_of_event_id(asked.event_id) else {
        return Ok(None);
    };
    let statement = tx.prepare_cached(TARGET).await?;
    let row = tx
        .query_opt(
            &statement,
            &[&low, &high, &asked.event_id, &asked.account_id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let call_id: Option<Uuid> = row.get("matched_call_id");
    let statement = tx.prepare_cached(HAS_POSTING).await?;
    let has_posting = tx
        .query_one(&statement, &[&asked.account_id, &call_id, &asked.event_id])
        .await?
        .get(0);
    let corrupt = |what: &str| StoreError::Corrupt(format!("events.{what}"));
    let detail: Option<&str> = row.get("detail");
    let detail: Detail = detail
        .and_then(|d| serde_json::from_str(d).ok())
        .unwrap_or_default();
    Ok(Some(Target {
        received_at: row.get("received_at"),
        status: Status::from_code(row.get("status")).ok_or_else(|| corrupt("status"))?,
        reason: super::load::reason_of(row.get("reason"))?,
        displaced: detail.displaced,
        call_id,
        payout_cents: row.get("payout_cents"),
        has_posting,
    }))
}

impl Target {
    fn is_report(&self) -> bool {
        self.status != Status::Refused || self.reason == Some(Reason::EndpointDisabled)
    }
}

const ACTION: &str = "/* person_action */
    INSERT INTO event_actions (id, account_id, event_id, action, actor, detail, outcome)
    VALUES ($1, $2, $3, $4, $5, $6::text::json, $7)";

async fn record(
    tx: &Transaction<'_>,
    asked: &Asked,
    action: &str,
    detail: Option<String>,
    outcome: Option<&Settled>,
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
            &asked.account_id,
            &asked.event_id,
            &action,
            &asked.actor,
            &detail,
            &outcome,
        ],
    )
    .await?;
    Ok(())
}

const CALL_EXISTS: &str =
    "/* person_call_exists */ SELECT 1 FROM calls WHERE account_id = $1 AND id = $2";

async fn call_exists(
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

fn first(settled: Vec<Settled>) -> Result<Settled, StoreError> {
    settled
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::Corrupt("a row vanished while it was settled".to_owned()))
}

/// The same rules as they stand now, at the original time of reception.
pub async fn replay(pool: &Pool, asked: &Asked) -> Result<Result<Settled, Unfit>, StoreError> {
    run_tx(pool, "person_replay", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let target = match target(tx, asked).await? {
                None => return Ok(Err(Unfit::NoSuchEvent)),
                Some(target) if target.has_posting => return Ok(Err(Unfit::HasPosting)),
                Some(target) if !target.is_report() => return Ok(Err(Unfit::NotAReport)),
                Some(target) => target,
            };
            let work = Work::Stored {
                id: asked.event_id,
                received_at: target.received_at,
                course: Course::Replayed,
            };
            let settled = first(settle(tx, vec![work]).await?)?;
            record(tx, asked, "replay", None, Some(&settled)).await?;
            Ok(Ok(settled))
        })
    })
    .await
}

/// A person says which call the report is about.
pub async fn assign(
    pool: &Pool,
    asked: &Asked,
    call_id: Uuid,
) -> Result<Result<Settled, Unfit>, StoreError> {
    let assigning = run_tx(pool, "person_assign", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let target = match target(tx, asked).await? {
                None => return Ok(Err(Unfit::NoSuchEvent)),
                // A displaced match no longer counts anywhere: it is free to be assigned to another call.
                Some(t) if t.has_posting && !(t.displaced && t.call_id != Some(call_id)) => {
                    return Ok(Err(Unfit::HasPosting));
                }
                Some(target) if !target.is_report() => return Ok(Err(Unfit::NotAReport)),
                Some(target) => target,
            };
            if !call_exists(tx, asked.account_id, call_id).await? {
                return Ok(Err(Unfit::NoSuchCall));
            }
            let course = Course::Assigned(call_id);
            let work = Work::Stored {
                id: asked.event_id,
                received_at: target.received_at,
                course,
            };
            let settled = first(settle(tx, vec![work]).await?)?;
            // The row keeps the posting of its first match: it must not become one that has none.
            if target.has_posting
                && settled
                    .decision
                    .as_ref()
                    .is_none_or(|d| d.status != Status::Matched)
            {
                return Err(StoreError::Abandoned);
            }
            let detail = format!("{{\"call_id\":\"{call_id}\"}}");
            record(tx, asked, "assign", Some(detail), Some(&settled)).await?;
            Ok(Ok(settled))
        })
    });
    match assigning.await {
        Err(StoreError::Abandoned) => Ok(Err(Unfit::WouldNotMatch)),
        outcome => outcome,
    }
}

/// A new report by that person about the row's call, received now, never a duplicate. The row's own
/// amount is taken if none is given.
pub async fn apply(
    pool: &Pool,
    asked: &Asked,
    payout_cents: Option<i64>,
) -> Result<Result<Settled, Unfit>, StoreError> {
    run_tx(pool, "person_apply", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let Some(target) = target(tx, asked).await? else {
                return Ok(Err(Unfit::NoSuchEvent));
            };
            let Some(call_id) = target.call_id else {
                return Ok(Err(Unfit::NoCall));
            };
            let Some(payout_cents) = payout_cents.or(target.payout_cents) else {
                return Ok(Err(Unfit::NoAmount));
            };
            if payout_cents < 0 {
                return Ok(Err(Unfit::NegativeAmount));
            }
            let received_at = ids::to_microseconds(Timestamp::now());
            let id = ids::event_id(received_at, &rand::rng().random());
            let (from_id, from_received_at) = (asked.event_id, target.received_at);
            let work = Work::Apply {
                id,
                received_at,
                from_id,
                from_received_at,
                payout_cents,
                call_id,
            };
            let settled = first(settle(tx, vec![work]).await?)?;
            let detail = format!("{{\"payout_cents\":{payout_cents},\"event_id\":\"{id}\"}}");
            record(tx, asked, "apply", Some(detail), Some(&settled)).await?;
            Ok(Ok(settled))
        })
    })
    .await
}

const IGNORE: &str = "/* person_ignore */
    UPDATE events SET ignored_at = COALESCE(ignored_at, now()), ignored_by = COALESCE(ignored_by, $3), retry_until = NULL
     WHERE received_at = $1 AND id = $2";
const STOP_WAITING: &str =
    "/* person_stop_waiting */ DELETE FROM pending_reports WHERE event_id = $1";

/// Closes a row: it is looked at no more, by persons or by the schedule.
pub async fn ignore(pool: &Pool, asked: &Asked) -> Result<Result<(), Unfit>, StoreError> {
    run_tx(pool, "person_ignore", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let Some(target) = target(tx, asked).await? else {
                return Ok(Err(Unfit::NoSuchEvent));
            };
            tx.execute(
                &tx.prepare_cached(IGNORE).await?,
                &[&target.received_at, &asked.event_id, &asked.actor],
            )
            .await?;
            tx.execute(&tx.prepare_cached(STOP_WAITING).await?, &[&asked.event_id])
                .await?;
            record(tx, asked, "ignore", None, None).await?;
            Ok(Ok(()))
        })
    })
    .await
}

/// How a sample request would be read and matched now. It is settled for real and rolled back:
/// nothing is stored, no money moves, and it cannot differ from what would happen.
pub async fn rehearse(pool: &Pool, sample: RawEvent) -> Result<Settled, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    let settled = settle(&tx, vec![Work::Fresh(sample)]).await;
    tx.rollback().await?;
    first(settled?)
}
