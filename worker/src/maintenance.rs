//! Housekeeping beside the settling: partitions ahead of time, retention, figures for the metrics.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use trueup_ops::metrics::{self, ConnectionUse, PartitionOperation, PeriodicJobName};
use trueup_ops::settings::WorkerArgs;
use trueup_store::settlement::attempts;
use trueup_store::{Pool, StoreError, partitions};

use crate::periodic_jobs::PeriodicJob;

/// Partitions are made weeks ahead, so an hour is often enough.
pub const JOB: PeriodicJob = PeriodicJob {
    name: PeriodicJobName::Maintenance,
    pause: Duration::from_secs(3_600),
    pause_after_failure: Duration::from_secs(300),
};
pub const FIGURES: PeriodicJob = PeriodicJob {
    name: PeriodicJobName::Figures,
    pause: Duration::from_secs(5),
    pause_after_failure: Duration::from_secs(5),
};
/// Rows that wait for a person answer for their repeats for a day (M11), and clocks differ.
const FORGET_OPEN_REPORTS_AFTER: SignedDuration = SignedDuration::from_hours(26);
/// Rows of a small table that go in one transaction.
const ROWS_AT_A_TIME: i64 = 5_000;
/// Counts of failed tries are of no use after a week.
const FORGET_ATTEMPTS_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How many connections to Postgres there are.
pub fn publish_connection_counts(pool: &Pool) {
    let (in_use, open) = pool.connection_counts();
    let connections = &metrics::worker().connections;
    connections.set(ConnectionUse::InUse, in_use);
    connections.set(ConnectionUse::Open, open);
}

pub async fn run_maintenance(pool: &Pool, args: &WorkerArgs) -> Result<(), StoreError> {
    let made = partitions::make_partitions(pool).await?;
    let dropped =
        partitions::drop_partitions(pool, args.retention_event_days, args.retention_request_days)
            .await?;
    metrics::worker()
        .partitions
        .add(PartitionOperation::Made, made);
    metrics::worker()
        .partitions
        .add(PartitionOperation::Dropped, dropped);
    if let Ok(before) = Timestamp::now().checked_sub(FORGET_ATTEMPTS_AFTER) {
        attempts::forget_older(pool, before).await?;
    }
    if let Ok(before) = Timestamp::now().checked_sub(FORGET_OPEN_REPORTS_AFTER) {
        while attempts::forget_open_reports(pool, before, ROWS_AT_A_TIME).await? > 0 {}
    }
    Ok(())
}
