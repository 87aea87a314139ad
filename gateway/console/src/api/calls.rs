//! Calls: shown and searched. Recording them is [`super::call_records`]'s.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trueup_domain::phone;
use trueup_store::calls::{self, CallFilter, TimePage};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::list::{ListParams, Page, Position};
use super::request::{Id, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::assignments::ShownTerms;
use crate::operations::calls::{MAX_CALLER, MAX_REF_ID};
use crate::problem::Problem;
use crate::request_fields::{BoundedText, Time};
use crate::work_shares::WorkPlace;

/// Reports shown with each call of a list; one call shows all that are kept.
const REPORTS_IN_LIST: i64 = 20;
const REPORTS_OF_ONE: i64 = 1_000;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Call)]
pub struct CallResponse {
    pub id: Uuid,
    pub ref_id: Option<String>,
    /// E.164; null if withheld.
    pub caller: Option<String>,
    /// As it was given.
    pub caller_raw: Option<String>,
    pub tracking_number: Option<String>,
    pub duration_seconds: i32,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub buyer_id: Option<Uuid>,
    pub assignment_id: Option<Uuid>,
    /// What the call is worth: reported if `value_from_webhook`, else estimated.
    pub value_cents: Option<i64>,
    pub value_from_webhook: bool,
    pub qualified: Option<bool>,
    /// What its publisher earns from it.
    pub publisher_payout_cents: i64,
    /// What its last copy said before the first report.
    pub estimate_value_cents: Option<i64>,
    pub estimate_qualified: Option<bool>,
    /// The publisher and the terms of its last posting.
    pub publisher_id: Option<Uuid>,
    pub terms: Option<ShownTerms>,
    pub reported_by_webhook_id: Option<Uuid>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The reports that were found to be about it, in order of reception; in a list the last 20.
    pub reports: Vec<CallReportResponse>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CallReport)]
pub struct CallReportResponse {
    pub event_id: Uuid,
    pub received_at: Timestamp,
    pub webhook_id: Uuid,
    /// `ref_id`, `call_id`, `caller_duration` or `person`.
    pub strategy: String,
    /// `folded`: it counts; `held`: a person decides; `displaced`: another report took its place.
    pub role: String,
    pub payout_cents: i64,
    /// Of its row; null once retention has dropped the row.
    pub status: Option<String>,
    pub reason: Option<String>,
    /// The person who applied it, or assigned it to this call.
    pub decided_by: Option<String>,
}

impl From<calls::Call> for CallResponse {
    fn from(it: calls::Call) -> Self {
        CallResponse {
            id: it.id,
            ref_id: it.ref_id,
            caller: it.caller,
            caller_raw: it.caller_raw,
            tracking_number: it.tracking_number,
            duration_seconds: it.duration_seconds,
            started_at: it.started_at,
            ended_at: it.ended_at,
            buyer_id: it.buyer_id,
            assignment_id: it.assignment_id,
            value_cents: it.value_cents,
            value_from_webhook: it.value_from_webhook,
            qualified: it.qualified,
            publisher_payout_cents: it.publisher_payout_cents,
            estimate_value_cents: it.estimate.value_cents,
            estimate_qualified: it.estimate.qualified,
            publisher_id: it.terms.map(|p| p.publisher_id),
            terms: it.terms.map(|p| p.terms.into()),
            reported_by_webhook_id: it.reported_by_webhook_id,
            created_at: it.created_at,
            updated_at: it.updated_at,
            reports: it.reports.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<calls::ReportOfCall> for CallReportResponse {
    fn from(it: calls::ReportOfCall) -> Self {
        CallReportResponse {
            event_id: it.event_id,
            received_at: it.received_at,
            webhook_id: it.webhook_id,
            strategy: it.strategy,
            role: it.role,
            payout_cents: it.payout_cents,
            status: it.status,
            reason: it.reason,
            decided_by: it.decided_by,
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(super::call_records::record, list_calls))
        .routes(routes!(get_call))
}

#[utoipa::path(get, path = "/api/v1/calls/{id}", summary = "One call with its reports", tag = "calls", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It, with its reports", body = CallResponse)))]
pub async fn get_call(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<CallResponse>, Problem> {
    let found = calls::get_call(
        &app.pool.get().await?,
        operator.account_id(),
        id,
        REPORTS_OF_ONE,
    )
    .await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("call"))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CallListParams {
    /// In any form that a caller may have; it is read as a recorded call's is.
    #[param(value_type = Option<String>)]
    caller: Option<BoundedText<MAX_CALLER>>,
    #[param(value_type = Option<String>)]
    ref_id: Option<BoundedText<MAX_REF_ID>>,
    buyer_id: Option<Uuid>,
    assignment_id: Option<Uuid>,
    /// `true`: only calls that a buyer reported on; `false`: only the others.
    value_from_webhook: Option<bool>,
    /// Started at or after.
    #[param(value_type = Option<Timestamp>)]
    from: Option<Time>,
    /// Started before.
    #[param(value_type = Option<Timestamp>)]
    to: Option<Time>,
}

#[utoipa::path(get, path = "/api/v1/calls", summary = "List the calls", tag = "calls", params(CallListParams, ListParams),
    responses((status = 200, description = "Newest first, by when they started", body = Page<CallResponse>)))]
pub async fn list_calls(
    place: WorkPlace,
    operator: AuthContext,
    ListQuery(given, page): ListQuery<CallListParams>,
) -> Result<Json<Page<CallResponse>>, Problem> {
    let paging = page.paging::<Position>("calls")?;
    let region = &operator.account.default_region;
    let caller = given.caller.map(|raw| {
        phone::normalise_caller(&raw.into_text(), region).map_err(|why| {
            let message = format!("is no caller's number ({})", why.why());
            Problem::invalid_field("caller", message)
        })
    });
    let filter = CallFilter {
        ref_id_start: None,
        value_cents: None,
        caller: caller.transpose()?,
        ref_id: given.ref_id.map(BoundedText::into_text),
        buyer_id: given.buyer_id,
        assignment_id: given.assignment_id,
        value_from_webhook: given.value_from_webhook,
        from: given.from.map(|at| at.0),
        to: given.to.map(|at| at.0),
    };
    let page = TimePage {
        below: paging.after.map(|p| (p.at, p.id)),
        limit: paging.rows_to_fetch(),
    };
    let rows = calls::list_calls(
        &place.pool.get().await?,
        operator.account_id(),
        &filter,
        page,
        REPORTS_IN_LIST,
    )
    .await?;
    Ok(Json(paging.page(
        rows,
        |row| Position {
            at: row.started_at,
            id: row.id,
        },
        Into::into,
    )))
}
