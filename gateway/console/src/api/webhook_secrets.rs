//! A webhook's secrets and its token, made anew.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::{EmptyBody, Id, JsonBody};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::webhook_secrets::{self as operations, NewSecret, SecretRotation};
use crate::operations::webhooks::ShownWebhook;
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(rotate_secret, remove_secret))
        .routes(routes!(new_token))
}

#[utoipa::path(post, path = "/api/v1/webhooks/{id}/secret", summary = "Rotate a webhook's secret", tag = "webhooks", params(("id" = Uuid, Path)),
    request_body(content = Option<SecretRotation>, description = "May be left out"),
    responses((status = 200, description = "A new secret, required from now on", body = NewSecret)))]
pub async fn rotate_secret(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(rotation): JsonBody<SecretRotation>,
) -> Result<Json<NewSecret>, Problem> {
    let made = operations::rotate_secret(&app, &operator, id, rotation).await?;
    Ok(Json(made))
}

#[utoipa::path(delete, path = "/api/v1/webhooks/{id}/secret", summary = "Remove a webhook's secret", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 204, description = "No secret is required, and none is valid any more")))]
pub async fn remove_secret(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    operations::remove_secret(&app, &operator, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/webhooks/{id}/token", operation_id = "renew_token", summary = "Give a webhook a new URL", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "With its new URL; the old one answers 404 from now on", body = ShownWebhook)))]
pub async fn new_token(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    _: EmptyBody,
) -> Result<Json<ShownWebhook>, Problem> {
    let renewed = operations::renew_token(&app, &operator, id).await?;
    Ok(Json(renewed))
}
