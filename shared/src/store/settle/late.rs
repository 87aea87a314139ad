//! Reports that came before their calls (M7): woken by a recorded call, or by the schedule.
//!
//! Recording a call leaves a note in its own transaction. A note makes the reports that wait for such
//! a call due at once; what is due is settled again, at its original place in the order of reception.

use jiff::Timestamp;
use uuid::Uuid;

use super::write::RETRY_SECONDS;
use super::{Settled, Work, settle};
use crate::domain::decide::Course;
use crate::store::{Pool, StoreError, run_tx};

/// Notes taken in one go.
const NOTES: i64 = 1_000;
/// A report whose settling fails again and again is left alone for this long, in seconds.
const POSTPONE_SECONDS: f64 = 3_600.0;

const WAKE: &str = "/* late_wake */
    WITH taken AS (
        DELETE FROM call_notes WHERE id IN (
            SELECT id FROM call_notes ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
        RETURNING account_id, call_id, ref_id, caller),
    meant AS (
        SELECT p.event_id FROM taken t JOIN pending_reports p ON p.account_id = t.account_id AND p.ref_id = t.ref_id
        UNION SELECT p.event_id FROM taken t JOIN pending_reports p ON p.account_id = t.account_id AND p.call_id = t.call_id
        UNION SELECT p.event_id FROM taken t JOIN pending_reports p ON p.account_id = t.account_id AND p.caller = t.caller),
    woken AS (
        UPDATE pending_reports SET next_try_at = now()
         WHERE event_id IN (SELECT event_id FROM meant) AND next_try_at > now() RETURNING 1)
    SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM woken)";

/// Takes the notes of recorded calls and makes the reports that may be theirs due. Returns how many
/// notes there were.
pub async fn wake(pool: &Pool) -> Result<u64, StoreError> {
    run_tx(pool, "late_wake", |tx| {
        Box::pin(async move {
            let statement = tx.prepare_cached(WAKE).await?;
            let row = tx.query_one(&statement, &[&NOTES]).await?;
            Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
        })
    })
    .await
}

const DUE: &str = "/* late_due */
    SELECT event_id, received_at FROM pending_reports WHERE next_try_at <= now()
     ORDER BY next_try_at LIMIT $1 FOR UPDATE SKIP LOCKED";

/// The next time of the schedule that still lies ahead; without one the waiting is over.
const RESCHEDULE: &str = "/* late_reschedule */
    UPDATE pending_reports p
       SET next_try_at = COALESCE(
           (SELECT min(p.since + make_interval(secs => s)) FROM unnest($2::float8[]) AS s
             WHERE p.since + make_interval(secs => s) > now()), 'infinity')
     WHERE p.event_id = ANY($1)";

const GIVE_UP: &str = "/* late_give_up */
    WITH over AS (DELETE FROM pending_reports WHERE event_id = ANY($1) AND next_try_at = 'infinity' RETURNING event_id, received_at)
    UPDATE events e SET retry_until = NULL FROM over WHERE e.received_at = over.received_at AND e.id = over.event_id";

/// Settles up to `limit` reports that are due. Empty when none is.
pub async fn settle_due(pool: &Pool, limit: i64) -> Result<Vec<Settled>, StoreError> {
    match settle_up_to(pool, limit).await {
        Err(error) if !error.is_unreachable() && limit > 1 => {
            tracing::warn!(%error, "waiting reports are settled one by one");
            one_by_one(pool, limit).await
        }
        outcome => outcome,
    }
}

async fn one_by_one(pool: &Pool, limit: i64) -> Result<Vec<Settled>, StoreError> {
    let mut all = Vec::new();
    for _ in 0..limit {
        match settle_up_to(pool, 1).await {
            Ok(settled) if settled.is_empty() => break,
            Ok(settled) => all.extend(settled),
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) => {
                tracing::error!(%error, "a waiting report cannot be settled and is put off by an hour");
                postpone(pool).await?;
            }
        }
    }
    Ok(all)
}

async fn settle_up_to(pool: &Pool, limit: i64) -> Result<Vec<Settled>, StoreError> {
    run_tx(pool, "late_settle", |tx| {
        Box::pin(async move {
            let statement = tx.prepare_cached(DUE).await?;
            let due: Vec<(Uuid, Timestamp)> =
                tx.query(&statement, &[&limit]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
            if due.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<Uuid> = due.iter().map(|(id, _)| *id).collect();
            let schedule: Vec<f64> = RETRY_SECONDS.iter().map(|s| f64::from(*s)).collect();
            tx.execute(&tx.prepare_cached(RESCHEDULE).await?, &[&ids, &schedule]).await?;
            let work = due
                .into_iter()
                .map(|(id, received_at)| Work::Stored { id, received_at, course: Course::Again })
                .collect();
            let settled = settle(tx, work).await?;
            tx.execute(&tx.prepare_cached(GIVE_UP).await?, &[&ids]).await?;
            Ok(settled)
        })
    })
    .await
}

const POSTPONE: &str = "/* late_postpone */
    UPDATE pending_reports SET next_try_at = now() + make_interval(secs => $1)
     WHERE event_id = (SELECT event_id FROM pending_reports WHERE next_try_at <= now() ORDER BY next_try_at LIMIT 1)";

async fn postpone(pool: &Pool) -> Result<(), StoreError> {
    let client = pool.get().await?;
    client.execute(&client.prepare_cached(POSTPONE).await?, &[&POSTPONE_SECONDS]).await?;
    Ok(())
}
