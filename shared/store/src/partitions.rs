//! Partitions made ahead of time, and dropped past their retention.

use std::num::NonZeroU32;

use crate::{Pool, StoreError};

/// Waits at most this long for a partition's lock, so that the settling never stands behind it.
const LOCK_TIMEOUT: &str = "/* upkeep_lock_timeout */ SET LOCAL lock_timeout = '200ms'";
const MAKE: &str = "/* upkeep_make_partitions */ SELECT trueup_make_partitions()";
const DROP: &str = "/* upkeep_drop_partitions */ SELECT trueup_drop_partitions($1, $2)";

const TRIM: &str =
    "/* upkeep_trim_default_partitions */ SELECT trueup_trim_default_partitions($1, $2, $3)";
/// Rows that one statement deletes; few, so that it is over in milliseconds.
const TRIM_ROWS: i32 = 2_000;

/// Makes the partitions of the coming weeks. Returns how many were made.
pub async fn make_partitions(pool: &Pool) -> Result<i32, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    tx.batch_execute(LOCK_TIMEOUT).await?;
    let made = tx.query_one(MAKE, &[]).await?.get(0);
    tx.commit().await?;
    Ok(made)
}

/// Drops what is past its retention. Returns how many partitions were dropped. One transaction for
/// each partition, so that the lock on the whole table is held for an instant at a time.
pub async fn drop_partitions(
    pool: &Pool,
    event_days: NonZeroU32,
    request_days: NonZeroU32,
) -> Result<i32, StoreError> {
    let days = |n: NonZeroU32| i32::try_from(n.get()).unwrap_or(i32::MAX);
    let (event_days, request_days) = (days(event_days), days(request_days));
    let mut client = pool.get().await?;
    let mut dropped = 0;
    loop {
        let tx = client.transaction().await?;
        tx.batch_execute(LOCK_TIMEOUT).await?;
        let now: i32 = tx
            .query_one(DROP, &[&event_days, &request_days])
            .await?
            .get(0);
        tx.commit().await?;
        if now == 0 {
            break;
        }
        dropped += now;
    }
    while client
        .query_one(TRIM, &[&event_days, &request_days, &TRIM_ROWS])
        .await?
        .get::<_, i32>(0)
        > 0
    {}
    Ok(dropped)
}
