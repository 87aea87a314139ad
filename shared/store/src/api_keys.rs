//! Keys of the operator API. Only a key's SHA-256 is stored: it is random and long, so a plain digest
//! is enough, and a stolen table opens nothing.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::IdPage;
use crate::accounts::Account;
use trueup_postgres::statement::{self, Result};

/// `last_used_at` is written at most this often for a key: a busy key must not make every read a write.
pub const LAST_USED_GRAIN_SECONDS: f64 = 60.0;

#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    pub id: Uuid,
    pub name: String,
    pub prefix: String,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    fn from_row(row: &Row) -> Self {
        ApiKey {
            id: row.get("id"),
            name: row.get("name"),
            prefix: row.get("prefix"),
            created_at: row.get("created_at"),
            last_used_at: row.get("last_used_at"),
            revoked_at: row.get("revoked_at"),
        }
    }
}

/// Who holds a key that is valid now.
#[derive(Debug, Clone)]
pub struct ApiKeyOwner {
    pub key_id: Uuid,
    pub key_prefix: String,
    pub account: Account,
}

pub fn digest_key(key: &str) -> Vec<u8> {
    Sha256::digest(key.as_bytes()).to_vec()
}

pub async fn insert_api_key(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    name: &str,
    key: &str,
    prefix: &str,
) -> Result<ApiKey> {
    const INSERT: &str = "/* api_keys.insert */
        INSERT INTO api_keys (id, account_id, name, digest, prefix) VALUES ($1, $2, $3, $4, $5)
        RETURNING id, name, prefix, created_at, last_used_at, revoked_at";
    let row = statement::query_one(
        client,
        INSERT,
        &[&id, &account_id, &name, &digest_key(key), &prefix],
    )
    .await?;
    Ok(ApiKey::from_row(&row))
}

/// The holder of a key, or nothing if it is unknown or revoked; notes that it was used.
pub async fn find_owner(client: &impl GenericClient, key: &str) -> Result<Option<ApiKeyOwner>> {
    const HOLDER: &str = "/* api_keys.holder */
        SELECT k.id, k.prefix,
               k.last_used_at IS NULL OR k.last_used_at < now() - make_interval(secs => $2) AS stale,
               a.id AS account_id, a.name AS account_name, a.default_region, a.currency, a.time_zone,
               a.created_at AS account_created_at
          FROM api_keys k JOIN accounts a ON a.id = k.account_id
         WHERE k.digest = $1 AND k.revoked_at IS NULL";
    // Of many requests at once one writes, and no other waits for it.
    const TOUCH: &str = "/* api_keys.touch */
        UPDATE api_keys SET last_used_at = now()
         WHERE id = (SELECT id FROM api_keys WHERE id = $1
                        AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => $2))
                        FOR UPDATE SKIP LOCKED)";
    let Some(row) = statement::query_opt(
        client,
        HOLDER,
        &[&digest_key(key), &LAST_USED_GRAIN_SECONDS],
    )
    .await?
    else {
        return Ok(None);
    };
    let key_id: Uuid = row.get("id");
    if row.get("stale") {
        statement::run(client, TOUCH, &[&key_id, &LAST_USED_GRAIN_SECONDS]).await?;
    }
    Ok(Some(ApiKeyOwner {
        key_id,
        key_prefix: row.get("prefix"),
        account: Account::from_row(&row),
    }))
}

pub async fn list_api_keys(
    client: &impl GenericClient,
    account_id: Uuid,
    page: IdPage,
) -> Result<Vec<ApiKey>> {
    const LIST: &str = "/* api_keys.list */
        SELECT id, name, prefix, created_at, last_used_at, revoked_at
          FROM api_keys WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows =
        statement::query_rows(client, LIST, &[&account_id, &page.bound(), &page.limit]).await?;
    Ok(rows.iter().map(ApiKey::from_row).collect())
}

/// False if the account has no such key. Revoking twice keeps the first time.
pub async fn revoke_api_key(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<bool> {
    const REVOKE: &str = "/* api_keys.revoke */
        UPDATE api_keys SET revoked_at = COALESCE(revoked_at, now()) WHERE account_id = $1 AND id = $2";
    Ok(statement::run(client, REVOKE, &[&account_id, &id]).await? == 1)
}
