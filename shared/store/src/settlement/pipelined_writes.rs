//! The writes of a batch: sent together, answered one by one.

use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::StoreError;
use crate::column_table::{Param, borrow_params};

/// One write of a batch; all of them go out in one flight.
pub(super) type Write<'a> = (&'static str, Vec<Param<'a>>);

/// How many rows each write wrote.
pub(super) async fn run(
    tx: &Transaction<'_>,
    writes: Vec<Write<'_>>,
) -> Result<Vec<u64>, StoreError> {
    let mut prepared = Vec::with_capacity(writes.len());
    for (sql, params) in writes {
        prepared.push((tx.prepare_cached(sql).await?, params));
    }
    // Polled together they are pipelined: one round trip for all.
    try_join_all(prepared.iter().map(|(statement, params)| async move {
        tx.execute(statement, &borrow_params(params)).await
    }))
    .await
    .map_err(raced_or_failed)
}

/// Another worker made the same report's row since we looked: run again, it will be skipped.
fn raced_or_failed(error: tokio_postgres::Error) -> StoreError {
    let twice = error.as_db_error().is_some_and(|db| {
        *db.code() == SqlState::UNIQUE_VIOLATION
            && db.table().is_some_and(|table| table.starts_with("event"))
    });
    if twice {
        StoreError::Raced
    } else {
        error.into()
    }
}

pub(super) fn box_param<'a, T: ToSql + Sync + Send + 'a>(value: T) -> Param<'a> {
    Box::new(value)
}
