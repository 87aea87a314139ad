//! Accounts: made with the admin key, seen with their own.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use trueup_domain::region;
use trueup_event::ids;
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, accounts, api_keys, audit_log, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use super::field_reader::FieldReader;
use super::limits::MAX_NAME;
use super::list::{ListParams, Page, Paging};
use super::request::{JsonFields, Query};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::secrets;

/// How the audit log names the holder of the admin key.
const ADMIN: &str = "admin";

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountResponse {
    pub id: Uuid,
    pub name: String,
    /// Governs callers' numbers without a `+`.
    #[schema(example = "US")]
    pub default_region: String,
    #[schema(example = "USD")]
    pub currency: String,
    /// What a day of the revenue report is.
    #[schema(example = "America/New_York")]
    pub time_zone: String,
    pub created_at: Timestamp,
    /// The account's first key; shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub api_key: Option<String>,
}

impl From<accounts::Account> for AccountResponse {
    fn from(it: accounts::Account) -> Self {
        AccountResponse {
            id: it.id,
            name: it.name,
            default_region: it.default_region,
            currency: it.currency,
            time_zone: it.time_zone,
            created_at: it.created_at,
            api_key: None,
        }
    }
}

#[derive(Debug, ToSchema)]
pub struct AccountBody {
    #[schema(max_length = 200)]
    pub name: String,
    /// ISO 3166; cannot be changed later.
    #[schema(required = false, default = "US")]
    pub default_region: String,
    /// ISO 4217; cannot be changed later.
    #[schema(required = false, default = "USD")]
    pub currency: String,
    /// A name of the IANA time zone database.
    #[schema(required = false, default = "UTC")]
    pub time_zone: String,
}

impl AccountBody {
    fn read_fields(mut fields: FieldReader) -> Result<Self, Problem> {
        let name = fields.name("name", MAX_NAME);
        let name = fields.require_given("name", name);
        let default_region = fields
            .text("default_region", 2)
            .value()
            .unwrap_or_else(|| "US".to_owned());
        if !region::is_region(&default_region) {
            fields.add_fault(
                "default_region",
                "must be a region of ISO 3166 in capitals, such as US",
            );
        }
        let currency = fields
            .text("currency", 3)
            .value()
            .unwrap_or_else(|| "USD".to_owned());
        if !region::is_currency(&currency) {
            fields.add_fault(
                "currency",
                "must be a currency of ISO 4217 in capitals, such as USD",
            );
        }
        let time_zone = fields
            .text("time_zone", 64)
            .value()
            .unwrap_or_else(|| "UTC".to_owned());
        if jiff::tz::TimeZone::get(&time_zone).is_err() {
            fields.add_fault(
                "time_zone",
                "must be a time zone of the IANA database, such as America/New_York",
            );
        }
        fields.finish_reading()?;
        Ok(AccountBody {
            name,
            default_region,
            currency,
            time_zone,
        })
    }
}

#[utoipa::path(post, path = "/api/v1/accounts", tag = "accounts", request_body = AccountBody, security(("admin_key" = [])),
    responses((status = 201, description = "It is made; its first key is shown this once", body = AccountResponse)))]
pub async fn create_account(
    State(app): State<App>,
    JsonFields(fields): JsonFields,
) -> Result<(StatusCode, Json<AccountResponse>), Problem> {
    let body = AccountBody::read_fields(fields)?;
    let account = accounts::Account {
        id: Uuid::now_v7(),
        name: body.name,
        default_region: body.default_region,
        currency: body.currency,
        time_zone: body.time_zone,
        created_at: ids::to_microseconds(Timestamp::now()),
    };
    let (key, prefix) = secrets::api_key();
    let answer = AccountResponse {
        api_key: Some(key.clone()),
        ..account.clone().into()
    };
    let ceilings = app.ceilings.clone();
    run_tx(&app.pool, "accounts.create", move |tx| {
        let (ceilings, account) = (ceilings.clone(), account.clone());
        let (key, prefix) = (key.clone(), prefix.clone());
        Box::pin(async move {
            if let Err(problem) = ceilings
                .check_room(tx, account.id, CountedKind::Accounts)
                .await?
            {
                return Ok(Err(problem));
            }
            accounts::insert_account(tx, &account).await?;
            api_keys::insert_api_key(tx, account.id, Uuid::now_v7(), "first", &key, &prefix)
                .await?;
            let change = audit_log::Change {
                account_id: account.id,
                actor: ADMIN,
                action: "create",
                object_kind: "account",
                object_id: account.id,
                detail: json!({ "name": account.name, "key": prefix }),
            };
            audit_log::record_change(tx, change).await?;
            Ok::<_, StoreError>(Ok(()))
        })
    })
    .await??;
    Ok((StatusCode::CREATED, Json(answer)))
}

#[utoipa::path(get, path = "/api/v1/accounts", tag = "accounts", params(ListParams), security(("admin_key" = [])),
    responses((status = 200, description = "Newest first", body = Page<AccountResponse>)))]
pub async fn list_accounts(
    State(app): State<App>,
    Query(mut fields): Query,
) -> Result<Json<Page<AccountResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "accounts");
    fields.finish_reading()?;
    let rows = accounts::list_accounts(&app.pool.get().await?, paging.ids()).await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/account", tag = "accounts",
    responses((status = 200, description = "The account that the key is of", body = AccountResponse)))]
pub async fn get_own_account(operator: AuthContext) -> Json<AccountResponse> {
    Json(operator.account.into())
}
