//! Books to measure on: accounts, publishers, webhooks and many calls, made by the database itself.

use anyhow::Context;
use tokio_postgres::Client;
use uuid::Uuid;

/// Accounts that the calls are spread over.
pub const ACCOUNTS: i64 = 20;
/// Publishers of each account.
const PUBLISHERS: i64 = 10;

pub struct Books {
    pub calls: i64,
}

/// The ids follow from their numbers, so that a report can be made without asking the database.
pub fn id(kind: u32, n: i64) -> Uuid {
    Uuid::from_u128((u128::from(kind) << 64) | (1 << 100) | n.unsigned_abs() as u128)
}

pub const ACCOUNT: u32 = 1;
pub const CALL: u32 = 2;
const PUBLISHER: u32 = 3;
const CAMPAIGN: u32 = 4;
const ASSIGNMENT: u32 = 5;
pub const WEBHOOK: u32 = 6;

/// The account of the n-th call.
pub fn account_of(call: i64) -> i64 {
    call % ACCOUNTS
}

pub fn ref_id(call: i64) -> String {
    format!("ref-{call}")
}

/// One caller a call: 10 digits of NANP shape.
pub fn caller(call: i64) -> String {
    format!("+1{}", 2_002_000_000 + call)
}

pub fn duration(call: i64) -> i64 {
    60 + call % 240
}

impl Books {
    pub async fn make(client: &Client, calls: i64, hot: bool) -> anyhow::Result<Books> {
        let uuid = |kind: u32, n: &str| {
            let prefix = format!("{:032x}", id(kind, 0).as_u128());
            format!("(substr('{prefix}', 1, 16) || lpad(to_hex({n}), 16, '0'))::uuid")
        };
        let publisher = if hot { format!("({} * 0)", "n") } else { "n".to_owned() };
        let script = format!(
            "INSERT INTO accounts (id, name) SELECT {account}, 'load ' || n FROM generate_series(0, {last_account}) n;
             INSERT INTO publishers (id, account_id, name) SELECT {publisher_id}, {account_of}, 'p' || n
               FROM generate_series(0, {last_publisher}) n;
             INSERT INTO campaigns (id, account_id, name) SELECT {campaign}, {account_of}, 'c' || n
               FROM generate_series(0, {last_publisher}) n;
             INSERT INTO assignments (id, account_id, campaign_id, publisher_id, kind, percent_e4)
               SELECT {assignment}, {account_of}, {campaign}, {hot_publisher}, 'rev_share', 600000
               FROM generate_series(0, {last_publisher}) n;
             INSERT INTO webhooks (id, account_id, name, token) SELECT {webhook}, {account}, 'w' || n, 'load-token-' || n
               FROM generate_series(0, {last_account}) n;
             INSERT INTO calls (account_id, id, ref_id, caller, duration_seconds, started_at, ended_at, assignment_id)
               SELECT {account_of}, {call}, 'ref-' || n, '+1' || (2002000000 + n), 60 + n % 240,
                      now() - interval '1 hour', now() - interval '30 minutes', {assignment_of}
               FROM generate_series(0, {last_call}) n;
             ANALYZE;",
            account = uuid(ACCOUNT, "n"),
            account_of = uuid(ACCOUNT, &format!("n % {ACCOUNTS}")),
            publisher_id = uuid(PUBLISHER, "n"),
            hot_publisher = uuid(PUBLISHER, &publisher),
            campaign = uuid(CAMPAIGN, "n"),
            assignment = uuid(ASSIGNMENT, "n"),
            assignment_of = uuid(ASSIGNMENT, &format!("n % {}", ACCOUNTS * PUBLISHERS)),
            webhook = uuid(WEBHOOK, "n"),
            call = uuid(CALL, "n"),
            last_account = ACCOUNTS - 1,
            last_publisher = ACCOUNTS * PUBLISHERS - 1,
            last_call = calls - 1,
        );
        client.batch_execute(&script).await.context("the books could not be made")?;
        Ok(Books { calls })
    }
}
