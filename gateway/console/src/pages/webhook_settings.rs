//! One webhook's editor and its setup page, and the switches that need no form: pause, archive.
//!
//! What a setting may be is the API's to say: the form is handed to the API's own handler, and what it
//! finds wrong is shown beside the field.

use std::collections::HashMap;

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value};
use trueup_domain::field_aliases::ALIASES;
use trueup_domain::report::Slot;
use trueup_store::webhook_activity::{self, NamedEntity};
use uuid::Uuid;

use super::form::{Form, FormSetting, number_or_null, number_or_text, text_or_null};
use super::formatting::{self, LocalTime};
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::viewer::Viewer;
use super::webhook_head::{Head, not_found};
use super::webhook_templates::{self, PostbackTemplate};
use crate::api::handlers::{self, Id, WebhookResponse};
use crate::app_state::App;

struct SecretPage {
    made: LocalTime,
    expires: Option<LocalTime>,
    used: Option<LocalTime>,
}

struct NameField {
    slot: &'static str,
    label: &'static str,
    value: String,
    aliases: String,
}

#[derive(Template)]
#[template(path = "webhook_settings.html")]
struct Editor {
    look: PageLayout,
    head: Head,
    values: HashMap<&'static str, String>,
    names: Vec<NameField>,
    faults: Vec<(String, String)>,
    buyers: Vec<(Uuid, String)>,
    secrets: Vec<SecretPage>,
    currency: String,
}

impl Editor {
    fn v(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    fn fault_of(&self, name: &str) -> Option<&str> {
        self.faults
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, message)| message.as_str())
    }
}

/// The settings that are one text each, by the name they have in the form and in the API.
const TEXTS: [&str; 14] = [
    "name",
    "buyer_id",
    "enabled",
    "require_secret",
    "secret_query_param",
    "duration_tolerance_seconds",
    "match_window_hours",
    "limit_per_minute",
    "ip_limit_per_minute",
    "payout_cap",
    "duration_unit",
    "payout_unit",
    "on_currency_mismatch",
    "on_rejection_word",
];

pub fn slot_name(slot: Slot) -> &'static str {
    match slot {
        Slot::RefId => "ref_id",
        Slot::CallId => "call_id",
        Slot::Caller => "caller",
        Slot::Duration => "duration",
        Slot::Payout => "payout",
    }
}

fn values_of(webhook: &WebhookResponse) -> HashMap<&'static str, String> {
    let s = &webhook.settings;
    let on = |b: bool| if b { "on".to_owned() } else { String::new() };
    let maybe = |n: Option<i32>| n.map(|n| n.to_string()).unwrap_or_default();
    let values = [
        webhook.name.clone(),
        s.buyer_id.map(|id| id.to_string()).unwrap_or_default(),
        on(s.enabled),
        on(s.require_secret),
        s.secret_query_param.clone().unwrap_or_default(),
        s.duration_tolerance_seconds.to_string(),
        s.match_window_hours.to_string(),
        maybe(s.limit_per_minute),
        maybe(s.ip_limit_per_minute),
        formatting::plain_amount(s.payout_cap_cents),
        s.duration_unit.clone(),
        s.payout_unit.clone(),
        s.on_currency_mismatch.clone(),
        s.on_rejection_word.clone(),
    ];
    TEXTS.into_iter().zip(values).collect()
}

fn name_fields(value: impl Fn(&str) -> String) -> Vec<NameField> {
    let labels = ["ref_id", "call_id", "Caller", "Duration", "Payout"];
    ALIASES
        .iter()
        .zip(labels)
        .map(|((slot, aliases), label)| NameField {
            slot: slot_name(*slot),
            label,
            value: value(slot_name(*slot)),
            aliases: aliases.join(", "),
        })
        .collect()
}

async fn load_editor(app: &App, viewer: &Viewer, id: Uuid) -> Result<Editor, PageError> {
    let webhook = handlers::show_webhook(app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let buyers = webhook_activity::load_names(
        &app.pool.get().await?,
        viewer.account.id,
        NamedEntity::Buyers,
    )
    .await?;
    let when = |at| viewer.zone.local_time(at);
    let secrets = webhook.secrets.iter().map(|s| SecretPage {
        made: when(s.created_at),
        expires: s.expires_at.map(when),
        used: s.last_used_at.map(when),
    });
    Ok(Editor {
        look: PageLayout::signed_in(viewer, format!("{}: settings", webhook.name), "/webhooks"),
        head: Head::from_webhook(&webhook, viewer, "settings"),
        values: values_of(&webhook),
        names: name_fields(|slot| {
            webhook
                .settings
                .field_names
                .get(slot)
                .cloned()
                .unwrap_or_default()
        }),
        faults: Vec::new(),
        buyers,
        secrets: secrets.collect(),
        currency: viewer.account.currency.clone(),
    })
}

pub async fn settings_page(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    page(&load_editor(&app, &viewer, id).await?)
}

fn setting_of(form: &Form, currency: &str) -> (FormSetting, Vec<(String, String)>) {
    let mut faults = Vec::new();
    let mut names = Map::new();
    for (slot, _) in ALIASES {
        let name = form.text(&format!("field_{}", slot_name(slot)));
        if !name.is_empty() {
            names.insert(slot_name(slot).to_owned(), Value::from(name));
        }
    }
    let mut setting = FormSetting::default()
        .with_field("name", form.text("name"))
        .with_field("buyer_id", text_or_null(form.text("buyer_id")))
        .with_field("enabled", form.is_on("enabled"))
        .with_field("require_secret", form.is_on("require_secret"))
        .with_field(
            "secret_query_param",
            text_or_null(form.text("secret_query_param")),
        )
        .with_field("field_names", Value::Object(names))
        .with_field(
            "duration_tolerance_seconds",
            number_or_text(form.text("duration_tolerance_seconds")),
        )
        .with_field(
            "match_window_hours",
            number_or_text(form.text("match_window_hours")),
        )
        .with_field(
            "limit_per_minute",
            number_or_null(form.text("limit_per_minute")),
        )
        .with_field(
            "ip_limit_per_minute",
            number_or_null(form.text("ip_limit_per_minute")),
        );
    for choice in [
        "duration_unit",
        "payout_unit",
        "on_currency_mismatch",
        "on_rejection_word",
    ] {
        setting = setting.with_field(choice, form.text(choice));
    }
    match formatting::parse_amount(form.text("payout_cap"), currency) {
        Ok(cents) => setting = setting.with_field("payout_cap_cents", cents),
        Err(message) => faults.push(("payout_cap".to_owned(), message)),
    }
    (setting, faults)
}

pub async fn save_settings(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let (setting, mut faults) = setting_of(&form, viewer.account_currency());
    if faults.is_empty() {
        match handlers::update_webhook(
            State(app.clone()),
            viewer.auth_context(),
            Id(id),
            setting.into(),
        )
        .await
        {
            Ok(Json(saved)) => {
                return match saved.secret {
                    Some(secret) => {
                        super::webhook_secret::shown_once(&viewer, id, &saved.name, &secret, false)
                    }
                    None => redirect_to(&format!("/webhooks/{id}/settings?done=saved")),
                };
            }
            Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                faults.extend(problem.faults().iter().map(|fault| {
                    let field = fault
                        .field
                        .replace("field_names.", "field_")
                        .replace("payout_cap_cents", "payout_cap");
                    (field, fault.message.clone())
                }));
            }
            Err(problem) => return Err(not_found(problem)),
        }
    }
    let mut editor = load_editor(&app, &viewer, id).await?;
    editor.values = TEXTS
        .into_iter()
        .map(|name| (name, form.text(name).to_owned()))
        .collect();
    editor.names = name_fields(|slot| form.text(&format!("field_{slot}")).to_owned());
    editor.faults = faults;
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &editor)
}

/// The toggle in the table and on every tab.
pub async fn switch_webhook(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let enabled = form.is_on("enabled");
    let setting = FormSetting::default().with_field("enabled", enabled);
    let _ = handlers::update_webhook(State(app), viewer.auth_context(), Id(id), setting.into())
        .await
        .map_err(not_found)?;
    let done = if enabled { "resumed" } else { "paused" };
    match form.text("back") {
        "list" => redirect_to(&format!("/webhooks?done={done}")),
        _ => redirect_to(&format!("/webhooks/{id}?done={done}")),
    }
}

/// One field name set from what senders really use (`why`), the other names kept.
pub async fn set_field_name(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let webhook = handlers::show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let mut names = webhook.settings.field_names;
    names.insert(form.text("slot").to_owned(), form.text("field").to_owned());
    let names: Map<String, Value> = names
        .into_iter()
        .map(|(slot, name)| (slot, Value::from(name)))
        .collect();
    let setting = FormSetting::default().with_field("field_names", Value::Object(names));
    let _ =
        handlers::update_webhook(State(app), viewer.auth_context(), Id(id), setting.into()).await?;
    redirect_to(&format!("/webhooks/{id}/why?done=override"))
}

pub async fn archive_webhook(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    handlers::archive_webhook(State(app), viewer.auth_context(), Id(id))
        .await
        .map_err(not_found)?;
    redirect_to("/webhooks?done=archived")
}

#[derive(Template)]
#[template(path = "webhook_setup.html")]
struct Setup {
    look: PageLayout,
    head: Head,
    url: String,
    curl: String,
    require_secret: bool,
    templates: Vec<PostbackTemplate>,
    waiting: WaitingSetting,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingSetting {
    id: Uuid,
    first: Option<super::events::EventLine>,
}

async fn waiting_of(app: &App, viewer: &Viewer, id: Uuid) -> Result<WaitingSetting, PageError> {
    let first = super::events::newest_line(app, viewer, id).await?;
    Ok(WaitingSetting { id, first })
}

pub async fn setup_page(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let webhook = handlers::show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let header = if webhook.settings.require_secret {
        " -H 'X-Webhook-Secret: <the secret>'"
    } else {
        ""
    };
    let curl = format!(
        "curl{header} '{}?caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123'",
        webhook.url
    );
    page(&Setup {
        look: PageLayout::signed_in(&viewer, format!("{}: setup", webhook.name), "/webhooks"),
        head: Head::from_webhook(&webhook, &viewer, "setup"),
        require_secret: webhook.settings.require_secret,
        templates: webhook_templates::all_templates(&webhook.url),
        waiting: waiting_of(&app, &viewer, id).await?,
        url: webhook.url,
        curl,
    })
}

/// The part of the setup page that refreshes itself until the first event is there.
pub async fn waiting_fragment(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    page(&waiting_of(&app, &viewer, id).await?)
}
