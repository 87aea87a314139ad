//! The process of the gateway, from its start to its end. It authenticates, limits and makes durable; it
//! never reads what a report says.
//!
//! [`crate::handler`] is one request; [`crate::responses`] has every answer; [`crate::listener`] and
//! [`crate::connection_io`] keep connections; [`crate::limits`], [`crate::webhook_cache`] and
//! [`crate::publish`] speak to Redis, Postgres and the broker, and none of them is ever waited for longer
//! than a sender would wait.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Readiness;
use trueup_ops::metrics::{self, DependencyName, EventKind};
use trueup_ops::private_listener;
use trueup_ops::settings::{AmqpArgs, GatewayArgs, PostgresArgs, RedisArgs, print_good};
use trueup_ops::shutdown::{ExitReason, Failure, Shutdown, spawn_vital};
use trueup_postgres::{Pool, PoolSettings};

use crate::app_state::GatewayState;
use crate::limits::{self, Limits, Policy, RedisUrlError};
use crate::listener;
use crate::publish::{
    self, BatchAllowance, DurablePublisher, EncodedEvents, OpenSpool, QueueBounds, Spool,
    SpoolError,
};
use crate::refusals::{self, RefusalCounter};
use crate::secret_check::SecretUsage;
use crate::unsettled_reports::UnsettledReports;
use crate::webhook_cache::{CacheSource, WebhookCache};

/// At most one row for each webhook, reason and address in 10 s (rules), and it shows within 15 s
/// (contract): the worker needs a part of that.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Rows of refusals in one message.
const TELL_ROWS: usize = 200;
/// Connections to Postgres: one reads, and one more while the first is found dead.
const POSTGRES_CONNECTIONS: usize = 2;
/// Senders give up after 2 s: by then they want an answer, if only a 503.
const FIRST_ATTEMPTS_WITHIN: Duration = Duration::from_secs(1);

pub struct ServerSettings {
    pub postgres: PostgresArgs,
    pub amqp: AmqpArgs,
    pub redis: RedisArgs,
    pub gateway: GatewayArgs,
    pub grace: Duration,
    /// How long a start may go on without knowing any webhook.
    pub start: Duration,
}

/// The whole life of the gateway, in the order in which things happen.
pub async fn run(settings: ServerSettings) -> Result<ExitReason, Failure> {
    let shutdown =
        Shutdown::install_signals(settings.grace).map_err(|e| Failure::new(ExitReason::Bug, e))?;
    check_redis(&settings.redis)?;
    // It may have to wait for the gateway that is being replaced; a stop need not.
    let opening = open_spool(&settings.gateway);
    let Some(spool) = shutdown.stop().run_until_cancelled(opening).await else {
        return Ok(ExitReason::Drained);
    };
    let spool = spool?;
    let max_connections = listener::raise_file_limit(settings.gateway.max_connections);
    let _ = metrics::gateway();
    let (ops, public) = bind_listeners(&settings.gateway).await?;

    // Cancelled when everything is told: the neighbours are needed until then.
    let end = CancellationToken::new();
    let readiness = Readiness::new("trueup-gateway");
    spawn_vital(
        "ops",
        private_listener::serve_private(ops, readiness.clone(), end.clone()),
    );
    let pool = open_pool(&settings.postgres)?;
    let gateway = Arc::new(open_state(
        &settings,
        &pool,
        spool,
        max_connections,
        &readiness,
        &end,
    )?);
    spawn_vital(
        "webhook cache at start",
        exit_if_no_webhooks(Arc::clone(&gateway), settings.start, end.clone()),
    );
    spawn_vital(
        "unsettled reports",
        UnsettledReports::watch(Arc::clone(&gateway.unsettled), pool, end.clone()),
    );
    let exit = serve_until_drained(public, gateway, &readiness, &shutdown).await;
    end.cancel();
    tracing::info!(?exit, "ended");
    Ok(exit)
}

fn check_redis(redis: &RedisArgs) -> Result<(), Failure> {
    let bad = |e: RedisUrlError| {
        Failure::bad_setting(
            "TRUEUP_REDIS_URL",
            format!("{e}; such as redis://user:password@host:6379/0"),
        )
    };
    limits::check_url(&redis.redis_url, &redis.tls()).map_err(bad)
}

/// The private one and the public one.
async fn bind_listeners(gateway: &GatewayArgs) -> Result<(TcpListener, TcpListener), Failure> {
    let (ops, public) = (gateway.ops_listen, gateway.listen);
    let private = private_listener::bind_private(ops)
        .await
        .map_err(|e| Failure::unbound_address("TRUEUP_GATEWAY_OPS_LISTEN", ops, &e))?;
    let listener = private_listener::bind_when_free(|| listener::bind_public(public)).await;
    let listener =
        listener.map_err(|e| Failure::unbound_address("TRUEUP_GATEWAY_LISTEN", public, &e))?;
    Ok((private, listener))
}

/// Serves the public until a stop, then answers what is in flight and tells what is counted.
async fn serve_until_drained(
    public: TcpListener,
    gateway: Arc<GatewayState>,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> ExitReason {
    let stop = shutdown.stop();
    let flushing = spawn_vital(
        "refusal flush",
        run_flush_loop(Arc::clone(&gateway), stop.clone()),
    );
    stop.run_until_cancelled(wait_for_first_attempts(readiness))
        .await;
    let serving = listener::accept_connections(public, Arc::clone(&gateway), stop.clone());
    let mut serving = std::pin::pin!(serving);
    let ended = stop.run_until_cancelled(&mut serving).await;
    readiness.start_draining();
    shutdown
        .drain(async {
            if ended.is_none() {
                serving.await;
            }
            let _ = flushing.await;
            flush_refusals_and_uses(&gateway).await;
        })
        .await
}

fn open_pool(postgres: &PostgresArgs) -> Result<Pool, Failure> {
    let pool_settings = PoolSettings {
        tls: postgres.tls(),
        ..PoolSettings::for_application("trueup-gateway", POSTGRES_CONNECTIONS)
    };
    Pool::new(postgres.postgres_url.expose_secret(), &pool_settings)
        .map_err(|e| Failure::bad_setting("TRUEUP_POSTGRES_URL", e))
}

/// All that can be said of the settings without asking anybody.
pub fn check_config(settings: &ServerSettings) -> Result<ExitReason, Failure> {
    check_redis(&settings.redis)?;
    open_pool(&settings.postgres)?;
    print_good();
    Ok(ExitReason::Drained)
}

async fn open_spool(gateway: &GatewayArgs) -> Result<Option<OpenSpool>, Failure> {
    let Some(directory) = &gateway.spool_dir else {
        return Ok(None);
    };
    let bad = |e: SpoolError| {
        Failure::bad_setting(
            "TRUEUP_SPOOL_DIR",
            format!("{e}; give a directory that this user may write to"),
        )
    };
    Spool::open_file(directory, gateway.spool_max_bytes.get())
        .await
        .map(Some)
        .map_err(bad)
}

fn open_state(
    settings: &ServerSettings,
    pool: &Pool,
    spool: Option<OpenSpool>,
    max_connections: usize,
    readiness: &Readiness,
    end: &CancellationToken,
) -> Result<GatewayState, Failure> {
    let gateway = &settings.gateway;
    let source = CacheSource {
        pool: pool.clone(),
        file: gateway.snapshot_file.clone(),
        postgres: readiness.add_dependency(DependencyName::Postgres),
        cache: readiness.add_dependency(DependencyName::Snapshot),
    };
    let redis = readiness.add_dependency(DependencyName::Redis);
    // Each is down until its first attempt has succeeded or failed: a gateway that has only just been
    // started gets no requests that it would have to refuse.
    let (down, timeout) = (gateway.limit_redis_down, gateway.limit_redis_timeout_ms);
    let limits = Limits::start(&settings.redis, down, timeout, redis, end.clone())
        .map_err(|e| Failure::bad_setting("TRUEUP_REDIS_URL", e))?;
    let publishing = publish::PublishSettings {
        amqp_url: settings.amqp.amqp_url.clone(),
        tls: settings.amqp.tls(),
        batches: BatchAllowance {
            per_second: settings.gateway.batch_events_per_second,
            burst: settings.gateway.batch_events_burst,
        },
        queue_bounds: QueueBounds {
            messages: settings.amqp.queue_max_length,
            bytes: settings.amqp.queue_max_bytes,
        },
        spool,
    };
    let durable = DurablePublisher::start_publishing(publishing, readiness, end.clone())
        .map_err(|e| Failure::new(ExitReason::Bug, e))?;
    Ok(GatewayState {
        webhooks: WebhookCache::start_refreshing(source, end.clone()),
        limits,
        policy: Policy {
            address_per_minute: gateway.limit_ip_per_minute.get(),
            token_per_minute: gateway.limit_token_per_minute.get(),
        },
        durable,
        refusals: RefusalCounter::default(),
        uses: SecretUsage::default(),
        unsettled: Arc::default(),
        proxies: gateway.trusted_proxies.clone(),
        max_connections,
        max_connections_per_address: gateway.max_connections_per_address.get(),
    })
}

/// Until each neighbour was reached once, or is known to be away. Who connects before that waits in the
/// kernel's queue: better than a 503 that a moment later would have been a 200.
async fn wait_for_first_attempts(readiness: &Readiness) {
    let all = async {
        while !readiness.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(FIRST_ATTEMPTS_WITHIN, all).await;
}

/// A gateway that has never known a webhook answers 503 to everything: after a while that is a
/// failure, for whoever restarts processes to see.
async fn exit_if_no_webhooks(gateway: Arc<GatewayState>, within: Duration, end: CancellationToken) {
    tokio::select! {
        () = end.cancelled() => return,
        () = tokio::time::sleep(within) => {}
    }
    if !gateway.webhooks.is_known() {
        tracing::error!(
            "no webhooks became known: Postgres never came up, and there is no saved copy"
        );
        std::process::exit(ExitReason::Unavailable.code().into());
    }
}

async fn run_flush_loop(gateway: Arc<GatewayState>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TELL_EVERY) => flush_refusals_and_uses(&gateway).await,
        }
    }
}

/// Publishes what was refused and which secrets were used since the last time; what could not be
/// published is told the next time.
async fn flush_refusals_and_uses(gateway: &GatewayState) {
    let refusals: Vec<_> = gateway.refusals.take_counts().into_iter().collect();
    let uses = gateway.uses.take_uses();
    if !uses.is_empty()
        && gateway
            .durable
            .persist_events(EncodedEvents::from_events_and_uses(&[], uses.clone()))
            .await
            .is_err()
    {
        gateway.uses.restore_uses(uses);
    }
    for part in refusals.chunks(TELL_ROWS) {
        let rows = refusals::refusal_events(part);
        match gateway
            .durable
            .persist_events(EncodedEvents::from_events(&rows))
            .await
        {
            Ok(()) => metrics::gateway()
                .events
                .add(EventKind::Refusal, rows.len()),
            Err(_) => gateway.refusals.restore_counts(part),
        }
    }
}
