//! Publishers: who sends the calls, and what is owed to them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, TransactionName, audit_log, publishers, run_tx};
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

#[derive(Debug, ToSchema)]
pub struct PublisherBody {
    #[schema(max_length = 200)]
    pub name: String,
}

impl PublisherBody {
    fn read_fields(mut fields: FieldReader) -> Result<Self, Problem> {
        let name = fields.name("name", MAX_NAME);
        let name = fields.require_given("name", name);
        fields.finish_reading()?;
        Ok(PublisherBody { name })
    }
}

#[utoipa::path(post, path = "/api/v1/publishers", tag = "publishers", request_body = PublisherBody,
    responses((status = 201, description = "It is made", body = PublisherResponse)))]
pub async fn create_publisher(
    State(app): State<App>,
    operator: AuthContext,
    JsonFields(fields): JsonFields,
) -> Result<(StatusCode, Json<PublisherResponse>), Problem> {
    let body = PublisherBody::read_fields(fields)?;
    let id = Uuid::now_v7();
    let ceilings = app.ceilings.clone();
    let made = run_tx(&app.pool, TransactionName::PublishersCreate, move |tx| {
        let (ceilings, operator, name) = (ceilings.clone(), operator.clone(), body.name.clone());
        Box::pin(async move {
            let account_id = operator.account_id();
            if let Err(problem) = ceilings
                .check_room(tx, account_id, CountedKind::Publishers)
                .await?
            {
                return Ok(Err(problem));
            }
            let made = publishers::insert_publisher(tx, operator.account_id(), id, &name).await?;
            audit_log::record_change(
                tx,
                operator.change("create", "publisher", id, json!({ "name": name })),
            )
            .await?;
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await??;
    Ok((StatusCode::CREATED, Json(made.into())))
}

#[utoipa::path(get, path = "/api/v1/publishers", tag = "publishers", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<PublisherResponse>)))]
pub async fn list_publishers(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<Page<PublisherResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "publishers");
    fields.finish_reading()?;
    let rows =
        publishers::list_publishers(&app.pool.get().await?, operator.account_id(), paging.ids())
            .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/publishers/{id}", tag = "publishers", params(("id" = Uuid, Path)),
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

#[utoipa::path(patch, path = "/api/v1/publishers/{id}", tag = "publishers", params(("id" = Uuid, Path)),
    request_body = PublisherBody, responses((status = 200, description = "As it is now", body = PublisherResponse)))]
pub async fn rename_publisher(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<PublisherResponse>, Problem> {
    let body = PublisherBody::read_fields(fields)?;
    let renamed = run_tx(&app.pool, TransactionName::PublishersRename, move |tx| {
        let (operator, name) = (operator.clone(), body.name.clone());
        Box::pin(async move {
            let renamed =
                publishers::rename_publisher(tx, operator.account_id(), id, &name).await?;
            if renamed.is_some() {
                audit_log::record_change(
                    tx,
                    operator.change("update", "publisher", id, json!({ "name": name })),
                )
                .await?;
            }
            Ok(renamed)
        })
    })
    .await?;
    renamed
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("publisher"))
}
