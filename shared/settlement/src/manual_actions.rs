//! What a person may do with a row (M8): replay, assign, apply, ignore.
//!
//! Each is recorded with who did it, and moves money at most once: a row with a posting is not
//! replayed or assigned, and an apply is a report of its own.

use jiff::Timestamp;
use rand::RngExt;
use trueup_domain::batch_decision::{SettleJob, SettleResult};
use trueup_domain::decision::Trigger;
use trueup_event::ids;
use trueup_event::reason::Status;
use trueup_store::settlement::manual_actions::{self as rows, ActionKey};
use trueup_store::{Pool, StoreError, run_tx};
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
        "this row has already moved money; to change the call's value, apply the right amount instead"
    )]
    HasPosting,
    #[error(
        "this row moved money on the call that it was first matched to, and on this call it would count for nothing or be held; apply the right amount to the call instead"
    )]
    WouldNotMatch,
    #[error(
        "this row stands for requests that were refused and not kept; there is no report in it"
    )]
    NotAReport,
    #[error("this row has no call; assign it to one first")]
    NoCall,
    #[error("this row has no amount; give payout_cents")]
    NoAmount,
    #[error("payout_cents must be 0 or more: give what the buyer pays for the call in the end")]
    NegativeAmount,
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

pub(crate) fn first_result(settled: Vec<SettleResult>) -> Result<SettleResult, StoreError> {
    settled
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::Corrupt("a row vanished while it was settled".to_owned()))
}

/// The same rules as they stand now, at the original time of reception.
pub async fn replay_event(
    pool: &Pool,
    asked: &ActionRequest,
) -> Result<Result<SettleResult, ActionError>, StoreError> {
    run_tx(pool, "person_replay", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let target = match rows::lock_target(tx, &asked.action_key()).await? {
                None => return Ok(Err(ActionError::NoSuchEvent)),
                Some(target) if target.has_posting => return Ok(Err(ActionError::HasPosting)),
                Some(target) if !target.is_report() => return Ok(Err(ActionError::NotAReport)),
                Some(target) => target,
            };
            let work = SettleJob::Stored {
                id: asked.event_id,
                received_at: target.received_at,
                course: Trigger::Replayed,
            };
            let settled = first_result(settle_batch(tx, vec![work]).await?)?;
            rows::record(tx, &asked.action_key(), "replay", None, Some(&settled)).await?;
            Ok(Ok(settled))
        })
    })
    .await
}

/// A person says which call the report is about.
pub async fn assign_event(
    pool: &Pool,
    asked: &ActionRequest,
    call_id: Uuid,
) -> Result<Result<SettleResult, ActionError>, StoreError> {
    let assigning = run_tx(pool, "person_assign", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let target = match rows::lock_target(tx, &asked.action_key()).await? {
                None => return Ok(Err(ActionError::NoSuchEvent)),
                // A displaced match no longer counts anywhere: it is free to be assigned to another call.
                Some(t) if t.has_posting && !(t.displaced && t.call_id != Some(call_id)) => {
                    return Ok(Err(ActionError::HasPosting));
                }
                Some(target) if !target.is_report() => return Ok(Err(ActionError::NotAReport)),
                Some(target) => target,
            };
            if !rows::call_exists(tx, asked.account_id, call_id).await? {
                return Ok(Err(ActionError::NoSuchCall));
            }
            let course = Trigger::Assigned(call_id);
            let work = SettleJob::Stored {
                id: asked.event_id,
                received_at: target.received_at,
                course,
            };
            let settled = first_result(settle_batch(tx, vec![work]).await?)?;
            // The row keeps the posting of its first match: it must not become one that has none.
            if target.has_posting
                && settled
                    .decision
                    .as_ref()
                    .is_none_or(|d| d.status != Status::Matched)
            {
                return Err(StoreError::Abandoned);
            }
            let detail = format!("{{\"call_id\":\"{call_id}\"}}");
            rows::record(
                tx,
                &asked.action_key(),
                "assign",
                Some(detail),
                Some(&settled),
            )
            .await?;
            Ok(Ok(settled))
        })
    });
    match assigning.await {
        Err(StoreError::Abandoned) => Ok(Err(ActionError::WouldNotMatch)),
        outcome => outcome,
    }
}

/// A new report by that person about the row's call, received now, never a duplicate. The row's own
/// amount is taken if none is given.
pub async fn apply_event(
    pool: &Pool,
    asked: &ActionRequest,
    payout_cents: Option<i64>,
) -> Result<Result<SettleResult, ActionError>, StoreError> {
    run_tx(pool, "person_apply", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let Some(target) = rows::lock_target(tx, &asked.action_key()).await? else {
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
            let received_at = ids::to_microseconds(Timestamp::now());
            let id = ids::event_id(received_at, &rand::rng().random());
            let (from_id, from_received_at) = (asked.event_id, target.received_at);
            let work = SettleJob::Apply {
                id,
                received_at,
                from_id,
                from_received_at,
                payout_cents,
                call_id,
            };
            let settled = first_result(settle_batch(tx, vec![work]).await?)?;
            let detail = format!("{{\"payout_cents\":{payout_cents},\"event_id\":\"{id}\"}}");
            rows::record(
                tx,
                &asked.action_key(),
                "apply",
                Some(detail),
                Some(&settled),
            )
            .await?;
            Ok(Ok(settled))
        })
    })
    .await
}

/// Closes a row: it is looked at no more, by persons or by the schedule.
pub async fn ignore_event(
    pool: &Pool,
    asked: &ActionRequest,
) -> Result<Result<(), ActionError>, StoreError> {
    run_tx(pool, "person_ignore", |tx| {
        let asked = asked.clone();
        Box::pin(async move {
            let asked = &asked;
            let Some(target) = rows::lock_target(tx, &asked.action_key()).await? else {
                return Ok(Err(ActionError::NoSuchEvent));
            };
            rows::close_event(tx, target.received_at, asked.event_id, &asked.actor).await?;
            rows::record(tx, &asked.action_key(), "ignore", None, None).await?;
            Ok(Ok(()))
        })
    })
    .await
}
