//! Webhooks: one for each source of reports. What they are set to, and how that is changed; their
//! secrets and tokens are in [`super::webhook_secrets`].

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, audit_log, buyers, run_tx, webhooks};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::assignments::not_ours;
use super::field_reader::{FieldReader, MaybeField};
use super::limits::{MAX_CENTS, MAX_NAME};
use super::list::{ListParams, Page, Paging};
use super::request::{Id, JsonFields, Query};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::secrets;

/// A field's name in a sender's request, dotted paths included (characters).
const MAX_FIELD_NAME: usize = 128;
/// A parameter's name in a URL (characters).
const MAX_PARAM_NAME: usize = 64;
/// A limit above this is none (requests a minute).
const MAX_LIMIT_PER_MINUTE: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;
const YEAR_HOURS: i64 = 8_760;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookResponse {
    pub id: Uuid,
    pub name: String,
    pub token: String,
    /// What the buyer pastes into the setting on their side.
    pub url: String,
    #[serde(flatten)]
    pub settings: Settings,
    /// The secrets that are valid now; their text is shown only when they are made.
    pub secrets: Vec<SecretResponse>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
    /// When its newest row was received.
    pub last_event_at: Option<Timestamp>,
    /// The secret, if one was made just now; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub secret: Option<String>,
}

/// The settings of a webhook but its name, each with what holds where it is not given.
#[derive(Debug, Serialize, ToSchema)]
pub struct Settings {
    /// Only this buyer's calls are matched, and events count to this buyer's reporting.
    pub buyer_id: Option<Uuid>,
    /// A paused webhook answers 200 `{"ok":false,"reason":"endpoint disabled"}`.
    pub enabled: bool,
    /// Requests without a valid secret are refused with 401.
    pub require_secret: bool,
    /// A query parameter that may carry the secret, for senders that cannot set headers.
    pub secret_query_param: Option<String>,
    /// Names that win over the aliases, by slot: `ref_id`, `call_id`, `caller`, `duration`, `payout`.
    pub field_names: BTreeMap<String, String>,
    #[schema(minimum = 0, maximum = 86400)]
    pub duration_tolerance_seconds: i32,
    #[schema(minimum = 1, maximum = 8760)]
    pub match_window_hours: i32,
    /// Null: the gateway's default. The server's operator may have set a lower ceiling.
    #[schema(minimum = 1, maximum = 1000000)]
    pub limit_per_minute: Option<i32>,
    /// For each source address, where the secret is right; null: the gateway's default. The same ceiling.
    #[schema(minimum = 1, maximum = 1000000)]
    pub ip_limit_per_minute: Option<i32>,
    /// A payout above it is held for a person.
    #[schema(minimum = 1)]
    pub payout_cap_cents: i64,
    /// `seconds`, `milliseconds` or `minutes`: the unit of a bare number.
    pub duration_unit: String,
    /// `dollars` or `cents`: the unit of a bare number.
    pub payout_unit: String,
    /// `hold` or `trust`.
    pub on_currency_mismatch: String,
    /// `hold` or `trust`.
    pub on_rejection_word: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub struct SecretResponse {
    pub id: Uuid,
    pub created_at: Timestamp,
    /// Set when a newer one was made: valid until then.
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

/// What a webhook is made of; only the name is required.
#[derive(Debug, ToSchema)]
#[schema(as = WebhookBody)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct WebhookBody {
    #[schema(max_length = 200)]
    name: String,
    buyer_id: Option<Uuid>,
    enabled: Option<bool>,
    /// Makes the first secret, which is shown in the answer.
    require_secret: Option<bool>,
    secret_query_param: Option<String>,
    field_names: Option<BTreeMap<String, String>>,
    #[schema(minimum = 0, maximum = 86400, default = 60)]
    duration_tolerance_seconds: Option<i32>,
    #[schema(minimum = 1, maximum = 8760, default = 24)]
    match_window_hours: Option<i32>,
    #[schema(minimum = 1, maximum = 1000000)]
    limit_per_minute: Option<i32>,
    #[schema(minimum = 1, maximum = 1000000)]
    ip_limit_per_minute: Option<i32>,
    #[schema(minimum = 1, default = 1000000)]
    payout_cap_cents: Option<i64>,
    #[schema(default = "seconds")]
    duration_unit: Option<String>,
    #[schema(default = "dollars")]
    payout_unit: Option<String>,
    #[schema(default = "hold")]
    on_currency_mismatch: Option<String>,
    #[schema(default = "hold")]
    on_rejection_word: Option<String>,
}

/// The changes of a webhook: what is left out stays; null clears what may be empty. `field_names` is
/// replaced as a whole.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct WebhookPatch {
    #[schema(max_length = 200)]
    name: Option<String>,
    buyer_id: Option<Uuid>,
    enabled: Option<bool>,
    require_secret: Option<bool>,
    secret_query_param: Option<String>,
    field_names: Option<BTreeMap<String, String>>,
    #[schema(minimum = 0, maximum = 86400)]
    duration_tolerance_seconds: Option<i32>,
    #[schema(minimum = 1, maximum = 8760)]
    match_window_hours: Option<i32>,
    #[schema(minimum = 1, maximum = 1000000)]
    limit_per_minute: Option<i32>,
    #[schema(minimum = 1, maximum = 1000000)]
    ip_limit_per_minute: Option<i32>,
    #[schema(minimum = 1)]
    payout_cap_cents: Option<i64>,
    duration_unit: Option<String>,
    payout_unit: Option<String>,
    on_currency_mismatch: Option<String>,
    on_rejection_word: Option<String>,
}

impl WebhookResponse {
    fn from_webhook(
        it: webhooks::Webhook,
        secrets: Vec<webhooks::Secret>,
        public_url: &str,
    ) -> Self {
        let s = it.settings;
        let field_names = serde_json::from_value(s.field_names).unwrap_or_default();
        WebhookResponse {
            id: it.id,
            url: format!("{public_url}/api/v1/ppc/inbound-webhooks/{}", it.token),
            token: it.token,
            name: s.name,
            settings: Settings {
                buyer_id: s.buyer_id,
                enabled: s.enabled,
                require_secret: s.require_secret,
                secret_query_param: s.secret_query_param,
                field_names,
                duration_tolerance_seconds: s.duration_tolerance_seconds,
                match_window_hours: s.match_window_hours,
                limit_per_minute: s.limit_per_minute,
                ip_limit_per_minute: s.ip_limit_per_minute,
                payout_cap_cents: s.payout_cap_cents,
                duration_unit: s.duration_unit,
                payout_unit: s.payout_unit,
                on_currency_mismatch: s.on_currency_mismatch,
                on_rejection_word: s.on_rejection_word,
            },
            secrets: secrets
                .into_iter()
                .map(|secret| SecretResponse {
                    id: secret.id,
                    created_at: secret.created_at,
                    expires_at: secret.expires_at,
                    last_used_at: secret.last_used_at,
                })
                .collect(),
            created_at: it.created_at,
            updated_at: it.updated_at,
            archived_at: it.archived_at,
            last_event_at: it.last_event_at,
            secret: None,
        }
    }
}

/// The changes that a body asks for, read without knowing what they change.
#[derive(Debug, Clone)]
struct Changes {
    name: Option<String>,
    buyer_id: MaybeField<Uuid>,
    enabled: Option<bool>,
    require_secret: Option<bool>,
    secret_query_param: MaybeField<String>,
    field_names: MaybeField<BTreeMap<&'static str, String>>,
    duration_tolerance_seconds: Option<i64>,
    match_window_hours: Option<i64>,
    limit_per_minute: MaybeField<i64>,
    ip_limit_per_minute: MaybeField<i64>,
    payout_cap_cents: Option<i64>,
    duration_unit: Option<&'static str>,
    payout_unit: Option<&'static str>,
    on_currency_mismatch: Option<&'static str>,
    on_rejection_word: Option<&'static str>,
}

impl Changes {
    fn read_changes(f: &mut FieldReader) -> Self {
        macro_rules! field {
            ($name:ident: $given:expr) => {{
                let given = $given;
                f.not_null(stringify!($name), given)
            }};
        }
        Changes {
            name: field!(name: f.name("name", MAX_NAME)),
            buyer_id: f.read_uuid("buyer_id"),
            enabled: field!(enabled: f.read_boolean("enabled")),
            require_secret: field!(require_secret: f.read_boolean("require_secret")),
            secret_query_param: f.read_with("secret_query_param", read_param_name),
            field_names: read_field_names(f),
            duration_tolerance_seconds: field!(duration_tolerance_seconds:
                f.read_integer("duration_tolerance_seconds", 0..=DAY_SECONDS)),
            match_window_hours: field!(match_window_hours: f.read_integer("match_window_hours", 1..=YEAR_HOURS)),
            limit_per_minute: f.read_integer("limit_per_minute", 1..=MAX_LIMIT_PER_MINUTE),
            ip_limit_per_minute: f.read_integer("ip_limit_per_minute", 1..=MAX_LIMIT_PER_MINUTE),
            payout_cap_cents: field!(payout_cap_cents: f.read_integer("payout_cap_cents", 1..=MAX_CENTS)),
            duration_unit: field!(duration_unit: f.read_choice("duration_unit", &["seconds", "milliseconds", "minutes"])),
            payout_unit: field!(payout_unit: f.read_choice("payout_unit", &["dollars", "cents"])),
            on_currency_mismatch: field!(on_currency_mismatch: f.read_choice("on_currency_mismatch", &["hold", "trust"])),
            on_rejection_word: field!(on_rejection_word: f.read_choice("on_rejection_word", &["hold", "trust"])),
        }
    }

    fn apply_to(self, s: &mut webhooks::StoredSettings) {
        let small = |n: i64| i32::try_from(n).expect("the ranges of these settings are below 2^31");
        let put = |slot: &mut String, value: Option<&str>| {
            if let Some(value) = value {
                value.clone_into(slot);
            }
        };
        put(&mut s.name, self.name.as_deref());
        self.buyer_id.set(&mut s.buyer_id);
        s.enabled = self.enabled.unwrap_or(s.enabled);
        s.require_secret = self.require_secret.unwrap_or(s.require_secret);
        self.secret_query_param.set(&mut s.secret_query_param);
        match self.field_names {
            MaybeField::Absent => {}
            MaybeField::Null => s.field_names = json!({}),
            MaybeField::Is(names) => s.field_names = json!(names),
        }
        s.duration_tolerance_seconds = self
            .duration_tolerance_seconds
            .map_or(s.duration_tolerance_seconds, small);
        s.match_window_hours = self.match_window_hours.map_or(s.match_window_hours, small);
        self.limit_per_minute
            .map(small)
            .set(&mut s.limit_per_minute);
        self.ip_limit_per_minute
            .map(small)
            .set(&mut s.ip_limit_per_minute);
        s.payout_cap_cents = self.payout_cap_cents.unwrap_or(s.payout_cap_cents);
        put(&mut s.duration_unit, self.duration_unit);
        put(&mut s.payout_unit, self.payout_unit);
        put(&mut s.on_currency_mismatch, self.on_currency_mismatch);
        put(&mut s.on_rejection_word, self.on_rejection_word);
    }
}

fn read_param_name(value: Value) -> Result<String, String> {
    match value {
        Value::String(name)
            if !name.is_empty()
                && name.len() <= MAX_PARAM_NAME
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
        {
            Ok(name)
        }
        _ => Err(format!(
            "must be text of at most {MAX_PARAM_NAME} letters, digits, '-', '_' and '.'"
        )),
    }
}

fn read_field_names(f: &mut FieldReader) -> MaybeField<BTreeMap<&'static str, String>> {
    f.read_object("field_names").map(|mut inner| {
        let mut names = BTreeMap::new();
        for slot in ["ref_id", "call_id", "caller", "duration", "payout"] {
            if let MaybeField::Is(name) = inner.name(slot, MAX_FIELD_NAME) {
                names.insert(slot, name);
            }
        }
        f.absorb_faults(inner);
        names
    })
}

/// One webhook with its secrets, as the API shows it.
pub async fn show_webhook(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    secret: Option<String>,
) -> Result<WebhookResponse, Problem> {
    let client = app.pool.get().await?;
    let found = webhooks::get_webhook(&client, operator.account_id(), id).await?;
    let found = found.ok_or_else(|| Problem::not_found("webhook"))?;
    let valid = webhooks::valid_secrets(&client, &[id]).await?;
    let shown = WebhookResponse::from_webhook(
        found,
        valid.into_iter().map(|(_, secret)| secret).collect(),
        &app.public_url,
    );
    Ok(WebhookResponse { secret, ..shown })
}

pub(super) fn archived_problem() -> Problem {
    Problem::conflict(
        "archived",
        "this webhook is archived and cannot be changed any more; make a new one",
    )
}

#[utoipa::path(post, path = "/api/v1/webhooks", tag = "webhooks", request_body = WebhookBody,
    responses((status = 201, description = "It is made; its secret, if one is required, is shown this once", body = WebhookResponse)))]
pub async fn create_webhook(
    State(app): State<App>,
    operator: AuthContext,
    JsonFields(mut fields): JsonFields,
) -> Result<(StatusCode, Json<WebhookResponse>), Problem> {
    let changes = Changes::read_changes(&mut fields);
    if changes.name.is_none() && !fields.has_fault("name") {
        fields.add_fault("name", "is required");
    }
    fields.finish_reading()?;
    let mut settings = webhooks::StoredSettings::with_name("");
    changes.apply_to(&mut settings);
    app.ceilings
        .check_limits(&webhooks::StoredSettings::with_name(""), &settings)?;

    let (id, token) = (Uuid::now_v7(), secrets::new_token());
    let secret = settings.require_secret.then(secrets::webhook_secret);
    let (actor, given, ceilings) = (operator.clone(), secret.clone(), app.ceilings.clone());
    run_tx(&app.pool, "webhooks.create", move |tx| {
        let (ceilings, operator, settings, token, secret) = (
            ceilings.clone(),
            actor.clone(),
            settings.clone(),
            token.clone(),
            given.clone(),
        );
        Box::pin(async move {
            let account_id = operator.account_id();
            if let Err(problem) = ceilings
                .check_room(tx, account_id, CountedKind::Webhooks)
                .await?
            {
                return Ok(Err(problem));
            }
            if let Some(buyer) = settings.buyer_id
                && buyers::get_buyer(tx, operator.account_id(), buyer)
                    .await?
                    .is_none()
            {
                return Ok(Err(Problem::invalid_fields(
                    vec![not_ours("buyer_id", "buyer")],
                    Vec::new(),
                )));
            }
            webhooks::insert_webhook(tx, operator.account_id(), id, &token, &settings).await?;
            if let Some(secret) = secret {
                webhooks::rotate_secret(tx, id, Uuid::now_v7(), &secret, 0).await?;
            }
            let detail =
                webhooks::changed_settings(&webhooks::StoredSettings::with_name(""), &settings);
            audit_log::record_change(tx, operator.change("create", "webhook", id, detail)).await?;
            Ok::<_, StoreError>(Ok(()))
        })
    })
    .await??;
    Ok((
        StatusCode::CREATED,
        Json(show_webhook(&app, &operator, id, secret).await?),
    ))
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub struct WebhookListParams {
    /// `true`: the archived ones instead of those in use.
    archived: Option<bool>,
}

#[utoipa::path(get, path = "/api/v1/webhooks", tag = "webhooks", params(WebhookListParams, ListParams),
    responses((status = 200, description = "Newest first", body = Page<WebhookResponse>)))]
pub async fn list_webhooks(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<Page<WebhookResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "webhooks");
    let archived = fields.read_boolean("archived").value().unwrap_or(false);
    fields.finish_reading()?;
    let client = app.pool.get().await?;
    let rows =
        webhooks::list_webhooks(&client, operator.account_id(), archived, paging.ids()).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut by_webhook: BTreeMap<Uuid, Vec<webhooks::Secret>> = BTreeMap::new();
    for (webhook, secret) in webhooks::valid_secrets(&client, &ids).await? {
        by_webhook.entry(webhook).or_default().push(secret);
    }
    let show = |row: webhooks::Webhook| {
        let secrets = by_webhook.get(&row.id).cloned().unwrap_or_default();
        WebhookResponse::from_webhook(row, secrets, &app.public_url)
    };
    Ok(Json(paging.page(rows, |row| row.id, show)))
}

#[utoipa::path(get, path = "/api/v1/webhooks/{id}", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It, archived or not", body = WebhookResponse)))]
pub async fn get_webhook(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<WebhookResponse>, Problem> {
    show_webhook(&app, &operator, id, None).await.map(Json)
}

#[utoipa::path(patch, path = "/api/v1/webhooks/{id}", tag = "webhooks", params(("id" = Uuid, Path)),
    request_body = WebhookPatch,
    responses((status = 200, description = "As it is now; where a secret is required and none was valid, one is made and shown this once",
        body = WebhookResponse)))]
pub async fn update_webhook(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(mut fields): JsonFields,
) -> Result<Json<WebhookResponse>, Problem> {
    let changes = Changes::read_changes(&mut fields);
    fields.finish_reading()?;
    let (actor, ceilings) = (operator.clone(), app.ceilings.clone());
    let secret = run_tx(&app.pool, "webhooks.update", move |tx| {
        let (ceilings, operator, changes) = (ceilings.clone(), actor.clone(), changes.clone());
        Box::pin(async move {
            let Some(before) = webhooks::get_locked(tx, operator.account_id(), id).await? else {
                return Ok(Err(Problem::not_found("webhook")));
            };
            if before.archived_at.is_some() {
                return Ok(Err(archived_problem()));
            }
            let mut settings = before.settings.clone();
            changes.apply_to(&mut settings);
            if let Err(problem) = ceilings.check_limits(&before.settings, &settings) {
                return Ok(Err(problem));
            }
            if settings.buyer_id != before.settings.buyer_id
                && let Some(buyer) = settings.buyer_id
                && buyers::get_buyer(tx, operator.account_id(), buyer)
                    .await?
                    .is_none()
            {
                return Ok(Err(Problem::invalid_fields(
                    vec![not_ours("buyer_id", "buyer")],
                    Vec::new(),
                )));
            }
            let mut secret = None;
            if settings.require_secret && webhooks::valid_secrets(tx, &[id]).await?.is_empty() {
                let made = secrets::webhook_secret();
                webhooks::rotate_secret(tx, id, Uuid::now_v7(), &made, 0).await?;
                secret = Some(made);
            }
            webhooks::update_webhook(tx, operator.account_id(), id, &settings).await?;
            let detail = webhooks::changed_settings(&before.settings, &settings);
            audit_log::record_change(tx, operator.change("update", "webhook", id, detail)).await?;
            Ok::<_, StoreError>(Ok(secret))
        })
    })
    .await??;
    show_webhook(&app, &operator, id, secret).await.map(Json)
}

#[utoipa::path(delete, path = "/api/v1/webhooks/{id}", tag = "webhooks", params(("id" = Uuid, Path)),
    responses((status = 204, description = "Archived: its URL answers 404, its history stays")))]
pub async fn archive_webhook(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    run_tx(&app.pool, "webhooks.archive", move |tx| {
        let operator = operator.clone();
        Box::pin(async move {
            let Some(before) = webhooks::get_locked(tx, operator.account_id(), id).await? else {
                return Ok(Err(Problem::not_found("webhook")));
            };
            if before.archived_at.is_none() {
                webhooks::archive_webhook(tx, operator.account_id(), id).await?;
                audit_log::record_change(tx, operator.change("archive", "webhook", id, json!({})))
                    .await?;
            }
            Ok::<_, StoreError>(Ok(()))
        })
    })
    .await??;
    Ok(StatusCode::NO_CONTENT)
}
