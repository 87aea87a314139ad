//! Settling: a batch of reports against the books, in one transaction.
//!
//! load → lock the callers (M15) → find the calls that may be meant → lock them all, in id order, in one
//! statement → read claims and reports in a *new* statement (a lock wait does not refresh a statement's
//! snapshot) → decide in memory, in order of reception → write → publishers last, in id order. Recording calls
//! locks in the same order, so the two never wait for each other in a ring.
//!
//! The worker settles what comes from the broker; the console settles what a person asks for, and
//! tries a sample by settling it and rolling back. It commits nothing itself: that is the caller's.

#![warn(clippy::cognitive_complexity)]

pub mod call_recording;
pub mod dry_run;
pub mod late_matching;
pub mod manual_actions;

use deadpool_postgres::Transaction;
use trueup_domain::batch_decision::{
    SettleJob, SettleResult, calls_to_lock, decide_lines, read_reports, result_of_row,
    sort_by_reception,
};
use trueup_ops::crash_points::{self, Point};
use trueup_store::StoreError;
use trueup_store::settlement::{candidates, loading, stored_events, writes};

/// Settles `work` inside `tx`. The order of `work` does not matter; the order of reception does.
pub async fn settle_batch(
    tx: &Transaction<'_>,
    work: Vec<SettleJob>,
) -> Result<Vec<SettleResult>, StoreError> {
    let loading::Loaded {
        mut lines,
        skipped,
        webhooks,
    } = loading::load_batch(tx, work).await?;
    read_reports(&mut lines, &webhooks);
    loading::lock_callers(tx, &lines).await?;
    let followers = candidates::find_candidates(tx, &mut lines, &webhooks).await?;
    if !followers.is_empty() {
        // The same reports, which a guess has placed elsewhere, go where these go (M12).
        let mut more = stored_events::load_followers(tx, &followers).await?;
        read_reports(&mut more, &webhooks);
        candidates::find_candidates(tx, &mut more, &webhooks).await?;
        lines.extend(more);
    }
    sort_by_reception(&mut lines);
    let open_rows = loading::load_open_rows(tx, &lines).await?;
    crash_points::point(Point::BeforeLock);
    let mut locked = loading::lock_calls(tx, calls_to_lock(&lines, &webhooks), open_rows).await?;
    decide_lines(&mut lines, &webhooks, &mut locked.calls);
    writes::write_batch(tx, &mut lines, &locked).await?;
    crash_points::point(Point::AfterWrite);
    Ok(lines
        .into_iter()
        .map(result_of_row)
        .chain(skipped)
        .collect())
}
