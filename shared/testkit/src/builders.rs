//! Accounts and webhooks, put straight into a test's database.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use uuid::Uuid;

/// A webhook as a test wants it.
#[derive(Debug, Clone, Default)]
pub struct WebhookSpec {
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

pub async fn account(client: &Client) -> Uuid {
    let id = random_id();
    client
        .execute(
            "INSERT INTO accounts (id, name) VALUES ($1, 'test')",
            &[&id],
        )
        .await
        .expect("an account");
    id
}

pub async fn webhook(client: &Client, account_id: Uuid, spec: &WebhookSpec) -> Webhook {
    let id = random_id();
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
