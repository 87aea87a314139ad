//! The door without its neighbours, and any bytes as one connection to it: for the fuzzer and for the
//! tests of its seeds. No part of the product.
//!
//! Redis is away, so limits are counted in the process; the broker is away, so a report that went all
//! the way is answered 503. Everything before that is the door as it is.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use trueup_gateway::webhook_cache::query::{IngestSecret, IngestWebhook};
use trueup_ops::health::Readiness;
use trueup_ops::metrics::DependencyName;
use trueup_ops::settings::{Proxies, RedisArgs, RedisDown};
use uuid::Uuid;

use trueup_gateway::app_state::GatewayState;
use trueup_gateway::limits::{Limits, Policy};
use trueup_gateway::listener;
use trueup_gateway::publish::{self, BatchAllowance, DurablePublisher, QueueBounds};
use trueup_gateway::refusals::RefusalCounter;
use trueup_gateway::secret_check::SecretUsage;
use trueup_gateway::webhook_cache::WebhookCache;

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";
/// The sender has closed its side: nothing has to wait for a deadline of the door's.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// What an answer's status may be (contract).
const STATUSES: [&str; 12] = [
    "100", "200", "400", "401", "404", "405", "408", "413", "414", "429", "431", "503",
];

pub struct StandaloneServer {
    door: Arc<GatewayState>,
    stop: CancellationToken,
}

impl StandaloneServer {
    /// Within a runtime. Its webhooks' tokens are `open`, `paused`, and `secret` (`hush`, also as
    /// the query parameter `key`).
    pub fn new() -> Result<StandaloneServer, Box<dyn std::error::Error>> {
        let stop = CancellationToken::new();
        let readiness = Readiness::new("trueup-gateway");
        let redis_url = SecretString::from(format!("redis://{NOWHERE}"));
        let health = readiness.add_dependency(DependencyName::Redis);
        let limits = Limits::start(
            &RedisArgs {
                redis_url,
                redis_ca_file: None,
                redis_client_cert_file: None,
            },
            RedisDown::Local,
            Duration::from_millis(50),
            health,
            stop.clone(),
        )?;
        let publishing = publish::PublishSettings {
            tls: Default::default(),
            amqp_url: SecretString::from(format!("amqp://{NOWHERE}")),
            batches: BatchAllowance {
                per_second: NonZeroU32::MAX,
                burst: NonZeroU32::MAX,
            },
            queue_bounds: QueueBounds::UNBOUNDED,
            spool: None,
        };
        let door = GatewayState {
            webhooks: WebhookCache::from_webhooks(webhooks()),
            limits,
            policy: Policy {
                address_per_minute: 1_000_000,
                token_per_minute: 1_000_000,
            },
            durable: DurablePublisher::start_publishing(publishing, &readiness, stop.clone())?,
            refusals: RefusalCounter::default(),
            uses: SecretUsage::default(),
            unsettled: Arc::default(),
            proxies: Proxies::parse("127.0.0.0/8")?,
            max_connections: 1,
            max_connections_per_address: 1,
        };
        Ok(StandaloneServer {
            door: Arc::new(door),
            stop,
        })
    }

    /// One connection on which these bytes arrive, the first of them saying in what pieces. Panics unless
    /// it ends, and unless every answer is one of the contract's.
    pub async fn run_connection(&self, input: &[u8]) {
        let (pieces, bytes) = input
            .split_first()
            .map_or((0, input), |(first, rest)| (*first, rest));
        let (mut near, far) = tokio::io::duplex(32 * 1024);
        let serving = listener::serve_connection(
            far,
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            Arc::clone(&self.door),
            self.stop.clone(),
        );
        let (mut answers, mut out) = (Vec::new(), Vec::new());
        let talk = async {
            let (mut from_door, mut to_door) = tokio::io::split(&mut near);
            let size = if pieces == 0 {
                bytes.len().max(1)
            } else {
                bytes.len() / usize::from(pieces) + 1
            };
            let say = async {
                for piece in bytes.chunks(size) {
                    if to_door.write_all(piece).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = to_door.shutdown().await;
            };
            let hear = from_door.read_to_end(&mut out);
            let _ = tokio::join!(say, hear);
        };
        let both = async { tokio::join!(serving, talk) };
        assert!(
            tokio::time::timeout(ENDS_WITHIN, both).await.is_ok(),
            "the connection did not end"
        );
        answers.append(&mut out);
        check_answers(&answers);
    }
}

fn webhooks() -> Vec<IngestWebhook> {
    let webhook = |n: u128, token: &str| IngestWebhook {
        webhook_id: Uuid::from_u128(n),
        account_id: Uuid::from_u128(9),
        token: token.to_owned(),
        enabled: true,
        require_secret: false,
        secret_query_param: None,
        limit_per_minute: None,
        ip_limit_per_minute: None,
        archived: false,
        secrets: Vec::new(),
    };
    let secret = IngestSecret {
        id: Uuid::from_u128(7),
        digest: Sha256::digest("hush").into(),
        expires_at: None,
    };
    vec![
        webhook(1, "open"),
        IngestWebhook {
            enabled: false,
            ..webhook(2, "paused")
        },
        IngestWebhook {
            require_secret: true,
            secret_query_param: Some("key".to_owned()),
            secrets: vec![secret],
            ..webhook(3, "secret")
        },
    ]
}

/// Nothing, or whole answers of the contract: a known status, and a body of JSON with `ok` in it (none
/// after a HEAD, and after an interim 100).
fn check_answers(mut rest: &[u8]) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while !rest.is_empty() {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            panic!("an answer without an end: {}", text(rest))
        };
        let head = text(&rest[..end]);
        rest = &rest[end + 4..];
        assert!(
            head.starts_with("HTTP/1.1 ") || head.starts_with("HTTP/1.0 "),
            "no answer: {head}"
        );
        let status = head.get(9..12).unwrap_or_default();
        assert!(STATUSES.contains(&status), "{head}");
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        let length: usize = length.unwrap_or(0);
        assert!(
            length > 0 || status == "100",
            "an answer without a body: {head}"
        );
        if status == "100" || rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            continue;
        }
        assert!(
            length <= rest.len(),
            "a body that breaks off: {head}\n{}",
            text(rest)
        );
        let body: Result<serde_json::Value, _> = serde_json::from_slice(&rest[..length]);
        assert!(
            body.is_ok_and(|body| body["ok"].is_boolean()),
            "{head}\n{}",
            text(&rest[..length])
        );
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_seed_of_the_fuzzer_is_answered_by_the_contract_in_one_piece_and_in_many() {
        let alone = StandaloneServer::new().expect("starts");
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/connection");
        let mut read = 0;
        for seed in std::fs::read_dir(seeds).expect("the seeds") {
            let mut bytes = std::fs::read(seed.expect("a file").path()).expect("reads");
            for pieces in [0, 1, 2, 7, 200] {
                bytes[0] = pieces;
                alone.run_connection(&bytes).await;
            }
            read += 1;
        }
        assert!(read >= 30, "{read} seeds");
    }
}
