//! Tries a sample request against a webhook.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body;
use super::request::Id;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::try_report::{self as operations, Sample, TryResponse};
use crate::problem::Problem;
use crate::request_fields::RequestFields;

/// A batch of the largest kind, escaped as JSON text (bytes).
const BODY_LIMIT: usize = 2 * 1024 * 1024;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(try_sample))
}

#[utoipa::path(post, path = "/api/v1/webhooks/{id}/try", summary = "Try a report without sending one", tag = "webhooks", params(("id" = Uuid, Path)),
    request_body = Sample,
    responses((status = 200, description = "How it would be read and matched; nothing is stored, no money moves",
        body = TryResponse)))]
pub async fn try_sample(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    request: Body,
) -> Result<Json<TryResponse>, Problem> {
    let bytes = body::read_body(request, BODY_LIMIT).await?;
    let sample = RequestFields::of_body(&bytes)?.read()?;
    let tried = operations::try_sample(&app, &operator, id, sample).await?;
    Ok(Json(tried))
}
