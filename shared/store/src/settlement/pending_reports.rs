//! Reports that wait for their calls (M7), and the notes that recorded calls leave for them.
//!
//! Recording a call leaves a note in its own transaction. A note makes the reports that wait for such
//! a call due at once, and once more when everything has ended that was being settled just then.

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use trueup_domain::decision::Trigger;
use uuid::Uuid;

use crate::settlement::writes::RETRY_SECONDS;
use crate::{Pool, StoreError};

/// Notes taken in one go.
const NOTES: i64 = 1_000;
/// A report whose settling fails again and again is left alone for this long, in seconds.
const POSTPONE_SECONDS: f64 = 3_600.0;

/// Waiting reports that one recorded call wakes at a time, of each of its keys (M7). A call of which more wait
/// keeps its note for the next round.
const WOKEN_AT_A_TIME: i64 = 100;

/// Some notes are looked at; what waits for their calls becomes due, the oldest first. Each look-up is a
/// subquery of its own, so that it goes through its index whatever the planner thinks of the tables' sizes.
///
/// Notes that were never looked at come first: a crowd that one key wakes round by round keeps no other waiting.
///
/// A round takes its number after its snapshot. So a report that was woken in a round no earlier than a
/// note's first one was woken when the note's call could be seen, and needs no waking by it; one that was
/// woken earlier does, in whatever order the calls were numbered and committed.
macro_rules! wake {
    ($name:literal, $which:literal, $done:literal) => {
        concat!(
            "/* ", $name, " */ WITH round AS MATERIALIZED (SELECT nextval('wake_rounds') AS number),
             taken AS (
                SELECT id, account_id, call_id, ref_id, caller,
                       COALESCE(first_round, (SELECT number FROM round)) AS first_round
                  FROM call_recorded_outbox WHERE ", $which, "
                 ORDER BY first_round NULLS FIRST, id LIMIT $1 FOR UPDATE SKIP LOCKED),
             found AS (
                SELECT n.id AS note, 'ref_id' AS key, p.event_id FROM taken n CROSS JOIN LATERAL (
                    SELECT event_id FROM pending_reports
                     WHERE account_id = n.account_id AND ref_id = n.ref_id AND woken_in < n.first_round
                     ORDER BY woken_in, received_at LIMIT $2) p
                UNION ALL SELECT n.id, 'call_id', p.event_id FROM taken n CROSS JOIN LATERAL (
                    SELECT event_id FROM pending_reports
                     WHERE account_id = n.account_id AND call_id = n.call_id AND woken_in < n.first_round
                     ORDER BY woken_in, received_at LIMIT $2) p
                UNION ALL SELECT n.id, 'caller', p.event_id FROM taken n CROSS JOIN LATERAL (
                    SELECT event_id FROM pending_reports
                     WHERE account_id = n.account_id AND caller = n.caller AND woken_in < n.first_round
                     ORDER BY woken_in, received_at LIMIT $2) p),
             woken AS (
                UPDATE pending_reports
                   SET next_try_at = LEAST(next_try_at, now()), cause = GREATEST(cause, 1::int2),
                       woken_in = (SELECT number FROM round)
                 WHERE event_id = ANY (ARRAY(SELECT event_id FROM found GROUP BY event_id ORDER BY event_id)) RETURNING 1),
             more AS (SELECT note FROM found GROUP BY note, key HAVING count(*) >= $2),
             done AS (", $done, " RETURNING 1)
             SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM woken), (SELECT count(*) FROM done)"
        )
    };
}

/// Notes not seen before are marked and stay: a report that is being settled right now may have looked for
/// its call before the call was there, and will only wait once that transaction commits. Each such
/// transaction took its number before it looked (`trueup_settlement::settle_batch`), so it is below the mark.
pub const WAKE: &str = wake!(
    "late_wake",
    "seen_before IS NULL",
    "UPDATE call_recorded_outbox o
        SET first_round = n.first_round,
            seen_before = CASE WHEN n.id NOT IN (SELECT note FROM more) THEN pg_snapshot_xmax(pg_current_snapshot()) END,
            seen_at = CASE WHEN n.id NOT IN (SELECT note FROM more) THEN now() END
       FROM taken n WHERE o.id = n.id"
);

/// The notes whose mark all transactions have passed are looked at once more and go. A transaction of
/// somebody else's that runs on and on holds the mark back, but for no longer than a settling may take.
pub const WAKE_AGAIN: &str = wake!(
    "late_wake_again",
    "(seen_before <= pg_snapshot_xmin(pg_current_snapshot()) OR seen_at < now() - make_interval(secs => 30))",
    "DELETE FROM call_recorded_outbox WHERE id IN (SELECT id FROM taken EXCEPT SELECT note FROM more)"
);

/// Runs one of the two; returns how many notes it dealt with.
pub async fn wake_by(tx: &Transaction<'_>, sql: &'static str) -> Result<u64, StoreError> {
    let statement = tx.prepare_cached(sql).await?;
    let row = tx
        .query_one(&statement, &[&NOTES, &WOKEN_AT_A_TIME])
        .await?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

pub const WAKE_GUESSES: &str = "/* recording_wake_guesses */
    INSERT INTO pending_reports (event_id, received_at, account_id, ref_id, call_id, caller, next_try_at, cause)
    SELECT r.event_id, r.received_at, r.account_id, r.ref_id, NULL, NULL, now(), 2
      FROM unnest($2::uuid[]) AS k (call_id)
     CROSS JOIN LATERAL (
           SELECT event_id, received_at, account_id, ref_id FROM call_reports
            WHERE account_id = $1 AND call_id = k.call_id AND guess AND role <> 'displaced' OFFSET 0) AS r
     ORDER BY r.event_id
        ON CONFLICT (event_id) DO UPDATE SET next_try_at = now(), cause = 2";

/// A copy has changed what guesses about these calls were made by: they are looked at again (M14).
pub async fn wake_guesses(
    tx: &Transaction<'_>,
    account_id: Uuid,
    call_ids: &[Uuid],
) -> Result<(), StoreError> {
    if !call_ids.is_empty() {
        let statement = tx.prepare_cached(WAKE_GUESSES).await?;
        tx.execute(&statement, &[&account_id, &call_ids]).await?;
    }
    Ok(())
}

pub const DUE: &str = "/* late_due */
    SELECT event_id, received_at, cause FROM pending_reports WHERE next_try_at <= now()
     ORDER BY next_try_at, received_at, event_id LIMIT $1 FOR UPDATE SKIP LOCKED";

/// Names the turn of trying what waits, among the locks of this database (M10).
const TURN: i64 = 0x5452_5545_5550_0001;

/// True if this transaction may try what waits; another worker is at it otherwise.
pub async fn take_turn(tx: &Transaction<'_>) -> Result<bool, StoreError> {
    let statement = tx
        .prepare_cached("/* late_take_turn */ SELECT pg_try_advisory_xact_lock($1)")
        .await?;
    Ok(tx.query_one(&statement, &[&TURN]).await?.get(0))
}

/// The next time of the schedule that still lies ahead; without one the waiting is over.
pub const RESCHEDULE: &str = "/* late_reschedule */
    UPDATE pending_reports p
       SET cause = 0, next_try_at = COALESCE(
           (SELECT min(p.since + make_interval(secs => s)) FROM unnest($2::float8[]) AS s
             WHERE p.since + make_interval(secs => s) > now()), 'infinity')
     WHERE p.event_id = ANY($1)";

pub const STOP_WAITING: &str = "/* late_stop_waiting */
    DELETE FROM pending_reports WHERE event_id = ANY($1) AND next_try_at = 'infinity' RETURNING received_at, event_id";

pub const GIVE_UP: &str = "/* late_give_up */
    UPDATE events e SET retry_until = NULL
      FROM unnest($1::timestamptz[], $2::uuid[]) AS row (received_at, id)
     WHERE e.received_at = row.received_at AND e.id = row.id";

fn trigger_of(cause: i16) -> Trigger {
    match cause {
        0 => Trigger::Again,
        1 => Trigger::Recorded,
        _ => Trigger::Changed,
    }
}

fn cause_of(trigger: Trigger) -> i16 {
    match trigger {
        Trigger::Recorded => 1,
        Trigger::Changed => 2,
        _ => 0,
    }
}

/// A report that is tried again, and why.
pub struct DueReport {
    pub event_id: Uuid,
    pub received_at: Timestamp,
    pub trigger: Trigger,
}

/// The reports that are due, locked, with their next time set.
pub async fn take_due(tx: &Transaction<'_>, limit: i64) -> Result<Vec<DueReport>, StoreError> {
    let statement = tx.prepare_cached(DUE).await?;
    let due: Vec<DueReport> = tx
        .query(&statement, &[&limit])
        .await?
        .iter()
        .map(|row| DueReport {
            event_id: row.get(0),
            received_at: row.get(1),
            trigger: trigger_of(row.get(2)),
        })
        .collect();
    if due.is_empty() {
        return Ok(due);
    }
    let ids: Vec<Uuid> = due.iter().map(|report| report.event_id).collect();
    let schedule: Vec<f64> = RETRY_SECONDS.iter().map(|s| f64::from(*s)).collect();
    tx.execute(&tx.prepare_cached(RESCHEDULE).await?, &[&ids, &schedule])
        .await?;
    Ok(due)
}

/// What has been tried for the last time no longer waits, and its row says so.
pub async fn give_up(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<(), StoreError> {
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

const TRY_SOON: &str = "/* late_try_soon */
    UPDATE pending_reports p
       SET next_try_at = now() + make_interval(secs => $3), cause = GREATEST(p.cause, row.cause)
      FROM unnest($1::uuid[], $2::int2[]) AS row (event_id, cause)
     WHERE p.event_id = row.event_id";
/// Until a report whose call somebody holds is tried again (s).
const SOON_SECONDS: f64 = 2.0;

/// These stepped aside (V12): they are tried again for the same cause, and the schedule goes on from where it
/// was.
pub async fn try_soon(tx: &Transaction<'_>, aside: &[(Uuid, Trigger)]) -> Result<(), StoreError> {
    if !aside.is_empty() {
        let statement = tx.prepare_cached(TRY_SOON).await?;
        let (ids, causes): (Vec<Uuid>, Vec<i16>) = aside
            .iter()
            .map(|(id, trigger)| (*id, cause_of(*trigger)))
            .unzip();
        tx.execute(&statement, &[&ids, &causes, &SOON_SECONDS])
            .await?;
    }
    Ok(())
}

const POSTPONE: &str = "/* late_postpone */
    UPDATE pending_reports SET next_try_at = now() + make_interval(secs => $1)
     WHERE event_id = (SELECT event_id FROM pending_reports WHERE next_try_at <= now()
                        ORDER BY next_try_at, received_at, event_id LIMIT 1)";

/// Puts off the report that is due first.
pub async fn postpone_first(pool: &Pool) -> Result<(), StoreError> {
    let client = pool.get().await?;
    client
        .execute(
            &client.prepare_cached(POSTPONE).await?,
            &[&POSTPONE_SECONDS],
        )
        .await?;
    Ok(())
}
