//! What a person may do with a row (M8), each recorded with who did it.

use axum::Json;
use axum::extract::State;
use trueup_domain::batch_decision::SettleResult;
pub use trueup_settlement::manual_actions::PreviewedAction;
use trueup_settlement::manual_actions::{self, ActionError, ActionRequest};
use utoipa::ToSchema;
use uuid::Uuid;

use super::events::{EventInFull, load_event_in_full};
use super::limits::MAX_CENTS;
use super::request::{Id, JsonFields};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;

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

#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct AssignBody {
    call_id: Uuid,
}

#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct ApplyBody {
    /// What the buyer pays for the call in the end; left out: the row's own amount.
    #[schema(minimum = 0)]
    payout_cents: Option<i64>,
}

#[utoipa::path(post, path = "/api/v1/events/{id}/replay", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row after the rules were run again, at its original time", body = EventInFull),
        (status = 409, description = "It has moved money already, or holds no report", body = crate::problem::ProblemBody)))]
pub async fn replay_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<EventInFull>, Problem> {
    fields.finish_reading()?;
    manual_actions::replay_event(&app.pool, &action_request(&operator, id)).await??;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/assign", tag = "events", params(("id" = Uuid, Path)),
    request_body = AssignBody,
    responses((status = 200, description = "The row, now about that call", body = EventInFull),
        (status = 409, description = "It has moved money already, or holds no report", body = crate::problem::ProblemBody)))]
pub async fn assign_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(mut fields): JsonFields,
) -> Result<Json<EventInFull>, Problem> {
    let call_id = fields.read_uuid("call_id");
    let call_id = fields.require_given("call_id", call_id);
    fields.finish_reading()?;
    manual_actions::assign_event(&app.pool, &action_request(&operator, id), call_id).await??;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/apply", tag = "events", params(("id" = Uuid, Path)),
    request_body(content = Option<ApplyBody>, description = "May be left out"),
    responses((status = 200, description = "The new row: a report of this person about the row's call", body = EventInFull),
        (status = 409, description = "The row has no call", body = crate::problem::ProblemBody)))]
pub async fn apply_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(mut fields): JsonFields,
) -> Result<Json<EventInFull>, Problem> {
    let payout_cents = fields.read_integer("payout_cents", 0..=MAX_CENTS).value();
    fields.finish_reading()?;
    let settled =
        manual_actions::apply_event(&app.pool, &action_request(&operator, id), payout_cents)
            .await??;
    load_event_in_full(&app, &operator, settled.id)
        .await
        .map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/ignore", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row, closed, with its claim let go", body = EventInFull),
        (status = 409, description = "It stands for money", body = crate::problem::ProblemBody)))]
pub async fn ignore_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<EventInFull>, Problem> {
    fields.finish_reading()?;
    manual_actions::ignore_event(&app.pool, &action_request(&operator, id)).await??;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/unignore", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row, open again and decided by the rules as they stand", body = EventInFull),
        (status = 409, description = "It is not closed", body = crate::problem::ProblemBody)))]
pub async fn unignore_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<EventInFull>, Problem> {
    fields.finish_reading()?;
    manual_actions::unignore_event(&app.pool, &action_request(&operator, id)).await??;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/undo", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row after the last assign, apply or ignore was taken back", body = EventInFull),
        (status = 409, description = "No person has done anything to it that stands", body = crate::problem::ProblemBody)))]
pub async fn undo_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<EventInFull>, Problem> {
    fields.finish_reading()?;
    manual_actions::undo_event(&app.pool, &action_request(&operator, id)).await??;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

/// What a person's assign or apply would do, for the page that asks before it is done.
pub async fn preview_action(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    action: PreviewedAction,
) -> Result<SettleResult, Problem> {
    Ok(manual_actions::preview_action(&app.pool, &action_request(operator, id), action).await??)
}
