//! Who is asking: an account's key, or the admin key.
//!
//! The check is laid around whole routers, so that a route cannot forget it.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use trueup_store::api_keys;

use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::work_shares::answer_in_share;

/// Longer than any key that was ever made (bytes); nothing longer is looked up.
const MAX_KEY_BYTES: usize = 256;

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
        zone: TimeZone::UTC,
    };
    let account_id = operator.account_id();
    request.extensions_mut().insert(operator);
    answer_in_share(&app.shares, account_id, request, next).await
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
