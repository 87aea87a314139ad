//! Keys of the operator API: made, listed, revoked. A key is shown once, when it is made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::api_keys;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{All, Id, JsonBody, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::api_keys as operations;
use crate::operations::named_records::NameBody;
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyResponse {
    pub id: Uuid,
    pub name: String,
    /// The first characters of the key, to recognise it by.
    pub prefix: String,
    pub created_at: Timestamp,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// The key itself; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub api_key: Option<String>,
}

impl From<api_keys::ApiKey> for ApiKeyResponse {
    fn from(it: api_keys::ApiKey) -> Self {
        ApiKeyResponse {
            id: it.id,
            name: it.name,
            prefix: it.prefix,
            created_at: it.created_at,
            last_used_at: it.last_used_at,
            revoked_at: it.revoked_at,
            api_key: None,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_api_key, list_api_keys))
        .routes(routes!(revoke_api_key))
}

#[utoipa::path(post, path = "/api/v1/api-keys", summary = "Make an API key", tag = "api keys", request_body = NameBody,
    responses((status = 201, description = "The key is shown this once", body = ApiKeyResponse)))]
pub async fn create_api_key(
    State(app): State<App>,
    operator: AuthContext,
    JsonBody(body): JsonBody<NameBody>,
) -> Result<(StatusCode, Json<ApiKeyResponse>), Problem> {
    let (made, text) = operations::create_api_key(&app, &operator, body).await?;
    let shown = ApiKeyResponse {
        api_key: Some(text),
        ..made.into()
    };
    Ok((StatusCode::CREATED, Json(shown)))
}

#[utoipa::path(get, path = "/api/v1/api-keys", summary = "List the API keys", tag = "api keys", params(ListParams),
    responses((status = 200, description = "Newest first, the revoked ones among them", body = Page<ApiKeyResponse>)))]
pub async fn list_api_keys(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<ApiKeyResponse>>, Problem> {
    let paging = page.paging::<Uuid>("api_keys")?;
    let rows = api_keys::list_api_keys(&app.pool.get().await?, operator.account_id(), paging.ids())
        .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", summary = "Revoke an API key", tag = "api keys", params(("id" = Uuid, Path)),
    responses((status = 204, description = "Not valid from now on")))]
pub async fn revoke_api_key(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    operations::revoke_api_key(&app, &operator, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
