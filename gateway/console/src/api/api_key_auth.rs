//! Who is asking: an account's key, or the admin key.
//!
//! The check is laid around whole routers, so that a route cannot forget it.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use trueup_store::accounts::Account;
use trueup_store::{api_keys, audit_log};
use uuid::Uuid;

use super::problem::Problem;
use crate::app_state::App;
use crate::work_shares::answer_in_share;

/// Longer than any key that was ever made (bytes); nothing longer is looked up.
const MAX_KEY_BYTES: usize = 256;

/// The account that a request is made for, and the key that made it.
#[derive(Debug, Clone)]
pub struct AuthContext {
    pub account: Account,
    /// How the audit log names who did it.
    pub actor: String,
}

impl AuthContext {
    pub fn account_id(&self) -> Uuid {
        self.account.id
    }

    /// A change that this key made, for the audit log.
    pub fn change(
        &self,
        action: &'static str,
        object_kind: &'static str,
        object_id: Uuid,
        detail: Value,
    ) -> audit_log::Change<'_> {
        audit_log::Change {
            account_id: self.account.id,
            actor: &self.actor,
            action,
            object_kind,
            object_id,
            detail,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AuthContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Only a route outside of `require_account_key` gets here without; it must not answer.
        parts
            .extensions
            .get::<AuthContext>()
            .cloned()
            .ok_or_else(|| {
                tracing::error!("a route for accounts is not behind the check of keys");
                Problem::internal()
            })
    }
}

pub async fn require_account_key(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let key = bearer_token(&request)?;
    let client = app.pool.get().await?;
    let holder = api_keys::find_owner(&client, key).await?;
    drop(client);
    let Some(holder) = holder else {
        return Err(Problem::unauthorized(
            "this key is not valid (any more); make one with POST /api/v1/api-keys",
        ));
    };
    let operator = AuthContext {
        account: holder.account,
        actor: format!("key:{}", holder.key_prefix),
    };
    let account_id = operator.account_id();
    request.extensions_mut().insert(operator);
    answer_in_share(&app, account_id, request, next).await
}

pub async fn require_admin_key(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let key = bearer_token(&request)?;
    let Some(admin_key) = &app.admin_key else {
        return Err(Problem::forbidden(
            "no admin key is set: start the console with TRUEUP_ADMIN_KEY to make accounts",
        ));
    };
    // Digests are of one length, so the comparison tells nothing of the key's.
    let (given, wanted) = (
        Sha256::digest(key.as_bytes()),
        Sha256::digest(admin_key.expose_secret().as_bytes()),
    );
    if !bool::from(given.as_slice().ct_eq(wanted.as_slice())) {
        return Err(Problem::unauthorized(
            "this is not the admin key (TRUEUP_ADMIN_KEY of the console)",
        ));
    }
    Ok(next.run(request).await)
}

fn bearer_token(request: &Request) -> Result<&str, Problem> {
    let missing = || Problem::unauthorized("send the key as: Authorization: Bearer <key>");
    let header = request.headers().get(AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(missing)?;
    let key = key.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(missing());
    }
    Ok(key)
}
