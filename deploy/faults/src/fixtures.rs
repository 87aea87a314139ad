//! The account that the senders report to: publishers, calls, a key for its people.

use tokio_postgres::Client;
use trueup_store::api_keys;
use trueup_testkit::builders::{self, Webhook, WebhookSpec};
use uuid::Uuid;

/// Calls that are there when the senders begin.
pub const CALLS: usize = 60;
/// Calls that a person records while reports about them have come already.
pub const LATE_CALLS: usize = 40;
pub const SECRET: &str = "whsec-for-the-fault-runs-only";
pub const API_KEY: &str = "tuk_for-the-fault-runs-only";

/// What everybody in a run knows of the account.
#[derive(Clone)]
pub struct Account {
    pub webhook: Webhook,
    pub assignments: Vec<Uuid>,
    pub calls: Vec<Uuid>,
}

pub fn ref_id(n: usize) -> String {
    format!("F{n}")
}

pub fn late_ref_id(n: usize) -> String {
    format!("L{n}")
}

pub fn caller(n: usize) -> String {
    format!("+1305555{n:04}")
}

pub fn late_caller(n: usize) -> String {
    format!("+1305556{n:04}")
}

pub fn seconds(n: usize) -> i32 {
    60 + i32::try_from(n).unwrap_or(0)
}

pub async fn open(client: &Client) -> anyhow::Result<Account> {
    let account_id = builders::account(client).await;
    let webhook = builders::webhook(client, account_id, &WebhookSpec::with_secret(SECRET)).await;
    let key =
        "INSERT INTO api_keys (id, account_id, digest, prefix) VALUES ($1, $2, $3, 'tuk_for')";
    client
        .execute(
            key,
            &[&Uuid::new_v4(), &account_id, &api_keys::digest_key(API_KEY)],
        )
        .await?;
    let assignments = assignments(client, account_id).await?;
    let mut calls = Vec::new();
    for n in 0..CALLS {
        let id = Uuid::new_v4();
        client
            .execute(
                "INSERT INTO calls (account_id, id, ref_id, caller, duration_seconds, started_at, ended_at, assignment_id)
                 VALUES ($1, $2, $3, $4, $5, now() - interval '10 min', now() - interval '5 min', $6)",
                &[&account_id, &id, &ref_id(n), &caller(n), &seconds(n), &assignments[n % assignments.len()]],
            )
            .await?;
        calls.push(id);
    }
    Ok(Account {
        webhook,
        assignments,
        calls,
    })
}

/// A flat and a rev-share publisher.
async fn assignments(client: &Client, account_id: Uuid) -> anyhow::Result<Vec<Uuid>> {
    let campaign = Uuid::new_v4();
    let insert = "INSERT INTO campaigns (id, account_id, name) VALUES ($1, $2, 'faults')";
    client.execute(insert, &[&campaign, &account_id]).await?;
    let mut made = Vec::new();
    for (kind, amount, percent) in [
        ("flat", Some(1_800_i64), None),
        ("rev_share", None, Some(333_300_i32)),
    ] {
        let (publisher, id) = (Uuid::new_v4(), Uuid::new_v4());
        let insert = "INSERT INTO publishers (id, account_id, name) VALUES ($1, $2, $3)";
        client
            .execute(insert, &[&publisher, &account_id, &kind])
            .await?;
        client
            .execute(
                "INSERT INTO assignments (id, account_id, campaign_id, publisher_id, kind, amount_cents, percent_e4)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[&id, &account_id, &campaign, &publisher, &kind, &amount, &percent],
            )
            .await?;
        made.push(id);
    }
    Ok(made)
}
