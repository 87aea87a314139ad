//! The table of webhooks, and the making of one.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use jiff::Timestamp;
use trueup_event::reason::Status;
use trueup_store::archive::Archivable;
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{IdPage, open_events, webhooks};
use uuid::Uuid;

use super::archive::retain_in_use;
use super::chart;
use super::first_steps::{Step, open_steps};
use super::form::Form;
use super::formatting::{LocalTime, Markup, count_text, format_figure};
use super::layout::{PageLayout, PageResult, page, page_with, redirect_to};
use super::viewer::Viewer;
use crate::app_state::App;
use crate::operations::webhooks as operations;
use crate::request_fields::RequestFields;

/// Webhooks on one page; whoever has more filters by the archive or uses the API.
const MOST: i64 = 200;

struct WebhookRow {
    id: Uuid,
    name: String,
    buyer: String,
    enabled: bool,
    secret: bool,
    last: Option<LocalTime>,
    matched: String,
    unmatched: String,
    refused: String,
    held: String,
    no_payout: String,
    unmatched_any: bool,
    held_any: bool,
    no_payout_any: bool,
    refused_any: bool,
    spark: Markup,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhookList {
    look: PageLayout,
    rows: Vec<WebhookRow>,
    archived: bool,
    today: String,
    /// What is still to do until money moves.
    steps: Vec<Step>,
}

/// Open rows of one webhook that the table counts; its panel counts more.
const OPEN_COUNTED: i64 = 200;

pub async fn webhooks_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let archived = Form::parse(uri.query().unwrap_or_default().as_bytes()).is_on("archived");
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let found = webhooks::list_webhooks(
        &client,
        account,
        archived,
        IdPage {
            below: None,
            limit: MOST,
        },
    )
    .await?;
    let buyers: HashMap<Uuid, String> =
        webhook_activity::load_names(&client, account, NamedEntity::Buyers)
            .await?
            .into_iter()
            .collect();
    let ids: Vec<Uuid> = found.iter().map(|w| w.id).collect();
    let now = Timestamp::now();
    let mut activity =
        webhook_activity::load_activity(&client, account, &ids, now, viewer.clock.day_start(now))
            .await?;
    let open = open_events::count_by_webhook(&client, account, &ids, OPEN_COUNTED).await?;
    drop(client);
    let today = viewer.clock.today().to_string();
    let rows = found
        .into_iter()
        .map(|webhook| {
            let activity = activity.remove(&webhook.id).unwrap_or_default();
            let open = open.get(&webhook.id).copied().unwrap_or_default();
            WebhookRow {
                id: webhook.id,
                buyer: webhook
                    .settings
                    .buyer_id
                    .and_then(|id| buyers.get(&id).cloned())
                    .unwrap_or_default(),
                name: webhook.settings.name,
                enabled: webhook.settings.enabled,
                secret: webhook.settings.require_secret,
                last: webhook.last_event_at.map(|at| viewer.clock.local_time(at)),
                matched: format_figure(&activity, Status::Matched),
                unmatched: count_text(open.unmatched, open.more),
                held: count_text(open.held, open.more),
                no_payout: count_text(open.no_payout, open.more),
                refused: format_figure(&activity, Status::Refused),
                unmatched_any: open.unmatched > 0,
                held_any: open.held > 0,
                no_payout_any: open.no_payout > 0,
                refused_any: activity.count_today(Status::Refused) > 0,
                spark: chart::spark_line(&activity.hours),
            }
        })
        .collect();
    page(&WebhookList {
        look: PageLayout::signed_in(&viewer, "Webhooks", "/webhooks"),
        rows,
        archived,
        today,
        steps: open_steps(&app, &viewer).await?,
    })
}

#[derive(Template)]
#[template(path = "webhook_new.html")]
struct NewWebhookPage {
    look: PageLayout,
    fault: Option<String>,
    name: String,
    buyer: String,
    buyers: Vec<(Uuid, String)>,
    require_secret: bool,
}

impl NewWebhookPage {
    async fn blank_form(
        app: &App,
        viewer: &Viewer,
    ) -> Result<NewWebhookPage, super::layout::PageError> {
        let client = app.pool.get().await?;
        let account = viewer.account.id;
        let mut buyers =
            webhook_activity::load_names(&client, account, NamedEntity::Buyers).await?;
        retain_in_use(&client, account, Archivable::Buyer, &mut buyers, None).await?;
        Ok(NewWebhookPage {
            look: PageLayout::signed_in(viewer, "New webhook", "/webhooks"),
            fault: None,
            name: String::new(),
            buyer: String::new(),
            buyers,
            require_secret: true,
        })
    }
}

pub async fn new(State(app): State<App>, viewer: Viewer) -> PageResult {
    page(&NewWebhookPage::blank_form(&app, &viewer).await?)
}

pub async fn create_webhook(
    State(app): State<App>,
    viewer: Viewer,
    form: Form,
    headers: HeaderMap,
) -> PageResult {
    let required = form.is_on("require_secret").to_string();
    let texts = ["name", "buyer_id"].map(|name| (name, form.text(name)));
    let new = RequestFields::of_texts(texts.into_iter().chain([("require_secret", &*required)]));
    let result = match new.read() {
        Ok(new) => operations::create_webhook(&app, &viewer.auth_context(), new).await,
        Err(bad) => Err(bad.into()),
    };
    match result {
        Ok(made) => match made.secret {
            Some(secret) => super::webhook_secret::to_secret_page(made.id, &secret, &headers),
            None => redirect_to(&format!("/webhooks/{}/setup", made.id)),
        },
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let new = NewWebhookPage {
                fault: Some(problem.detail().to_owned()),
                name: form.text("name").to_owned(),
                buyer: form.text("buyer_id").to_owned(),
                require_secret: form.is_on("require_secret"),
                ..NewWebhookPage::blank_form(&app, &viewer).await?
            };
            page_with(StatusCode::UNPROCESSABLE_ENTITY, &new)
        }
        Err(problem) => Err(problem.into()),
    }
}
