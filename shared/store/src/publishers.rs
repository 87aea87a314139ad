//! Publishers: who sends the calls and is owed a share. Their balance is only ever moved together with
//! a posting (V10); here it is read.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::IdPage;
use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Publisher {
    pub id: Uuid,
    pub name: String,
    pub pending_balance_cents: i64,
    pub created_at: Timestamp,
}

impl Publisher {
    fn from_row(row: &Row) -> Self {
        Publisher {
            id: row.get("id"),
            name: row.get("name"),
            pending_balance_cents: row.get("pending_balance_cents"),
            created_at: row.get("created_at"),
        }
    }
}

pub async fn insert_publisher(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
) -> Result<Publisher> {
    const INSERT: &str = "/* publishers.insert */
        INSERT INTO publishers (id, account_id, name) VALUES ($1, $2, $3)
        RETURNING id, name, pending_balance_cents, created_at";
    let row = statement::query_one(client, INSERT, &[&id, &account_id, &name]).await?;
    Ok(Publisher::from_row(&row))
}

pub async fn get_publisher(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Publisher>> {
    const GET: &str = "/* publishers.get */
        SELECT id, name, pending_balance_cents, created_at
          FROM publishers WHERE account_id = $1 AND id = $2";
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    Ok(row.as_ref().map(Publisher::from_row))
}

pub async fn list_publishers(
    client: &impl GenericClient,
    account_id: Uuid,
    page: IdPage,
) -> Result<Vec<Publisher>> {
    const LIST: &str = "/* publishers.list */
        SELECT id, name, pending_balance_cents, created_at FROM publishers
         WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows =
        statement::query_rows(client, LIST, &[&account_id, &page.bound(), &page.limit]).await?;
    Ok(rows.iter().map(Publisher::from_row).collect())
}

/// Gives it another name; nothing if the account has no such one.
pub async fn rename_publisher(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
) -> Result<Option<Publisher>> {
    const RENAME: &str = "/* publishers.rename */
        UPDATE publishers SET name = $3 WHERE account_id = $1 AND id = $2
        RETURNING id, name, pending_balance_cents, created_at";
    let row = statement::query_opt(client, RENAME, &[&account_id, &id, &name]).await?;
    Ok(row.as_ref().map(Publisher::from_row))
}
