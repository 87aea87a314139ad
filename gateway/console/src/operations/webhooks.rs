//! Webhooks: one for each source of reports. What they are set to, and how that is changed; their
//! secrets and tokens are in [`super::webhook_secrets`].

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use trueup_domain::report::{DurationUnit, PayoutUnit};
use trueup_domain::webhook_settings::ConflictPolicy;
use trueup_store::ceilings::CountedKind;
use trueup_store::webhooks::{self, StoredSettings};
use trueup_store::{TransactionName, audit_log, buyers};
use utoipa::openapi::schema::Object;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::{NotDone, commit_change, not_ours};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::request_fields::{MAX_CENTS, Name, Whole, clearable, not_null};
use crate::secrets;

/// A field's name in a sender's request, dotted paths included (characters).
const MAX_FIELD_NAME: usize = 128;
/// A parameter's name in a URL (characters).
const MAX_PARAM_NAME: usize = 64;

/// Requests a minute; a limit above it is none.
type RequestsPerMinute = Whole<1, 1_000_000>;
type PayoutCap = Whole<1, MAX_CENTS>;
type FieldName = Name<MAX_FIELD_NAME>;

// A setting stands here for all of the console: its bounds, its description, and whether it may be
// empty. What is serialized is laid over the stored settings, which have the same names.
/// The changes of a webhook: what is left out stays; null clears what may be empty. `field_names` is
/// replaced as a whole.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = WebhookPatch)]
pub struct WebhookChanges {
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(inline, nullable = false)]
    pub name: Option<Name>,
    /// Only this buyer's calls are matched, and events count to this buyer's reporting.
    #[serde(
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Uuid>)]
    pub buyer_id: Option<Option<Uuid>>,
    /// A paused webhook answers 200 `{"ok":false,"reason":"endpoint disabled"}`.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub enabled: Option<bool>,
    /// Requests without a valid secret are refused with 401. Where none is valid when it is turned on, one
    /// is made and shown in the answer.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub require_secret: Option<bool>,
    /// A query parameter that may carry the secret, for senders that cannot set headers.
    #[serde(
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub secret_query_param: Option<Option<ParamName>>,
    /// Names that win over the aliases, by slot: `ref_id`, `call_id`, `caller`, `duration`, `payout`.
    #[serde(
        deserialize_with = "read_field_names",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<BTreeMap<String, String>>, nullable = false)]
    pub field_names: Option<FieldNames>,
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(inline, nullable = false)]
    pub duration_tolerance_seconds: Option<Whole<0, 86_400>>,
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(inline, nullable = false)]
    pub match_window_hours: Option<Whole<1, 8_760>>,
    /// Null: the gateway's default. The server's operator may have set a lower ceiling.
    #[serde(
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(inline, value_type = Option<RequestsPerMinute>)]
    pub limit_per_minute: Option<Option<RequestsPerMinute>>,
    /// For each source address, where the secret is right; null: the gateway's default. The same ceiling.
    #[serde(
        deserialize_with = "clearable",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(inline, value_type = Option<RequestsPerMinute>)]
    pub ip_limit_per_minute: Option<Option<RequestsPerMinute>>,
    /// A payout above it is held for a person.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(inline, nullable = false)]
    pub payout_cap_cents: Option<PayoutCap>,
    /// `seconds`, `milliseconds` or `minutes`: the unit of a bare number.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub duration_unit: Option<DurationUnit>,
    /// `dollars` or `cents`: the unit of a bare number.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub payout_unit: Option<PayoutUnit>,
    /// `hold` or `trust`.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub on_currency_mismatch: Option<ConflictPolicy>,
    /// `hold` or `trust`.
    #[serde(deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    pub on_rejection_word: Option<ConflictPolicy>,
}

/// The name of a query parameter.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct ParamName(String);

impl<'de> Deserialize<'de> for ParamName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || {
            serde::de::Error::custom(format!(
                "must be text of at most {MAX_PARAM_NAME} letters, digits, '-', '_' and '.'"
            ))
        };
        let name = String::deserialize(deserializer)?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if name.is_empty() || name.len() > MAX_PARAM_NAME || !name.bytes().all(is_plain) {
            return Err(wrong());
        }
        Ok(ParamName(name))
    }
}

/// The names of the slots' fields in a sender's requests; null is as good as none.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FieldNames {
    #[serde(skip_serializing_if = "Option::is_none")]
    ref_id: Option<FieldName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<FieldName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<FieldName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<FieldName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payout: Option<FieldName>,
}

/// Null takes all names away.
fn read_field_names<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<FieldNames>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

impl WebhookChanges {
    /// The settings with these changes.
    fn apply_to(&self, before: &StoredSettings) -> Result<StoredSettings, Problem> {
        let mut settings = json!(before);
        if let (Value::Object(settings), Value::Object(changes)) = (&mut settings, json!(self)) {
            settings.extend(changes);
        }
        serde_json::from_value(settings).map_err(|error| {
            tracing::error!(%error, "what a webhook may be set to cannot be stored");
            Problem::internal()
        })
    }
}

/// What a webhook is made of; only the name is required.
#[derive(Debug, Clone)]
pub struct NewWebhook(WebhookChanges);

impl<'de> Deserialize<'de> for NewWebhook {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let settings = WebhookChanges::deserialize(deserializer)?;
        match settings.name {
            None => Err(serde::de::Error::missing_field("name")),
            Some(_) => Ok(NewWebhook(settings)),
        }
    }
}

/// The description of [`WebhookChanges`], to be made one of something else.
fn describe_settings(change: impl FnOnce(&mut Object)) -> RefOr<Schema> {
    let mut schema = WebhookChanges::schema();
    if let RefOr::T(Schema::Object(object)) = &mut schema {
        change(object);
    }
    schema
}

impl PartialSchema for NewWebhook {
    fn schema() -> RefOr<Schema> {
        describe_settings(|object| {
            object.description =
                Some("What a webhook is made of; only the name is required.".to_owned());
            object.required = vec!["name".to_owned()];
            let defaults = json!(StoredSettings::with_name(""));
            for (name, property) in &mut object.properties {
                let default =
                    Some(&defaults[name]).filter(|value| name != "name" && !value.is_null());
                match property {
                    RefOr::T(Schema::Object(property)) => property.default = default.cloned(),
                    RefOr::T(Schema::AllOf(property)) => property.default = default.cloned(),
                    _ => {}
                }
            }
        })
    }
}

impl ToSchema for NewWebhook {
    fn name() -> std::borrow::Cow<'static, str> {
        "WebhookBody".into()
    }
}

/// The description of [`StoredSettings`] in an answer: all of them are there.
pub struct Settings;

impl PartialSchema for Settings {
    fn schema() -> RefOr<Schema> {
        describe_settings(|object| {
            object.description = Some("The settings of a webhook.".to_owned());
            object.additional_properties = None;
            object.required = object.properties.keys().cloned().collect();
        })
    }
}

impl ToSchema for Settings {
    fn name() -> std::borrow::Cow<'static, str> {
        "Settings".into()
    }
}

/// A webhook as its account sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct ShownWebhook {
    pub id: Uuid,
    pub token: String,
    /// What the buyer pastes into the setting on their side.
    pub url: String,
    #[serde(flatten)]
    #[schema(value_type = Settings)]
    pub settings: StoredSettings,
    /// The secrets that are valid now; their text is shown only when they are made.
    pub secrets: Vec<ShownSecret>,
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

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub struct ShownSecret {
    pub id: Uuid,
    pub created_at: Timestamp,
    /// Set when a newer one was made: valid until then.
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

impl From<webhooks::Secret> for ShownSecret {
    fn from(it: webhooks::Secret) -> Self {
        ShownSecret {
            id: it.id,
            created_at: it.created_at,
            expires_at: it.expires_at,
            last_used_at: it.last_used_at,
        }
    }
}

impl ShownWebhook {
    pub fn from_webhook(
        it: webhooks::Webhook,
        secrets: Vec<webhooks::Secret>,
        public_url: &str,
    ) -> Self {
        ShownWebhook {
            id: it.id,
            url: format!("{public_url}/api/v1/ppc/inbound-webhooks/{}", it.token),
            token: it.token,
            settings: it.settings,
            secrets: secrets.into_iter().map(Into::into).collect(),
            created_at: it.created_at,
            updated_at: it.updated_at,
            archived_at: it.archived_at,
            last_event_at: it.last_event_at,
            secret: None,
        }
    }
}

/// One webhook with its valid secrets; `secret` is what was made just now.
pub async fn show_webhook(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    secret: Option<String>,
) -> Result<ShownWebhook, Problem> {
    let client = app.pool.get().await?;
    let found = webhooks::get_webhook(&client, operator.account_id(), id).await?;
    let found = found.ok_or_else(|| Problem::not_found("webhook"))?;
    let valid = webhooks::valid_secrets(&client, &[id]).await?;
    let shown = ShownWebhook::from_webhook(
        found,
        valid.into_iter().map(|(_, secret)| secret).collect(),
        &app.public_url,
    );
    Ok(ShownWebhook { secret, ..shown })
}

/// Locks a webhook that can still be changed.
pub(super) async fn lock_in_use(
    tx: &deadpool_postgres::Transaction<'_>,
    operator: &AuthContext,
    id: Uuid,
) -> Result<webhooks::Webhook, NotDone> {
    let found = webhooks::get_locked(tx, operator.account_id(), id).await?;
    let webhook = found.ok_or_else(|| Problem::not_found("webhook"))?;
    if webhook.archived_at.is_some() {
        let detail = "this webhook is archived and cannot be changed; restore it first";
        return Err(Problem::conflict("archived", detail).into());
    }
    Ok(webhook)
}

/// A webhook's buyer is one of the account's.
async fn check_buyer(
    tx: &deadpool_postgres::Transaction<'_>,
    account_id: Uuid,
    buyer: Option<Uuid>,
) -> Result<(), NotDone> {
    if let Some(buyer) = buyer
        && buyers::get_buyer(tx, account_id, buyer).await?.is_none()
    {
        let fault = not_ours("buyer_id", "buyer");
        return Err(Problem::invalid_fields(vec![fault], Vec::new()).into());
    }
    Ok(())
}

/// Its secret, if one is required, is shown this once.
pub async fn create_webhook(
    app: &App,
    operator: &AuthContext,
    NewWebhook(changes): NewWebhook,
) -> Result<ShownWebhook, Problem> {
    let unset = StoredSettings::with_name("");
    let settings = changes.apply_to(&unset)?;
    app.ceilings.check_limits(&unset, &settings)?;
    let (id, token) = (Uuid::now_v7(), secrets::new_token());
    let secret = settings.require_secret.then(secrets::webhook_secret);
    let input = (
        app.clone(),
        operator.clone(),
        settings,
        token,
        secret.clone(),
    );
    commit_change(
        &app.pool,
        TransactionName::WebhooksCreate,
        input,
        move |tx, input| {
            Box::pin(async move {
                let (app, operator, settings, token, secret) = input;
                let account_id = operator.account_id();
                app.ceilings
                    .check_room(tx, account_id, CountedKind::Webhooks)
                    .await??;
                check_buyer(tx, account_id, settings.buyer_id).await?;
                webhooks::insert_webhook(tx, account_id, id, &token, &settings).await?;
                if let Some(secret) = secret {
                    webhooks::rotate_secret(tx, id, Uuid::now_v7(), &secret, 0).await?;
                }
                let detail = webhooks::changed_settings(&StoredSettings::with_name(""), &settings);
                audit_log::record_change(tx, operator.change("create", "webhook", id, detail))
                    .await?;
                Ok(())
            })
        },
    )
    .await?;
    show_webhook(app, operator, id, secret).await
}

/// Where a secret is required and none was valid, one is made and shown this once.
pub async fn update_webhook(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    changes: WebhookChanges,
) -> Result<ShownWebhook, Problem> {
    let input = (app.clone(), operator.clone(), changes);
    let secret = commit_change(
        &app.pool,
        TransactionName::WebhooksUpdate,
        input,
        move |tx, input| {
            Box::pin(async move {
                let (app, operator, changes) = input;
                let account_id = operator.account_id();
                let before = lock_in_use(tx, &operator, id).await?.settings;
                let settings = changes.apply_to(&before)?;
                app.ceilings.check_limits(&before, &settings)?;
                if settings.buyer_id != before.buyer_id {
                    check_buyer(tx, account_id, settings.buyer_id).await?;
                }
                let mut secret = None;
                if settings.require_secret && webhooks::valid_secrets(tx, &[id]).await?.is_empty() {
                    let made = secrets::webhook_secret();
                    webhooks::rotate_secret(tx, id, Uuid::now_v7(), &made, 0).await?;
                    secret = Some(made);
                }
                webhooks::update_webhook(tx, account_id, id, &settings).await?;
                let detail = webhooks::changed_settings(&before, &settings);
                audit_log::record_change(tx, operator.change("update", "webhook", id, detail))
                    .await?;
                Ok(secret)
            })
        },
    )
    .await?;
    show_webhook(app, operator, id, secret).await
}

/// Its URL answers 404 from now on, its history stays; archiving it twice is the same.
pub async fn archive_webhook(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    let input = operator.clone();
    commit_change(
        &app.pool,
        TransactionName::WebhooksArchive,
        input,
        move |tx, operator| {
            Box::pin(async move {
                let found = webhooks::get_locked(tx, operator.account_id(), id).await?;
                let before = found.ok_or_else(|| Problem::not_found("webhook"))?;
                if before.archived_at.is_none() {
                    webhooks::archive_webhook(tx, operator.account_id(), id).await?;
                    let change = operator.change("archive", "webhook", id, json!({}));
                    audit_log::record_change(tx, change).await?;
                }
                Ok(())
            })
        },
    )
    .await
}

/// Its URL works again; to restore one that is in use is the same.
pub async fn restore_webhook(app: &App, operator: &AuthContext, id: Uuid) -> Result<(), Problem> {
    let input = (app.clone(), operator.clone());
    let name = TransactionName::WebhooksRestore;
    commit_change(&app.pool, name, input, move |tx, (app, operator)| {
        Box::pin(async move {
            let account_id = operator.account_id();
            let found = webhooks::get_locked(tx, account_id, id).await?;
            let before = found.ok_or_else(|| Problem::not_found("webhook"))?;
            if before.archived_at.is_some() {
                app.ceilings
                    .check_room(tx, account_id, CountedKind::Webhooks)
                    .await??;
                webhooks::restore_webhook(tx, account_id, id).await?;
                let change = operator.change("restore", "webhook", id, json!({}));
                audit_log::record_change(tx, change).await?;
            }
            Ok(())
        })
    })
    .await
}
