//! Assignments: what a publisher earns from the calls of a campaign.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::assignments;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{All, Id, JsonBody, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::assignments::{
    self as operations, AssignmentChanges, NewAssignment, ShownTerms,
};
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Assignment)]
pub struct AssignmentResponse {
    pub id: Uuid,
    pub campaign_id: Uuid,
    pub publisher_id: Uuid,
    pub payout: ShownTerms,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<assignments::Assignment> for AssignmentResponse {
    fn from(it: assignments::Assignment) -> Self {
        AssignmentResponse {
            id: it.id,
            campaign_id: it.campaign_id,
            publisher_id: it.publisher_id,
            payout: it.terms.into(),
            created_at: it.created_at,
            updated_at: it.updated_at,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_assignment, list_assignments))
        .routes(routes!(get_assignment, update_assignment))
}

#[utoipa::path(post, path = "/api/v1/assignments", summary = "Make an assignment", tag = "assignments", request_body = NewAssignment,
    responses((status = 201, description = "It is made", body = AssignmentResponse)))]
pub async fn create_assignment(
    State(app): State<App>,
    operator: AuthContext,
    JsonBody(body): JsonBody<NewAssignment>,
) -> Result<(StatusCode, Json<AssignmentResponse>), Problem> {
    let made = operations::create_assignment(&app, &operator, body).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/assignments", summary = "List the assignments", tag = "assignments", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<AssignmentResponse>)))]
pub async fn list_assignments(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<AssignmentResponse>>, Problem> {
    let paging = page.paging::<Uuid>("assignments")?;
    let rows =
        assignments::list_assignments(&app.pool.get().await?, operator.account_id(), paging.ids())
            .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/assignments/{id}", summary = "One assignment", tag = "assignments", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = AssignmentResponse)))]
pub async fn get_assignment(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<AssignmentResponse>, Problem> {
    let found =
        assignments::get_assignment(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("assignment"))
}

#[utoipa::path(patch, path = "/api/v1/assignments/{id}", summary = "Change an assignment", tag = "assignments", params(("id" = Uuid, Path)),
    request_body = AssignmentChanges,
    responses((status = 200, description = "As it is now; calls that were reported keep the terms of their first report",
        body = AssignmentResponse)))]
pub async fn update_assignment(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(changes): JsonBody<AssignmentChanges>,
) -> Result<Json<AssignmentResponse>, Problem> {
    let updated = operations::update_assignment(&app, &operator, id, changes).await?;
    Ok(Json(updated.into()))
}
