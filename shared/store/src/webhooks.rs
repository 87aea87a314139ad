//! Webhooks and their secrets: one for each source of reports.
//!
//! A webhook is archived, never deleted: its history stays. Secrets are stored as SHA-256 of random
//! text. The database stamps every change itself, so that the gateways see it (`changed_xid`).

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use trueup_domain::report::{DurationUnit, PayoutUnit, Slot};
use trueup_domain::webhook_settings::{
    ConflictPolicy, DEFAULT_PAYOUT_CAP_CENTS, DEFAULT_TOLERANCE_SECONDS, DEFAULT_WINDOW_HOURS,
};
use uuid::Uuid;

use crate::IdPage;
use trueup_postgres::StoreError;
use trueup_postgres::statement::{self, Result};

/// Everything about a webhook that a person may set.
///
/// It is written and read as JSON by the names of its columns: a setting stands here, in
/// [`StoredSettings::with_name`] and in the list of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredSettings {
    pub name: String,
    pub buyer_id: Option<Uuid>,
    pub enabled: bool,
    pub require_secret: bool,
    pub secret_query_param: Option<String>,
    /// Names that win over the aliases. What is stored for no slot of ours is left out, so that a person can
    /// look at such a webhook and set its names anew.
    #[serde(deserialize_with = "read_known_slots")]
    pub field_names: BTreeMap<Slot, String>,
    pub duration_tolerance_seconds: i64,
    pub match_window_hours: i64,
    pub limit_per_minute: Option<i32>,
    pub ip_limit_per_minute: Option<i32>,
    pub payout_cap_cents: i64,
    pub duration_unit: DurationUnit,
    pub payout_unit: PayoutUnit,
    pub on_currency_mismatch: ConflictPolicy,
    pub on_rejection_word: ConflictPolicy,
}

fn read_known_slots<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<Slot, String>, D::Error> {
    let stored = BTreeMap::<String, Value>::deserialize(deserializer)?;
    let known = stored.into_iter().filter_map(|(slot, name)| {
        let slot = serde_json::from_value(Value::String(slot)).ok()?;
        Some((slot, name.as_str()?.to_owned()))
    });
    Ok(known.collect())
}

impl StoredSettings {
    /// What a webhook is that was given nothing but its name (seed and rules).
    pub fn with_name(name: &str) -> Self {
        StoredSettings {
            name: name.to_owned(),
            buyer_id: None,
            enabled: true,
            require_secret: false,
            secret_query_param: None,
            field_names: BTreeMap::new(),
            duration_tolerance_seconds: DEFAULT_TOLERANCE_SECONDS,
            match_window_hours: DEFAULT_WINDOW_HOURS,
            limit_per_minute: None,
            ip_limit_per_minute: None,
            payout_cap_cents: DEFAULT_PAYOUT_CAP_CENTS,
            duration_unit: DurationUnit::default(),
            payout_unit: PayoutUnit::default(),
            on_currency_mismatch: ConflictPolicy::default(),
            on_rejection_word: ConflictPolicy::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    pub id: Uuid,
    pub token: String,
    pub settings: StoredSettings,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
    /// When its newest row was received.
    pub last_event_at: Option<Timestamp>,
}

impl Webhook {
    fn from_row(row: &Row) -> Result<Self> {
        let settings = serde_json::from_value(row.get("settings"))
            .map_err(|e| StoreError::Corrupt(format!("webhooks: {e}")))?;
        Ok(Webhook {
            id: row.get("id"),
            token: row.get("token"),
            settings,
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            archived_at: row.get("archived_at"),
            last_event_at: row.get("last_event_at"),
        })
    }
}

/// A secret as its owner may see it: never the text, which nobody has.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    pub id: Uuid,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

pub fn digest_secret(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// The columns of [`StoredSettings`].
macro_rules! setting_columns {
    () => {
        "name, buyer_id, enabled, require_secret, secret_query_param, field_names, duration_tolerance_seconds,
         match_window_hours, limit_per_minute, ip_limit_per_minute, payout_cap_cents, duration_unit, payout_unit,
         on_currency_mismatch, on_rejection_word"
    };
}

pub async fn insert_webhook(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    token: &str,
    settings: &StoredSettings,
) -> Result<()> {
    const INSERT: &str = concat!(
        "/* webhooks.insert */ INSERT INTO webhooks (id, account_id, token, ",
        setting_columns!(),
        ") SELECT $1, $2, $3, ",
        setting_columns!(),
        " FROM jsonb_populate_record(NULL::webhooks, $4)"
    );
    statement::run(client, INSERT, &[&id, &account_id, &token, &Json(settings)]).await?;
    Ok(())
}

pub async fn update_webhook(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    settings: &StoredSettings,
) -> Result<()> {
    const UPDATE: &str = concat!(
        "/* webhooks.update */ UPDATE webhooks SET updated_at = now(), (",
        setting_columns!(),
        ") = (SELECT ",
        setting_columns!(),
        " FROM jsonb_populate_record(NULL::webhooks, $3)) WHERE account_id = $1 AND id = $2"
    );
    statement::run(client, UPDATE, &[&account_id, &id, &Json(settings)]).await?;
    Ok(())
}

macro_rules! columns {
    () => {
        "w.id, w.token, to_jsonb(w) AS settings, w.created_at, w.updated_at, w.archived_at"
    };
}

pub async fn get_webhook(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Webhook>> {
    const GET: &str = concat!(
        "/* webhooks.get */ SELECT ",
        columns!(),
        ", (SELECT e.received_at FROM events e WHERE e.webhook_id = w.id
                      ORDER BY e.received_at DESC LIMIT 1) AS last_event_at
          FROM webhooks w WHERE w.account_id = $1 AND w.id = $2"
    );
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    row.as_ref().map(Webhook::from_row).transpose()
}

/// As [`get_webhook`], and nobody else changes it until the transaction ends.
pub async fn get_locked(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Webhook>> {
    const LOCK: &str =
        "/* webhooks.lock */ SELECT 1 FROM webhooks WHERE account_id = $1 AND id = $2 FOR UPDATE";
    match statement::query_opt(client, LOCK, &[&account_id, &id]).await? {
        // A new statement: waiting for a lock does not refresh a statement's snapshot.
        Some(_) => get_webhook(client, account_id, id).await,
        None => Ok(None),
    }
}

pub async fn list_webhooks(
    client: &impl GenericClient,
    account_id: Uuid,
    archived: bool,
    page: IdPage,
) -> Result<Vec<Webhook>> {
    const LIST: &str = concat!(
        "/* webhooks.list */ SELECT ",
        columns!(),
        ", (SELECT e.received_at FROM events e WHERE e.webhook_id = w.id
                      ORDER BY e.received_at DESC LIMIT 1) AS last_event_at
          FROM webhooks w
         WHERE w.account_id = $1 AND (w.archived_at IS NOT NULL) = $2 AND w.id < $3 ORDER BY w.id DESC LIMIT $4"
    );
    let rows = statement::query_rows(
        client,
        LIST,
        &[&account_id, &archived, &page.bound(), &page.limit],
    )
    .await?;
    rows.iter().map(Webhook::from_row).collect()
}

/// Its token answers 404 from now on; its history stays. Archiving twice keeps the first time.
pub async fn archive_webhook(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<()> {
    const ARCHIVE: &str = "/* webhooks.archive */
        UPDATE webhooks SET archived_at = now(), updated_at = now()
         WHERE account_id = $1 AND id = $2 AND archived_at IS NULL";
    statement::run(client, ARCHIVE, &[&account_id, &id]).await?;
    Ok(())
}

/// Its URL works again, as it was.
pub async fn restore_webhook(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<()> {
    const RESTORE: &str = "/* webhooks.restore */
        UPDATE webhooks SET archived_at = NULL, updated_at = now() WHERE account_id = $1 AND id = $2";
    statement::run(client, RESTORE, &[&account_id, &id]).await?;
    Ok(())
}

pub async fn set_token(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    token: &str,
) -> Result<()> {
    const SET_TOKEN: &str = "/* webhooks.set_token */
        UPDATE webhooks SET token = $3, updated_at = now() WHERE account_id = $1 AND id = $2";
    statement::run(client, SET_TOKEN, &[&account_id, &id, &token]).await?;
    Ok(())
}

/// The secrets of several webhooks that are still valid, oldest first, each with its webhook's id.
pub async fn valid_secrets(
    client: &impl GenericClient,
    webhook_ids: &[Uuid],
) -> Result<Vec<(Uuid, Secret)>> {
    const VALID: &str = "/* webhooks.valid_secrets */
        SELECT webhook_id, id, created_at, expires_at, last_used_at FROM webhook_secrets
         WHERE webhook_id = ANY($1) AND (expires_at IS NULL OR expires_at > now()) ORDER BY created_at, id";
    let rows = statement::query_rows(client, VALID, &[&webhook_ids]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let secret = Secret {
                id: row.get("id"),
                created_at: row.get("created_at"),
                expires_at: row.get("expires_at"),
                last_used_at: row.get("last_used_at"),
            };
            (row.get("webhook_id"), secret)
        })
        .collect())
}

/// Adds a secret; those before it stay valid for the overlap and no longer, and whatever had already
/// expired is removed.
pub async fn rotate_secret(
    client: &impl GenericClient,
    webhook_id: Uuid,
    secret_id: Uuid,
    secret: &str,
    overlap_seconds: i64,
) -> Result<()> {
    const SWEEP: &str = "/* webhooks.sweep_secrets */
        DELETE FROM webhook_secrets WHERE webhook_id = $1 AND expires_at <= now()";
    const EXPIRE: &str = "/* webhooks.expire_secrets */
        UPDATE webhook_secrets SET expires_at = LEAST(expires_at, now() + make_interval(secs => $2))
         WHERE webhook_id = $1";
    const ADD: &str = "/* webhooks.add_secret */
        INSERT INTO webhook_secrets (id, webhook_id, digest) VALUES ($1, $2, $3)";
    #[expect(
        clippy::cast_precision_loss,
        reason = "at most some days of seconds; no amount of money"
    )]
    let overlap = overlap_seconds as f64;
    statement::run(client, SWEEP, &[&webhook_id]).await?;
    statement::run(client, EXPIRE, &[&webhook_id, &overlap]).await?;
    statement::run(
        client,
        ADD,
        &[&secret_id, &webhook_id, &digest_secret(secret)],
    )
    .await?;
    Ok(())
}

/// Removes every secret: none is valid from now on.
pub async fn remove_secrets(client: &impl GenericClient, webhook_id: Uuid) -> Result<()> {
    const REMOVE: &str =
        "/* webhooks.remove_secrets */ DELETE FROM webhook_secrets WHERE webhook_id = $1";
    statement::run(client, REMOVE, &[&webhook_id]).await?;
    Ok(())
}

pub async fn require_secret(
    client: &impl GenericClient,
    webhook_id: Uuid,
    required: bool,
) -> Result<()> {
    const REQUIRE: &str = "/* webhooks.require_secret */
        UPDATE webhooks SET require_secret = $2, updated_at = now() WHERE id = $1";
    statement::run(client, REQUIRE, &[&webhook_id, &required]).await?;
    Ok(())
}

/// Names of settings whose values differ, with the new values: what the audit log says of a change.
pub fn changed_settings(before: &StoredSettings, after: &StoredSettings) -> Value {
    let before = json!(before);
    let mut after = json!(after);
    if let Value::Object(after) = &mut after {
        after.retain(|name, value| before[name.as_str()] != *value);
    }
    after
}

/// To the minute: every gateway tells of every secret in use every few seconds, and a person only asks
/// which is still in use.
const SECRETS_USED: &str = "/* upkeep_secrets_used */
    UPDATE webhook_secrets s SET last_used_at = used.at
      FROM (SELECT id, max(at) AS at FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) GROUP BY id) AS used
     WHERE s.id = used.id AND (s.last_used_at IS NULL OR s.last_used_at < used.at - interval '1 minute')";

/// Notes when secrets were last used, to the minute, as the gateways tell it.
pub async fn touch_secrets(
    pool: &crate::Pool,
    uses: &[trueup_event::raw_event::SecretUse],
) -> Result<()> {
    let ids: Vec<Uuid> = uses.iter().map(|u| u.secret_id).collect();
    let times: Vec<Timestamp> = uses.iter().map(|u| u.at).collect();
    let client = pool.get().await?;
    let statement = client.prepare_cached(SECRETS_USED).await?;
    client.execute(&statement, &[&ids, &times]).await?;
    Ok(())
}
