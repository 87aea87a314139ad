//! A webhook's secrets and its token: made anew, with an overlap in which the old secret still works.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trueup_store::{TransactionName, audit_log, webhooks};
use utoipa::ToSchema;
use uuid::Uuid;

use super::commit_change;
use super::webhooks::{ShownWebhook, lock_in_use, show_webhook};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::request_fields::Whole;
use crate::secrets;

/// A day: time enough to tell the buyer.
const DEFAULT_OVERLAP_SECONDS: i64 = 86_400;
/// Thirty days: an old secret that lives longer is not being rotated.
const MAX_OVERLAP_SECONDS: i64 = 30 * 86_400;

type Overlap = Whole<0, MAX_OVERLAP_SECONDS>;

/// How a new secret takes over.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateBody)]
pub struct SecretRotation {
    /// How long the secrets before it still work; 0: not at all.
    #[schema(inline, default = 86400)]
    pub overlap_seconds: Option<Overlap>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NewSecret {
    /// Shown this once.
    pub secret: String,
    /// Until when the secrets before it still work; null if there was none or there is no overlap.
    pub old_secrets_expire_at: Option<Timestamp>,
}

/// A new secret, required from now on.
pub async fn rotate_secret(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    rotation: SecretRotation,
) -> Result<NewSecret, Problem> {
    let overlap = rotation
        .overlap_seconds
        .map_or(DEFAULT_OVERLAP_SECONDS, Whole::get);
    let (secret, secret_id) = (secrets::webhook_secret(), Uuid::now_v7());
    let input = (app.clone(), operator.clone(), secret.clone());
    let name = TransactionName::WebhooksRotateSecret;
    let old_secrets_expire_at = commit_change(&app.pool, name, input, move |tx, input| {
        Box::pin(async move {
            let (app, operator, secret) = input;
            lock_in_use(tx, &operator, id).await?;
            app.ceilings.check_secrets(tx, id, overlap).await??;
            webhooks::rotate_secret(tx, id, secret_id, &secret, overlap).await?;
            webhooks::require_secret(tx, id, true).await?;
            let valid = webhooks::valid_secrets(tx, &[id]).await?;
            let detail = json!({ "secret_id": secret_id, "overlap_seconds": overlap });
            let change = operator.change("rotate_secret", "webhook", id, detail);
            audit_log::record_change(tx, change).await?;
            Ok(valid
                .iter()
                .filter_map(|(_, secret)| secret.expires_at)
                .max())
        })
    })
    .await?;
    Ok(NewSecret {
        secret,
        old_secrets_expire_at,
    })
}

/// No secret is required, and none is valid any more.
pub async fn remove_secret(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    let (input, name) = (operator.clone(), TransactionName::WebhooksRemoveSecret);
    commit_change(&app.pool, name, input, move |tx, operator| {
        Box::pin(async move {
            lock_in_use(tx, &operator, id).await?;
            webhooks::remove_secrets(tx, id).await?;
            webhooks::require_secret(tx, id, false).await?;
            let change = operator.change("remove_secret", "webhook", id, json!({}));
            audit_log::record_change(tx, change).await?;
            Ok(())
        })
    })
    .await
}

/// With its new URL; the old one answers 404 from now on.
pub async fn renew_token(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
) -> Result<ShownWebhook, Problem> {
    let input = (operator.clone(), secrets::new_token());
    commit_change(
        &app.pool,
        TransactionName::WebhooksNewToken,
        input,
        move |tx, input| {
            Box::pin(async move {
                let (operator, token) = input;
                lock_in_use(tx, &operator, id).await?;
                webhooks::set_token(tx, operator.account_id(), id, &token).await?;
                let change = operator.change("new_token", "webhook", id, json!({}));
                audit_log::record_change(tx, change).await?;
                Ok(())
            })
        },
    )
    .await?;
    show_webhook(app, operator, id, None).await
}
