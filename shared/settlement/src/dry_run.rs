//! Trying a sample: what would happen to it, without anything happening.

use trueup_domain::batch_decision::{SettleJob, SettleResult};
use trueup_event::raw_event::RawEvent;
use trueup_store::{Pool, StoreError};

use crate::manual_actions::Settled;
use crate::settle_batch;

/// How a sample request would be read and matched now. It is settled for real and rolled back:
/// nothing is stored, no money moves, and it cannot differ from what would happen.
pub async fn try_sample(pool: &Pool, sample: RawEvent) -> Result<SettleResult, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    let id = sample.id;
    let settled = settle_batch(&tx, vec![SettleJob::Fresh(sample)]).await;
    tx.rollback().await?;
    Settled::of_row(settled?, id).map(Settled::into_own)
}
