//! Buyers: who takes the calls and reports what was paid for them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, TransactionName, audit_log, buyers, run_tx};
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

#[derive(Debug, ToSchema)]
pub struct BuyerBody {
    #[schema(max_length = 200)]
    pub name: String,
}

impl BuyerBody {
    fn read_fields(mut fields: FieldReader) -> Result<Self, Problem> {
        let name = fields.name("name", MAX_NAME);
        let name = fields.require_given("name", name);
        fields.finish_reading()?;
        Ok(BuyerBody { name })
    }
}

#[utoipa::path(post, path = "/api/v1/buyers", tag = "buyers", request_body = BuyerBody,
    responses((status = 201, description = "It is made", body = BuyerResponse)))]
pub async fn create_buyer(
    State(app): State<App>,
    operator: AuthContext,
    JsonFields(fields): JsonFields,
) -> Result<(StatusCode, Json<BuyerResponse>), Problem> {
    let body = BuyerBody::read_fields(fields)?;
    let id = Uuid::now_v7();
    let ceilings = app.ceilings.clone();
    let made = run_tx(&app.pool, TransactionName::BuyersCreate, move |tx| {
        let (ceilings, operator, name) = (ceilings.clone(), operator.clone(), body.name.clone());
        Box::pin(async move {
            let account_id = operator.account_id();
            if let Err(problem) = ceilings
                .check_room(tx, account_id, CountedKind::Buyers)
                .await?
            {
                return Ok(Err(problem));
            }
            let made = buyers::insert_buyer(tx, operator.account_id(), id, &name).await?;
            audit_log::record_change(
                tx,
                operator.change("create", "buyer", id, json!({ "name": name })),
            )
            .await?;
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await??;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/buyers", tag = "buyers", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<BuyerResponse>)))]
pub async fn list_buyers(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<Page<BuyerResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "buyers");
    fields.finish_reading()?;
    let rows =
        buyers::list_buyers(&app.pool.get().await?, operator.account_id(), paging.ids()).await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/buyers/{id}", tag = "buyers", params(("id" = Uuid, Path)),
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

#[utoipa::path(patch, path = "/api/v1/buyers/{id}", tag = "buyers", params(("id" = Uuid, Path)),
    request_body = BuyerBody, responses((status = 200, description = "As it is now", body = BuyerResponse)))]
pub async fn rename_buyer(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<BuyerResponse>, Problem> {
    let body = BuyerBody::read_fields(fields)?;
    let renamed = run_tx(&app.pool, TransactionName::BuyersRename, move |tx| {
        let (operator, name) = (operator.clone(), body.name.clone());
        Box::pin(async move {
            let renamed = buyers::rename_buyer(tx, operator.account_id(), id, &name).await?;
            if renamed.is_some() {
                audit_log::record_change(
                    tx,
                    operator.change("update", "buyer", id, json!({ "name": name })),
                )
                .await?;
            }
            Ok(renamed)
        })
    })
    .await?;
    renamed
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("buyer"))
}
