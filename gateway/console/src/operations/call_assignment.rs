//! A call that came without an assignment is given its first by a person (V9).

use serde::Deserialize;
use serde_json::json;
use trueup_settlement::call_recording::{
    FirstAssignmentError, give_first_assignment, preview_first_assignment,
};
use trueup_store::ledger::CallMove;
use trueup_store::{TransactionName, audit_log};
use utoipa::ToSchema;
use uuid::Uuid;

use super::commit_change;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;

/// The assignment that a call is given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignCall {
    pub assignment_id: Uuid,
}

impl From<FirstAssignmentError> for Problem {
    fn from(why: FirstAssignmentError) -> Self {
        match why {
            FirstAssignmentError::NoSuchCall => Problem::not_found("call"),
            FirstAssignmentError::AlreadyAssigned => {
                Problem::conflict("not_possible", why.to_string())
            }
            FirstAssignmentError::Invalid(invalid) => {
                Problem::invalid_field(invalid.field(), invalid.to_string())
            }
        }
    }
}

/// What was reported about the call is credited by the assignment's terms as they stand; the audit log says what
/// that moved.
pub async fn assign_call(
    app: &App,
    operator: &AuthContext,
    call_id: Uuid,
    assignment_id: Uuid,
) -> Result<(), Problem> {
    let input = (operator.clone(), call_id, assignment_id);
    commit_change(
        &app.pool,
        TransactionName::CallsAssign,
        input,
        |tx, input| {
            Box::pin(async move {
                let (operator, call_id, assignment_id) = input;
                let account_id = operator.account_id();
                let actor = &operator.actor;
                let moves = give_first_assignment(tx, account_id, actor, call_id, assignment_id)
                    .await?
                    .map_err(Problem::from)?;
                let credit: i64 = moves.iter().map(|it| it.credit_delta_cents).sum();
                let detail =
                    json!({ "assignment_id": assignment_id, "credit_delta_cents": credit });
                let change = operator.change("assign", "call", call_id, detail);
                audit_log::record_change(tx, change).await?;
                Ok(())
            })
        },
    )
    .await
}

/// What it would post, for the page that asks before it is done.
pub async fn preview_assignment(
    app: &App,
    operator: &AuthContext,
    call_id: Uuid,
    assignment_id: Uuid,
) -> Result<Vec<CallMove>, Problem> {
    let (account_id, actor) = (operator.account_id(), &operator.actor);
    Ok(preview_first_assignment(&app.pool, account_id, actor, call_id, assignment_id).await??)
}
