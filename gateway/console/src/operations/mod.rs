//! What may be done in an account, with its rules, its transaction and its line in the audit log. The
//! API and the pages are two ways to the same operations.

pub mod accounts;
pub mod api_keys;
pub mod archive;
pub mod assignments;
pub mod call_assignment;
pub mod calls;
pub mod event_actions;
pub mod events;
pub mod ledger;
pub mod named_records;
pub mod revenue;
pub mod try_report;
pub mod users;
pub mod webhook_secrets;
pub mod webhooks;

use std::future::Future;
use std::pin::Pin;

use deadpool_postgres::Transaction;
use trueup_store::{Pool, StoreError, TransactionName, run_tx};

use crate::problem::{FieldError, Problem};

/// Why an operation did not come about.
pub enum NotDone {
    /// The request cannot be fulfilled.
    Refused(Problem),
    /// Postgres did not do it.
    Failed(StoreError),
}

impl From<Problem> for NotDone {
    fn from(problem: Problem) -> Self {
        NotDone::Refused(problem)
    }
}

impl From<StoreError> for NotDone {
    fn from(error: StoreError) -> Self {
        NotDone::Failed(error)
    }
}

type ChangeFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, NotDone>> + Send + 'a>>;

/// Runs `work` in one transaction. It may run several times, each time with a copy of `input`, and a
/// refusal must come before the first write.
async fn commit_change<T, I, F>(
    pool: &Pool,
    name: TransactionName,
    input: I,
    work: F,
) -> Result<T, Problem>
where
    T: Send,
    I: Clone + Send + Sync + 'static,
    F: for<'a> Fn(&'a Transaction<'a>, I) -> ChangeFuture<'a, T> + Copy + Send + Sync + 'static,
{
    run_tx(pool, name, move |tx| {
        let input = input.clone();
        Box::pin(async move {
            match work(tx, input).await {
                Ok(done) => Ok(Ok(done)),
                Err(NotDone::Refused(problem)) => Ok(Err(problem)),
                Err(NotDone::Failed(error)) => Err(error),
            }
        })
    })
    .await?
}

/// A field that names an object which this account has not.
pub fn not_ours(field: &str, what: &str) -> FieldError {
    FieldError::new(field, format!("this account has no such {what}"))
}
