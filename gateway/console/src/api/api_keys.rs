//! Keys of the operator API: made, listed, revoked. A key is shown once, when it is made.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, api_keys, audit_log, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use super::field_reader::FieldReader;
use super::limits::MAX_NAME;
use super::list::{ListParams, Page, Paging};
use super::request::{Id, JsonFields, Query};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::secrets;

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

#[derive(Debug, ToSchema)]
pub struct ApiKeyBody {
    #[schema(max_length = 200)]
    pub name: String,
}

impl ApiKeyBody {
    fn read_fields(mut fields: FieldReader) -> Result<Self, Problem> {
        let name = fields.name("name", MAX_NAME);
        let name = fields.require_given("name", name);
        fields.finish_reading()?;
        Ok(ApiKeyBody { name })
    }
}

#[utoipa::path(post, path = "/api/v1/api-keys", tag = "api keys", request_body = ApiKeyBody,
    responses((status = 201, description = "The key is shown this once", body = ApiKeyResponse)))]
pub async fn create_api_key(
    State(app): State<App>,
    operator: AuthContext,
    JsonFields(fields): JsonFields,
) -> Result<(StatusCode, Json<ApiKeyResponse>), Problem> {
    let body = ApiKeyBody::read_fields(fields)?;
    let id = Uuid::now_v7();
    let (key, prefix) = secrets::api_key();
    let shown = key.clone();
    let ceilings = app.ceilings.clone();
    let made = run_tx(&app.pool, "api_keys.create", move |tx| {
        let (ceilings, operator, name, key, prefix) = (
            ceilings.clone(),
            operator.clone(),
            body.name.clone(),
            key.clone(),
            prefix.clone(),
        );
        Box::pin(async move {
            let account_id = operator.account_id();
            if let Err(problem) = ceilings
                .check_room(tx, account_id, CountedKind::ApiKeys)
                .await?
            {
                return Ok(Err(problem));
            }
            let made =
                api_keys::insert_api_key(tx, operator.account_id(), id, &name, &key, &prefix)
                    .await?;
            let detail = json!({ "name": name, "prefix": prefix });
            audit_log::record_change(tx, operator.change("create", "api_key", id, detail)).await?;
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await??;
    Ok((
        StatusCode::CREATED,
        Json(ApiKeyResponse {
            api_key: Some(shown),
            ..made.into()
        }),
    ))
}

#[utoipa::path(get, path = "/api/v1/api-keys", tag = "api keys", params(ListParams),
    responses((status = 200, description = "Newest first, the revoked ones among them", body = Page<ApiKeyResponse>)))]
pub async fn list_api_keys(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<Page<ApiKeyResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "api_keys");
    fields.finish_reading()?;
    let rows = api_keys::list_api_keys(&app.pool.get().await?, operator.account_id(), paging.ids())
        .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(delete, path = "/api/v1/api-keys/{id}", tag = "api keys", params(("id" = Uuid, Path)),
    responses((status = 204, description = "Not valid from now on")))]
pub async fn revoke_api_key(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    let revoked = run_tx(&app.pool, "api_keys.revoke", move |tx| {
        let operator = operator.clone();
        Box::pin(async move {
            let revoked = api_keys::revoke_api_key(tx, operator.account_id(), id).await?;
            if revoked {
                audit_log::record_change(tx, operator.change("revoke", "api_key", id, json!({})))
                    .await?;
            }
            Ok(revoked)
        })
    })
    .await?;
    if revoked {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("key"))
    }
}
