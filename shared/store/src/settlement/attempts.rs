//! Events that break the worker (V12): counted before each try, and after five set aside alone.
//!
//! The count is committed before the try begins, so that an event which kills the process counts too.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::{Pool, StoreError};
use trueup_event::raw_event::RawEvent;

const BEGIN: &str = "/* parked_begin_attempts */
    INSERT INTO event_attempts (event_id, attempts)
    SELECT * FROM unnest($1::uuid[], $2::int4[])
        ON CONFLICT (event_id) DO UPDATE SET attempts = event_attempts.attempts + EXCLUDED.attempts, last_at = now()
    RETURNING event_id, attempts";

/// Notes that a try of these events begins; returns which one it is for each, from 1. A try that makes up
/// for one which Postgres cut short does not count (`false`).
pub async fn begin_attempts(
    pool: &Pool,
    events: &[(Uuid, bool)],
) -> Result<HashMap<Uuid, i32>, StoreError> {
    // In id order, as every lock: two workers may hold the same events for a moment.
    let events: BTreeMap<Uuid, bool> = events.iter().copied().collect();
    let ids: Vec<Uuid> = events.keys().copied().collect();
    let counts: Vec<i32> = events.values().map(|counts| i32::from(*counts)).collect();
    let client = pool.get().await?;
    let statement = client.prepare_cached(BEGIN).await?;
    let begun = client.query(&statement, &[&ids, &counts]).await?;
    Ok(begun.iter().map(|row| (row.get(0), row.get(1))).collect())
}

const TRIED: &str = "/* parked_tried_before */
    SELECT event_id FROM event_attempts WHERE event_id = ANY($1) AND attempts > 0";

/// Those of the events that a worker has begun before, by themselves or in a batch, and not finished.
pub async fn tried_before(pool: &Pool, events: &[RawEvent]) -> Result<HashSet<Uuid>, StoreError> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let client = pool.get().await?;
    let statement = client.prepare_cached(TRIED).await?;
    let tried = client.query(&statement, &[&ids]).await?;
    Ok(tried.iter().map(|row| row.get(0)).collect())
}

/// `Ok` if Postgres takes a write and has our tables. An answer alone says little: a standby, a full
/// disk and a database without its schema answer, too, and messages taken then would come back.
pub async fn probe_database(pool: &Pool) -> Result<(), StoreError> {
    begin_attempts(pool, &[(Uuid::nil(), false)]).await?;
    forget_attempts(pool, &[Uuid::nil()]).await
}

const FORGET: &str =
    "/* parked_forget_attempts */ DELETE FROM event_attempts WHERE event_id = ANY($1)";

/// The events were settled, or are given a new chance: their tries no longer count.
pub async fn forget_attempts(pool: &Pool, event_ids: &[Uuid]) -> Result<(), StoreError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(FORGET).await?;
    client.execute(&statement, &[&event_ids]).await?;
    Ok(())
}

const FORGET_OLD: &str = "/* parked_forget_old */ DELETE FROM event_attempts WHERE last_at < $1";

/// Counts older than `before` are of no use any more.
pub async fn forget_older(pool: &Pool, before: Timestamp) -> Result<u64, StoreError> {
    let client = pool.get().await?;
    Ok(client.execute(FORGET_OLD, &[&before]).await?)
}

const FORGET_OPEN: &str = "/* open_reports_forget_old */
    DELETE FROM open_reports WHERE digest IN (
        SELECT digest FROM open_reports WHERE received_at < $1 ORDER BY received_at LIMIT $2)";

/// What waits for a person answers for its repeats for a day (M11); at most so many rows go.
pub async fn forget_open_reports(
    pool: &Pool,
    before: Timestamp,
    at_most: i64,
) -> Result<u64, StoreError> {
    let client = pool.get().await?;
    Ok(client.execute(FORGET_OPEN, &[&before, &at_most]).await?)
}

const SETTLED: &str = "/* parked_settled */
    SELECT e.id FROM unnest($1::timestamptz[], $2::uuid[]) AS k (received_at, id)
      JOIN events e ON e.received_at = k.received_at AND e.id = k.id
     WHERE e.reason IS DISTINCT FROM 'processing_failed'";

/// Those of a redelivered envelope's events that have no row yet, or one that says it failed.
pub async fn drop_settled(pool: &Pool, events: Vec<RawEvent>) -> Result<Vec<RawEvent>, StoreError> {
    let times: Vec<Timestamp> = events.iter().map(|e| e.received_at).collect();
    let ids: Vec<Uuid> = events.iter().map(|e| e.id).collect();
    let client = pool.get().await?;
    let statement = client.prepare_cached(SETTLED).await?;
    let settled: HashSet<Uuid> = client
        .query(&statement, &[&times, &ids])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    Ok(events
        .into_iter()
        .filter(|e| !settled.contains(&e.id))
        .collect())
}

const PARK: &str = "/* parked_insert_event */
    INSERT INTO events (received_at, id, account_id, webhook_id, position, source_ip, status, reason)
    VALUES ($1, $2, $3, $4, $5, $6, 'held', 'processing_failed')
        ON CONFLICT DO NOTHING";

const PARK_REQUEST: &str = "/* parked_insert_request */
    INSERT INTO event_requests (received_at, id, request) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// The row of an event that could not be settled. Its raw request is kept if Postgres will have it.
pub async fn park_event(pool: &Pool, event: &RawEvent) -> Result<(), StoreError> {
    let client = pool.get().await?;
    let position = i32::from(event.position);
    client
        .execute(
            PARK,
            &[
                &event.received_at,
                &event.id,
                &event.account_id,
                &event.webhook_id,
                &position,
                &event.source_ip,
            ],
        )
        .await?;
    // Whole, also if it is an element of a batch: the first of them may be what cannot be stored.
    if let Some(Ok(request)) = event.request.as_ref().map(serde_json::to_string)
        && let Err(error) = client
            .execute(PARK_REQUEST, &[&event.received_at, &event.id, &request])
            .await
    {
        let error = StoreError::from(error);
        if error.is_environment_error() {
            return Err(error);
        }
        // The request itself may be what Postgres chokes on; the dead letter still has it.
        tracing::warn!(event_id = %event.id, %error, "the raw request of a parked event is not kept");
    }
    Ok(())
}
