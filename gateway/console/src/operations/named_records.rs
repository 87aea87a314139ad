//! Buyers, campaigns and publishers: what has a name and nothing else to set.

use std::future::Future;

use deadpool_postgres::Transaction;
use serde::Deserialize;
use serde_json::json;
use trueup_store::buyers::{self, Buyer};
use trueup_store::campaigns::{self, Campaign};
use trueup_store::ceilings::CountedKind;
use trueup_store::publishers::{self, Publisher};
use trueup_store::{StoreError, TransactionName, audit_log};
use utoipa::ToSchema;
use uuid::Uuid;

use super::commit_change;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::request_fields::Name;

/// What is made with a name alone, or gets another name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NameBody {
    #[schema(inline)]
    pub name: Name,
}

/// How one kind of record is kept.
pub trait NamedRecord: Sized + Send + 'static {
    const NOUN: &'static str;
    const COUNTED: CountedKind;
    /// The names of its transactions.
    const CREATE: TransactionName;
    const RENAME: TransactionName;

    fn insert(
        tx: &Transaction<'_>,
        account_id: Uuid,
        id: Uuid,
        name: &str,
    ) -> impl Future<Output = Result<Self, StoreError>> + Send;

    /// `None`: the account has no such record.
    fn rename(
        tx: &Transaction<'_>,
        account_id: Uuid,
        id: Uuid,
        name: &str,
    ) -> impl Future<Output = Result<Option<Self>, StoreError>> + Send;
}

macro_rules! named_record {
    ($record:ident, $counted:ident, $store:ident, $noun:literal, $create:ident => $insert:ident, $change:ident => $rename:ident) => {
        impl NamedRecord for $record {
            const NOUN: &'static str = $noun;
            const COUNTED: CountedKind = CountedKind::$counted;
            const CREATE: TransactionName = TransactionName::$create;
            const RENAME: TransactionName = TransactionName::$change;

            async fn insert(
                tx: &Transaction<'_>,
                account_id: Uuid,
                id: Uuid,
                name: &str,
            ) -> Result<Self, StoreError> {
                $store::$insert(tx, account_id, id, name).await
            }

            async fn rename(
                tx: &Transaction<'_>,
                account_id: Uuid,
                id: Uuid,
                name: &str,
            ) -> Result<Option<Self>, StoreError> {
                $store::$rename(tx, account_id, id, name).await
            }
        }
    };
}

named_record!(Buyer, Buyers, buyers, "buyer", BuyersCreate => insert_buyer, BuyersRename => rename_buyer);
named_record!(Campaign, Campaigns, campaigns, "campaign", CampaignsCreate => insert_campaign, CampaignsRename => rename_campaign);
named_record!(Publisher, Publishers, publishers, "publisher", PublishersCreate => insert_publisher, PublishersRename => rename_publisher);

pub async fn create_record<R: NamedRecord>(
    app: &App,
    operator: &AuthContext,
    body: NameBody,
) -> Result<R, Problem> {
    let input = (app.clone(), operator.clone(), body);
    commit_change(&app.pool, R::CREATE, input, |tx, (app, operator, body)| {
        Box::pin(async move {
            let (account_id, id) = (operator.account_id(), Uuid::now_v7());
            app.ceilings
                .check_room(tx, account_id, R::COUNTED)
                .await??;
            let name = body.name.as_str();
            let made = R::insert(tx, account_id, id, name).await?;
            let change = operator.change("create", R::NOUN, id, json!({ "name": name }));
            audit_log::record_change(tx, change).await?;
            Ok(made)
        })
    })
    .await
}

pub async fn rename_record<R: NamedRecord>(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    body: NameBody,
) -> Result<R, Problem> {
    let input = (operator.clone(), id, body);
    commit_change(&app.pool, R::RENAME, input, |tx, (operator, id, body)| {
        Box::pin(async move {
            let name = body.name.as_str();
            let renamed = R::rename(tx, operator.account_id(), id, name)
                .await?
                .ok_or_else(|| Problem::not_found(R::NOUN))?;
            let change = operator.change("update", R::NOUN, id, json!({ "name": name }));
            audit_log::record_change(tx, change).await?;
            Ok(renamed)
        })
    })
    .await
}
