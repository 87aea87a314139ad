//! A replay of many rows, a piece at a time: each row under the rules of a single one, the oldest first (M10).
//!
//! How far it is stands in the database. A worker that dies in a piece leaves its claim to run out; the
//! piece is then begun again by whoever comes, which is harmless: a row that moved money refuses a replay.

use std::time::Duration;

use trueup_event::reason::Status;
use trueup_store::bulk_replays::{self, ClaimedPiece, ReplayCounts};
use trueup_store::{Pool, StoreError};
use uuid::Uuid;

use crate::manual_actions::{self, ActionRequest};

/// Rows of one piece; then the next account has its turn.
const PIECE_ROWS: i32 = 10;
/// A piece takes well below a second; a claim outlives its worker by so much.
const CLAIMED_FOR: Duration = Duration::from_secs(10);

/// Replays the next piece of the replay that has waited longest; false if there is none.
///
/// What cannot be reached, or is held by somebody else, is no row's failure: the piece ends there, and
/// goes on from that row when its turn comes again.
pub async fn replay_piece(pool: &Pool) -> Result<bool, StoreError> {
    let claim = Uuid::now_v7();
    let client = pool.get().await?;
    let Some(piece) = bulk_replays::claim_piece(&client, claim, CLAIMED_FOR, PIECE_ROWS).await?
    else {
        return Ok(false);
    };
    drop(client);
    let (counts, interrupted) = replay_rows(pool, &piece).await;
    bulk_replays::advance_replay(&pool.get().await?, &piece, counts).await?;
    interrupted.map_or(Ok(true), Err)
}

/// What has become of the replay's rows after the piece, and what has cut the piece short.
async fn replay_rows(pool: &Pool, piece: &ClaimedPiece) -> (ReplayCounts, Option<StoreError>) {
    let mut counts = piece.counts;
    for event_id in &piece.event_ids {
        let asked = ActionRequest {
            account_id: piece.account_id,
            event_id: *event_id,
            actor: piece.actor.clone(),
        };
        match manual_actions::replay_event(pool, &asked).await {
            Ok(Ok(settled)) => {
                let decision = settled.decision.as_ref();
                if decision.is_some_and(|d| d.status == Status::Matched) {
                    counts.matched += 1;
                }
            }
            Ok(Err(_)) => counts.refused += 1,
            Err(error) if error.is_environment_error() || error.is_busy() => {
                return (counts, Some(error));
            }
            Err(error) => {
                tracing::warn!(%event_id, %error, "a row of a bulk replay could not be settled");
                counts.failed += 1;
            }
        }
        counts.done += 1;
    }
    (counts, None)
}
