//! What a person may do with a row (M8): replay, assign, apply, ignore, un-ignore, undo.
//!
//! Each is recorded with who did it. A row that stands for money is not replayed, assigned or ignored; an
//! apply is a report of its own; an undo decides the row again as the rules alone would.

use jiff::{SignedDuration, Timestamp};
use rand::RngExt;
use serde_json::json;
use trueup_domain::batch_decision::{SettleJob, SettleResult};
use trueup_domain::decision::{PostingCause, Trigger};
use trueup_event::ids;
use trueup_event::reason::{Reason, Status, Strategy};
use trueup_store::ledger::{self, CallMove};
use trueup_store::settlement::manual_actions::{self as rows, ActionKey, ActionTarget};
use trueup_store::{Pool, StoreError, TransactionName, run_tx};
use uuid::Uuid;

use crate::settle_batch;

/// Why a person's action cannot be done; each says what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("no such event")]
    NoSuchEvent,
    #[error("no such call in this account")]
    NoSuchCall,
    #[error(
        "this row has moved money that still stands; to change the call's value, apply the right amount instead, or 0"
    )]
    HasPosting,
    #[error(
        "there is no report in this row: its request was refused and not kept, or could not be read"
    )]
    NotAReport,
    #[error("this row has no call; assign it to one first")]
    NoCall,
    #[error("this row has no amount; give payout_cents")]
    NoAmount,
    #[error("payout_cents must be 0 or more: give what the buyer pays for the call in the end")]
    NegativeAmount,
    #[error("this row was closed by a person; take that back first (un-ignore)")]
    Closed,
    #[error("this row is not closed")]
    NotClosed,
    #[error("this row is a person's apply; undo it, or apply another amount")]
    IsAnApply,
    #[error("no person has done anything to this row that could be taken back")]
    NothingToUndo,
}

/// Who asks, and for which row.
#[derive(Debug, Clone)]
pub struct ActionRequest {
    pub account_id: Uuid,
    pub event_id: Uuid,
    /// Such as `key 3f2a…` or a person's e-mail; shown in the row's history.
    pub actor: String,
}

impl ActionRequest {
    fn action_key(&self) -> ActionKey<'_> {
        ActionKey {
            account_id: self.account_id,
            event_id: self.event_id,
            actor: &self.actor,
        }
    }
}

type ActionResult = Result<Result<SettleResult, ActionError>, StoreError>;

/// Rows that went along with an action and are told in its history; its postings are all in the ledger.
const ALONG_AT_MOST: usize = 50;

/// What an action did: to its own row, and to what went along with it (M12).
pub(crate) struct Settled {
    own: SettleResult,
    along: Vec<SettleResult>,
}

impl Settled {
    pub(crate) fn of_row(
        mut results: Vec<SettleResult>,
        event_id: Uuid,
    ) -> Result<Settled, StoreError> {
        let at = results.iter().position(|result| result.id == event_id);
        let at = at
            .ok_or_else(|| StoreError::Corrupt("a row vanished while it was settled".to_owned()))?;
        Ok(Settled {
            own: results.swap_remove(at),
            along: results,
        })
    }

    pub(crate) fn into_own(self) -> SettleResult {
        self.own
    }
}

/// As [`ActionResult`], inside the action's transaction.
type Done = Result<Result<Settled, ActionError>, StoreError>;

/// One row settled for a person.
async fn settle_for(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    event_id: Uuid,
    received_at: Timestamp,
    course: Trigger,
) -> Result<Settled, StoreError> {
    let job = SettleJob::Stored {
        id: event_id,
        received_at,
        course,
        actor: Some(asked.actor.clone()),
    };
    Settled::of_row(settle_batch(tx, vec![job]).await?, event_id)
}

/// Why a row cannot be given to the rules or to a call now.
fn why_not_free(target: &ActionTarget) -> Option<ActionError> {
    if target.applied_from.is_some() {
        Some(ActionError::IsAnApply)
    } else if target.stands_for_money {
        Some(ActionError::HasPosting)
    } else if !target.is_report() {
        Some(ActionError::NotAReport)
    } else if target.ignored {
        Some(ActionError::Closed)
    } else {
        None
    }
}

/// The same rules as they stand now, at the original time of reception.
pub async fn replay_event(pool: &Pool, asked: &ActionRequest) -> ActionResult {
    run_tx(pool, TransactionName::PersonReplay, |tx| {
        let asked = asked.clone();
        Box::pin(async move { Ok(replay_in(tx, &asked).await?.map(Settled::into_own)) })
    })
    .await
}

async fn replay_in(tx: &deadpool_postgres::Transaction<'_>, asked: &ActionRequest) -> Done {
    let key = asked.action_key();
    let Some(target) = rows::lock_target(tx, &key).await? else {
        return Ok(Err(ActionError::NoSuchEvent));
    };
    if let Some(why) = why_not_free(&target) {
        return Ok(Err(why));
    }
    let course = Trigger::Replayed;
    let settled = settle_for(tx, asked, asked.event_id, target.received_at, course).await?;
    rows::record_action(tx, &key, "replay", history_of(&settled), Some(&settled.own)).await?;
    Ok(Ok(settled))
}

/// A person says which call the report is about. Its repeats go along (M12).
pub async fn assign_event(pool: &Pool, asked: &ActionRequest, call_id: Uuid) -> ActionResult {
    run_tx(pool, TransactionName::PersonAssign, |tx| {
        let asked = asked.clone();
        Box::pin(async move { Ok(assign_in(tx, &asked, call_id).await?.map(Settled::into_own)) })
    })
    .await
}

/// An action of which a person may ask what it would do.
#[derive(Debug, Clone, Copy)]
pub enum PreviewedAction {
    Replay,
    Assign(Uuid),
    Apply(i64),
    Unignore,
    Undo,
}

/// What an action would do now.
#[derive(Debug, Clone)]
pub struct ActionPreview {
    pub settled: SettleResult,
    /// What would be posted, the action's own row and all that goes along with it, call by call.
    pub moves: Vec<CallMove>,
}

/// What an action would do now, without anything happening.
pub async fn preview_action(
    pool: &Pool,
    asked: &ActionRequest,
    action: PreviewedAction,
) -> Result<Result<ActionPreview, ActionError>, StoreError> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    let newest = ledger::newest_place(&tx).await?;
    let preview = match act_in(&tx, asked, action).await? {
        Ok(settled) => Ok(ActionPreview {
            settled: settled.own,
            moves: ledger::moves_of_transaction(&tx, asked.account_id, newest).await?,
        }),
        Err(why) => Err(why),
    };
    tx.rollback().await?;
    Ok(preview)
}

async fn act_in(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    action: PreviewedAction,
) -> Done {
    match action {
        PreviewedAction::Replay => replay_in(tx, asked).await,
        PreviewedAction::Assign(call_id) => assign_in(tx, asked, call_id).await,
        PreviewedAction::Apply(cents) => apply_in(tx, asked, Some(cents)).await,
        PreviewedAction::Unignore => unignore_in(tx, asked).await,
        PreviewedAction::Undo => undo_and_record(tx, asked).await,
    }
}

async fn assign_in(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    call_id: Uuid,
) -> Done {
    let key = asked.action_key();
    let Some(target) = rows::lock_target(tx, &key).await? else {
        return Ok(Err(ActionError::NoSuchEvent));
    };
    if let Some(why) = why_not_free(&target) {
        return Ok(Err(why));
    }
    if !rows::call_exists(tx, asked.account_id, call_id).await? {
        return Ok(Err(ActionError::NoSuchCall));
    }
    let course = Trigger::Assigned(call_id);
    let settled = settle_for(tx, asked, asked.event_id, target.received_at, course).await?;
    let mut detail = history_of(&settled);
    detail["call_id"] = json!(call_id);
    rows::record_action(tx, &key, "assign", detail, Some(&settled.own)).await?;
    Ok(Ok(settled))
}

/// A new report by that person about the row's call, placed after all of its reports, so that it always
/// takes effect. The row's own amount is taken if none is given; a held row is closed by it.
pub async fn apply_event(
    pool: &Pool,
    asked: &ActionRequest,
    payout_cents: Option<i64>,
) -> ActionResult {
    run_tx(pool, TransactionName::PersonApply, |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            Ok(apply_in(tx, &asked, payout_cents)
                .await?
                .map(Settled::into_own))
        })
    })
    .await
}

async fn apply_in(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    payout_cents: Option<i64>,
) -> Done {
    let key = asked.action_key();
    let Some(target) = rows::lock_target(tx, &key).await? else {
        return Ok(Err(ActionError::NoSuchEvent));
    };
    let Some(call_id) = target.call_id else {
        return Ok(Err(ActionError::NoCall));
    };
    let Some(payout_cents) = payout_cents.or(target.payout_cents) else {
        return Ok(Err(ActionError::NoAmount));
    };
    if payout_cents < 0 {
        return Ok(Err(ActionError::NegativeAmount));
    }
    if target.ignored {
        return Ok(Err(ActionError::Closed));
    }
    if target.status == Status::Held && target.applied_from.is_none() {
        settle_for(
            tx,
            asked,
            asked.event_id,
            target.received_at,
            Trigger::Closed,
        )
        .await?;
        rows::close_event(tx, target.received_at, asked.event_id, &asked.actor).await?;
    }
    let now = ids::to_microseconds(Timestamp::now());
    let last = rows::lock_last_report(tx, asked.account_id, call_id).await?;
    let received_at = match last {
        Some(last) if last >= now => last
            .checked_add(SignedDuration::from_micros(1))
            .unwrap_or(last),
        _ => now,
    };
    let id = ids::event_id(received_at, &rand::rng().random());
    let job = SettleJob::Apply {
        id,
        received_at,
        from_id: asked.event_id,
        from_received_at: target.received_at,
        payout_cents,
        call_id,
        actor: asked.actor.clone(),
    };
    let settled = Settled::of_row(settle_batch(tx, vec![job]).await?, id)?;
    let mut detail = history_of(&settled);
    detail["payout_cents"] = json!(payout_cents);
    detail["event_id"] = json!(id);
    rows::record_action(tx, &key, "apply", detail, Some(&settled.own)).await?;
    Ok(Ok(settled))
}

/// Closes a row that stands for no money: it is looked at no more, lets go of its call, and its repeats
/// are closed with it.
pub async fn ignore_event(
    pool: &Pool,
    asked: &ActionRequest,
) -> Result<Result<(), ActionError>, StoreError> {
    let closed = run_tx(pool, TransactionName::PersonIgnore, |tx| {
        let asked = asked.clone();
        Box::pin(async move { ignore_in(tx, &asked).await })
    })
    .await;
    match closed {
        // It stays, and so does all that was looked at with it.
        Err(StoreError::Abandoned) => Ok(Err(ActionError::HasPosting)),
        closed => closed,
    }
}

async fn ignore_in(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
) -> Result<Result<(), ActionError>, StoreError> {
    let key = asked.action_key();
    let Some(target) = rows::lock_target(tx, &key).await? else {
        return Ok(Err(ActionError::NoSuchEvent));
    };
    if target.applied_from.is_some() {
        return Ok(Err(ActionError::IsAnApply));
    }
    if target.stands_for_money {
        return Ok(Err(ActionError::HasPosting));
    }
    if target.ignored {
        return Ok(Ok(()));
    }
    let course = Trigger::Ignored;
    let settled = settle_for(tx, asked, asked.event_id, target.received_at, course).await?;
    if settled.own.stays {
        return Err(StoreError::Abandoned);
    }
    rows::close_event(tx, target.received_at, asked.event_id, &asked.actor).await?;
    rows::record_action(tx, &key, "ignore", history_of(&settled), None).await?;
    Ok(Ok(()))
}

/// Opens a closed row again: the rules decide it as they stand now.
pub async fn unignore_event(pool: &Pool, asked: &ActionRequest) -> ActionResult {
    run_tx(pool, TransactionName::PersonUnignore, |tx| {
        let asked = asked.clone();
        Box::pin(async move { Ok(unignore_in(tx, &asked).await?.map(Settled::into_own)) })
    })
    .await
}

async fn unignore_in(tx: &deadpool_postgres::Transaction<'_>, asked: &ActionRequest) -> Done {
    let key = asked.action_key();
    let Some(target) = rows::lock_target(tx, &key).await? else {
        return Ok(Err(ActionError::NoSuchEvent));
    };
    if !target.ignored {
        return Ok(Err(ActionError::NotClosed));
    }
    let settled = reopen(tx, asked, asked.event_id, target.received_at).await?;
    rows::record_action(
        tx,
        &key,
        "unignore",
        history_of(&settled),
        Some(&settled.own),
    )
    .await?;
    Ok(Ok(settled))
}

async fn reopen(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    event_id: Uuid,
    received_at: Timestamp,
) -> Result<Settled, StoreError> {
    rows::reopen_event(tx, received_at, event_id, &asked.actor).await?;
    settle_for(tx, asked, event_id, received_at, Trigger::Replayed).await
}

/// Takes back what a person did to a row last: an assign, an apply (asked for on either of its rows), or
/// an ignore. The row is decided again as the rules alone would, whatever came in between.
pub async fn undo_event(pool: &Pool, asked: &ActionRequest) -> ActionResult {
    run_tx(pool, TransactionName::PersonUndo, |tx| {
        let asked = asked.clone();
        Box::pin(async move { Ok(undo_and_record(tx, &asked).await?.map(Settled::into_own)) })
    })
    .await
}

async fn undo_and_record(tx: &deadpool_postgres::Transaction<'_>, asked: &ActionRequest) -> Done {
    let key = asked.action_key();
    let Some(target) = rows::lock_target(tx, &key).await? else {
        return Ok(Err(ActionError::NoSuchEvent));
    };
    let undone = undo_in(tx, asked, &target).await?;
    if let Ok(settled) = &undone {
        let mut detail = history_of(settled);
        detail["event_id"] = json!(settled.own.id);
        rows::record_action(tx, &key, "undo", detail, Some(&settled.own)).await?;
    }
    Ok(undone)
}

async fn undo_in(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    target: &ActionTarget,
) -> Done {
    if target.applied_from.is_some() {
        return revoke_apply(tx, asked, target).await;
    }
    let last = rows::last_action(tx, &asked.action_key(), &["apply", "ignore"]).await?;
    if let Some((_, Some(apply_id))) = last.filter(|(action, _)| action == "apply") {
        let asked_for_it = ActionRequest {
            event_id: apply_id,
            ..asked.clone()
        };
        let apply = rows::lock_target(tx, &asked_for_it.action_key()).await?;
        if let Some(apply) = apply.filter(|apply| !is_revoked(apply)) {
            return revoke_apply(tx, &asked_for_it, &apply).await;
        }
    }
    if target.ignored {
        return Ok(Ok(
            reopen(tx, asked, asked.event_id, target.received_at).await?
        ));
    }
    if target.strategy != Some(Strategy::Person) {
        return Ok(Err(ActionError::NothingToUndo));
    }
    let settled = settle_for(
        tx,
        asked,
        asked.event_id,
        target.received_at,
        Trigger::Undone,
    )
    .await?;
    Ok(Ok(settled))
}

fn is_revoked(apply: &ActionTarget) -> bool {
    apply.reason == Some(Reason::Undone)
}

/// The call is folded without the apply, and the row that it was made from is open again.
async fn revoke_apply(
    tx: &deadpool_postgres::Transaction<'_>,
    asked: &ActionRequest,
    apply: &ActionTarget,
) -> Done {
    if is_revoked(apply) {
        return Ok(Err(ActionError::NothingToUndo));
    }
    let mut settled = settle_for(
        tx,
        asked,
        asked.event_id,
        apply.received_at,
        Trigger::Revoked,
    )
    .await?;
    if let Some(from) = apply.applied_from {
        let source = ActionRequest {
            event_id: from,
            ..asked.clone()
        };
        let key = source.action_key();
        let closed = rows::lock_target(tx, &key).await?;
        let last = rows::last_action(tx, &key, &["apply", "ignore"]).await?;
        // One that a person has ignored since, or closed by another apply, stays closed.
        let by_this = last == Some(("apply".to_owned(), Some(asked.event_id)));
        if let Some(closed) = closed.filter(|row| row.ignored && by_this) {
            let reopened = reopen(tx, asked, from, closed.received_at).await?;
            settled.along.push(reopened.own);
            settled.along.extend(reopened.along);
        }
    }
    Ok(Ok(settled))
}

/// What an action did, for the history: to its own row's calls, and to those of what went along.
fn history_of(settled: &Settled) -> serde_json::Value {
    let mut detail = amounts_of(&settled.own);
    let moved = |it: &&SettleResult| {
        it.left.is_some() || it.decision.as_ref().is_some_and(|d| !d.postings.is_empty())
    };
    let along: Vec<serde_json::Value> = settled
        .along
        .iter()
        .filter(moved)
        .take(ALONG_AT_MOST)
        .map(|it| {
            let mut amounts = amounts_of(it);
            amounts["event_id"] = json!(it.id);
            amounts
        })
        .collect();
    if !along.is_empty() {
        detail["along"] = json!(along);
    }
    detail
}

/// What a decision did to its call, for the history.
fn amounts_of(settled: &SettleResult) -> serde_json::Value {
    let Some(decision) = &settled.decision else {
        return json!({});
    };
    let change = decision.detail.change();
    let mut amounts = json!({
        "matched_call_id": decision.call_id,
        "value_before_cents": change.and_then(|it| it.value_before_cents),
        "value_after_cents": change.and_then(|it| it.value_after_cents),
        "credit_before_cents": change.map(|it| it.credit_before_cents),
        "credit_after_cents": change.map(|it| it.credit_after_cents),
    });
    // And to the call that it left.
    let left = settled.left.and_then(|draft| match draft.cause {
        PostingCause::Left { change, .. } => Some((draft.call.call_id, change)),
        PostingCause::Report => None,
    });
    if let Some((call_id, change)) = left {
        amounts["left"] = json!({
            "call_id": call_id,
            "value_before_cents": change.value_before_cents,
            "value_after_cents": change.value_after_cents,
            "credit_before_cents": change.credit_before_cents,
            "credit_after_cents": change.credit_after_cents,
        });
    }
    amounts
}
