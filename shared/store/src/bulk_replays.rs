//! Replays of many rows (M8): begun by a person, worked off by the workers in small pieces.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use trueup_postgres::statement::{self, Result};

/// A replay as its page shows it.
#[derive(Debug, Clone)]
pub struct BulkReplay {
    pub id: Uuid,
    /// The panel's query string.
    pub filter: String,
    pub actor: String,
    pub total: i32,
    pub counts: ReplayCounts,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// No worker has taken it up for a minute though it is not finished.
    pub stalled: bool,
}

/// What became of a replay's rows so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    pub done: i32,
    pub matched: i32,
    /// Rows that no replay may touch.
    pub refused: i32,
    pub failed: i32,
}

impl ReplayCounts {
    fn from_row(row: &Row) -> Self {
        ReplayCounts {
            done: row.get("done"),
            matched: row.get("matched"),
            refused: row.get("refused"),
            failed: row.get("failed"),
        }
    }
}

/// A replay about to be begun.
#[derive(Debug)]
pub struct NewReplay<'a> {
    pub id: Uuid,
    pub account_id: Uuid,
    pub actor: &'a str,
    pub filter: &'a str,
    /// The oldest first (M10).
    pub event_ids: &'a [Uuid],
}

/// False if one of the account's is not finished yet.
pub async fn insert_replay(client: &impl GenericClient, new: &NewReplay<'_>) -> Result<bool> {
    const INSERT: &str = "/* bulk_replays.insert */
        INSERT INTO bulk_replays (id, account_id, actor, filter, event_ids, total, finished_at)
        VALUES ($1, $2, $3, $4, $5::uuid[], cardinality($5::uuid[]), CASE WHEN cardinality($5::uuid[]) = 0 THEN now() END)
            ON CONFLICT (account_id) WHERE finished_at IS NULL DO NOTHING";
    let params: statement::Params<'_> = &[
        &new.id,
        &new.account_id,
        &new.actor,
        &new.filter,
        &new.event_ids,
    ];
    Ok(statement::run(client, INSERT, params).await? > 0)
}

pub async fn get_replay(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<BulkReplay>> {
    const GET: &str = "/* bulk_replays.get */
        SELECT id, filter, actor, total, done, matched, refused, failed, created_at, finished_at,
               finished_at IS NULL AND advanced_at < now() - interval '1 minute' AS stalled
          FROM bulk_replays WHERE account_id = $1 AND id = $2";
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    Ok(row.map(|row| BulkReplay {
        id: row.get("id"),
        filter: row.get("filter"),
        actor: row.get("actor"),
        total: row.get("total"),
        counts: ReplayCounts::from_row(&row),
        created_at: row.get("created_at"),
        finished_at: row.get("finished_at"),
        stalled: row.get("stalled"),
    }))
}

/// Ends a replay before its last row; false if it is over already.
pub async fn stop_replay(client: &impl GenericClient, account_id: Uuid, id: Uuid) -> Result<bool> {
    const STOP: &str = "/* bulk_replays.stop */
        UPDATE bulk_replays SET finished_at = now(), event_ids = '{}'
         WHERE account_id = $1 AND id = $2 AND finished_at IS NULL";
    Ok(statement::run(client, STOP, &[&account_id, &id]).await? > 0)
}

/// True if one of the account's is not finished yet.
pub async fn is_under_way(client: &impl GenericClient, account_id: Uuid) -> Result<bool> {
    const OPEN: &str = "/* bulk_replays.is_under_way */
        SELECT 1 FROM bulk_replays WHERE account_id = $1 AND finished_at IS NULL";
    Ok(statement::query_opt(client, OPEN, &[&account_id])
        .await?
        .is_some())
}

/// A piece of a replay that this worker alone works at, until its claim ends.
#[derive(Debug)]
pub struct ClaimedPiece {
    pub id: Uuid,
    pub claim: Uuid,
    pub account_id: Uuid,
    pub actor: String,
    pub progress: ReplayProgress,
    pub event_ids: Vec<Uuid>,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy)]
pub struct ReplayProgress {
    pub counts: ReplayCounts,
    /// How often the row after those that are done was begun.
    pub tries: i16,
}

/// Claims the next rows of the replay that has waited longest: accounts take turns.
pub async fn claim_piece(
    client: &impl GenericClient,
    claim: Uuid,
    claimed_for: Duration,
    rows: i32,
) -> Result<Option<ClaimedPiece>> {
    const CLAIM: &str = "/* bulk_replays.claim */
        UPDATE bulk_replays SET claim = $1, claimed_until = now() + make_interval(secs => $2)
         WHERE id = (SELECT id FROM bulk_replays
                      WHERE finished_at IS NULL AND (claimed_until IS NULL OR claimed_until < now())
                      ORDER BY advanced_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING id, account_id, actor, done, matched, refused, failed, tries, event_ids[done + 1 : done + $3] AS piece";
    let row =
        statement::query_opt(client, CLAIM, &[&claim, &claimed_for.as_secs_f64(), &rows]).await?;
    Ok(row.map(|row| ClaimedPiece {
        id: row.get("id"),
        claim,
        account_id: row.get("account_id"),
        actor: row.get("actor"),
        progress: ReplayProgress {
            counts: ReplayCounts::from_row(&row),
            tries: row.get("tries"),
        },
        event_ids: row.get("piece"),
    }))
}

/// Writes how far a claimed replay is, and claims it for so long from now on. It is over with its last
/// row. False if there is nothing to go on with: it is over or was stopped, or another has claimed it.
pub async fn advance_replay(
    client: &impl GenericClient,
    piece: &ClaimedPiece,
    progress: ReplayProgress,
    claimed_for: Duration,
) -> Result<bool> {
    const ADVANCE: &str = "/* bulk_replays.advance */
        UPDATE bulk_replays
           SET done = $3, matched = $4, refused = $5, failed = $6, tries = $7,
               advanced_at = CASE WHEN $3 > done THEN now() ELSE advanced_at END,
               claimed_until = now() + make_interval(secs => $8),
               finished_at = COALESCE(finished_at, CASE WHEN $3 >= cardinality(event_ids) THEN now() END),
               event_ids = CASE WHEN $3 >= cardinality(event_ids) THEN '{}' ELSE event_ids END
         WHERE id = $1 AND claim = $2
        RETURNING finished_at IS NULL AS goes_on";
    let ReplayCounts {
        done,
        matched,
        refused,
        failed,
    } = progress.counts;
    let params: statement::Params<'_> = &[
        &piece.id,
        &piece.claim,
        &done,
        &matched,
        &refused,
        &failed,
        &progress.tries,
        &claimed_for.as_secs_f64(),
    ];
    let row = statement::query_opt(client, ADVANCE, params).await?;
    Ok(row.is_some_and(|row| row.get("goes_on")))
}
