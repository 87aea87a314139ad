//! A webhook's secret and URL: made, rotated with an overlap, removed. A secret is shown once, on the
//! answer to the form that made it, and never has an address of its own.

use askama::Template;
use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use super::form::{Form, FormSetting, number_or_text};
use super::layout::{PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
use crate::api::handlers::{self, Id};
use crate::app_state::App;

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
        .map_or(number_or_text(hours), Into::into);
    let setting = FormSetting::default().with_field("overlap_seconds", seconds);
    let Json(made) = handlers::rotate_secret(
        State(app.clone()),
        viewer.auth_context(),
        Id(id),
        setting.into(),
    )
    .await?;
    let webhook = handlers::show_webhook(&app, &viewer.auth_context(), id, None).await?;
    page(&Once {
        look: PageLayout::signed_in(&viewer, "The new secret", "/webhooks"),
        id,
        name: webhook.name,
        secret: made.secret,
        overlap: made
            .old_secrets_expire_at
            .map(|at| viewer.zone.local_time(at)),
        new: false,
    })
}

pub async fn remove_secret(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    handlers::remove_secret(State(app), viewer.auth_context(), Id(id)).await?;
    redirect_to(&format!("/webhooks/{id}/settings?done=secret-removed"))
}

pub async fn new_url(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let _ = handlers::new_token(
        State(app),
        viewer.auth_context(),
        Id(id),
        FormSetting::default().into(),
    )
    .await?;
    redirect_to(&format!("/webhooks/{id}/setup?done=new-url"))
}
