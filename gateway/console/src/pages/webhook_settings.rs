//! One webhook's editor and its setup page, and the switches that need no form: pause, archive.
//!
//! What a setting may be is said once, for the API and the form: what is wrong is shown beside the field.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use trueup_domain::field_aliases::ALIASES;
use trueup_domain::report::Slot;
use trueup_store::archive::Archivable;
use trueup_store::users::UserRole;
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::webhooks::StoredSettings;
use uuid::Uuid;

use super::archive::retain_in_use;
use super::form::Form;
use super::formatting::{self, LocalTime};
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::viewer::Viewer;
use super::webhook_head::{Head, not_found};
use super::webhook_templates::{self, PostbackTemplate, SecretPlace};
use crate::api::Id;
use crate::app_state::App;
use crate::operations::webhooks::{self as operations, ShownWebhook, WebhookChanges, show_webhook};
use crate::problem::{FieldError, Problem};
use crate::request_fields::RequestFields;

/// The setting that the form shows as an amount, and its field there.
const CAP: &str = "payout_cap_cents";
const CAP_FIELD: &str = "payout_cap";

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
    values: HashMap<String, String>,
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

pub fn slot_name(slot: Slot) -> &'static str {
    match slot {
        Slot::RefId => "ref_id",
        Slot::CallId => "call_id",
        Slot::Caller => "caller",
        Slot::Duration => "duration",
        Slot::Payout => "payout",
    }
}

/// A webhook's settings by name, as the form shows them; the names of fields are not among them.
fn values_of(settings: &StoredSettings) -> HashMap<String, String> {
    let Value::Object(settings) = json!(settings) else {
        return HashMap::new();
    };
    let values = settings
        .into_iter()
        .filter_map(|(name, value)| match value {
            Value::Null => Some((name, String::new())),
            Value::Bool(is_on) => Some((name, if is_on { "on" } else { "" }.to_owned())),
            Value::String(text) => Some((name, text)),
            Value::Number(cents) if name == CAP => Some((
                CAP_FIELD.to_owned(),
                cents.as_i64().map(formatting::plain_amount)?,
            )),
            Value::Number(number) => Some((name, number.to_string())),
            Value::Array(_) | Value::Object(_) => None,
        });
    values.collect()
}

fn name_fields(value: impl Fn(Slot) -> String) -> Vec<NameField> {
    let labels = ["ref_id", "call_id", "Caller", "Duration", "Payout"];
    ALIASES
        .iter()
        .zip(labels)
        .map(|((slot, aliases), label)| NameField {
            slot: slot_name(*slot),
            label,
            value: value(*slot),
            aliases: aliases.join(", "),
        })
        .collect()
}

async fn load_editor(app: &App, viewer: &Viewer, id: Uuid) -> Result<Editor, PageError> {
    let webhook = show_webhook(app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let mut buyers = webhook_activity::load_names(&client, account, NamedEntity::Buyers).await?;
    let chosen = webhook.settings.buyer_id;
    retain_in_use(&client, account, Archivable::Buyer, &mut buyers, chosen).await?;
    drop(client);
    let when = |at| viewer.clock.local_time(at);
    let secrets = webhook.secrets.iter().map(|s| SecretPage {
        made: when(s.created_at),
        expires: s.expires_at.map(when),
        used: s.last_used_at.map(when),
    });
    Ok(Editor {
        look: PageLayout::signed_in(
            viewer,
            format!("{}: settings", webhook.settings.name),
            "/webhooks",
        ),
        head: Head::from_webhook(&webhook, viewer, "settings"),
        values: values_of(&webhook.settings),
        names: name_fields(|slot| {
            let name = webhook.settings.field_names.get(&slot);
            name.cloned().unwrap_or_default()
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

/// The name that a slot has in the form.
fn field_of(slot: Slot) -> String {
    format!("field_{}", slot_name(slot))
}

/// What the form says of every setting, by the names that they have in a body.
fn texts_of(form: &Form, currency: &str) -> Result<Vec<(String, String)>, FieldError> {
    let mut texts: Vec<(String, String)> = ALIASES
        .iter()
        .map(|(slot, _)| *slot)
        .filter(|slot| form.is_on(&field_of(*slot)))
        .map(|slot| {
            let name = format!("field_names.{}", slot_name(slot));
            (name, form.text(&field_of(slot)).to_owned())
        })
        .collect();
    if texts.is_empty() {
        texts.push(("field_names".to_owned(), String::new()));
    }
    let settings = json!(StoredSettings::with_name(""));
    for (name, value) in settings.as_object().into_iter().flatten() {
        let text = match value {
            Value::Object(_) => continue,
            Value::Bool(_) => form.is_on(name).to_string(),
            _ if name == CAP => formatting::parse_amount(form.text(CAP_FIELD), currency)
                .map_err(|message| FieldError::new(CAP_FIELD, message))?
                .to_string(),
            _ => form.text(name).to_owned(),
        };
        texts.push((name.clone(), text));
    }
    Ok(texts)
}

/// The faults by the names that the form's fields have.
fn faults_in_form(faults: &[FieldError]) -> Vec<(String, String)> {
    let in_form = |field: &str| {
        field
            .replace("field_names.", "field_")
            .replace(CAP, CAP_FIELD)
    };
    faults
        .iter()
        .map(|fault| (in_form(&fault.field), fault.message.clone()))
        .collect()
}

async fn update_from_form(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
    form: &Form,
) -> Result<ShownWebhook, Problem> {
    let texts = texts_of(form, viewer.account_currency())
        .map_err(|fault| Problem::invalid_fields(vec![fault], Vec::new()))?;
    let changes = RequestFields::of_texts(texts).read()?;
    operations::update_webhook(app, &viewer.auth_context(), id, changes).await
}

pub async fn save_settings(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
    headers: HeaderMap,
) -> PageResult {
    let faults = match update_from_form(&app, &viewer, id, &form).await {
        Ok(saved) => {
            return match saved.secret {
                Some(secret) => super::webhook_secret::to_secret_page(id, &secret, &headers),
                None => redirect_to(&format!("/webhooks/{id}/settings?done=saved")),
            };
        }
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            faults_in_form(problem.faults())
        }
        Err(problem) => return Err(not_found(problem)),
    };
    let mut editor = load_editor(&app, &viewer, id).await?;
    for (name, value) in &mut editor.values {
        form.text(name).clone_into(value);
    }
    editor.names = name_fields(|slot| form.text(&field_of(slot)).to_owned());
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
    let changes = WebhookChanges {
        enabled: Some(enabled),
        ..WebhookChanges::default()
    };
    operations::update_webhook(&app, &viewer.auth_context(), id, changes)
        .await
        .map_err(not_found)?;
    let done = if enabled { "resumed" } else { "paused" };
    match form.text("back") {
        "list" => redirect_to(&format!("/webhooks?done={done}")),
        _ => redirect_to(&format!("/webhooks/{id}?done={done}")),
    }
}

/// One field name set from what senders really use (seen by reason, or in one event), the other names kept.
pub async fn set_field_name(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let webhook = show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let set = (form.text("slot").to_owned(), form.text("field").to_owned());
    let kept = webhook.settings.field_names.into_iter();
    let names = kept
        .map(|(slot, name)| (slot_name(slot).to_owned(), name))
        .chain([set])
        .map(|(slot, name)| (format!("field_names.{slot}"), name));
    let changes = RequestFields::of_texts(names).read()?;
    operations::update_webhook(&app, &viewer.auth_context(), id, changes).await?;
    match Uuid::try_parse(form.text("event")) {
        Ok(event) => redirect_to(&format!("/events/{event}?done=override")),
        Err(_) => redirect_to(&format!("/webhooks/{id}/why?done=override")),
    }
}

pub async fn archive_webhook(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    operations::archive_webhook(&app, &viewer.auth_context(), id)
        .await
        .map_err(not_found)?;
    redirect_to("/webhooks?done=archived")
}

pub async fn restore_webhook(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    operations::restore_webhook(&app, &viewer.auth_context(), id)
        .await
        .map_err(not_found)?;
    redirect_to(&format!("/webhooks/{id}?done=webhook-restored"))
}

#[derive(Template)]
#[template(path = "webhook_setup.html")]
struct Setup {
    look: PageLayout,
    head: Head,
    url: String,
    curl: String,
    require_secret: bool,
    query_param: Option<String>,
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
    let webhook = show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    // Whoever has the URL (and the secret, where one is required) can report, and so move money.
    let url = if viewer.user.role >= UserRole::Operator {
        webhook.url.clone()
    } else {
        format!(
            "{}/…",
            webhook
                .url
                .trim_end_matches(webhook.token.as_str())
                .trim_end_matches('/')
        )
    };
    let secret = SecretPlace::of_settings(&webhook.settings);
    let header = match secret {
        SecretPlace::Header => " -H 'X-Webhook-Secret: <the secret>'",
        SecretPlace::Nowhere | SecretPlace::Query(_) => "",
    };
    let in_query = secret.in_query();
    let curl = format!(
        "curl{header} '{}?{in_query}caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123'",
        url
    );
    page(&Setup {
        look: PageLayout::signed_in(
            &viewer,
            format!("{}: setup", webhook.settings.name),
            "/webhooks",
        ),
        head: Head::from_webhook(&webhook, &viewer, "setup"),
        require_secret: webhook.settings.require_secret,
        query_param: webhook.settings.secret_query_param.clone(),
        templates: webhook_templates::all_templates(&url, &secret),
        waiting: waiting_of(&app, &viewer, id).await?,
        url,
        curl,
    })
}

/// The part of the setup page that refreshes itself until the first event is there.
pub async fn waiting_fragment(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    page(&waiting_of(&app, &viewer, id).await?)
}
