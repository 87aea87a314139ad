//! The proof of the books, once in a while, by one worker for all; every worker tells how it last ended.
//!
//! It reads one snapshot on a connection of its own, writes nothing and stops no settling.

use std::time::Duration;

use secrecy::ExposeSecret;
use trueup_ops::metrics::{self, PeriodicJobName};
use trueup_ops::settings::PostgresArgs;
use trueup_store::{Pool, PoolSettings, StoreError, reconcile, scheduled_runs};

use crate::periodic_jobs::PeriodicJob;

/// A proof over all calls takes longer than a report (milliseconds; 30 min).
pub const STATEMENT_TIMEOUT_MS: u32 = 1_800_000;
/// The pauses are those between two looks at whether it is time, and at how it last ended.
pub const JOB: PeriodicJob = PeriodicJob {
    name: PeriodicJobName::Reconcile,
    pause: Duration::from_secs(60),
    pause_after_failure: Duration::from_secs(60),
};
const NAME: &str = "reconcile";

/// The proof's own connection.
pub fn open_pool(postgres: &PostgresArgs) -> Result<Pool, StoreError> {
    let settings = PoolSettings {
        statement_timeout_ms: STATEMENT_TIMEOUT_MS,
        idle_in_transaction_timeout_ms: STATEMENT_TIMEOUT_MS,
        tls: postgres.tls(),
        ..PoolSettings::for_application("trueup-worker-reconcile", 1)
    };
    Pool::new(postgres.postgres_url.expose_secret(), &settings)
}

/// `every_hours` 0: never.
pub async fn reconcile_if_due(pool: &Pool, every_hours: u32) -> Result<(), StoreError> {
    let mut client = pool.get().await?;
    if every_hours > 0 && scheduled_runs::claim_run(&client, NAME, every_hours).await? {
        let results = reconcile::prove_books(&mut client, true).await?;
        let breaches: usize = results.iter().map(|result| result.count).sum();
        if breaches > 0 {
            tracing::error!(
                breaches,
                "the books do not add up; run `trueup-worker reconcile --replay` and see the runbook: reconcile"
            );
        }
        let breaches = i32::try_from(breaches).unwrap_or(i32::MAX);
        scheduled_runs::finish_run(&client, NAME, breaches).await?;
    }
    if let Some(last) = scheduled_runs::last_run(&client, NAME).await? {
        let figures = metrics::worker();
        figures.reconciled_at.set(last.succeeded_at.as_second());
        figures.breaches.set(last.breaches);
    }
    Ok(())
}
