//! Books to measure on: accounts, publishers, webhooks and many calls, made by the database itself.

use anyhow::Context;
use tokio_postgres::Client;
use trueup_testkit::builders::{self, ManyCalls};
use uuid::Uuid;

/// Accounts that the calls are spread over.
pub const ACCOUNTS: i64 = 20;
/// Publishers of each account.
const PUBLISHERS: i64 = 10;
/// One call in this many is the ceiling's: what it writes must not be in the worker's way, and a call
/// whose value nobody reported would be an easier one to settle.
const SPARE: i64 = 5;
/// Event rows that one statement makes.
const EVENTS_AT_ONCE: i64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub struct Dataset {
    pub calls: i64,
    accounts: i64,
    publishers: i64,
}

pub const ACCOUNT: u32 = 1;
pub const CALL: u32 = 2;
const PUBLISHER: u32 = 3;
const CAMPAIGN: u32 = 4;
const ASSIGNMENT: u32 = 5;
const WEBHOOK: u32 = 6;

/// The ids follow from their numbers, so that a report can be made without asking the database.
pub fn id(kind: u32, n: i64) -> Uuid {
    Uuid::from_u128((u128::from(kind) << 64) | (1 << 100) | u128::from(n.unsigned_abs()))
}

/// Seconds of the n-th call.
pub fn duration(call: i64) -> i64 {
    60 + call % 240
}

/// [`id`] as an expression of SQL over a number.
pub fn sql_id(kind: u32, n: &str) -> String {
    let prefix = format!("{:032x}", id(kind, 0).as_u128());
    format!(
        "('{}' || lpad(to_hex({n}), 16, '0'))::uuid",
        prefix.get(..16).unwrap_or_default()
    )
}

impl Dataset {
    /// What the worker's reports are about: the n-th of their calls, spread over the table.
    pub fn reported_call(self, n: i64) -> i64 {
        n.wrapping_mul(104_729)
            .rem_euclid(self.calls - self.calls / SPARE)
    }

    /// The n-th call that is the ceiling's own.
    pub fn spare_call(self, n: i64) -> i64 {
        let spare = self.calls / SPARE;
        self.calls - spare + n.wrapping_mul(7_919).rem_euclid(spare)
    }

    pub fn account(self, call: i64) -> Uuid {
        id(ACCOUNT, call % self.accounts)
    }

    pub fn webhook(self, call: i64) -> Uuid {
        id(WEBHOOK, call % self.accounts)
    }

    pub fn publisher(self, call: i64) -> Uuid {
        id(PUBLISHER, call % (self.accounts * self.publishers))
    }

    pub fn call_id(self, call: i64) -> Uuid {
        id(CALL, call)
    }

    pub fn ref_id(self, call: i64) -> String {
        format!("ref-{call}")
    }

    /// One caller a call: 10 digits of NANP shape.
    pub fn caller(self, call: i64) -> String {
        format!("+1{}", 2_002_000_000 + call)
    }

    /// `hot`: one account with one publisher, whom all calls pay.
    pub async fn make(client: &Client, calls: i64, hot: bool) -> anyhow::Result<Dataset> {
        let (accounts, publishers) = if hot { (1, 1) } else { (ACCOUNTS, PUBLISHERS) };
        let books = Dataset {
            calls,
            accounts,
            publishers,
        };
        let script = format!(
            "SET session_replication_role = replica;
             INSERT INTO accounts (id, name) SELECT {account}, 'load ' || n FROM generate_series(0, {last_account}) n;
             INSERT INTO publishers (id, account_id, name) SELECT {publisher}, {account_of}, 'p' || n
               FROM generate_series(0, {last_publisher}) n;
             INSERT INTO campaigns (id, account_id, name) SELECT {campaign}, {account_of}, 'c' || n
               FROM generate_series(0, {last_publisher}) n;
             INSERT INTO assignments (id, account_id, campaign_id, publisher_id, kind, percent_e4)
               SELECT {assignment}, {account_of}, {campaign}, {publisher}, 'rev_share', 600000
               FROM generate_series(0, {last_publisher}) n;
             INSERT INTO webhooks (id, account_id, name, token) SELECT {webhook}, {account}, 'w' || n, 'load-token-' || n
               FROM generate_series(0, {last_account}) n;
             {calls}
             SET session_replication_role = DEFAULT;",
            account = sql_id(ACCOUNT, "n"),
            account_of = sql_id(ACCOUNT, &format!("n % {accounts}")),
            publisher = sql_id(PUBLISHER, "n"),
            campaign = sql_id(CAMPAIGN, "n"),
            assignment = sql_id(ASSIGNMENT, "n"),
            webhook = sql_id(WEBHOOK, "n"),
            last_account = accounts - 1,
            last_publisher = accounts * publishers - 1,
            calls = ManyCalls {
                count: calls,
                account_id: &sql_id(ACCOUNT, &format!("n % {accounts}")),
                id: &sql_id(CALL, "n"),
                ref_id: "'ref-' || n",
                caller: "'+1' || (2002000000 + n)",
                duration_seconds: "60 + n % 240",
                assignment_id: &sql_id(ASSIGNMENT, &format!("n % {}", accounts * publishers)),
            }
            .to_sql(),
        );
        let indexes = builders::drop_indexes(client, "calls").await;
        client
            .batch_execute(&script)
            .await
            .context("the books could not be made")?;
        builders::make_indexes(client, &indexes).await;
        client.batch_execute("VACUUM ANALYZE").await?;
        Ok(books)
    }

    /// Rows of reports that were settled in the weeks before, as many as a busy account has.
    pub async fn add_events(self, client: &Client, events: i64) -> anyhow::Result<()> {
        if events == 0 {
            return Ok(());
        }
        client
            .batch_execute("SET session_replication_role = replica")
            .await?;
        let indexes = builders::drop_indexes(client, "events").await;
        let mut from = 0;
        while from < events {
            let below = events.min(from + EVENTS_AT_ONCE);
            let script = format!(
                "INSERT INTO events (received_at, id, account_id, webhook_id, source_ip, caller, caller_raw, duration_seconds,
                        ref_id, payout_raw, payout_cents, status, detail, strategy, matched_call_id, revenue_delta_cents,
                        credit_delta_cents)
                 SELECT now() - interval '20 days' + n * interval '100 milliseconds', gen_random_uuid(), {account}, {webhook},
                        '192.0.2.1', '+1' || (2002000000 + n), '+1' || (2002000000 + n), 90, 'ref-' || n, '50.00', 5000,
                        'matched', '{{\"value_after_cents\":5000,\"credit_before_cents\":0,\"credit_after_cents\":3000}}', 'ref_id',
                        {call}, 5000, 3000
                   FROM generate_series({from}, {below} - 1) n",
                account = sql_id(ACCOUNT, &format!("n % {}", self.accounts)),
                webhook = sql_id(WEBHOOK, &format!("n % {}", self.accounts)),
                call = sql_id(CALL, &format!("n % {}", self.calls)),
            );
            client
                .batch_execute(&script)
                .await
                .context("the rows of events could not be made")?;
            from = below;
        }
        client
            .batch_execute("SET session_replication_role = DEFAULT")
            .await?;
        builders::make_indexes(client, &indexes).await;
        client.batch_execute("VACUUM ANALYZE events").await?;
        Ok(())
    }
}
