//! A webhook's secret and URL: made, rotated with an overlap, removed. A secret is shown once, on the
//! answer to the form that made it, and never has an address of its own.

use askama::Template;
use axum::Json;
use axum::extract::State;
use uuid::Uuid;

use super::form::{Form, Setting, number};
use super::layout::{Look, Shown, go, page};
use super::session::Viewer;
use crate::api::handlers::{self, Id};
use crate::app_state::App;

#[derive(Template)]
#[template(path = "secret_once.html")]
struct Once {
    look: Look,
    id: Uuid,
    name: String,
    secret: String,
    overlap: Option<super::formatting::When>,
    new: bool,
}

pub fn shown_once(viewer: &Viewer, id: Uuid, name: &str, secret: &str, new: bool) -> Shown {
    page(&Once {
        look: Look::of(viewer, "The new secret", "/webhooks"),
        id,
        name: name.to_owned(),
        secret: secret.to_owned(),
        overlap: None,
        new,
    })
}

pub async fn rotate(State(app): State<App>, viewer: Viewer, Id(id): Id, form: Form) -> Shown {
    let hours = form.text("overlap_hours");
    let seconds = hours
        .parse::<i64>()
        .ok()
        .and_then(|h| h.checked_mul(3_600))
        .map_or(number(hours), Into::into);
    let setting = Setting::default().put("overlap_seconds", seconds);
    let Json(made) = handlers::rotate_secret(
        State(app.clone()),
        viewer.operator(),
        Id(id),
        setting.into(),
    )
    .await?;
    let webhook = handlers::show_webhook(&app, &viewer.operator(), id, None).await?;
    page(&Once {
        look: Look::of(&viewer, "The new secret", "/webhooks"),
        id,
        name: webhook.name,
        secret: made.secret,
        overlap: made.old_secrets_expire_at.map(|at| viewer.zone.when(at)),
        new: false,
    })
}

pub async fn remove(State(app): State<App>, viewer: Viewer, Id(id): Id) -> Shown {
    handlers::remove_secret(State(app), viewer.operator(), Id(id)).await?;
    go(&format!("/webhooks/{id}/settings?done=secret-removed"))
}

pub async fn new_url(State(app): State<App>, viewer: Viewer, Id(id): Id) -> Shown {
    let _ = handlers::new_token(
        State(app),
        viewer.operator(),
        Id(id),
        Setting::default().into(),
    )
    .await?;
    go(&format!("/webhooks/{id}/setup?done=new-url"))
}
