//! Keys of the operator API: made and revoked.

use serde_json::json;
use trueup_store::TransactionName;
use trueup_store::api_keys::{self, ApiKey};
use trueup_store::audit_log;
use trueup_store::ceilings::CountedKind;
use uuid::Uuid;

use super::commit_change;
use super::named_records::NameBody;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::secrets;

/// The key as it is listed, and its text, which nobody sees again.
pub async fn create_api_key(
    app: &App,
    operator: &AuthContext,
    body: NameBody,
) -> Result<(ApiKey, String), Problem> {
    let (key, prefix) = secrets::api_key();
    let input = (app.clone(), operator.clone(), body, key.clone(), prefix);
    let made = commit_change(
        &app.pool,
        TransactionName::ApiKeysCreate,
        input,
        |tx, input| {
            Box::pin(async move {
                let (app, operator, body, key, prefix) = input;
                let (account_id, id) = (operator.account_id(), Uuid::now_v7());
                app.ceilings
                    .check_room(tx, account_id, CountedKind::ApiKeys)
                    .await??;
                let name = body.name.as_str();
                let made =
                    api_keys::insert_api_key(tx, account_id, id, name, &key, &prefix).await?;
                let detail = json!({ "name": name, "prefix": prefix });
                audit_log::record_change(tx, operator.change("create", "api_key", id, detail))
                    .await?;
                Ok(made)
            })
        },
    )
    .await?;
    Ok((made, key))
}

/// It is not valid from now on; revoking it twice is the same.
pub async fn revoke_api_key(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    let input = (operator.clone(), id);
    commit_change(
        &app.pool,
        TransactionName::ApiKeysRevoke,
        input,
        |tx, (operator, id)| {
            Box::pin(async move {
                if !api_keys::revoke_api_key(tx, operator.account_id(), id).await? {
                    return Err(Problem::not_found("key").into());
                }
                let change = operator.change("revoke", "api_key", id, json!({}));
                audit_log::record_change(tx, change).await?;
                Ok(())
            })
        },
    )
    .await
}
