//! Runs fixed SQL through the connection's statement cache.
//!
//! The cache is keyed by text and never shrinks, so only `&'static str` comes in: a statement is
//! never put together from values, and never from a list of a caller's length. One that is stale is planned anew
//! for the call; in a transaction that cannot go on, and [`run_tx`](crate::run_tx) runs it again.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::StoreError;
use crate::stale_statements::is_stale;

pub type Result<T> = std::result::Result<T, StoreError>;

pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

pub async fn query_rows<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Vec<Row>> {
    let statement = client.prepare_cached(sql).await?;
    let answer = client.query(&statement, params).await;
    unless_stale(answer, client.query(sql, params)).await
}

/// For lists that are narrowed at will: planned anew each time, for what is asked. A plan made once for
/// every narrowing sorts all the rows of a webhook, where this one reads a page of them off the index.
pub async fn rows_planned<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Vec<Row>> {
    Ok(client.query(sql, params).await?)
}

pub async fn query_one<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Row> {
    let statement = client.prepare_cached(sql).await?;
    let answer = client.query_one(&statement, params).await;
    unless_stale(answer, client.query_one(sql, params)).await
}

pub async fn query_opt<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Option<Row>> {
    let statement = client.prepare_cached(sql).await?;
    let answer = client.query_opt(&statement, params).await;
    unless_stale(answer, client.query_opt(sql, params)).await
}

pub async fn run<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<u64> {
    let statement = client.prepare_cached(sql).await?;
    let answer = client.execute(&statement, params).await;
    unless_stale(answer, client.execute(sql, params)).await
}

/// The answer, or what `again` gives where the statement was stale.
async fn unless_stale<T>(
    answer: std::result::Result<T, tokio_postgres::Error>,
    again: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    let error = match answer {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let is_stale = is_stale(&error);
    let error = StoreError::from(error);
    if !is_stale {
        return Err(error);
    }
    again.await.map_err(|_| error)
}
