//! What a person may do with a row (M8), each recorded with who did it.

use serde::Deserialize;
use trueup_event::reason::{Reason, Status};
use trueup_settlement::manual_actions::{self, ActionError, ActionRequest};
pub use trueup_settlement::manual_actions::{ActionPreview, PreviewedAction};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::request_fields::Cents;

/// The call that the row is about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AssignBody)]
pub struct Assign {
    pub call_id: Uuid,
}

/// The amount that the row's call is paid.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApplyBody)]
pub struct Apply {
    /// What the buyer pays for the call in the end; left out: the row's own amount.
    #[schema(inline)]
    pub payout_cents: Option<Cents>,
}

fn action_request(operator: &AuthContext, event_id: Uuid) -> ActionRequest {
    ActionRequest {
        account_id: operator.account_id(),
        event_id,
        actor: operator.actor.clone(),
    }
}

impl From<ActionError> for Problem {
    fn from(why: ActionError) -> Self {
        match why {
            ActionError::NoSuchEvent => {
                Problem::not_found("event (or it has not been processed yet)")
            }
            ActionError::NoSuchCall => Problem::invalid_field("call_id", why.to_string()),
            ActionError::NoAmount | ActionError::NegativeAmount => {
                Problem::invalid_field("payout_cents", why.to_string())
            }
            ActionError::HasPosting
            | ActionError::NotAReport
            | ActionError::NoCall
            | ActionError::Closed
            | ActionError::NotClosed
            | ActionError::IsAnApply
            | ActionError::NothingToUndo => Problem::conflict("not_possible", why.to_string()),
        }
    }
}

/// The rules are run again, at the row's original time.
pub async fn replay_event(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    manual_actions::replay_event(&app.pool, &action_request(operator, id)).await??;
    Ok(())
}

/// True if the row stands for what its call is worth: a report without an amount that can be read matches its
/// call and moves nothing.
pub async fn assign_event(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    Assign { call_id }: Assign,
) -> Result<bool, Problem> {
    let settled =
        manual_actions::assign_event(&app.pool, &action_request(operator, id), call_id).await??;
    Ok(settled.decision.is_some_and(|decision| {
        decision.status() == Status::Matched && decision.reason() != Some(Reason::NoPayout)
    }))
}

/// Makes a new row, a report of this person about the row's call; its id.
pub async fn apply_event(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    Apply { payout_cents }: Apply,
) -> Result<Uuid, Problem> {
    let request = action_request(operator, id);
    let amount = payout_cents.map(Cents::get);
    let settled = manual_actions::apply_event(&app.pool, &request, amount).await??;
    Ok(settled.id)
}

/// Closes the row, with its claim let go.
pub async fn ignore_event(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    manual_actions::ignore_event(&app.pool, &action_request(operator, id)).await??;
    Ok(())
}

/// Opens the row again, decided by the rules as they stand.
pub async fn unignore_event(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    manual_actions::unignore_event(&app.pool, &action_request(operator, id)).await??;
    Ok(())
}

/// Takes the last assign, apply or ignore back.
pub async fn undo_event(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    manual_actions::undo_event(&app.pool, &action_request(operator, id)).await??;
    Ok(())
}

/// What a person's action would do, for the page that asks before it is done.
pub async fn preview_action(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    action: PreviewedAction,
) -> Result<ActionPreview, Problem> {
    Ok(manual_actions::preview_action(&app.pool, &action_request(operator, id), action).await??)
}
