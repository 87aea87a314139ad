//! Checks by Redis: a group commit ([`crate::group_commit`]) of questions, many of them decided in one call
//! of a script, and a few calls out, so that this process and Redis work at the same time.
//!
//! No request waits for Redis longer than the setting says (50 ms). A call that fails or is late closes this
//! way at once; a probe opens it again as soon as Redis answers in time, so that an outage costs one
//! slow call and not one for each request.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, RedisError, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, RedisCallOutcome};
use trueup_ops::settings::{RedisArgs, RedisDown};
use trueup_ops::tls::{self, TlsFiles};

use super::policy::{EXACT_UP_TO, Limit, LimitCheck, LimitDecision, LimitKey};
use super::script::{DecisionScript, read_decision};
use crate::group_commit::{Backend, Bounds, Connected, GroupCommit, Pending};

/// Connecting, TLS and login included.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between probes while Redis is away.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Questions in one call: a fraction of a millisecond of Redis's time.
const QUESTIONS: usize = 64;
/// Calls at once.
const CALLS: usize = 2;

/// The URL of Redis cannot be used: it has to be given anew.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RedisUrlError(#[from] RedisError);

pub struct RedisLimits(GroupCommit<RedisBackend>);

impl RedisLimits {
    /// Starts the task that speaks with Redis; it ends with `stop`.
    pub fn start(
        redis: &RedisArgs,
        when_down: RedisDown,
        answer_within: Duration,
        health: Dependency,
        stop: CancellationToken,
    ) -> Result<RedisLimits, RedisUrlError> {
        let backend = RedisBackend {
            client: parse_client(&redis.redis_url, &redis.tls())?,
            script: DecisionScript::new(),
            answer_within,
            kept: None,
            pause: PROBE_EVERY,
        };
        let meanwhile = match when_down {
            RedisDown::Local => "limits are counted in this process alone",
            RedisDown::Refuse => "requests are answered 503",
        };
        Ok(RedisLimits(GroupCommit::start(
            backend, meanwhile, health, stop,
        )))
    }

    /// `None` if Redis cannot be asked, or did not answer in time.
    pub async fn ask_redis(&self, question: &LimitCheck) -> Option<LimitDecision> {
        if !self.0.is_open() {
            return None;
        }
        self.0.submit(*question).await.ok().flatten()
    }
}

pub fn parse_client(url: &SecretString, tls: &TlsFiles) -> Result<Client, RedisUrlError> {
    let url = url.expose_secret();
    if tls.is_empty() {
        return Ok(Client::open(url)?);
    }
    // Refused by the client unless the URL is `rediss://`: whoever names a CA does not want it plain.
    let certificates = TlsCertificates {
        client_tls: tls.client.as_ref().map(|client| ClientTlsConfig {
            client_cert: client.pem().to_vec(),
            client_key: client.pem().to_vec(),
        }),
        root_cert: tls.ca.as_ref().map(|ca| ca.pem().to_vec()),
    };
    Ok(Client::build_with_tls(url, certificates)?)
}

struct RedisBackend {
    client: Client,
    script: DecisionScript,
    answer_within: Duration,
    /// One that was too slow, and may yet be good.
    kept: Option<MultiplexedConnection>,
    pause: Duration,
}

/// Why Redis is not asked.
#[derive(Debug, thiserror::Error)]
enum RedisFault {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("{}", describe_error(.0))]
    Failed(#[from] RedisError),
}

impl Backend for RedisBackend {
    const NAME: &'static str = "limits";
    const BOUNDS: Bounds = Bounds {
        queued: 16_384,
        gathered: 256,
        enough: 32,
    };

    type Item = LimitCheck;
    type Reply = LimitDecision;
    type Connection = MultiplexedConnection;
    type Channel = MultiplexedConnection;
    type Fault = RedisFault;

    /// A connection on which Redis counts in time.
    async fn connect(&mut self) -> Result<Connected<Self>, RedisFault> {
        let mut connection = match self.kept.take() {
            Some(connection) => connection,
            None => self.open_connection().await?,
        };
        self.ask(&mut connection, [&PROBE].into_iter()).await?;
        Ok(Connected {
            channels: vec![connection.clone(); CALLS],
            connection,
        })
    }

    fn next_pause(&mut self) -> Duration {
        std::mem::replace(&mut self.pause, PROBE_EVERY)
    }

    /// The next is tried at once.
    async fn disconnect(&mut self, connection: MultiplexedConnection, fault: Option<&RedisFault>) {
        self.pause = Duration::ZERO;
        self.kept = matches!(fault, Some(RedisFault::Late(_))).then_some(connection);
    }

    fn next_group(&self, gathered: &mut Vec<Pending<Self>>) -> Option<Vec<Pending<Self>>> {
        Some(gathered.drain(..gathered.len().min(QUESTIONS)).collect())
    }

    async fn send_group(
        &self,
        _connection: &MultiplexedConnection,
        mut channel: MultiplexedConnection,
        group: Vec<Pending<Self>>,
    ) -> Result<Option<MultiplexedConnection>, RedisFault> {
        let figures = metrics::gateway();
        let began = Instant::now();
        let outcome = self
            .ask(&mut channel, group.iter().map(|one| &one.item))
            .await;
        figures.limit_seconds.since(began);
        figures.limit_calls.inc(match &outcome {
            Ok(_) => RedisCallOutcome::Ok,
            Err(RedisFault::Failed(_)) => RedisCallOutcome::Error,
            Err(RedisFault::Late(_)) => RedisCallOutcome::Slow,
        });
        let numbers = outcome?;
        for (at, one) in group.into_iter().enumerate() {
            if let Some(decision) = read_decision(&one.item, &numbers, at) {
                one.answer(decision);
            }
        }
        Ok(Some(channel))
    }
}

impl RedisBackend {
    async fn open_connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            // The calls have their own, shorter one.
            .set_response_timeout(Some(CONNECT_WITHIN));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
        questions: impl Iterator<Item = &LimitCheck>,
    ) -> Result<Vec<i64>, RedisFault> {
        let asking = self.script.call(connection, questions);
        let answer = tokio::time::timeout(self.answer_within, asking).await;
        Ok(answer.map_err(|_| RedisFault::Late(self.answer_within))??)
    }
}

/// A question like any other, under a name of its own: a Redis that answers but cannot count (a
/// replica, or one that is out of memory) is not taken for a good one.
const PROBE: LimitCheck = LimitCheck {
    address: Limit {
        key: LimitKey::Probe,
        per_minute: EXACT_UP_TO,
    },
    token: None,
    keeping: None,
};

/// Without what the error may quote of a command.
fn describe_error(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("Redis said {code}"),
        None => match tls::advise(&error.to_string(), "TRUEUP_REDIS_CA_FILE") {
            Some(advice) => format!("its certificate is refused: {advice}"),
            None => format!("{:?}", error.kind()),
        },
    }
}
