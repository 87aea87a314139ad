//! The audit log: every change of a setting, with who made it, in the same transaction as the change.
//!
//! Nothing secret goes in: a caller passes what changed, never a key, a token or a secret.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::IdPage;
use trueup_postgres::statement::{self, Result};

/// One change of a setting.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub id: Uuid,
    pub actor: String,
    /// Such as `create`, `update`, `archive`, `revoke`, `rotate_secret`.
    pub action: String,
    /// Such as `webhook`, `assignment`.
    pub object_kind: String,
    pub object_id: Option<Uuid>,
    pub detail: Option<Value>,
    pub created_at: Timestamp,
}

/// A change about to be written.
#[derive(Debug)]
pub struct Change<'a> {
    pub account_id: Uuid,
    pub actor: &'a str,
    pub action: &'static str,
    pub object_kind: &'static str,
    pub object_id: Uuid,
    pub detail: Value,
}

pub async fn record_change(client: &impl GenericClient, change: Change<'_>) -> Result<()> {
    const RECORD: &str = "/* audit.record */
        INSERT INTO audit_log (id, account_id, actor, action, object_kind, object_id, detail)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    statement::run(
        client,
        RECORD,
        &[
            &Uuid::now_v7(),
            &change.account_id,
            &change.actor,
            &change.action,
            &change.object_kind,
            &change.object_id,
            &change.detail,
        ],
    )
    .await?;
    Ok(())
}

pub async fn list_changes(
    client: &impl GenericClient,
    account_id: Uuid,
    page: IdPage,
) -> Result<Vec<AuditEntry>> {
    const LIST: &str = "/* audit.list */
        SELECT id, actor, action, object_kind, object_id, detail, created_at
          FROM audit_log WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows =
        statement::query_rows(client, LIST, &[&account_id, &page.bound(), &page.limit]).await?;
    Ok(rows
        .iter()
        .map(|row| AuditEntry {
            id: row.get("id"),
            actor: row.get("actor"),
            action: row.get("action"),
            object_kind: row.get("object_kind"),
            object_id: row.get("object_id"),
            detail: row.get("detail"),
            created_at: row.get("created_at"),
        })
        .collect())
}
