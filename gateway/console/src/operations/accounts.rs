//! Accounts: made by whoever holds the admin key, and what their owners may set.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use trueup_domain::region;
use trueup_event::ids;
use trueup_store::accounts::{self, Account};
use trueup_store::ceilings::CountedKind;
use trueup_store::{TransactionName, api_keys, audit_log};
use utoipa::ToSchema;
use uuid::Uuid;

use super::commit_change;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::request_fields::Name;
use crate::secrets;

/// How the audit log names the holder of the admin key.
const ADMIN: &str = "admin";

/// An account to be made; only its name is required.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AccountBody)]
pub struct NewAccount {
    #[schema(inline)]
    pub name: Name,
    /// ISO 3166; cannot be changed later.
    #[serde(default, deserialize_with = "read_region")]
    #[schema(default = "US", nullable = false)]
    pub default_region: Option<String>,
    /// ISO 4217; cannot be changed later.
    #[serde(default, deserialize_with = "read_currency")]
    #[schema(default = "USD", nullable = false)]
    pub currency: Option<String>,
    /// A name of the IANA time zone database.
    #[serde(default, deserialize_with = "read_time_zone")]
    #[schema(default = "UTC", nullable = false)]
    pub time_zone: Option<String>,
}

/// A text that `is_known` knows, or none.
fn read_known<'de, D: Deserializer<'de>>(
    deserializer: D,
    is_known: impl Fn(&str) -> bool,
    wanted: &str,
) -> Result<Option<String>, D::Error> {
    let given = Option::<String>::deserialize(deserializer)?;
    match given {
        Some(text) if !is_known(&text) => Err(serde::de::Error::custom(wanted)),
        given => Ok(given),
    }
}

fn read_region<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let wanted = "must be a region of ISO 3166 in capitals, such as US";
    read_known(deserializer, region::is_region, wanted)
}

fn read_currency<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let wanted = "must be a currency of ISO 4217 in capitals, such as USD";
    read_known(deserializer, region::is_currency, wanted)
}

fn read_time_zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let wanted = "must be a time zone of the IANA database, such as America/New_York";
    read_known(deserializer, |name| TimeZone::get(name).is_ok(), wanted)
}

/// The account and its first key, whose text nobody sees again.
pub async fn create_account(app: &App, body: NewAccount) -> Result<(Account, String), Problem> {
    let account = Account {
        id: Uuid::now_v7(),
        name: body.name.as_str().to_owned(),
        default_region: body.default_region.unwrap_or_else(|| "US".to_owned()),
        currency: body.currency.unwrap_or_else(|| "USD".to_owned()),
        time_zone: body.time_zone.unwrap_or_else(|| "UTC".to_owned()),
        created_at: ids::to_microseconds(Timestamp::now()),
    };
    let (key, prefix) = secrets::api_key();
    let input = (app.clone(), account.clone(), key.clone(), prefix);
    commit_change(
        &app.pool,
        TransactionName::AccountsCreate,
        input,
        |tx, input| {
            Box::pin(async move {
                let (app, account, key, prefix) = input;
                app.ceilings
                    .check_room(tx, account.id, CountedKind::Accounts)
                    .await??;
                accounts::insert_account(tx, &account).await?;
                let key_id = Uuid::now_v7();
                api_keys::insert_api_key(tx, account.id, key_id, "first", &key, &prefix).await?;
                let change = audit_log::Change {
                    account_id: account.id,
                    actor: ADMIN,
                    action: "create",
                    object_kind: "account",
                    object_id: account.id,
                    detail: json!({ "name": account.name, "key": prefix }),
                };
                audit_log::record_change(tx, change).await?;
                Ok(())
            })
        },
    )
    .await?;
    Ok((account, key))
}

/// The days of the account's reports; a name of the IANA database.
pub async fn set_time_zone(
    app: &App,
    operator: &AuthContext,
    time_zone: String,
) -> Result<(), Problem> {
    if TimeZone::get(&time_zone).is_err() {
        let fault =
            format!("{time_zone:?} is no time zone of the IANA database, such as America/New_York");
        return Err(Problem::invalid_field("", fault));
    }
    let input = (operator.clone(), time_zone);
    commit_change(
        &app.pool,
        TransactionName::AccountsSetTimeZone,
        input,
        |tx, input| {
            Box::pin(async move {
                let (operator, time_zone) = input;
                let id = operator.account_id();
                accounts::set_time_zone(tx, id, &time_zone).await?;
                let detail = json!({ "time_zone": time_zone });
                audit_log::record_change(tx, operator.change("update", "account", id, detail))
                    .await?;
                Ok(())
            })
        },
    )
    .await
}
