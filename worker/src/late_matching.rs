//! The clockwork of late matches (M7): notes of recorded calls, and the schedule.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trueup_domain::batch_decision::SettleResult;
use trueup_event::reason::Status;
use trueup_ops::metrics::{self, PeriodicJobName, RetryOutcome};
use trueup_settlement::late_matching::{settle_due, wake_pending};
use trueup_store::{Pool, StoreError};

use crate::batch_settlement::count_results;
use crate::periodic_jobs::PeriodicJob;

/// A report is matched within 2 s of its call's arrival (M7); the pause is most of the wait.
pub const JOB: PeriodicJob = PeriodicJob {
    name: PeriodicJobName::LateMatching,
    pause: Duration::from_millis(250),
    pause_after_failure: Duration::from_secs(1),
};
/// Waiting reports settled in one transaction.
const BATCH: i64 = 200;

pub async fn retry_pending_reports(
    pool: &Pool,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    while !stop.is_cancelled() {
        // In turn, so that neither starves the other; and what is due is settled where waking fails.
        let woken = wake_pending(pool).await;
        let settled = settle_due(pool, BATCH).await?;
        count_tried(&settled);
        if settled.is_empty() && woken? == 0 {
            return Ok(());
        }
    }
    Ok(())
}

fn count_tried(settled: &[SettleResult]) {
    let is_matched = |result: &&SettleResult| {
        result
            .decision
            .as_ref()
            .is_some_and(|decision| decision.status() != Status::Unmatched)
    };
    let found = settled
        .iter()
        .filter(is_matched)
        .cloned()
        .collect::<Vec<_>>();
    metrics::worker()
        .late
        .add(RetryOutcome::Tried, settled.len());
    metrics::worker()
        .late
        .add(RetryOutcome::Matched, found.len());
    count_results(&found);
}
