//! Buyers and campaigns: things that have a name and nothing else to set.

use askama::Template;
use axum::extract::State;
use trueup_store::IdPage;
use trueup_store::buyers::{self, Buyer};
use trueup_store::campaigns::{self, Campaign};
use uuid::Uuid;

use super::form::Form;
use super::formatting::LocalTime;
use super::layout::{PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::named_records::{create_record, rename_record};

const MOST: i64 = 500;

struct NamedRow {
    id: Uuid,
    name: String,
    made: LocalTime,
}

#[derive(Template)]
#[template(path = "named.html")]
struct NamedList {
    look: PageLayout,
    /// As in the address: `buyers`, `campaigns`.
    path: &'static str,
    one: &'static str,
    hint: &'static str,
    rows: Vec<NamedRow>,
}

const PAGE: IdPage = IdPage {
    below: None,
    limit: MOST,
};

pub async fn list_buyers(State(app): State<App>, viewer: Viewer) -> PageResult {
    let found = buyers::list_buyers(&app.pool.get().await?, viewer.account.id, PAGE).await?;
    let rows = found
        .into_iter()
        .map(|b| NamedRow {
            id: b.id,
            name: b.name,
            made: viewer.clock.local_time(b.created_at),
        })
        .collect();
    let hint = "Who takes the calls and reports what was paid for them. A webhook that names a buyer matches only calls sold to them.";
    page(&NamedList {
        look: PageLayout::signed_in(&viewer, "Buyers", "/buyers"),
        path: "buyers",
        one: "buyer",
        hint,
        rows,
    })
}

pub async fn list_campaigns(State(app): State<App>, viewer: Viewer) -> PageResult {
    let found = campaigns::list_campaigns(&app.pool.get().await?, viewer.account.id, PAGE).await?;
    let rows = found
        .into_iter()
        .map(|c| NamedRow {
            id: c.id,
            name: c.name,
            made: viewer.clock.local_time(c.created_at),
        })
        .collect();
    let hint = "What publishers send calls for. What each earns is set in an assignment.";
    page(&NamedList {
        look: PageLayout::signed_in(&viewer, "Campaigns", "/campaigns"),
        path: "campaigns",
        one: "campaign",
        hint,
        rows,
    })
}

pub async fn create_buyer(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let body = form.read_fields(&["name"])?;
    create_record::<Buyer>(&app, &viewer.auth_context(), body).await?;
    redirect_to("/buyers?done=made")
}

pub async fn rename_buyer(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let body = form.read_fields(&["name"])?;
    rename_record::<Buyer>(&app, &viewer.auth_context(), id, body).await?;
    redirect_to("/buyers?done=saved")
}

pub async fn create_campaign(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let body = form.read_fields(&["name"])?;
    create_record::<Campaign>(&app, &viewer.auth_context(), body).await?;
    redirect_to("/campaigns?done=made")
}

pub async fn rename_campaign(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let body = form.read_fields(&["name"])?;
    rename_record::<Campaign>(&app, &viewer.auth_context(), id, body).await?;
    redirect_to("/campaigns?done=saved")
}
