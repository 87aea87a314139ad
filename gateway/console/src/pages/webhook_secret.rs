//! A webhook's secret and URL: made, rotated with an overlap, removed. A secret is shown once, on the page
//! that the form which made it leads to.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use uuid::Uuid;

use super::form::Form;
use super::layout::{PageLayout, PageResult, page, redirect_to};
use super::once::{forget_secret, read_secret, redirect_to_secret};
use super::viewer::Viewer;
use super::webhook_head::not_found;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::webhook_secrets as operations;
use crate::operations::webhooks::show_webhook;
use crate::request_fields::RequestFields;

#[derive(Template)]
#[template(path = "secret_once.html")]
struct Once {
    look: PageLayout,
    id: Uuid,
    name: String,
    /// Nothing once it was shown.
    secret: Option<String>,
    overlap: Option<super::formatting::LocalTime>,
    query_param: Option<String>,
    /// It waits for its first report: what follows is its setup.
    new: bool,
}

/// To the page that shows it.
pub fn to_secret_page(id: Uuid, secret: &str, headers: &HeaderMap) -> PageResult {
    redirect_to_secret(&secret_path(id), secret, headers)
}

fn secret_path(id: Uuid) -> String {
    format!("/webhooks/{id}/secret")
}

pub async fn secret_page(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    headers: HeaderMap,
) -> PageResult {
    let webhook = show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let expiring = webhook
        .secrets
        .iter()
        .filter_map(|old| old.expires_at)
        .max();
    let mut response = page(&Once {
        look: PageLayout::signed_in(&viewer, "The new secret", "/webhooks"),
        id,
        name: webhook.settings.name,
        new: webhook.last_event_at.is_none(),
        secret: read_secret(&headers).map(str::to_owned),
        overlap: expiring.map(|at| viewer.clock.local_time(at)),
        query_param: webhook.settings.secret_query_param,
    })?;
    forget_secret(&mut response, &secret_path(id), &headers);
    Ok(response)
}

pub async fn rotate_secret(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
    headers: HeaderMap,
) -> PageResult {
    let hours = form.text("overlap_hours");
    let seconds = hours
        .parse::<i64>()
        .ok()
        .and_then(|h| h.checked_mul(3_600))
        .map_or_else(|| hours.to_owned(), |seconds| seconds.to_string());
    let rotation = RequestFields::of_texts([("overlap_seconds", seconds)]).read()?;
    let made = operations::rotate_secret(&app, &viewer.auth_context(), id, rotation).await?;
    to_secret_page(id, &made.secret, &headers)
}

pub async fn remove_secret(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    operations::remove_secret(&app, &viewer.auth_context(), id).await?;
    redirect_to(&format!("/webhooks/{id}/settings?done=secret-removed"))
}

pub async fn new_url(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    operations::renew_token(&app, &viewer.auth_context(), id).await?;
    redirect_to(&format!("/webhooks/{id}/setup?done=new-url"))
}
