//! A webhook's secret and URL: made, rotated with an overlap, removed. A secret is shown once, on the
//! answer to the form that made it, and never has an address of its own.

use askama::Template;
use axum::extract::State;
use uuid::Uuid;

use super::form::Form;
use super::layout::{PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
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
    secret: String,
    overlap: Option<super::formatting::LocalTime>,
    new: bool,
}

pub fn shown_once(viewer: &Viewer, id: Uuid, name: &str, secret: &str, new: bool) -> PageResult {
    page(&Once {
        look: PageLayout::signed_in(viewer, "The new secret", "/webhooks"),
        id,
        name: name.to_owned(),
        secret: secret.to_owned(),
        overlap: None,
        new,
    })
}

pub async fn rotate_secret(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let hours = form.text("overlap_hours");
    let seconds = hours
        .parse::<i64>()
        .ok()
        .and_then(|h| h.checked_mul(3_600))
        .map_or_else(|| hours.to_owned(), |seconds| seconds.to_string());
    let rotation = RequestFields::of_texts([("overlap_seconds", seconds)]).read()?;
    let made = operations::rotate_secret(&app, &viewer.auth_context(), id, rotation).await?;
    let webhook = show_webhook(&app, &viewer.auth_context(), id, None).await?;
    page(&Once {
        look: PageLayout::signed_in(&viewer, "The new secret", "/webhooks"),
        id,
        name: webhook.settings.name,
        secret: made.secret,
        overlap: made
            .old_secrets_expire_at
            .map(|at| viewer.zone.local_time(at)),
        new: false,
    })
}

pub async fn remove_secret(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    operations::remove_secret(&app, &viewer.auth_context(), id).await?;
    redirect_to(&format!("/webhooks/{id}/settings?done=secret-removed"))
}

pub async fn new_url(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    operations::renew_token(&app, &viewer.auth_context(), id).await?;
    redirect_to(&format!("/webhooks/{id}/setup?done=new-url"))
}
