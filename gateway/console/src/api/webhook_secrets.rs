//! A webhook's secrets and its token: made anew, with an overlap in which the old secret still works.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_store::{StoreError, audit_log, run_tx, webhooks};
use utoipa::ToSchema;
use uuid::Uuid;

use super::request::{Id, JsonFields};
use super::webhooks::{WebhookResponse, archived_problem, show_webhook};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::secrets;

/// A day: time enough to tell the buyer.
const DEFAULT_OVERLAP_SECONDS: i64 = 86_400;
/// Thirty days: an old secret that lives longer is not being rotated.
const MAX_OVERLAP_SECONDS: i64 = 30 * 86_400;

#[derive(Debug, Serialize, ToSchema)]
pub struct NewSecret {
    /// Shown this once.
    pub secret: String,
    /// Until when the secrets before it still work; null if there was none or there is no overlap.
    pub old_secrets_expire_at: Option<Timestamp>,
}

#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct RotateBody {
    /// How long the secrets before it still work; 0: not at all.
    #[schema(minimum = 0, maximum = 2592000, default = 86400)]
    overlap_seconds: Option<i64>,
}

#[utoipa::path(post, path = "/api/v1/webhooks/{id}/secret", tag = "webhooks", params(("id" = Uuid, Path)),
    request_body(content = Option<RotateBody>, description = "May be left out"),
    responses((status = 200, description = "A new secret, required from now on", body = NewSecret)))]
pub async fn rotate_secret(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(mut fields): JsonFields,
) -> Result<Json<NewSecret>, Problem> {
    let overlap = fields
        .read_integer("overlap_seconds", 0..=MAX_OVERLAP_SECONDS)
        .value()
        .unwrap_or(DEFAULT_OVERLAP_SECONDS);
    fields.finish_reading()?;
    let (secret, secret_id) = (secrets::webhook_secret(), Uuid::now_v7());
    let (given, ceilings) = (secret.clone(), app.ceilings.clone());
    let old_secrets_expire_at = run_tx(&app.pool, "webhooks.rotate_secret", move |tx| {
        let (ceilings, operator, secret) = (ceilings.clone(), operator.clone(), given.clone());
        Box::pin(async move {
            if let Err(problem) = locked_in_use(tx, &operator, id).await? {
                return Ok(Err(problem));
            }
            if let Err(problem) = ceilings.check_secrets(tx, id, overlap).await? {
                return Ok(Err(problem));
            }
            webhooks::rotate_secret(tx, id, secret_id, &secret, overlap).await?;
            webhooks::require_secret(tx, id, true).await?;
            let valid = webhooks::valid_secrets(tx, &[id]).await?;
            let detail = json!({ "secret_id": secret_id, "overlap_seconds": overlap });
            audit_log::record_change(tx, operator.change("rotate_secret", "webhook", id, detail))
                .await?;
            Ok::<_, StoreError>(Ok(valid
                .iter()
                .filter_map(|(_, secret)| secret.expires_at)
                .max()))
        })
    })
    .await??;
    Ok(Json(NewSecret {
        secret,
        old_secrets_expire_at,
    }))
}

#[utoipa::path(delete, path = "/api/v1/webhooks/{id}/secret", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 204, description = "No secret is required, and none is valid any more")))]
pub async fn remove_secret(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    run_tx(&app.pool, "webhooks.remove_secret", move |tx| {
        let operator = operator.clone();
        Box::pin(async move {
            if let Err(problem) = locked_in_use(tx, &operator, id).await? {
                return Ok(Err(problem));
            }
            webhooks::remove_secrets(tx, id).await?;
            webhooks::require_secret(tx, id, false).await?;
            audit_log::record_change(
                tx,
                operator.change("remove_secret", "webhook", id, json!({})),
            )
            .await?;
            Ok::<_, StoreError>(Ok(()))
        })
    })
    .await??;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/webhooks/{id}/token", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "With its new URL; the old one answers 404 from now on", body = WebhookResponse)))]
pub async fn new_token(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(fields): JsonFields,
) -> Result<Json<WebhookResponse>, Problem> {
    fields.finish_reading()?;
    let token = secrets::new_token();
    let actor = operator.clone();
    run_tx(&app.pool, "webhooks.new_token", move |tx| {
        let (operator, token) = (actor.clone(), token.clone());
        Box::pin(async move {
            if let Err(problem) = locked_in_use(tx, &operator, id).await? {
                return Ok(Err(problem));
            }
            webhooks::set_token(tx, operator.account_id(), id, &token).await?;
            audit_log::record_change(tx, operator.change("new_token", "webhook", id, json!({})))
                .await?;
            Ok::<_, StoreError>(Ok(()))
        })
    })
    .await??;
    show_webhook(&app, &operator, id, None).await.map(Json)
}

/// Locks the webhook, or says why it cannot be changed.
async fn locked_in_use(
    tx: &deadpool_postgres::Transaction<'_>,
    operator: &AuthContext,
    id: Uuid,
) -> Result<Result<(), Problem>, StoreError> {
    Ok(
        match webhooks::get_locked(tx, operator.account_id(), id).await? {
            None => Err(Problem::not_found("webhook")),
            Some(webhook) if webhook.archived_at.is_some() => Err(archived_problem()),
            Some(_) => Ok(()),
        },
    )
}
