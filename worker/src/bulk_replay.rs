//! Works off the replays that persons have begun (M8), one piece after the other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trueup_ops::metrics::PeriodicJobName;
use trueup_settlement::bulk_replay::replay_piece;
use trueup_store::{Pool, StoreError};

use crate::periodic_jobs::PeriodicJob;

pub const JOB: PeriodicJob = PeriodicJob {
    name: PeriodicJobName::BulkReplay,
    pause: Duration::from_millis(500),
    pause_after_failure: Duration::from_secs(1),
};

pub async fn replay_until_done(pool: &Pool, stop: &CancellationToken) -> Result<(), StoreError> {
    while !stop.is_cancelled() && replay_piece(pool).await? {}
    Ok(())
}
