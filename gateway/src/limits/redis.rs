//! The task that asks Redis: one script call decides many waiting questions, and a few calls may be
//! out, so that this process and Redis work at the same time. There is no timer: the more calls are
//! out, the more questions must be waiting for the next.
//!
//! No request waits for Redis longer than the setting says (50 ms). A call that fails or is late closes this
//! way at once; a probe opens it again as soon as Redis answers in time, so that an outage costs one
//! slow call and not one for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, RedisError, Script, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::metrics::{self, RedisCallOutcome};
use trueup_ops::settings::{RedisArgs, RedisDown};
use trueup_ops::shutdown::spawn_vital;
use trueup_ops::tls::{self, TlsFiles};

use super::RedisUrlError;
use super::policy::{EXACT_UP_TO, Limit, LimitCheck, LimitDecision, LimitKey};

/// Connecting, TLS and login included.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between probes while Redis is away.
const PROBE_EVERY: Duration = Duration::from_millis(200);
/// Questions in one call: a fraction of a millisecond of Redis's time.
const QUESTIONS: usize = 64;
/// Calls at once.
const CALLS: usize = 2;
/// With a call out, the next goes when so many questions wait for it.
const ENOUGH: usize = 32;
/// Questions taken out of the queue ahead of their call.
const AHEAD: usize = 256;
/// Questions that may wait; the next are decided here.
const WAITING: usize = 16_384;

const SCRIPT: &str = include_str!("decide.lua");

struct PendingCheck {
    question: LimitCheck,
    answer: oneshot::Sender<Option<LimitDecision>>,
}

pub struct Handle {
    questions: mpsc::Sender<PendingCheck>,
    up: Arc<AtomicBool>,
}

impl Handle {
    /// `None` if Redis cannot be asked, or did not answer in time.
    pub async fn ask_redis(&self, question: &LimitCheck) -> Option<LimitDecision> {
        if !self.up.load(Ordering::Relaxed) {
            return None;
        }
        let (answer, verdict) = oneshot::channel();
        self.questions
            .try_send(PendingCheck {
                question: *question,
                answer,
            })
            .ok()?;
        verdict.await.ok().flatten()
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

pub fn start(
    redis: &RedisArgs,
    when_down: RedisDown,
    answer_within: Duration,
    health: Dependency,
    stop: CancellationToken,
) -> Result<Handle, RedisUrlError> {
    let client = parse_client(&redis.redis_url, &redis.tls())?;
    let (questions, waiting) = mpsc::channel(WAITING);
    let up = Arc::new(AtomicBool::new(false));
    let asker = RedisLimiterTask {
        client,
        script: Script::new(SCRIPT),
        up: Arc::clone(&up),
        health,
        when_down,
        answer_within,
    };
    spawn_vital("limits", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = asker.run(waiting) => {}
        }
    });
    Ok(Handle { questions, up })
}

struct RedisLimiterTask {
    client: Client,
    script: Script,
    up: Arc<AtomicBool>,
    health: Dependency,
    when_down: RedisDown,
    answer_within: Duration,
}

impl RedisLimiterTask {
    async fn run(self, mut waiting: mpsc::Receiver<PendingCheck>) {
        let mut kept = None;
        loop {
            let connection = self.serve_connection(kept.take(), &mut waiting).await;
            self.health.ok();
            self.up.store(true, Ordering::Relaxed);
            let ended = self.serve_checks(connection, &mut waiting).await;
            self.up.store(false, Ordering::Relaxed);
            match ended {
                Ended::Stopped => return,
                Ended::Late(connection) => {
                    self.mark_away(&format!(
                        "no answer within {} ms",
                        self.answer_within.as_millis()
                    ));
                    kept = Some(connection);
                }
                Ended::Failed(error) => self.mark_away(&describe_error(&error)),
            }
        }
    }

    fn mark_away(&self, why: &str) {
        let what = match self.when_down {
            RedisDown::Local => "limits are counted in this process alone",
            RedisDown::Refuse => "requests are answered 503",
        };
        self.health.set_degraded(format!("{what}: {why}"));
    }

    /// A connection on which Redis counts in time. What still waits meanwhile is sent back to be decided here.
    async fn serve_connection(
        &self,
        mut kept: Option<MultiplexedConnection>,
        waiting: &mut mpsc::Receiver<PendingCheck>,
    ) -> MultiplexedConnection {
        loop {
            let probe = async {
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => self.open_connection().await?,
                };
                let question = [probe_check()];
                match tokio::time::timeout(
                    self.answer_within,
                    self.call_script(&mut connection, &question),
                )
                .await
                {
                    Ok(Ok(_)) => Ok(connection),
                    Ok(Err(e)) => Err(e),
                    Err(_) => Err(RedisError::from((
                        redis::ErrorKind::Io,
                        "no answer to a probe in time",
                    ))),
                }
            };
            let outcome = tokio::select! {
                outcome = probe => outcome,
                () = reject_pending(waiting) => return std::future::pending().await,
            };
            match outcome {
                Ok(connection) => return connection,
                Err(e) => self.mark_away(&describe_error(&e)),
            }
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY) => {}
                () = reject_pending(waiting) => return std::future::pending().await,
            }
        }
    }

    async fn open_connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            // The calls have their own, shorter one.
            .set_response_timeout(Some(CONNECT_WITHIN));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn serve_checks(
        &self,
        connection: MultiplexedConnection,
        waiting: &mut mpsc::Receiver<PendingCheck>,
    ) -> Ended {
        let mut gathered: Vec<PendingCheck> = Vec::new();
        let mut out = FuturesUnordered::new();
        loop {
            while out.len() < CALLS && !gathered.is_empty() && gathered.len() >= ENOUGH * out.len()
            {
                let batch = gathered.drain(..gathered.len().min(QUESTIONS)).collect();
                out.push(self.decide_batch(connection.clone(), batch));
            }
            // Whose question is dropped with its way to be answered decides it here.
            tokio::select! {
                biased;
                Some(outcome) = out.next(), if !out.is_empty() => match outcome {
                    Ok(()) => {}
                    Err(RedisFailure::Late) => return Ended::Late(connection),
                    Err(RedisFailure::By(error)) => return Ended::Failed(error),
                },
                came = waiting.recv_many(&mut gathered, AHEAD), if gathered.len() < AHEAD => {
                    if came == 0 {
                        return Ended::Stopped;
                    }
                }
            }
        }
    }

    async fn decide_batch(
        &self,
        mut connection: MultiplexedConnection,
        batch: Vec<PendingCheck>,
    ) -> Result<(), RedisFailure> {
        let figures = metrics::gateway();
        let began = Instant::now();
        let outcome = tokio::time::timeout(
            self.answer_within,
            self.call_script(&mut connection, &batch),
        )
        .await;
        figures.limit_seconds.since(began);
        match outcome {
            Ok(Ok(numbers)) => {
                figures.limit_calls.inc(RedisCallOutcome::Ok);
                for (at, one) in batch.into_iter().enumerate() {
                    let _ = one.answer.send(read_decision(&one.question, &numbers, at));
                }
                Ok(())
            }
            Ok(Err(e)) => {
                figures.limit_calls.inc(RedisCallOutcome::Error);
                Err(RedisFailure::By(e))
            }
            Err(_) => {
                figures.limit_calls.inc(RedisCallOutcome::Slow);
                Err(RedisFailure::Late)
            }
        }
    }

    /// EVALSHA, and EVAL if this server has not seen the script (it is new, or was restarted).
    async fn call_script(
        &self,
        connection: &mut MultiplexedConnection,
        batch: &[PendingCheck],
    ) -> Result<Vec<i64>, RedisError> {
        let mut keys = 0_usize;
        let mut limits = Vec::with_capacity(batch.len() * 12);
        let mut names = KeyBuffer::default();
        for one in batch {
            let LimitCheck {
                address,
                token,
                keeping,
            } = &one.question;
            for limit in [Some(address), token.as_ref(), keeping.as_ref()] {
                limits.extend_from_slice(&limit.map_or(0, |limit| limit.per_minute).to_le_bytes());
                if let Some(limit) = limit {
                    names.push_key(limit);
                    keys += 1;
                }
            }
        }
        let ask = |how: &str, script: &str| {
            let mut command = redis::cmd(how);
            command.arg(script).arg(keys);
            for name in names.iter_keys() {
                command.arg(name);
            }
            command.arg(&limits[..]);
            command
        };
        match ask("EVALSHA", self.script.get_hash())
            .query_async(connection)
            .await
        {
            Err(e) if e.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                ask("EVAL", SCRIPT).query_async(connection).await
            }
            answer => answer,
        }
    }
}

/// A question like any other, under a name of its own: a Redis that answers but cannot count (a
/// replica, or one that is out of memory) is not taken for a good one.
fn probe_check() -> PendingCheck {
    let address = Limit {
        key: LimitKey::Probe,
        per_minute: EXACT_UP_TO,
    };
    PendingCheck {
        question: LimitCheck {
            address,
            token: None,
            keeping: None,
        },
        answer: oneshot::channel().0,
    }
}

/// The names of many limits, in one piece of memory.
#[derive(Default)]
struct KeyBuffer {
    text: String,
    ends: Vec<usize>,
}

impl KeyBuffer {
    fn push_key(&mut self, limit: &Limit) {
        limit.write_redis_key(&mut self.text);
        self.ends.push(self.text.len());
    }

    fn iter_keys(&self) -> impl Iterator<Item = &str> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            self.text
                .get(std::mem::replace(&mut from, *end)..*end)
                .unwrap_or_default()
        })
    }
}

enum RedisFailure {
    Late,
    By(RedisError),
}

enum Ended {
    Stopped,
    /// Too slow; the connection may yet be good.
    Late(MultiplexedConnection),
    Failed(RedisError),
}

/// Ends only when nobody can ask any more.
async fn reject_pending(waiting: &mut mpsc::Receiver<PendingCheck>) {
    while let Some(one) = waiting.recv().await {
        let _ = one.answer.send(None);
    }
}

/// No numbers at all: every question passed, and none is kept.
fn read_decision(question: &LimitCheck, numbers: &[i64], at: usize) -> Option<LimitDecision> {
    if numbers.is_empty() {
        return Some(LimitDecision::Pass { keep: false });
    }
    let code = *numbers.get(at * 2)?;
    let micros = u64::try_from(*numbers.get(at * 2 + 1)?).ok()?;
    let retry_after = Duration::from_micros(micros);
    match code {
        0 => Some(LimitDecision::Pass { keep: true }),
        1 => Some(LimitDecision::Pass { keep: false }),
        2 => Some(LimitDecision::AddressOver {
            limit: question.address.per_minute,
            retry_after,
        }),
        3 => Some(LimitDecision::TokenOver {
            limit: question.token?.per_minute,
            retry_after,
        }),
        _ => None,
    }
}

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
