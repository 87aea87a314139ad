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

pub mod attempt_counter;
pub mod bulk_replay;
pub mod call_recording;
pub mod dry_run;
pub mod late_matching;
pub mod manual_actions;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use trueup_domain::batch_decision::{
    BatchRow, BusyLocks, SettleJob, SettleResult, calls_to_lock, decide_lines, read_reports,
    result_of_row, sort_by_reception,
};
use trueup_domain::webhook_settings::WebhookRules;
use trueup_ops::crash_points::{self, Point};
use trueup_store::StoreError;
use trueup_store::settlement::loading::LockMode;
use trueup_store::settlement::{candidates, loading, stored_events, writes};
use uuid::Uuid;

/// Settles `work` inside `tx`. The order of `work` does not matter; the order of reception does.
pub async fn settle_batch(
    tx: &Transaction<'_>,
    work: Vec<SettleJob>,
) -> Result<Vec<SettleResult>, StoreError> {
    let nobody = BTreeSet::new();
    Ok(settle(tx, work, LockMode::Wait, &nobody).await?.0)
}

/// A caller of an account.
pub type AccountCaller = (Uuid, String);

/// The events that had to step aside, and whose guesses of later batches wait for them (M15).
pub type SteppedAside = BTreeMap<Uuid, Option<AccountCaller>>;

/// The same without waiting for what somebody else holds, or for what stepped aside before with one of
/// `waiting`. Returns the events that had to step aside: of them nothing is written (V12).
pub async fn settle_what_is_free(
    tx: &Transaction<'_>,
    work: Vec<SettleJob>,
    waiting: &BTreeSet<AccountCaller>,
) -> Result<(Vec<SettleResult>, SteppedAside), StoreError> {
    settle(tx, work, LockMode::SkipBusy, waiting).await
}

async fn settle(
    tx: &Transaction<'_>,
    work: Vec<SettleJob>,
    mode: LockMode,
    waiting: &BTreeSet<AccountCaller>,
) -> Result<(Vec<SettleResult>, SteppedAside), StoreError> {
    let loading::Loaded {
        mut lines,
        skipped,
        webhooks,
    } = loading::load_batch(tx, work).await?;
    read_reports(&mut lines, &webhooks);
    let mut callers = loading::lock_callers(tx, &lines, mode).await?;
    callers.extend(waiting.iter().cloned());
    let followers = candidates::find_candidates(tx, &mut lines, &webhooks).await?;
    if !followers.is_empty() {
        let more = load_followers(tx, &lines, &followers, &webhooks).await?;
        lines.extend(more);
    }
    sort_by_reception(&mut lines);
    let mut aside = Vec::new();
    if mode == LockMode::SkipBusy {
        let calls = loading::busy_calls(tx, &calls_to_lock(&lines, &webhooks)).await?;
        (lines, aside) = BusyLocks { calls, callers }.split_off(lines, &webhooks);
    }
    crash_points::point(Point::BeforeLock);
    let mut locked = loading::lock_calls(tx, calls_to_lock(&lines, &webhooks)).await?;
    let open_rows = loading::load_open_rows(tx, &lines).await?;
    locked.calls = locked.calls.with_open_rows(open_rows);
    decide_lines(&mut lines, &webhooks, &mut locked.calls);
    writes::write_batch(tx, &mut lines, &locked).await?;
    crash_points::point(Point::AfterWrite);
    let settled = lines.into_iter().map(result_of_row).chain(skipped);
    let aside = aside.into_iter().map(|line| {
        let caller = line.report().and_then(|report| report.caller.clone());
        let caller = caller.map(|caller| (line.account_id, caller));
        (line.order.event_id, caller)
    });
    Ok((settled.collect(), aside.collect()))
}

/// The person who asks for all of these; nobody, if they are anybody else's, too.
fn sole_actor(lines: &[BatchRow]) -> Option<String> {
    let (first, rest) = lines.split_first()?;
    let alone = rest.iter().all(|line| line.actor == first.actor);
    first.actor.clone().filter(|_| alone)
}

/// The same reports, which a guess has placed elsewhere: they go where these go (M12), and where a person asks
/// for it they move in that person's name.
async fn load_followers(
    tx: &Transaction<'_>,
    lines: &[BatchRow],
    followers: &BTreeMap<(Timestamp, Uuid), bool>,
    webhooks: &HashMap<Uuid, WebhookRules>,
) -> Result<Vec<BatchRow>, StoreError> {
    let mut more = stored_events::load_followers(tx, followers).await?;
    read_reports(&mut more, webhooks);
    candidates::find_candidates(tx, &mut more, webhooks).await?;
    let actor = sole_actor(lines);
    for line in &mut more {
        line.actor.clone_from(&actor);
    }
    Ok(more)
}
