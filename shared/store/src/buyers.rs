//! Buyers: who takes the calls and reports what was paid for them.

use std::collections::{BTreeSet, HashSet};

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::IdPage;
use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Buyer {
    pub id: Uuid,
    pub name: String,
    pub created_at: Timestamp,
}

impl Buyer {
    fn from_row(row: &Row) -> Self {
        Buyer {
            id: row.get("id"),
            name: row.get("name"),
            created_at: row.get("created_at"),
        }
    }
}

pub async fn insert_buyer(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
) -> Result<Buyer> {
    const INSERT: &str = "/* buyers.insert */
        INSERT INTO buyers (id, account_id, name) VALUES ($1, $2, $3) RETURNING id, name, created_at";
    let row = statement::query_one(client, INSERT, &[&id, &account_id, &name]).await?;
    Ok(Buyer::from_row(&row))
}

pub async fn get_buyer(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Buyer>> {
    const GET: &str = "/* buyers.get */
        SELECT id, name, created_at FROM buyers WHERE account_id = $1 AND id = $2";
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    Ok(row.as_ref().map(Buyer::from_row))
}

pub async fn list_buyers(
    client: &impl GenericClient,
    account_id: Uuid,
    page: IdPage,
) -> Result<Vec<Buyer>> {
    const LIST: &str = "/* buyers.list */
        SELECT id, name, created_at FROM buyers
         WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows =
        statement::query_rows(client, LIST, &[&account_id, &page.bound(), &page.limit]).await?;
    Ok(rows.iter().map(Buyer::from_row).collect())
}

/// Gives it another name; nothing if the account has no such one.
pub async fn rename_buyer(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
) -> Result<Option<Buyer>> {
    const RENAME: &str = "/* buyers.rename */
        UPDATE buyers SET name = $3 WHERE account_id = $1 AND id = $2 RETURNING id, name, created_at";
    let row = statement::query_opt(client, RENAME, &[&account_id, &id, &name]).await?;
    Ok(row.as_ref().map(Buyer::from_row))
}

/// The account's own among `ids`.
pub async fn existing_buyers(
    client: &impl GenericClient,
    account_id: Uuid,
    ids: &BTreeSet<Uuid>,
) -> Result<HashSet<Uuid>> {
    const AMONG: &str =
        "/* buyers.among */ SELECT id FROM buyers WHERE account_id = $1 AND id = ANY($2)";
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let rows = statement::query_rows(client, AMONG, &[&account_id, &ids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
