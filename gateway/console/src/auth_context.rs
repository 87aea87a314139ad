//! Whom a request is made for, and by whom.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::tz::TimeZone;
use serde_json::Value;
use trueup_store::accounts::Account;
use trueup_store::audit_log;
use uuid::Uuid;

use crate::problem::Problem;

/// The account that a request is made for, and the key that made it.
#[derive(Debug, Clone)]
pub struct AuthContext {
    pub account: Account,
    /// How the audit log names who did it.
    pub actor: String,
    /// The clock of the sentences that it is told: UTC, but on a page the page's.
    pub zone: TimeZone,
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
