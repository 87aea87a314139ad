//! The account that the senders report to: publishers, calls, a key for its operators.

use tokio_postgres::Client;
use trueup_testkit::builders::{self, Call, Terms, Webhook, WebhookSpec};
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

pub async fn open(client: &Client) -> Account {
    let account_id = builders::account(client).await;
    let webhook = builders::webhook(client, account_id, &WebhookSpec::with_secret(SECRET)).await;
    builders::api_key(client, account_id, API_KEY).await;
    let mut assignments = Vec::new();
    for (name, terms) in [
        ("flat", Terms::Flat(1_800)),
        ("rev_share", Terms::Share(333_300)),
    ] {
        let publisher = builders::publisher(client, account_id, name).await;
        assignments.push(builders::assignment(client, account_id, publisher, terms).await);
    }
    let mut calls = Vec::new();
    for n in 0..CALLS {
        let call = Call {
            ref_id: Some(&ref_id(n)),
            caller: Some(&caller(n)),
            duration_seconds: seconds(n),
            assignment_id: Some(assignments[n % assignments.len()]),
            ..Call::default()
        };
        calls.push(builders::call(client, account_id, &call).await);
    }
    Account {
        webhook,
        assignments,
        calls,
    }
}
