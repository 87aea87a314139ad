//! Buyers: who takes the calls and reports what was paid for them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::buyers;
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
#[schema(as = Buyer)]
pub struct BuyerResponse {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
}

impl From<buyers::Buyer> for BuyerResponse {
    fn from(it: buyers::Buyer) -> Self {
        BuyerResponse {
            id: it.id,
            name: it.name,
            created_at: it.created_at,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_buyer, list_buyers))
        .routes(routes!(get_buyer, rename_buyer))
}

#[utoipa::path(post, path = "/api/v1/buyers", summary = "Make a buyer", tag = "buyers", request_body = NameBody,
    responses((status = 201, description = "It is made", body = BuyerResponse)))]
pub async fn create_buyer(
    State(app): State<App>,
    operator: AuthContext,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<(StatusCode, Json<BuyerResponse>), Problem> {
    let made = create_record::<buyers::Buyer>(&app, &operator, body).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/buyers", summary = "List the buyers", tag = "buyers", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<BuyerResponse>)))]
pub async fn list_buyers(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<BuyerResponse>>, Problem> {
    let paging = page.paging::<Uuid>("buyers")?;
    let rows =
        buyers::list_buyers(&app.pool.get().await?, operator.account_id(), paging.ids()).await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/buyers/{id}", summary = "One buyer", tag = "buyers", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = BuyerResponse)))]
pub async fn get_buyer(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<BuyerResponse>, Problem> {
    let found = buyers::get_buyer(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("buyer"))
}

#[utoipa::path(patch, path = "/api/v1/buyers/{id}", summary = "Rename a buyer", tag = "buyers", params(("id" = Uuid, Path)),
    request_body = NameBody, responses((status = 200, description = "As it is now", body = BuyerResponse)))]
pub async fn rename_buyer(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<Json<BuyerResponse>, Problem> {
    let renamed = rename_record::<buyers::Buyer>(&app, &operator, id, body).await?;
    Ok(Json(renamed.into()))
}
