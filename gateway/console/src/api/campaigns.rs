//! Campaigns: what publishers are assigned to.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, TransactionName, audit_log, campaigns, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use super::api_key_auth::AuthContext;
use super::field_reader::FieldReader;
use super::limits::MAX_NAME;
use super::list::{ListParams, Page, Paging};
use super::problem::Problem;
use super::request::{Id, JsonFields, Query};
use crate::app_state::App;

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

#[derive(Debug, ToSchema)]
pub struct CampaignBody {
    #[schema(max_length = 200)]
    pub name: String,
}

impl CampaignBody {
    fn read_fields(mut fields: FieldReader) -> Result<Self, Problem> {
        let name = fields.name("name", MAX_NAME);
        let name = fields.require_given("name", name);
        fields.finish_reading()?;
        Ok(CampaignBody { name })
    }
}

#[utoipa::path(post, path = "/api/v1/campaigns", tag = "campaigns", request_body = CampaignBody,
    responses((status = 201, description = "It is made", body = CampaignResponse)))]
pub async fn create_campaign(
    State(app): State<App>,
    operator: AuthContext,
    JsonFields(fields): JsonFields,
) -> Result<(StatusCode, Json<CampaignResponse>), Problem> {
    let body = CampaignBody::read_fields(fields)?;
    let id = Uuid::now_v7();
    let ceilings = app.ceilings.clone();
    let made = run_tx(&app.pool, TransactionName::CampaignsCreate, move |tx| {
        let (ceilings, operator, name) = (ceilings.clone(), operator.clone(), body.name.clone());
        Box::pin(async move {
            let account_id = operator.account_id();
            if let Err(problem) = ceilings
                .check_room(tx, account_id, CountedKind::Campaigns)
                .await?
            {
                return Ok(Err(problem));
            }
            let made = campaigns::insert_campaign(tx, operator.account_id(), id, &name).await?;
            audit_log::record_change(
                tx,
                operator.change("create", "campaign", id, json!({ "name": name })),
            )
            .await?;
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await??;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/campaigns", tag = "campaigns", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<CampaignResponse>)))]
pub async fn list_campaigns(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<Page<CampaignResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "campaigns");
    fields.finish_reading()?;
    let rows =
        campaigns::list_campaigns(&app.pool.get().await?, operator.account_id(), paging.ids())
            .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/campaigns/{id}", tag = "campaigns", params(("id" = Uuid, Path)),
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

#[utoipa::path(patch, path = "/api/v1/campaigns/{id}", tag = "campaigns", params(("id" = Uuid, Path)),
    request_body = CampaignBody, responses((status = 200, description = "As it is now", body = CampaignResponse)))]
pub async fn rename_campaign(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<CampaignResponse>, Problem> {
    let body = CampaignBody::read_fields(fields)?;
    let renamed = run_tx(&app.pool, TransactionName::CampaignsRename, move |tx| {
        let (operator, name) = (operator.clone(), body.name.clone());
        Box::pin(async move {
            let renamed = campaigns::rename_campaign(tx, operator.account_id(), id, &name).await?;
            if renamed.is_some() {
                audit_log::record_change(
                    tx,
                    operator.change("update", "campaign", id, json!({ "name": name })),
                )
                .await?;
            }
            Ok(renamed)
        })
    })
    .await?;
    renamed
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("campaign"))
}
