//! Which of the reports that this gateway answered 200 have no row yet.

use jiff::Timestamp;
use uuid::Uuid;

use trueup_event::ids;
use trueup_postgres::{Pool, StoreError};

const UNSETTLED: &str = "/* ingest_unsettled */ SELECT trueup_unsettled_reports($1, $2, $3)";

/// Those of these events that have no row.
pub async fn unsettled_of(pool: &Pool, events: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
    let times = events.iter().filter_map(|id| ids::time_of_event_id(*id));
    let (lows, highs): (Vec<Timestamp>, Vec<Timestamp>) = times.unzip();
    let client = pool.get().await?;
    let statement = client.prepare_cached(UNSETTLED).await?;
    let row = client
        .query_one(&statement, &[&events, &lows, &highs])
        .await?;
    Ok(row.try_get(0)?)
}
