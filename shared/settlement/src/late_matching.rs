//! Reports that came before their calls (M7): woken by a recorded call, or by the schedule.
//!
//! What is due is settled again, at its original place in the order of reception.

use std::collections::BTreeSet;

use trueup_domain::batch_decision::{SettleJob, SettleResult};
use trueup_domain::decision::Trigger;
use trueup_store::settlement::pending_reports::{
    WAKE, WAKE_AGAIN, give_up, postpone_first, take_due, take_turn, try_soon, wake_by,
};
use trueup_store::{Pool, StoreError, TransactionName, run_tx};
use uuid::Uuid;

use crate::settle_what_is_free;

/// Makes the reports due that may be about calls recorded since. Returns how many notes of recorded calls
/// were dealt with.
pub async fn wake_pending(pool: &Pool) -> Result<u64, StoreError> {
    let again = run_tx(pool, TransactionName::LateWakeAgain, |tx| {
        Box::pin(wake_by(tx, WAKE_AGAIN))
    })
    .await?;
    let first = run_tx(pool, TransactionName::LateWake, |tx| {
        Box::pin(wake_by(tx, WAKE))
    })
    .await?;
    Ok(again.saturating_add(first))
}

/// Settles up to `limit` reports that are due. Empty when none is.
pub async fn settle_due(pool: &Pool, limit: i64) -> Result<Vec<SettleResult>, StoreError> {
    match settle_up_to(pool, limit).await {
        // Somebody holds a row or a publisher: nobody's failure, all of it is still due (V12).
        Err(error) if error.is_busy() => Ok(Vec::new()),
        Err(error) if !error.is_environment_error() && limit > 1 => {
            tracing::warn!(%error, "waiting reports are settled one by one");
            one_by_one(pool, limit).await
        }
        outcome => outcome,
    }
}

async fn one_by_one(pool: &Pool, limit: i64) -> Result<Vec<SettleResult>, StoreError> {
    let mut all = Vec::new();
    for _ in 0..limit {
        match settle_up_to(pool, 1).await {
            Ok(settled) if settled.is_empty() => break,
            Ok(settled) => all.extend(settled),
            Err(error) if error.is_environment_error() => return Err(error),
            Err(error) if error.is_busy() => break,
            Err(error) => {
                tracing::error!(%error, "a waiting report cannot be settled and is put off by an hour");
                postpone_first(pool).await?;
            }
        }
    }
    Ok(all)
}

async fn settle_up_to(pool: &Pool, limit: i64) -> Result<Vec<SettleResult>, StoreError> {
    run_tx(pool, TransactionName::LateSettle, |tx| {
        Box::pin(async move {
            // Two workers would share what one recorded call woke, and guess out of order (M10).
            if !take_turn(tx).await? {
                return Ok(Vec::new());
            }
            let due = take_due(tx, limit).await?;
            if due.is_empty() {
                return Ok(Vec::new());
            }
            let causes: Vec<(Uuid, Trigger)> = due
                .iter()
                .map(|report| (report.event_id, report.trigger))
                .collect();
            let work = due
                .into_iter()
                .map(|report| SettleJob::Stored {
                    id: report.event_id,
                    received_at: report.received_at,
                    course: report.trigger,
                    actor: None,
                })
                .collect();
            let (settled, aside) = settle_what_is_free(tx, work, &BTreeSet::new()).await?;
            // What somebody holds is nobody's failure: soon again.
            let (aside, tried): (Vec<_>, Vec<_>) = causes
                .into_iter()
                .partition(|(id, _)| aside.contains_key(id));
            try_soon(tx, &aside).await?;
            let tried: Vec<Uuid> = tried.into_iter().map(|(id, _)| id).collect();
            give_up(tx, &tried).await?;
            Ok(settled)
        })
    })
    .await
}
