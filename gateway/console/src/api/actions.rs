//! What a person may do with a row (M8), each recorded with who did it.

use axum::Json;
use axum::extract::State;
use trueup_settlement::manual_actions::{self, Asked, Unfit};
use utoipa::ToSchema;
use uuid::Uuid;

use super::api_key_auth::Operator;
use super::events::{EventInFull, in_full};
use super::problem::Problem;
use super::request::{Id, Setting};
use super::{App, MAX_CENTS};

fn asked(operator: &Operator, event_id: Uuid) -> Asked {
    Asked {
        account_id: operator.account_id(),
        event_id,
        actor: operator.actor.clone(),
    }
}

impl From<Unfit> for Problem {
    fn from(why: Unfit) -> Self {
        match why {
            Unfit::NoSuchEvent => Problem::not_found("event (or it has not been processed yet)"),
            Unfit::NoSuchCall => Problem::field("call_id", why.to_string()),
            Unfit::NoAmount | Unfit::NegativeAmount => {
                Problem::field("payout_cents", why.to_string())
            }
            Unfit::HasPosting | Unfit::NotAReport | Unfit::NoCall | Unfit::WouldNotMatch => {
                Problem::conflict("not_possible", why.to_string())
            }
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
        (status = 409, description = "It has moved money already, or holds no report", body = super::problem::ProblemBody)))]
pub async fn replay(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
    Setting(fields): Setting,
) -> Result<Json<EventInFull>, Problem> {
    fields.done()?;
    manual_actions::replay(&app.pool, &asked(&operator, id)).await??;
    in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/assign", tag = "events", params(("id" = Uuid, Path)),
    request_body = AssignBody,
    responses((status = 200, description = "The row, now about that call", body = EventInFull),
        (status = 409, description = "It has moved money already, or holds no report", body = super::problem::ProblemBody)))]
pub async fn assign(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
    Setting(mut fields): Setting,
) -> Result<Json<EventInFull>, Problem> {
    let call_id = fields.uuid("call_id");
    let call_id = fields.need("call_id", call_id);
    fields.done()?;
    manual_actions::assign(&app.pool, &asked(&operator, id), call_id).await??;
    in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/apply", tag = "events", params(("id" = Uuid, Path)),
    request_body(content = Option<ApplyBody>, description = "May be left out"),
    responses((status = 200, description = "The new row: a report of this person about the row's call", body = EventInFull),
        (status = 409, description = "The row has no call", body = super::problem::ProblemBody)))]
pub async fn apply(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
    Setting(mut fields): Setting,
) -> Result<Json<EventInFull>, Problem> {
    let payout_cents = fields.integer("payout_cents", 0..=MAX_CENTS).value();
    fields.done()?;
    let settled = manual_actions::apply(&app.pool, &asked(&operator, id), payout_cents).await??;
    in_full(&app, &operator, settled.id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/ignore", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row, closed", body = EventInFull)))]
pub async fn ignore(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
    Setting(fields): Setting,
) -> Result<Json<EventInFull>, Problem> {
    fields.done()?;
    manual_actions::ignore(&app.pool, &asked(&operator, id)).await??;
    in_full(&app, &operator, id).await.map(Json)
}
