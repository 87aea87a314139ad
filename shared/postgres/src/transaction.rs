//! One way to run a transaction: named, retried where that helps, counted.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use deadpool_postgres::Transaction;
use trueup_ops::backoff::Backoff;
use trueup_ops::metrics::{self, TransactionName, TransactionOutcome};

use crate::error::StoreError;
use crate::pool::Pool;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A deadlock or a serialisation failure is tried again this often before it is the caller's.
const MAX_ATTEMPTS: u32 = 5;
/// The pauses between them, with jitter, so that two that met do not meet again.
const FIRST_PAUSE: Duration = Duration::from_micros(7_500);
const LONGEST_PAUSE: Duration = Duration::from_millis(60);

/// Runs `work` in one transaction and commits it. `work` may run several times: it must have no
/// effect but on the database.
pub async fn run_tx<T, F>(pool: &Pool, name: TransactionName, mut work: F) -> Result<T, StoreError>
where
    F: for<'a> FnMut(&'a Transaction<'a>) -> BoxFuture<'a, T> + Send,
{
    let figures = metrics::transactions();
    let started = Instant::now();
    let mut backoff = Backoff::between(FIRST_PAUSE, LONGEST_PAUSE);
    let mut attempt = 1;
    loop {
        match run_once(pool, &mut work).await {
            Err(error) if error.is_transient() && attempt < MAX_ATTEMPTS => {
                figures.ended.inc((name, TransactionOutcome::Retried));
                tracing::debug!(transaction = name.code(), attempt, %error, "transaction is run again");
                backoff.wait().await;
                attempt += 1;
            }
            outcome => {
                let ended = if outcome.is_ok() {
                    TransactionOutcome::Committed
                } else {
                    TransactionOutcome::Failed
                };
                figures.ended.inc((name, ended));
                figures.seconds.since(name, started);
                return outcome;
            }
        }
    }
}

async fn run_once<T, F>(pool: &Pool, work: &mut F) -> Result<T, StoreError>
where
    F: for<'a> FnMut(&'a Transaction<'a>) -> BoxFuture<'a, T> + Send,
{
    let started = Instant::now();
    let mut client = pool.get().await?;
    metrics::transactions().pool_wait_seconds.since(started);
    let tx = client.transaction().await?;
    let value = work(&tx).await?;
    tx.commit().await?;
    Ok(value)
}
