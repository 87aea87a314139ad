//! The clockwork of late matches (M7): notes of recorded calls, and the schedule.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trueup_event::reason::Status;
use trueup_ops::metrics;
use trueup_settlement::late_matching::{settle_due, wake_pending};
use trueup_store::Pool;

use crate::batch_settlement::count_results;

/// A report is matched within 2 s of its call's arrival (M7); this is most of the wait.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a failure (Postgres away, most likely).
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Waiting reports settled in one transaction.
const BATCH: i64 = 200;

pub async fn run(pool: Pool, stop: CancellationToken) {
    loop {
        let pause = match retry_pending_reports(&pool, &stop).await {
            Ok(()) => LOOK_EVERY,
            Err(error) => {
                tracing::debug!(%error, "late matches wait");
                PAUSE_AFTER_FAILURE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn retry_pending_reports(
    pool: &Pool,
    stop: &CancellationToken,
) -> Result<(), trueup_store::StoreError> {
    // In turn, so that neither starves the other.
    while !stop.is_cancelled() {
        let woken = wake_pending(pool).await?;
        let settled = settle_due(pool, BATCH).await?;
        if settled.is_empty() && woken == 0 {
            return Ok(());
        }
        let matched = |s: &&trueup_domain::batch_decision::SettleResult| {
            s.decision
                .as_ref()
                .is_some_and(|d| d.status != Status::Unmatched)
        };
        let found = settled.iter().filter(matched).cloned().collect::<Vec<_>>();
        metrics::worker().late.add(&["tried"], settled.len() as u64);
        metrics::worker().late.add(&["matched"], found.len() as u64);
        count_results(&found);
    }
    Ok(())
}
