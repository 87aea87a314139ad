//! What the worker does again and again beside the settling, each job under the same supervision: a run
//! that fails or panics is counted, told and made again after a pause; it takes nothing else down.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use trueup_ops::metrics::{self, JobOutcome, PeriodicJobName};
use trueup_store::StoreError;

/// When a job is run, and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct PeriodicJob {
    /// As the metrics call it.
    pub name: PeriodicJobName,
    /// Between the end of a run and the next.
    pub pause: Duration,
    /// The same after a run that failed.
    pub pause_after_failure: Duration,
}

/// Runs the job until it is told to stop; a run that has begun is finished.
pub async fn run_periodically<F, R>(job: PeriodicJob, stop: CancellationToken, mut run: F)
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), StoreError>>,
{
    while !stop.is_cancelled() {
        let ended_well = run_once(job, &mut run).await;
        let pause = if ended_well {
            job.pause
        } else {
            job.pause_after_failure
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn run_once<F, R>(job: PeriodicJob, run: &mut F) -> bool
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), StoreError>>,
{
    let caught = AssertUnwindSafe(async { run().await }).catch_unwind().await;
    let outcome = match caught {
        Ok(Ok(())) => JobOutcome::Ok,
        // A service that is away is told by /ready; anything else has nobody but this line.
        Ok(Err(error)) if error.is_environment_error() || error.is_busy() => {
            tracing::debug!(job = job.name.code(), %error, "a periodic job waits");
            JobOutcome::Failed
        }
        Ok(Err(error)) => {
            tracing::error!(job = job.name.code(), %error, "a periodic job failed and is run again");
            JobOutcome::Failed
        }
        // Where it panicked has been logged.
        Err(_) => {
            tracing::error!(
                job = job.name.code(),
                "a periodic job panicked and is run again"
            );
            JobOutcome::Panicked
        }
    };
    let figures = metrics::worker();
    figures.job_runs.inc((job.name, outcome));
    let ended_well = outcome == JobOutcome::Ok;
    if ended_well {
        let now = Timestamp::now().as_second();
        figures.job_succeeded_at.set(job.name, now);
    }
    ended_well
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const JOB: PeriodicJob = PeriodicJob {
        name: PeriodicJobName::Maintenance,
        pause: Duration::from_millis(1),
        pause_after_failure: Duration::from_millis(1),
    };

    #[tokio::test]
    async fn a_run_that_fails_or_panics_is_counted_and_made_again() {
        let stop = CancellationToken::new();
        let runs = Cell::new(0);
        run_periodically(JOB, stop.clone(), || {
            runs.set(runs.get() + 1);
            let (run, stop) = (runs.get(), stop.clone());
            async move {
                match run {
                    1 => panic!("on purpose"),
                    2 => Err(StoreError::Raced),
                    _ => {
                        stop.cancel();
                        Ok(())
                    }
                }
            }
        })
        .await;
        let page = String::from_utf8(metrics::render_metrics()).expect("text");
        for outcome in ["panicked", "failed", "ok"] {
            let once = format!(
                "trueup_worker_job_runs_total{{outcome=\"{outcome}\",periodic_job=\"maintenance\"}} 1\n"
            );
            assert!(page.contains(&once), "{once}");
        }
    }
}
