//! The connections to Postgres: bounded, with a time-out on everything, over TLS where the URL asks.
//!
//! deadpool has no time-outs unless told, and Postgres has none on a statement; a process that waits
//! forever is a process that is down without saying so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres::config::Config;
use tokio_postgres_rustls::MakeRustlsConnect;
use trueup_ops::tls::TlsFiles;

use crate::error::StoreError;
use crate::stale_statements::HeededReports;
use crate::tls;

/// How long a connection attempt to one host may take. Two hosts are tried within 6 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a caller waits for a free connection before it is told that the database is busy.
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A recycled connection answers a ping within this, or a new one is made.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(2);
/// A settling that waits longer for a lock than this steps aside (V12, ms).
const SETTLING_LOCK_TIMEOUT_MS: u32 = 2_000;
/// How long a settling session keeps a plan. Making all of them anew takes about 5 ms.
const PLANS_LAST: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about 10 + 3 × 5 s even when no packet comes back.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// Data that is not acknowledged for this long ends the connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// How a session that looks for few rows is set.
const LOOKING: &str = " -c enable_seqscan=off -c jit=off -c max_parallel_workers_per_gather=0";

/// What a pool's sessions are set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolProfile {
    /// As Postgres has it.
    Plain,
    /// For the settlement's sessions, whose every statement is a look-up by keys: a generic plan made on a
    /// just-analysed empty table would scan or hash it whole, and compiling a plan costs more than running
    /// it. Nor is a connection asked whether it lives before each batch: one that does not fails the
    /// batch, which is then tried again on another.
    Settlement,
    /// For the console, which looks for few rows among very many: it reads no table whole, and neither
    /// compiling a plan nor starting workers for it ever pays.
    Console,
}

#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
    pub max_connections: usize,
    /// Milliseconds that one statement may take before Postgres ends it.
    pub statement_timeout_ms: u32,
    /// Milliseconds that a transaction may sit idle before Postgres ends it.
    pub idle_in_transaction_timeout_ms: u32,
    pub profile: PoolProfile,
    /// Whose certificate is believed, and our own.
    pub tls: TlsFiles,
}

impl PoolSettings {
    pub fn for_application(application_name: &'static str, max_connections: usize) -> Self {
        PoolSettings {
            application_name,
            max_connections,
            statement_timeout_ms: 30_000,
            idle_in_transaction_timeout_ms: 30_000,
            profile: PoolProfile::Plain,
            tls: TlsFiles::default(),
        }
    }
}

/// A cheap handle; clone it freely.
#[derive(Clone)]
pub struct Pool {
    inner: deadpool_postgres::Pool,
    stale: Arc<HeededReports>,
}

pub type Client = deadpool_postgres::Object;

impl Pool {
    /// Reads the URL and makes an empty pool; no connection is opened yet.
    pub fn new(url: &str, settings: &PoolSettings) -> Result<Pool, StoreError> {
        let (config, tls) = session_config(url, settings)?;
        let recycling_method = if settings.profile == PoolProfile::Settlement {
            RecyclingMethod::Fast
        } else {
            RecyclingMethod::Verified
        };
        let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
        let mut builder = deadpool_postgres::Pool::builder(manager);
        if settings.profile == PoolProfile::Settlement {
            builder = builder.post_recycle(fresh_plans());
        }
        let inner = builder
            .max_size(settings.max_connections.max(1))
            .timeouts(Timeouts {
                wait: Some(WAIT_TIMEOUT),
                create: Some(CONNECT_TIMEOUT * 2),
                recycle: Some(RECYCLE_TIMEOUT),
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| StoreError::Unreachable(e.to_string()))?;
        Ok(Pool {
            inner,
            stale: Arc::default(),
        })
    }

    pub async fn get(&self) -> Result<Client, StoreError> {
        if self.stale.take_news() {
            self.inner.manager().statement_caches.clear();
        }
        Ok(self.inner.get().await?)
    }

    /// `Ok` if a connection answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.get()
            .await?
            .simple_query("/* ping */ SELECT 1")
            .await?;
        Ok(())
    }

    /// Connections in use and in all, for the metrics.
    pub fn connection_counts(&self) -> (usize, usize) {
        let status = self.inner.status();
        (status.size.saturating_sub(status.available), status.size)
    }

    pub fn close_pool(&self) {
        self.inner.close();
    }
}

/// A plan that is kept is not made anew when its table grows, only when somebody analyses it. One that
/// was made while the table was empty (and analysed as such) would read all of it for ever.
fn fresh_plans() -> Hook {
    Hook::async_fn(|client, metrics| {
        let periods =
            |at: Instant| at.duration_since(metrics.created).as_secs() / PLANS_LAST.as_secs();
        let due = periods(Instant::now()) > metrics.recycled.map_or(0, periods);
        Box::pin(async move {
            if due {
                client
                    .simple_query("/* fresh_plans */ DISCARD PLANS")
                    .await
                    .map_err(HookError::Backend)?;
            }
            Ok(())
        })
    })
}

/// One connection outside of any pool, with the pool's time-outs; the task that drives it ends with it.
pub async fn connect_once(
    url: &str,
    settings: &PoolSettings,
) -> Result<tokio_postgres::Client, StoreError> {
    let (config, tls) = session_config(url, settings)?;
    let (client, connection) = config
        .connect(tls)
        .await
        .map_err(deadpool_postgres::PoolError::Backend)?;
    tokio::spawn(async move {
        // Its end is seen by the client's next statement, which is where it is handled.
        let _ = connection.await;
    });
    Ok(client)
}

fn session_config(
    url: &str,
    settings: &PoolSettings,
) -> Result<(Config, MakeRustlsConnect), StoreError> {
    let (mut config, connector) = tls::read_url(url, &settings.tls)?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    config
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT);
    if config.get_application_name().is_none() {
        config.application_name(settings.application_name);
    }
    let mut options = config.get_options().unwrap_or_default().to_owned();
    options.push_str(&format!(
        " -c timezone=UTC -c statement_timeout={} -c idle_in_transaction_session_timeout={}",
        settings.statement_timeout_ms, settings.idle_in_transaction_timeout_ms
    ));
    if settings.profile == PoolProfile::Settlement {
        options.push_str(
            " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off",
        );
        options.push_str(&format!(" -c lock_timeout={SETTLING_LOCK_TIMEOUT_MS}"));
    }
    if settings.profile == PoolProfile::Console {
        options.push_str(LOOKING);
    }
    config.options(options.trim());
    Ok((config, connector))
}
