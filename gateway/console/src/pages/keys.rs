//! API keys: made, shown once, revoked, last used. For owners alone.

use askama::Template;
use axum::Json;
use axum::extract::State;
use trueup_store::{IdPage, api_keys};
use uuid::Uuid;

use super::form::{Form, Setting};
use super::formatting::When;
use super::layout::{Look, Shown, go, page};
use super::session::Viewer;
use crate::api::handlers::{self, Id};
use crate::app_state::App;

const MOST: i64 = 500;

struct Row {
    id: Uuid,
    name: String,
    prefix: String,
    made: When,
    used: Option<When>,
    revoked: Option<When>,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct List {
    look: Look,
    rows: Vec<Row>,
    new: Option<(String, String)>,
}

async fn build(app: &App, viewer: &Viewer, new: Option<(String, String)>) -> Shown {
    let page_of = IdPage {
        below: None,
        limit: MOST,
    };
    let found = api_keys::list(&app.pool.get().await?, viewer.account.id, page_of).await?;
    let when = |at| viewer.zone.when(at);
    let rows = found
        .into_iter()
        .map(|key| Row {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            made: when(key.created_at),
            used: key.last_used_at.map(when),
            revoked: key.revoked_at.map(when),
        })
        .collect();
    page(&List {
        look: Look::of(viewer, "API keys", "/keys"),
        rows,
        new,
    })
}

pub async fn list(State(app): State<App>, viewer: Viewer) -> Shown {
    build(&app, &viewer, None).await
}

pub async fn create(State(app): State<App>, viewer: Viewer, form: Form) -> Shown {
    let setting = Setting::default().put("name", form.text("name"));
    let (_, Json(made)) =
        handlers::create_key(State(app.clone()), viewer.operator(), setting.into()).await?;
    build(&app, &viewer, made.api_key.map(|key| (made.name, key))).await
}

pub async fn revoke(State(app): State<App>, viewer: Viewer, Id(id): Id) -> Shown {
    handlers::revoke_key(State(app), viewer.operator(), Id(id)).await?;
    go("/keys?done=revoked")
}
