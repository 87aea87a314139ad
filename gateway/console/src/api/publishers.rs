//! Publishers: who sends the calls, and what is owed to them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::publishers;
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
#[schema(as = Publisher)]
pub struct PublisherResponse {
    pub id: Uuid,
    pub name: String,
    /// The sum of the ledger: what is owed, in cents. May be negative.
    pub pending_balance_cents: i64,
    pub created_at: Timestamp,
}

impl From<publishers::Publisher> for PublisherResponse {
    fn from(it: publishers::Publisher) -> Self {
        PublisherResponse {
            id: it.id,
            name: it.name,
            pending_balance_cents: it.pending_balance_cents,
            created_at: it.created_at,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_publisher, list_publishers))
        .routes(routes!(get_publisher, rename_publisher))
}

#[utoipa::path(post, path = "/api/v1/publishers", summary = "Make a publisher", tag = "publishers", request_body = NameBody,
    responses((status = 201, description = "It is made", body = PublisherResponse)))]
pub async fn create_publisher(
    State(app): State<App>,
    operator: AuthContext,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<(StatusCode, Json<PublisherResponse>), Problem> {
    let made = create_record::<publishers::Publisher>(&app, &operator, body).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/publishers", summary = "List the publishers", tag = "publishers", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<PublisherResponse>)))]
pub async fn list_publishers(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<PublisherResponse>>, Problem> {
    let paging = page.paging::<Uuid>("publishers")?;
    let rows =
        publishers::list_publishers(&app.pool.get().await?, operator.account_id(), paging.ids())
            .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/publishers/{id}", summary = "One publisher with its balance", tag = "publishers", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = PublisherResponse)))]
pub async fn get_publisher(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<PublisherResponse>, Problem> {
    let found =
        publishers::get_publisher(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("publisher"))
}

#[utoipa::path(patch, path = "/api/v1/publishers/{id}", summary = "Rename a publisher", tag = "publishers", params(("id" = Uuid, Path)),
    request_body = NameBody, responses((status = 200, description = "As it is now", body = PublisherResponse)))]
pub async fn rename_publisher(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<Json<PublisherResponse>, Problem> {
    let renamed = rename_record::<publishers::Publisher>(&app, &operator, id, body).await?;
    Ok(Json(renamed.into()))
}
