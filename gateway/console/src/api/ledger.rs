//! A publisher's ledger: why the balance is what it is.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use trueup_store::{ledger, publishers};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page};
use super::request::{All, Id, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::assignments::ShownTerms;
use crate::problem::Problem;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Posting)]
pub struct PostingResponse {
    pub id: Uuid,
    pub call_id: Uuid,
    /// Null: a call without an assignment, which credits nobody.
    pub publisher_id: Option<Uuid>,
    /// The report that caused it; null where `actor` did.
    pub event_id: Option<Uuid>,
    /// The person or key that asked for it; also where a report is named.
    pub actor: Option<String>,
    /// `estimate`, `report`, `apply`; `displaced`, `moved`, `undone`: taken back, because the report left the
    /// call; `refolded`: what the report that sets the value since then brings; `assignment`: the credit of a
    /// call that was given its first assignment after it was reported.
    pub kind: String,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// The publisher's balance after it.
    pub balance_after_cents: Option<i64>,
    /// The terms that it was reckoned on.
    pub terms: Option<ShownTerms>,
    pub created_at: Timestamp,
}

impl From<ledger::Posting> for PostingResponse {
    fn from(it: ledger::Posting) -> Self {
        PostingResponse {
            id: it.id,
            call_id: it.call_id,
            publisher_id: it.publisher_id,
            event_id: it.event_id,
            actor: it.actor,
            kind: it.kind,
            revenue_delta_cents: it.revenue_delta_cents,
            credit_delta_cents: it.credit_delta_cents,
            balance_after_cents: it.balance_after_cents,
            terms: it.terms.map(Into::into),
            created_at: it.created_at,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(of_publisher))
}

#[utoipa::path(get, path = "/api/v1/publishers/{id}/ledger", tag = "publishers",
    params(("id" = Uuid, Path), ListParams),
    responses((status = 200, description = "Newest first", body = Page<PostingResponse>)))]
pub async fn of_publisher(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    ListQuery(All {}, page): ListQuery<All>,
) -> Result<Json<Page<PostingResponse>>, Problem> {
    let paging = page.paging::<i64>("ledger")?;
    let client = app.pool.get().await?;
    if publishers::get_publisher(&client, operator.account_id(), id)
        .await?
        .is_none()
    {
        return Err(Problem::not_found("publisher"));
    }
    let rows = ledger::of_publisher(
        &client,
        operator.account_id(),
        id,
        paging.after,
        paging.rows_to_fetch(),
    )
    .await?;
    Ok(Json(paging.page(rows, |row| row.seq, Into::into)))
}
