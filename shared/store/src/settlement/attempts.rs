//! Events that break the worker (V12): counted before each try, and after five set aside alone.
//!
//! The count is committed before the try begins, so that an event which kills the process counts too.

use std::collections::HashSet;

use jiff::Timestamp;
use uuid::Uuid;

use crate::{Pool, StoreError};
use trueup_event::raw_event::RawEvent;

/// Tries of one event before it is set aside (V12).
pub const MAX_ATTEMPTS: i32 = 5;

const BEGIN: &str = "/* parked_begin_attempt */
    INSERT INTO event_attempts (event_id, attempts) VALUES ($1, $2)
        ON CONFLICT (event_id) DO UPDATE SET attempts = event_attempts.attempts + $2, last_at = now()
    RETURNING attempts";

/// Notes that a try of this event begins; returns which one it is, from 1. A try that makes up for
/// one which Postgres cut short does not count.
pub async fn begin_attempt(pool: &Pool, event_id: Uuid, counts: bool) -> Result<i32, StoreError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(BEGIN).await?;
    Ok(client
        .query_one(&statement, &[&event_id, &i32::from(counts)])
        .await?
        .get(0))
}

/// `Ok` if Postgres takes a write and has our tables. An answer alone says little: a standby, a full
/// disk and a database without its schema answer, too, and messages taken then would come back.
pub async fn probe_database(pool: &Pool) -> Result<(), StoreError> {
    begin_attempt(pool, Uuid::nil(), false).await?;
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
