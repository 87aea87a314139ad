//! Buyers: who takes the calls and reports what was paid for them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_store::{audit_log, buyers, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use super::api_key_auth::Operator;
use super::field_reader::Fields;
use super::list::{ListParams, Page, Paging};
use super::problem::Problem;
use super::request::{Id, Query, Setting};
use super::{App, MAX_NAME};

#[derive(Debug, Serialize, ToSchema)]
pub struct Buyer {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
}

impl From<buyers::Buyer> for Buyer {
    fn from(it: buyers::Buyer) -> Self {
        Buyer {
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
    fn read(mut fields: Fields) -> Result<Self, Problem> {
        let name = fields.name("name", MAX_NAME);
        let name = fields.need("name", name);
        fields.done()?;
        Ok(BuyerBody { name })
    }
}

#[utoipa::path(post, path = "/api/v1/buyers", tag = "buyers", request_body = BuyerBody,
    responses((status = 201, description = "It is made", body = Buyer)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    Setting(fields): Setting,
) -> Result<(StatusCode, Json<Buyer>), Problem> {
    let body = BuyerBody::read(fields)?;
    let id = Uuid::now_v7();
    let made = run_tx(&app.pool, "buyers.create", move |tx| {
        let (operator, name) = (operator.clone(), body.name.clone());
        Box::pin(async move {
            let made = buyers::insert(tx, operator.account_id(), id, &name).await?;
            audit_log::record(
                tx,
                operator.change("create", "buyer", id, json!({ "name": name })),
            )
            .await?;
            Ok(made)
        })
    })
    .await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/buyers", tag = "buyers", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<Buyer>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    Query(mut fields): Query,
) -> Result<Json<Page<Buyer>>, Problem> {
    let paging = Paging::<Uuid>::read(&mut fields, "buyers");
    fields.done()?;
    let rows = buyers::list(&app.pool.get().await?, operator.account_id(), paging.ids()).await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/buyers/{id}", tag = "buyers", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = Buyer)))]
pub async fn get(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
) -> Result<Json<Buyer>, Problem> {
    let found = buyers::get(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("buyer"))
}

#[utoipa::path(patch, path = "/api/v1/buyers/{id}", tag = "buyers", params(("id" = Uuid, Path)),
    request_body = BuyerBody, responses((status = 200, description = "As it is now", body = Buyer)))]
pub async fn rename(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
    Setting(fields): Setting,
) -> Result<Json<Buyer>, Problem> {
    let body = BuyerBody::read(fields)?;
    let renamed = run_tx(&app.pool, "buyers.rename", move |tx| {
        let (operator, name) = (operator.clone(), body.name.clone());
        Box::pin(async move {
            let renamed = buyers::rename(tx, operator.account_id(), id, &name).await?;
            if renamed.is_some() {
                audit_log::record(
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
