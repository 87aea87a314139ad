//! Accounts: whose books they are, and the region, currency and time zone they are kept in.
//!
//! Region and currency never change once set: stored callers and cents were read under them.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::IdPage;
use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub id: Uuid,
    pub name: String,
    pub default_region: String,
    pub currency: String,
    pub time_zone: String,
    pub created_at: Timestamp,
}

impl Account {
    pub(super) fn from_row(row: &Row) -> Self {
        Account {
            id: row.get("account_id"),
            name: row.get("account_name"),
            default_region: row.get("default_region"),
            currency: row.get("currency"),
            time_zone: row.get("time_zone"),
            created_at: row.get("account_created_at"),
        }
    }
}

pub async fn insert_account(client: &impl GenericClient, account: &Account) -> Result<()> {
    const INSERT: &str = "/* accounts.insert */
        INSERT INTO accounts (id, name, default_region, currency, time_zone, created_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    statement::run(
        client,
        INSERT,
        &[
            &account.id,
            &account.name,
            &account.default_region,
            &account.currency,
            &account.time_zone,
            &account.created_at,
        ],
    )
    .await?;
    Ok(())
}

pub async fn get_account(client: &impl GenericClient, id: Uuid) -> Result<Option<Account>> {
    const GET: &str = "/* accounts.get */
        SELECT id AS account_id, name AS account_name, default_region, currency, time_zone,
               created_at AS account_created_at
          FROM accounts WHERE id = $1";
    Ok(statement::query_opt(client, GET, &[&id])
        .await?
        .map(|row| Account::from_row(&row)))
}

pub async fn list_accounts(client: &impl GenericClient, page: IdPage) -> Result<Vec<Account>> {
    const LIST: &str = "/* accounts.list */
        SELECT id AS account_id, name AS account_name, default_region, currency, time_zone,
               created_at AS account_created_at
          FROM accounts WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let rows = statement::query_rows(client, LIST, &[&page.bound(), &page.limit]).await?;
    Ok(rows.iter().map(Account::from_row).collect())
}

/// What a day is in the account's reports.
pub async fn set_time_zone(client: &impl GenericClient, id: Uuid, time_zone: &str) -> Result<()> {
    const SET: &str =
        "/* accounts.set_time_zone */ UPDATE accounts SET time_zone = $2 WHERE id = $1";
    statement::run(client, SET, &[&id, &time_zone]).await?;
    Ok(())
}
