//! Reports that came before their calls (M7): woken by a recorded call, or by the schedule.
//!
//! Recording a call leaves a note in its own transaction. A note makes the reports that wait for such
//! a call due at once, and once more when everything has ended that was being settled just then; what is
//! due is settled again, at its original place in the order of reception.

use deadpool_postgres::Transaction;
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

/// Some notes are taken; what waits for their calls becomes due. Each look-up is a subquery of its own,
/// so that it goes through its index whatever the planner thinks of the tables' sizes.
macro_rules! wake {
    ($name:literal, $taken:literal) => {
        concat!(
            "/* ", $name, " */ WITH taken AS (", $taken, " RETURNING account_id, call_id, ref_id, caller),
             meant AS (
                SELECT p.event_id FROM taken n CROSS JOIN LATERAL (
                    SELECT event_id FROM pending_reports WHERE account_id = n.account_id AND ref_id = n.ref_id OFFSET 0) p
                UNION SELECT p.event_id FROM taken n CROSS JOIN LATERAL (
                    SELECT event_id FROM pending_reports WHERE account_id = n.account_id AND call_id = n.call_id OFFSET 0) p
                UNION SELECT p.event_id FROM taken n CROSS JOIN LATERAL (
                    SELECT event_id FROM pending_reports WHERE account_id = n.account_id AND caller = n.caller OFFSET 0) p),
             woken AS (
                UPDATE pending_reports SET next_try_at = now()
                 WHERE event_id = ANY(ARRAY(SELECT event_id FROM meant)) AND next_try_at > now() RETURNING 1)
             SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM woken)"
        )
    };
}

/// Notes not seen before are marked and stay: a report that is being settled right now may have looked for
/// its call before the call was there, and will only wait once that transaction commits. Each such
/// transaction took its number before it looked ([`super::settle`]), so it is below the mark.
pub(super) const WAKE: &str = wake!(
    "late_wake",
    "UPDATE call_notes SET seen_before = pg_snapshot_xmax(pg_current_snapshot()), seen_at = now() WHERE id IN (
        SELECT id FROM call_notes WHERE seen_before IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)"
);

/// The notes whose mark all transactions have passed are looked at once more and go. A transaction of
/// somebody else's that runs on and on holds the mark back, but for no longer than a settling may take.
pub(super) const WAKE_AGAIN: &str = wake!(
    "late_wake_again",
    "DELETE FROM call_notes WHERE id IN (
        SELECT id FROM call_notes
         WHERE seen_before <= pg_snapshot_xmin(pg_current_snapshot()) OR seen_at < now() - make_interval(secs => 30)
         ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)"
);

/// Makes the reports due that may be about calls recorded since. Returns how many notes of recorded calls
/// were dealt with.
pub async fn wake(pool: &Pool) -> Result<u64, StoreError> {
    let again = run_tx(pool, "late_wake_again", |tx| {
        Box::pin(wake_by(tx, WAKE_AGAIN))
    })
    .await?;
    let first = run_tx(pool, "late_wake", |tx| Box::pin(wake_by(tx, WAKE))).await?;
    Ok(again.saturating_add(first))
}

async fn wake_by(tx: &Transaction<'_>, sql: &'static str) -> Result<u64, StoreError> {
    let statement = tx.prepare_cached(sql).await?;
    let row = tx.query_one(&statement, &[&NOTES]).await?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

pub(super) const DUE: &str = "/* late_due */
    SELECT event_id, received_at FROM pending_reports WHERE next_try_at <= now()
     ORDER BY next_try_at LIMIT $1 FOR UPDATE SKIP LOCKED";

/// The next time of the schedule that still lies ahead; without one the waiting is over.
pub(super) const RESCHEDULE: &str = "/* late_reschedule */
    UPDATE pending_reports p
       SET next_try_at = COALESCE(
           (SELECT min(p.since + make_interval(secs => s)) FROM unnest($2::float8[]) AS s
             WHERE p.since + make_interval(secs => s) > now()), 'infinity')
     WHERE p.event_id = ANY($1)";

pub(super) const STOP_WAITING: &str = "/* late_stop_waiting */
    DELETE FROM pending_reports WHERE event_id = ANY($1) AND next_try_at = 'infinity' RETURNING received_at, event_id";

pub(super) const GIVE_UP: &str = "/* late_give_up */
    UPDATE events e SET retry_until = NULL
      FROM unnest($1::timestamptz[], $2::uuid[]) AS row (received_at, id)
     WHERE e.received_at = row.received_at AND e.id = row.id";

/// Settles up to `limit` reports that are due. Empty when none is.
pub async fn settle_due(pool: &Pool, limit: i64) -> Result<Vec<Settled>, StoreError> {
    match settle_up_to(pool, limit).await {
        Err(error) if !error.is_surroundings() && limit > 1 => {
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
            Err(error) if error.is_surroundings() => return Err(error),
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
            let due: Vec<(Uuid, Timestamp)> = tx
                .query(&statement, &[&limit])
                .await?
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect();
            if due.is_empty() {
                return Ok(Vec::new());
            }
            let ids: Vec<Uuid> = due.iter().map(|(id, _)| *id).collect();
            let schedule: Vec<f64> = RETRY_SECONDS.iter().map(|s| f64::from(*s)).collect();
            tx.execute(&tx.prepare_cached(RESCHEDULE).await?, &[&ids, &schedule])
                .await?;
            let work = due
                .into_iter()
                .map(|(id, received_at)| Work::Stored {
                    id,
                    received_at,
                    course: Course::Again,
                })
                .collect();
            let settled = settle(tx, work).await?;
            give_up(tx, &ids).await?;
            Ok(settled)
        })
    })
    .await
}

/// What has been tried for the last time no longer waits, and its row says so.
async fn give_up(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<(), StoreError> {
    let over = tx
        .query(&tx.prepare_cached(STOP_WAITING).await?, &[&ids])
        .await?;
    if over.is_empty() {
        return Ok(());
    }
    let (times, ids): (Vec<Timestamp>, Vec<Uuid>) = over
        .iter()
        .map(|row| (row.get::<_, Timestamp>(0), row.get::<_, Uuid>(1)))
        .unzip();
    tx.execute(&tx.prepare_cached(GIVE_UP).await?, &[&times, &ids])
        .await?;
    Ok(())
}

const POSTPONE: &str = "/* late_postpone */
    UPDATE pending_reports SET next_try_at = now() + make_interval(secs => $1)
     WHERE event_id = (SELECT event_id FROM pending_reports WHERE next_try_at <= now() ORDER BY next_try_at LIMIT 1)";

async fn postpone(pool: &Pool) -> Result<(), StoreError> {
    let client = pool.get().await?;
    client
        .execute(
            &client.prepare_cached(POSTPONE).await?,
            &[&POSTPONE_SECONDS],
        )
        .await?;
    Ok(())
}
