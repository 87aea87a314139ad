//! Campaigns: what publishers are assigned to.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::campaigns;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{All, Id, JsonBody, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::named_records::{NameBody, create_record, rename_record};
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Campaign)]
pub struct CampaignResponse {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
}

impl From<campaigns::Campaign> for CampaignResponse {
    fn from(it: campaigns::Campaign) -> Self {
        CampaignResponse {
            id: it.id,
            name: it.name,
            created_at: it.created_at,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_campaign, list_campaigns))
        .routes(routes!(get_campaign, rename_campaign))
}

#[utoipa::path(post, path = "/api/v1/campaigns", summary = "Make a campaign", tag = "campaigns", request_body = NameBody,
    responses((status = 201, description = "It is made", body = CampaignResponse)))]
pub async fn create_campaign(
    State(app): State<App>,
    operator: AuthContext,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<(StatusCode, Json<CampaignResponse>), Problem> {
    let made = create_record::<campaigns::Campaign>(&app, &operator, body).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/campaigns", summary = "List the campaigns", tag = "campaigns", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<CampaignResponse>)))]
pub async fn list_campaigns(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<CampaignResponse>>, Problem> {
    let paging = page.paging::<Uuid>("campaigns")?;
    let rows =
        campaigns::list_campaigns(&app.pool.get().await?, operator.account_id(), paging.ids())
            .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/campaigns/{id}", summary = "One campaign", tag = "campaigns", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = CampaignResponse)))]
pub async fn get_campaign(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<CampaignResponse>, Problem> {
    let found = campaigns::get_campaign(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("campaign"))
}

#[utoipa::path(patch, path = "/api/v1/campaigns/{id}", summary = "Rename a campaign", tag = "campaigns", params(("id" = Uuid, Path)),
    request_body = NameBody, responses((status = 200, description = "As it is now", body = CampaignResponse)))]
pub async fn rename_campaign(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<Json<CampaignResponse>, Problem> {
    let renamed = rename_record::<campaigns::Campaign>(&app, &operator, id, body).await?;
    Ok(Json(renamed.into()))
}
