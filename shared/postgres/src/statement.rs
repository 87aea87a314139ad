//! Runs fixed SQL through the connection's statement cache.
//!
//! The cache is keyed by text and never shrinks, so only `&'static str` comes in: a statement is
//! never put together from values, and never from a list of a caller's length.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::StoreError;

pub type Result<T> = std::result::Result<T, StoreError>;

pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

pub async fn query_rows<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Vec<Row>> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, params).await?)
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
    Ok(client.query_one(&statement, params).await?)
}

pub async fn query_opt<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<Option<Row>> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_opt(&statement, params).await?)
}

pub async fn run<C: GenericClient>(
    client: &C,
    sql: &'static str,
    params: Params<'_>,
) -> Result<u64> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, params).await?)
}
