//! The revenue report.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::Query;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::revenue::{self as operations, RevenueParams, RevenueReport};
use crate::problem::Problem;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sum_revenue))
}

#[utoipa::path(get, path = "/api/v1/reports/revenue", summary = "Sum the revenue", tag = "reports", params(RevenueParams),
    responses((status = 200, description = "Of the calls that started in that time, as they stand now", body = RevenueReport)))]
pub async fn sum_revenue(
    State(app): State<App>,
    operator: AuthContext,
    Query(params): Query<RevenueParams>,
) -> Result<Json<RevenueReport>, Problem> {
    let report = operations::sum_revenue(&app, &operator, params).await?;
    Ok(Json(report))
}
