//! Webhooks: one for each source of reports.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use trueup_store::webhooks;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{Id, JsonBody, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::webhooks::{self as operations, NewWebhook, ShownWebhook, WebhookChanges};
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, update_webhook, archive_webhook))
}

#[utoipa::path(post, path = "/api/v1/webhooks", summary = "Make a webhook", tag = "webhooks", request_body = NewWebhook,
    responses((status = 201, description = "It is made; its secret, if one is required, is shown this once", body = ShownWebhook)))]
pub async fn create_webhook(
    State(app): State<App>,
    operator: AuthContext,
    JsonBody(body): JsonBody<NewWebhook>,
) -> Result<(StatusCode, Json<ShownWebhook>), Problem> {
    let made = operations::create_webhook(&app, &operator, body).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WebhookListParams {
    /// `true`: the archived ones instead of those in use.
    archived: Option<bool>,
}

#[utoipa::path(get, path = "/api/v1/webhooks", summary = "List the webhooks", tag = "webhooks", params(WebhookListParams, ListParams),
    responses((status = 200, description = "Newest first", body = Page<ShownWebhook>)))]
pub async fn list_webhooks(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(filter, page): ListQuery<WebhookListParams>,
) -> Result<Json<Page<ShownWebhook>>, Problem> {
    let paging = page.paging::<Uuid>("webhooks")?;
    let archived = filter.archived.unwrap_or(false);
    let client = app.pool.get().await?;
    let rows =
        webhooks::list_webhooks(&client, operator.account_id(), archived, paging.ids()).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut by_webhook: BTreeMap<Uuid, Vec<webhooks::Secret>> = BTreeMap::new();
    for (webhook, secret) in webhooks::valid_secrets(&client, &ids).await? {
        by_webhook.entry(webhook).or_default().push(secret);
    }
    let show = |row: webhooks::Webhook| {
        let secrets = by_webhook.get(&row.id).cloned().unwrap_or_default();
        ShownWebhook::from_webhook(row, secrets, &app.public_url)
    };
    Ok(Json(paging.page(rows, |row| row.id, show)))
}

#[utoipa::path(get, path = "/api/v1/webhooks/{id}", summary = "One webhook", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It, archived or not", body = ShownWebhook)))]
pub async fn get_webhook(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<ShownWebhook>, Problem> {
    let found = operations::show_webhook(&app, &operator, id, None).await?;
    Ok(Json(found))
}

#[utoipa::path(patch, path = "/api/v1/webhooks/{id}", summary = "Change a webhook", tag = "webhooks", params(("id" = Uuid, Path)),
    request_body = WebhookChanges,
    responses((status = 200, description = "As it is now; where a secret is required and none was valid, one is made and shown this once",
        body = ShownWebhook)))]
pub async fn update_webhook(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(changes): JsonBody<WebhookChanges>,
) -> Result<Json<ShownWebhook>, Problem> {
    let updated = operations::update_webhook(&app, &operator, id, changes).await?;
    Ok(Json(updated))
}

#[utoipa::path(delete, path = "/api/v1/webhooks/{id}", summary = "Archive a webhook", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 204, description = "Archived: its URL answers 404, its history stays")))]
pub async fn archive_webhook(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    operations::archive_webhook(&app, &operator, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
