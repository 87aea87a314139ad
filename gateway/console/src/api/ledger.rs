//! A publisher's ledger: why the balance is what it is.

use axum::Json;
use axum::extract::State;
use trueup_store::{ledger, publishers};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::{ListParams, Page};
use super::request::{All, Id, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::ledger::PostingResponse;
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(of_publisher))
}

#[utoipa::path(get, path = "/api/v1/publishers/{id}/ledger", operation_id = "list_postings", summary = "List a publisher's postings", tag = "publishers",
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
