//! The table of webhooks, and the making of one.

use std::collections::HashMap;

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use jiff::Timestamp;
use trueup_event::reason::Status;
use trueup_store::webhook_activity::{self, Activity, Named};
use trueup_store::{IdPage, webhooks};
use uuid::Uuid;

use super::chart;
use super::form::{Form, Setting, text_or_null};
use super::formatting::{self, Markup, When};
use super::layout::{Look, Shown, go, page, page_with};
use super::session::Viewer;
use crate::api::handlers::{self, Problem};
use crate::app_state::App;

/// Webhooks on one page; whoever has more filters by the archive or uses the API.
const MOST: i64 = 200;

struct Row {
    id: Uuid,
    name: String,
    buyer: String,
    enabled: bool,
    secret: bool,
    last: Option<When>,
    matched: String,
    unmatched: String,
    refused: String,
    held: String,
    unmatched_any: bool,
    held_any: bool,
    refused_any: bool,
    spark: Markup,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct List {
    look: Look,
    rows: Vec<Row>,
    archived: bool,
}

/// What needs no person: matched, or known already.
pub const FINE: [Status; 3] = [Status::Matched, Status::Duplicate, Status::Superseded];

/// Today's requests of these statuses.
pub fn figure(activity: &Activity, statuses: &[Status]) -> String {
    let n: i64 = statuses.iter().map(|s| activity.today(*s)).sum();
    format!(
        "{}{}",
        formatting::count(n),
        if activity.more { "+" } else { "" }
    )
}

pub async fn list(State(app): State<App>, viewer: Viewer, uri: Uri) -> Shown {
    let archived = Form::parse(uri.query().unwrap_or_default().as_bytes()).is_on("archived");
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let found = webhooks::list(
        &client,
        account,
        archived,
        IdPage {
            below: None,
            limit: MOST,
        },
    )
    .await?;
    let buyers: HashMap<Uuid, String> = webhook_activity::names(&client, account, Named::Buyers)
        .await?
        .into_iter()
        .collect();
    let ids: Vec<Uuid> = found.iter().map(|w| w.id).collect();
    let now = Timestamp::now();
    let mut activity =
        webhook_activity::activity(&client, account, &ids, now, viewer.zone.day_start(now)).await?;
    drop(client);
    let rows = found
        .into_iter()
        .map(|webhook| {
            let activity = activity.remove(&webhook.id).unwrap_or_default();
            Row {
                id: webhook.id,
                buyer: webhook
                    .settings
                    .buyer_id
                    .and_then(|id| buyers.get(&id).cloned())
                    .unwrap_or_default(),
                name: webhook.settings.name,
                enabled: webhook.settings.enabled,
                secret: webhook.settings.require_secret,
                last: webhook.last_event_at.map(|at| viewer.zone.when(at)),
                matched: figure(&activity, &FINE),
                unmatched: figure(&activity, &[Status::Unmatched]),
                held: figure(&activity, &[Status::Held]),
                refused: figure(&activity, &[Status::Refused]),
                unmatched_any: activity.today(Status::Unmatched) > 0,
                held_any: activity.today(Status::Held) > 0,
                refused_any: activity.today(Status::Refused) > 0,
                spark: chart::spark(&activity.hours),
            }
        })
        .collect();
    page(&List {
        look: Look::of(&viewer, "Webhooks", "/webhooks"),
        rows,
        archived,
    })
}

#[derive(Template)]
#[template(path = "webhook_new.html")]
struct New {
    look: Look,
    fault: Option<String>,
    name: String,
    buyer: String,
    buyers: Vec<(Uuid, String)>,
    require_secret: bool,
}

impl New {
    async fn blank(app: &App, viewer: &Viewer) -> Result<New, super::Fault> {
        let client = app.pool.get().await?;
        let buyers = webhook_activity::names(&client, viewer.account.id, Named::Buyers).await?;
        Ok(New {
            look: Look::of(viewer, "New webhook", "/webhooks"),
            fault: None,
            name: String::new(),
            buyer: String::new(),
            buyers,
            require_secret: false,
        })
    }
}

pub async fn new(State(app): State<App>, viewer: Viewer) -> Shown {
    page(&New::blank(&app, &viewer).await?)
}

pub async fn create(State(app): State<App>, viewer: Viewer, form: Form) -> Shown {
    let mut setting = Setting::default()
        .put("name", form.text("name"))
        .put("buyer_id", text_or_null(form.text("buyer_id")));
    if form.is_on("require_secret") {
        setting = setting.put("require_secret", true);
    }
    match handlers::create_webhook(State(app.clone()), viewer.operator(), setting.into()).await {
        Ok((_, Json(made))) => match made.secret {
            Some(secret) => {
                super::webhook_secret::shown_once(&viewer, made.id, &made.name, &secret, true)
            }
            None => go(&format!("/webhooks/{}/setup", made.id)),
        },
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let new = New {
                fault: Some(problem.detail().to_owned()),
                name: form.text("name").to_owned(),
                buyer: form.text("buyer_id").to_owned(),
                require_secret: form.is_on("require_secret"),
                ..New::blank(&app, &viewer).await?
            };
            page_with(StatusCode::UNPROCESSABLE_ENTITY, &new)
        }
        Err(problem) => Err(Problem::into(problem)),
    }
}
