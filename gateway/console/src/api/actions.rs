//! What a person may do with a row (M8).

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::{EmptyBody, Id, JsonBody};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::operations::event_actions::{self, Apply, Assign};
use crate::operations::events::{EventInFull, load_event_in_full};
use crate::problem::{Problem, ProblemBody};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(replay_event))
        .routes(routes!(assign_event))
        .routes(routes!(apply_event))
        .routes(routes!(ignore_event))
        .routes(routes!(unignore_event))
        .routes(routes!(undo_event))
}

#[utoipa::path(post, path = "/api/v1/events/{id}/replay", summary = "Decide an event again", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row after the rules were run again, at its original time", body = EventInFull),
        (status = 409, description = "It has moved money already, or holds no report", body = ProblemBody)))]
pub async fn replay_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    _: EmptyBody,
) -> Result<Json<EventInFull>, Problem> {
    event_actions::replay_event(&app, &operator, id).await?;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/assign", summary = "Assign an event to a call", tag = "events", params(("id" = Uuid, Path)),
    request_body = Assign,
    responses((status = 200, description = "The row, now about that call", body = EventInFull),
        (status = 409, description = "It has moved money already, or holds no report", body = ProblemBody)))]
pub async fn assign_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(body): JsonBody<Assign>,
) -> Result<Json<EventInFull>, Problem> {
    event_actions::assign_event(&app, &operator, id, body).await?;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/apply", summary = "Apply an amount to an event's call", tag = "events", params(("id" = Uuid, Path)),
    request_body(content = Option<Apply>, description = "May be left out"),
    responses((status = 200, description = "The new row: a report of this person about the row's call", body = EventInFull),
        (status = 409, description = "The row has no call", body = ProblemBody)))]
pub async fn apply_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonBody(body): JsonBody<Apply>,
) -> Result<Json<EventInFull>, Problem> {
    let applied = event_actions::apply_event(&app, &operator, id, body).await?;
    load_event_in_full(&app, &operator, applied).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/ignore", summary = "Close an event", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row, closed, with its claim let go", body = EventInFull),
        (status = 409, description = "It stands for money", body = ProblemBody)))]
pub async fn ignore_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    _: EmptyBody,
) -> Result<Json<EventInFull>, Problem> {
    event_actions::ignore_event(&app, &operator, id).await?;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/unignore", summary = "Open a closed event again", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row, open again and decided by the rules as they stand", body = EventInFull),
        (status = 409, description = "It is not closed", body = ProblemBody)))]
pub async fn unignore_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    _: EmptyBody,
) -> Result<Json<EventInFull>, Problem> {
    event_actions::unignore_event(&app, &operator, id).await?;
    load_event_in_full(&app, &operator, id).await.map(Json)
}

#[utoipa::path(post, path = "/api/v1/events/{id}/undo", summary = "Take the last action on an event back", tag = "events", params(("id" = Uuid, Path)),
    responses((status = 200, description = "The row after the last assign, apply or ignore was taken back", body = EventInFull),
        (status = 409, description = "No person has done anything to it that stands", body = ProblemBody)))]
pub async fn undo_event(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    _: EmptyBody,
) -> Result<Json<EventInFull>, Problem> {
    event_actions::undo_event(&app, &operator, id).await?;
    load_event_in_full(&app, &operator, id).await.map(Json)
}
