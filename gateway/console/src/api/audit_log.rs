//! The audit log: who changed which setting, and when.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use trueup_store::audit_log;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{All, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditEntryResponse {
    pub id: Uuid,
    /// `admin`, or `key:` and the first characters of the key that did it.
    pub actor: String,
    #[schema(example = "update")]
    pub action: String,
    #[schema(example = "webhook")]
    pub object_kind: String,
    pub object_id: Option<Uuid>,
    /// What changed, with its new values; never a secret.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Value>,
    pub created_at: Timestamp,
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_audit_log))
}

#[utoipa::path(get, path = "/api/v1/audit-log", summary = "List the changes of settings", tag = "audit log", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<AuditEntryResponse>)))]
pub async fn list_audit_log(
    State(app): State<App>,
    operator: AuthContext,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<AuditEntryResponse>>, Problem> {
    let paging = page.paging::<Uuid>("audit")?;
    let rows = audit_log::list_changes(&app.pool.get().await?, operator.account_id(), paging.ids())
        .await?;
    let show = |it: audit_log::AuditEntry| AuditEntryResponse {
        id: it.id,
        actor: it.actor,
        action: it.action,
        object_kind: it.object_kind,
        object_id: it.object_id,
        detail: it.detail,
        created_at: it.created_at,
    };
    Ok(Json(paging.page(rows, |row| row.id, show)))
}
