//! Accounts: made with the admin key, seen with their own.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::accounts;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{All, JsonBody, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::accounts::{self as operations, NewAccount};
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountResponse {
    pub id: Uuid,
    pub name: String,
    /// Governs callers' numbers without a `+`.
    #[schema(example = "US")]
    pub default_region: String,
    #[schema(example = "USD")]
    pub currency: String,
    /// What a day of the revenue report is.
    #[schema(example = "America/New_York")]
    pub time_zone: String,
    pub created_at: Timestamp,
    /// The account's first key; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub api_key: Option<String>,
}

impl From<accounts::Account> for AccountResponse {
    fn from(it: accounts::Account) -> Self {
        AccountResponse {
            id: it.id,
            name: it.name,
            default_region: it.default_region,
            currency: it.currency,
            time_zone: it.time_zone,
            created_at: it.created_at,
            api_key: None,
        }
    }
}

pub fn admin_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_account, list_accounts))
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_own_account))
}

#[utoipa::path(post, path = "/api/v1/accounts", summary = "Make an account", tag = "accounts", request_body = NewAccount, security(("admin_key" = [])),
    responses((status = 201, description = "It is made; its first key is shown this once", body = AccountResponse)))]
pub async fn create_account(
    State(app): State<App>,
    JsonBody(body): JsonBody<NewAccount>,
) -> Result<(StatusCode, Json<AccountResponse>), Problem> {
    let (made, key) = operations::create_account(&app, body).await?;
    let shown = AccountResponse {
        api_key: Some(key),
        ..made.into()
    };
    Ok((StatusCode::CREATED, Json(shown)))
}

#[utoipa::path(get, path = "/api/v1/accounts", summary = "List the accounts", tag = "accounts", params(ListParams), security(("admin_key" = [])),
    responses((status = 200, description = "Newest first", body = Page<AccountResponse>)))]
pub async fn list_accounts(
    State(app): State<App>,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<AccountResponse>>, Problem> {
    let paging = page.paging::<Uuid>("accounts")?;
    let rows = accounts::list_accounts(&app.pool.get().await?, paging.ids()).await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/account", summary = "The key's own account", tag = "accounts",
    responses((status = 200, description = "The account that the key is of", body = AccountResponse)))]
pub async fn get_own_account(operator: AuthContext) -> Json<AccountResponse> {
    Json(operator.account.into())
}
