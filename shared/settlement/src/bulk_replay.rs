//! A replay of many rows, a piece at a time: each row under the rules of a single one, the oldest first (M10).
//!
//! How far it is stands in the database, written before each row: a worker that dies leaves its claim to
//! run out, and whoever comes goes on. A row that was begun three times and never ended is left out, as
//! what kills its worker would go round all of them.

use std::time::Duration;

use trueup_event::reason::Status;
use trueup_store::bulk_replays::{self, ClaimedPiece, ReplayCounts, ReplayProgress};
use trueup_store::{Pool, StoreError};
use uuid::Uuid;

use crate::manual_actions::{self, ActionRequest};

/// Rows of one piece; then the next account has its turn.
const PIECE_ROWS: i32 = 10;
/// A row takes well below a second; a claim outlives its worker by so much.
const CLAIMED_FOR: Duration = Duration::from_secs(15);
/// When somebody holds a row's call, other replays go on for so long.
const ASIDE_FOR: Duration = Duration::from_secs(5);
/// Tries of one row before it is left out.
const MAX_TRIES: i16 = 3;

/// What came of a row.
enum RowOutcome {
    Matched,
    AsBefore,
    Refused,
    Failed,
    /// Somebody holds what it needs: that is no failure (V12).
    Busy,
}

/// Replays the next piece of the replay that has waited longest; false if there is none.
pub async fn replay_piece(pool: &Pool) -> Result<bool, StoreError> {
    let claim = Uuid::now_v7();
    let client = pool.get().await?;
    let piece = bulk_replays::claim_piece(&client, claim, CLAIMED_FOR, PIECE_ROWS).await?;
    drop(client);
    let Some(piece) = piece else {
        return Ok(false);
    };
    let mut counts = piece.progress.counts;
    let mut tries = piece.progress.tries;
    for event_id in &piece.event_ids {
        let outcome = if tries >= MAX_TRIES {
            tracing::error!(%event_id, tries, "a row of a bulk replay was begun and never ended; it is left out");
            RowOutcome::Failed
        } else {
            if !save_progress(pool, &piece, counts, tries + 1, CLAIMED_FOR).await? {
                return Ok(true);
            }
            replay_row(pool, &piece, *event_id).await?
        };
        if matches!(outcome, RowOutcome::Busy) {
            save_progress(pool, &piece, counts, tries, ASIDE_FOR).await?;
            return Ok(true);
        }
        count_row(&mut counts, &outcome);
        tries = 0;
    }
    save_progress(pool, &piece, counts, tries, Duration::ZERO).await?;
    Ok(true)
}

async fn save_progress(
    pool: &Pool,
    piece: &ClaimedPiece,
    counts: ReplayCounts,
    tries: i16,
    claimed_for: Duration,
) -> Result<bool, StoreError> {
    let progress = ReplayProgress { counts, tries };
    bulk_replays::advance_replay(&pool.get().await?, piece, progress, claimed_for).await
}

/// Fails only where Postgres is away.
async fn replay_row(
    pool: &Pool,
    piece: &ClaimedPiece,
    event_id: Uuid,
) -> Result<RowOutcome, StoreError> {
    let asked = ActionRequest {
        account_id: piece.account_id,
        event_id,
        actor: piece.actor.clone(),
    };
    match manual_actions::replay_event(pool, &asked).await {
        Ok(Ok(settled)) => {
            let decision = settled.decision.as_ref();
            let is_matched = decision.is_some_and(|d| d.status() == Status::Matched);
            Ok(if is_matched {
                RowOutcome::Matched
            } else {
                RowOutcome::AsBefore
            })
        }
        Ok(Err(_)) => Ok(RowOutcome::Refused),
        Err(error) if error.is_busy() => Ok(RowOutcome::Busy),
        Err(error) if error.is_environment_error() => Err(error),
        Err(error) => {
            tracing::warn!(%event_id, %error, "a row of a bulk replay could not be settled");
            Ok(RowOutcome::Failed)
        }
    }
}

fn count_row(counts: &mut ReplayCounts, outcome: &RowOutcome) {
    counts.done += 1;
    match outcome {
        RowOutcome::Matched => counts.matched += 1,
        RowOutcome::Refused => counts.refused += 1,
        RowOutcome::Failed => counts.failed += 1,
        RowOutcome::AsBefore | RowOutcome::Busy => {}
    }
}
