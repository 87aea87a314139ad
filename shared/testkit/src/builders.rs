//! Accounts and what belongs to them, put straight into a test's database. What a test does not care about is
//! as plain as can be.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, GenericClient};
use trueup_store::api_keys;
use uuid::Uuid;

/// A webhook as a test wants it.
#[derive(Debug, Clone, Default)]
pub struct WebhookSpec {
    /// Where it is not to be random.
    pub id: Option<Uuid>,
    pub paused: bool,
    /// Requires these; the last is the newest.
    pub secrets: Vec<SecretSpec>,
    pub secret_query_param: Option<String>,
    pub limit_per_minute: Option<i32>,
    pub ip_limit_per_minute: Option<i32>,
}

#[derive(Debug, Clone)]
pub struct SecretSpec {
    pub text: String,
    /// Seconds from now; none: does not expire.
    pub expires_in: Option<f64>,
}

impl WebhookSpec {
    pub fn open() -> Self {
        WebhookSpec::default()
    }

    pub fn with_secret(text: &str) -> Self {
        WebhookSpec {
            secrets: vec![SecretSpec {
                text: text.to_owned(),
                expires_in: None,
            }],
            ..WebhookSpec::default()
        }
    }
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub id: Uuid,
    pub account_id: Uuid,
    pub token: String,
}

impl Webhook {
    /// The path of its URL.
    pub fn path(&self) -> String {
        format!("/api/v1/ppc/inbound-webhooks/{}", self.token)
    }
}

/// Percent × 10⁴ of a share, or flat cents.
#[derive(Debug, Clone, Copy)]
pub enum Terms {
    Share(i32),
    Flat(i64),
}

/// A call of an account.
#[derive(Debug, Clone, Default)]
pub struct Call<'a> {
    /// Where it is not to be random.
    pub id: Option<Uuid>,
    pub ref_id: Option<&'a str>,
    pub caller: Option<&'a str>,
    pub duration_seconds: i32,
    /// None: five minutes ago.
    pub ended_at: Option<Timestamp>,
    pub buyer_id: Option<Uuid>,
    pub assignment_id: Option<Uuid>,
    /// The worker is told of it, as when it is recorded over the API (M7).
    pub noted: bool,
}

/// Many calls, made by the database itself: of the hour before, the n-th as these expressions of SQL over
/// `n` say, from 0 on.
pub struct ManyCalls<'a> {
    pub count: i64,
    pub account_id: &'a str,
    pub id: &'a str,
    pub ref_id: &'a str,
    pub caller: &'a str,
    pub duration_seconds: &'a str,
    pub assignment_id: &'a str,
}

impl ManyCalls<'_> {
    pub fn to_sql(&self) -> String {
        format!(
            "INSERT INTO calls (account_id, id, ref_id, caller, duration_seconds, started_at, ended_at, assignment_id)
             SELECT {}, {}, {}, {}, {}, now() - interval '1 hour', now() - interval '30 minutes', {}
               FROM generate_series(0, {} - 1) n;",
            self.account_id,
            self.id,
            self.ref_id,
            self.caller,
            self.duration_seconds,
            self.assignment_id,
            self.count
        )
    }
}

/// Takes a table's secondary indexes away, and says how to make them: building them again over many new rows
/// is several times faster than keeping them row by row.
pub async fn drop_indexes(client: &Client, table: &str) -> Vec<String> {
    let secondary = "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
                      WHERE indrelid = $1::text::regclass AND NOT indisprimary";
    let rows = client.query(secondary, &[&table]).await.expect("indexes");
    let mut definitions = Vec::new();
    for row in rows {
        let (name, definition): (String, String) = (row.get(0), row.get(1));
        client
            .batch_execute(&format!("DROP INDEX {name}"))
            .await
            .expect("drops");
        // Those of a partitioned table are meant for its partitions, too.
        definitions.push(definition.replace(" ON ONLY ", " ON "));
    }
    definitions
}

pub async fn make_indexes(client: &Client, definitions: &[String]) {
    let memory = "SET maintenance_work_mem = '512MB'";
    client.batch_execute(memory).await.expect("a setting");
    for definition in definitions {
        client
            .batch_execute(definition)
            .await
            .unwrap_or_else(|e| panic!("{definition}: {e}"));
    }
}

pub async fn account(client: &Client) -> Uuid {
    let id = random_id();
    account_as(client, id, "test").await;
    id
}

pub async fn account_as(client: &Client, id: Uuid, name: &str) {
    client
        .execute(
            "INSERT INTO accounts (id, name) VALUES ($1, $2)",
            &[&id, &name],
        )
        .await
        .expect("an account");
}

pub async fn api_key(client: &Client, account_id: Uuid, key: &str) {
    client
        .execute(
            "INSERT INTO api_keys (id, account_id, digest, prefix) VALUES ($1, $2, $3, $4)",
            &[
                &random_id(),
                &account_id,
                &api_keys::digest_key(key),
                &key.get(..7),
            ],
        )
        .await
        .expect("a key");
}

pub async fn buyer(client: &Client, account_id: Uuid, name: &str) -> Uuid {
    named(client, "buyers", account_id, name).await
}

pub async fn publisher(client: &Client, account_id: Uuid, name: &str) -> Uuid {
    named(client, "publishers", account_id, name).await
}

async fn named(client: &Client, table: &str, account_id: Uuid, name: &str) -> Uuid {
    let id = random_id();
    client
        .execute(
            &format!("INSERT INTO {table} (id, account_id, name) VALUES ($1, $2, $3)"),
            &[&id, &account_id, &name],
        )
        .await
        .unwrap_or_else(|e| panic!("{table}: {e}"));
    id
}

/// Of a publisher to a campaign of its own.
pub async fn assignment(
    client: &Client,
    account_id: Uuid,
    publisher_id: Uuid,
    terms: Terms,
) -> Uuid {
    let campaign_id = named(client, "campaigns", account_id, "test").await;
    let id = random_id();
    let (kind, amount, percent) = match terms {
        Terms::Share(percent) => ("rev_share", None, Some(percent)),
        Terms::Flat(amount) => ("flat", Some(amount), None),
    };
    client
        .execute(
            "INSERT INTO assignments (id, account_id, campaign_id, publisher_id, kind, amount_cents, percent_e4)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[&id, &account_id, &campaign_id, &publisher_id, &kind, &amount, &percent],
        )
        .await
        .expect("an assignment");
    id
}

pub async fn call(client: &impl GenericClient, account_id: Uuid, call: &Call<'_>) -> Uuid {
    let id = call.id.unwrap_or_else(random_id);
    client
        .execute(
            "WITH call AS (
                INSERT INTO calls (account_id, id, ref_id, caller, duration_seconds, started_at, ended_at, buyer_id, assignment_id)
                SELECT $1::uuid, $2::uuid, $3::text, $4::text, $5::int4, ended_at - make_interval(secs => $5::int4), ended_at,
                       $7::uuid, $8::uuid
                  FROM (SELECT coalesce($6::timestamptz, now() - interval '5 minutes') AS ended_at) t
                RETURNING account_id, id, ref_id, caller)
             INSERT INTO call_recorded_outbox (account_id, call_id, ref_id, caller) SELECT * FROM call WHERE $9::bool",
            &[
                &account_id, &id, &call.ref_id, &call.caller, &call.duration_seconds, &call.ended_at,
                &call.buyer_id, &call.assignment_id, &call.noted,
            ],
        )
        .await
        .expect("a call");
    id
}

pub async fn webhook(client: &Client, account_id: Uuid, spec: &WebhookSpec) -> Webhook {
    let id = spec.id.unwrap_or_else(random_id);
    let token = format!("tok{}{}", random_id().simple(), random_id().simple());
    client
        .execute(
            "INSERT INTO webhooks (id, account_id, name, token, enabled, require_secret, secret_query_param,
                                   limit_per_minute, ip_limit_per_minute)
             VALUES ($1, $2, 'test', $3, $4, $5, $6, $7, $8)",
            &[
                &id,
                &account_id,
                &token,
                &!spec.paused,
                &!spec.secrets.is_empty(),
                &spec.secret_query_param,
                &spec.limit_per_minute,
                &spec.ip_limit_per_minute,
            ],
        )
        .await
        .expect("a webhook");
    for secret in &spec.secrets {
        add_secret(client, id, secret).await;
    }
    Webhook {
        id,
        account_id,
        token,
    }
}

pub async fn add_secret(client: &Client, webhook_id: Uuid, secret: &SecretSpec) -> Uuid {
    let id = random_id();
    let digest = Sha256::digest(secret.text.as_bytes()).to_vec();
    client
        .execute(
            "INSERT INTO webhook_secrets (id, webhook_id, digest, expires_at)
             VALUES ($1, $2, $3, now() + make_interval(secs => $4))",
            &[&id, &webhook_id, &digest, &secret.expires_in],
        )
        .await
        .expect("a secret");
    id
}

fn random_id() -> Uuid {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
