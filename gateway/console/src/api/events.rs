//! Recent events: every report that came to a webhook, what became of it, and why.

use std::fmt::Display;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use trueup_event::reason::{Reason, Status};
use trueup_store::event_search::{self, Search};
use trueup_store::webhooks;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list::{ListParams, Page, Position};
use super::request::{Id, ListQuery};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::events::{EventInFull, EventResponse, load_event_in_full, search_text};
use crate::problem::Problem;
use crate::request_fields::{BoundedText, Time};
use crate::work_shares::WorkPlace;

/// What is searched for in a list (characters).
const MAX_SEARCH: usize = 128;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventListParams {
    /// One or several, with commas between.
    #[serde(default, deserialize_with = "read_statuses")]
    #[param(value_type = Option<String>)]
    status: Vec<Status>,
    /// One or several, with commas between.
    #[serde(default, deserialize_with = "read_reasons")]
    #[param(value_type = Option<String>)]
    reason: Vec<Reason>,
    /// Part of a caller, an id or a payout, as reported. In a long history a whole caller or id is found
    /// however old it is; a part of one is looked for in the newest 10,000 rows from the cursor on, so that a
    /// page may hold few rows or none and yet have a `next_cursor`.
    #[param(value_type = Option<String>)]
    q: Option<BoundedText<MAX_SEARCH>>,
    /// Received at or after.
    #[param(value_type = Option<Timestamp>)]
    since: Option<Time>,
    /// Received before.
    #[param(value_type = Option<Timestamp>)]
    until: Option<Time>,
}

/// Bytes of a list of codes; each code is taken once.
const MAX_CODES: usize = 1_000;

fn read_statuses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Status>, D::Error> {
    let given = Option::<BoundedText<MAX_CODES>>::deserialize(deserializer)?;
    parse_codes(given, Status::ALL, Status::from_code).map_err(Error::custom)
}

fn read_reasons<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Reason>, D::Error> {
    let given = Option::<BoundedText<MAX_CODES>>::deserialize(deserializer)?;
    parse_codes(given, Reason::ALL, Reason::from_code).map_err(Error::custom)
}

/// Codes with commas between them; each must be one of the closed set.
fn parse_codes<T: Display + PartialEq>(
    given: Option<BoundedText<MAX_CODES>>,
    known: &[T],
    of: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let given = given.map(BoundedText::into_text).unwrap_or_default();
    let mut codes = Vec::new();
    for code in given
        .split(',')
        .map(str::trim)
        .filter(|code| !code.is_empty())
    {
        let found = of(code).ok_or_else(|| {
            let all: Vec<String> = known.iter().map(ToString::to_string).collect();
            let start: String = code.chars().take(MAX_SEARCH).collect();
            format!("{start:?} is none; known are {}", all.join(", "))
        })?;
        if !codes.contains(&found) {
            codes.push(found);
        }
    }
    Ok(codes)
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(of_webhook))
        .routes(routes!(get_event))
}

#[utoipa::path(get, path = "/api/v1/webhooks/{id}/events", operation_id = "list_events", summary = "List a webhook's events", tag = "events",
    params(("id" = Uuid, Path), EventListParams, ListParams),
    responses((status = 200, description = "Newest first", body = Page<EventResponse>)))]
pub async fn of_webhook(
    place: WorkPlace,
    operator: AuthContext,
    Id(id): Id,
    ListQuery(filter, page): ListQuery<EventListParams>,
) -> Result<Json<Page<EventResponse>>, Problem> {
    let paging = page.paging::<Position>("events")?;
    let mut search = Search {
        webhooks: vec![id],
        statuses: filter.status,
        reasons: filter.reason,
        since: filter.since.map(|at| at.0),
        until: filter.until.map(|at| at.0),
        ..Search::default()
    };
    if let Some(text) = filter.q.map(BoundedText::into_text) {
        search_text(&mut search, &text, &operator.account);
    }
    let client = place.pool.get().await?;
    if webhooks::get_webhook(&client, operator.account_id(), id)
        .await?
        .is_none()
    {
        return Err(Problem::not_found("webhook"));
    }
    let below = paging.after.map(|p| (p.at, p.id));
    let found = event_search::search_page(
        &client,
        operator.account_id(),
        &search,
        below,
        paging.rows(),
    )
    .await?;
    let currency = &operator.account.currency;
    let next = found.next.map(|(at, id)| Position { at, id });
    Ok(Json(paging.page_of(found.events, next, |row| {
        EventResponse::from_event(row, currency, &operator.zone)
    })))
}

#[utoipa::path(get, path = "/api/v1/events/{id}", summary = "One event in full", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It, with the request and how it was read; 404 until it has been processed",
        body = EventInFull)))]
pub async fn get_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<EventInFull>, Problem> {
    load_event_in_full(&app, &operator, id).await.map(Json)
}
