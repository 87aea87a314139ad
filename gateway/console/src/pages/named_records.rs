//! Buyers and campaigns: things that have a name and nothing else to set.

use askama::Template;
use axum::extract::State;
use trueup_store::{IdPage, buyers, campaigns};
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
    made: When,
}

#[derive(Template)]
#[template(path = "named.html")]
struct List {
    look: Look,
    /// As in the address: `buyers`, `campaigns`.
    path: &'static str,
    one: &'static str,
    hint: &'static str,
    rows: Vec<Row>,
}

const PAGE: IdPage = IdPage {
    below: None,
    limit: MOST,
};

pub async fn list_buyers(State(app): State<App>, viewer: Viewer) -> Shown {
    let found = buyers::list(&app.pool.get().await?, viewer.account.id, PAGE).await?;
    let rows = found
        .into_iter()
        .map(|b| Row {
            id: b.id,
            name: b.name,
            made: viewer.zone.when(b.created_at),
        })
        .collect();
    let hint = "Who takes the calls and reports what was paid for them. A webhook that names a buyer matches only calls sold to them.";
    page(&List {
        look: Look::of(&viewer, "Buyers", "/buyers"),
        path: "buyers",
        one: "buyer",
        hint,
        rows,
    })
}

pub async fn list_campaigns(State(app): State<App>, viewer: Viewer) -> Shown {
    let found = campaigns::list(&app.pool.get().await?, viewer.account.id, PAGE).await?;
    let rows = found
        .into_iter()
        .map(|c| Row {
            id: c.id,
            name: c.name,
            made: viewer.zone.when(c.created_at),
        })
        .collect();
    let hint = "What publishers send calls for. What each earns is set in an assignment.";
    page(&List {
        look: Look::of(&viewer, "Campaigns", "/campaigns"),
        path: "campaigns",
        one: "campaign",
        hint,
        rows,
    })
}

fn name_of(form: &Form) -> handlers::Setting {
    Setting::default().put("name", form.text("name")).into()
}

pub async fn create_buyer(State(app): State<App>, viewer: Viewer, form: Form) -> Shown {
    let _ = handlers::create_buyer(State(app), viewer.operator(), name_of(&form)).await?;
    go("/buyers?done=made")
}

pub async fn rename_buyer(State(app): State<App>, viewer: Viewer, Id(id): Id, form: Form) -> Shown {
    let _ = handlers::rename_buyer(State(app), viewer.operator(), Id(id), name_of(&form)).await?;
    go("/buyers?done=saved")
}

pub async fn create_campaign(State(app): State<App>, viewer: Viewer, form: Form) -> Shown {
    let _ = handlers::create_campaign(State(app), viewer.operator(), name_of(&form)).await?;
    go("/campaigns?done=made")
}

pub async fn rename_campaign(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> Shown {
    let _ =
        handlers::rename_campaign(State(app), viewer.operator(), Id(id), name_of(&form)).await?;
    go("/campaigns?done=saved")
}
