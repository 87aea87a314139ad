//! Trying a sample: what would happen to it, without anything happening.

use trueup_domain::batch_decision::{Settled, Work};
use trueup_event::raw_event::RawEvent;
use trueup_store::{Pool, StoreError};

use crate::manual_actions::first;
use crate::settle;

/// How a sample request would be read and matched now. It is settled for real and rolled back:
/// nothing is stored, no money moves, and it cannot differ from what would happen.
pub async fn rehearse(pool: &Pool, sample: RawEvent) -> Result<Settled, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    let settled = settle(&tx, vec![Work::Fresh(sample)]).await;
    tx.rollback().await?;
    first(settled?)
}
