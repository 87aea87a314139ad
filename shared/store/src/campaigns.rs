//! Campaigns: what a publisher is assigned to; the terms themselves are the assignment's.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::IdPage;
use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
}

impl Campaign {
    fn from_row(row: &Row) -> Self {
        Campaign {
            id: row.get("id"),
            name: row.get("name"),
            created_at: row.get("created_at"),
        }
    }
}

pub async fn insert_campaign(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
) -> Result<Campaign> {
    const INSERT: &str = "/* campaigns.insert */
        INSERT INTO campaigns (id, account_id, name) VALUES ($1, $2, $3) RETURNING id, name, created_at";
    let row = statement::query_one(client, INSERT, &[&id, &account_id, &name]).await?;
    Ok(Campaign::from_row(&row))
}

pub async fn get_campaign(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Campaign>> {
    const GET: &str = "/* campaigns.get */
        SELECT id, name, created_at FROM campaigns WHERE account_id = $1 AND id = $2";
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    Ok(row.as_ref().map(Campaign::from_row))
}

pub async fn list_campaigns(
    client: &impl GenericClient,
    account_id: Uuid,
    page: IdPage,
) -> Result<Vec<Campaign>> {
    const LIST: &str = "/* campaigns.list */
        SELECT id, name, created_at FROM campaigns
         WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows =
        statement::query_rows(client, LIST, &[&account_id, &page.bound(), &page.limit]).await?;
    Ok(rows.iter().map(Campaign::from_row).collect())
}

/// Gives it another name; nothing if the account has no such one.
pub async fn rename_campaign(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
) -> Result<Option<Campaign>> {
    const RENAME: &str = "/* campaigns.rename */
        UPDATE campaigns SET name = $3 WHERE account_id = $1 AND id = $2 RETURNING id, name, created_at";
    let row = statement::query_opt(client, RENAME, &[&account_id, &id, &name]).await?;
    Ok(row.as_ref().map(Campaign::from_row))
}
