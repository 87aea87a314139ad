//! The names of all settings, in groups that the binaries flatten into their own.
//!
//! The only place where a `TRUEUP_…` name is written. All flags are global, so that
//! `trueup-worker migrate --postgres-url …` works as well as the other order.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use secrecy::SecretString;

use crate::settings::check;
use crate::tls::{CaFile, ClientCertificate, TlsFiles};

#[derive(Debug, Clone, Args)]
pub struct PostgresArgs {
    /// The database; several hosts, `target_session_attrs=read-write` and `sslmode=` work. Without `sslmode`, a host
    /// that is not this machine must prove its certificate's chain and name
    #[arg(long, env = "TRUEUP_POSTGRES_URL", value_name = "URL", global = true, hide_env_values = true,
          value_parser = check::postgres_url, default_value = "postgres://trueup@127.0.0.1:5432/trueup")]
    pub postgres_url: SecretString,

    /// Certificates (PEM) of those who vouch for Postgres, in place of the system's
    #[arg(long, env = "TRUEUP_POSTGRES_CA_FILE", value_name = "FILE", global = true, value_parser = CaFile::read)]
    pub postgres_ca_file: Option<CaFile>,

    /// Our certificate and its key (PEM, in one file), for a Postgres that asks for one
    #[arg(long, env = "TRUEUP_POSTGRES_CLIENT_CERT_FILE", value_name = "FILE", global = true,
          value_parser = ClientCertificate::read)]
    pub postgres_client_cert_file: Option<ClientCertificate>,
}

impl PostgresArgs {
    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            ca: self.postgres_ca_file.clone(),
            client: self.postgres_client_cert_file.clone(),
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct AmqpArgs {
    /// The broker; `amqps://` for TLS
    #[arg(long, env = "TRUEUP_AMQP_URL", value_name = "URL", global = true, hide_env_values = true,
          value_parser = check::amqp_url, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    pub amqp_url: SecretString,

    /// Certificates (PEM) of those who vouch for the broker, in place of the system's; for `amqps://`
    #[arg(long, env = "TRUEUP_AMQP_CA_FILE", value_name = "FILE", global = true, value_parser = CaFile::read)]
    pub amqp_ca_file: Option<CaFile>,

    /// Our certificate and its key (PEM, in one file), for a broker that asks for one
    #[arg(long, env = "TRUEUP_AMQP_CLIENT_CERT_FILE", value_name = "FILE", global = true,
          value_parser = ClientCertificate::read)]
    pub amqp_client_cert_file: Option<ClientCertificate>,

    /// Envelopes that the queue may hold before the broker refuses more (takes effect when the queue is made)
    #[arg(long, env = "TRUEUP_QUEUE_MAX_LENGTH", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "2000000")]
    pub queue_max_length: NonZeroU32,

    /// Bytes of envelopes that the queue may hold before the broker refuses more (takes effect when the queue
    /// is made)
    #[arg(long, env = "TRUEUP_QUEUE_MAX_BYTES", value_name = "BYTES", global = true,
          value_parser = check::positive_bytes, default_value = "16GiB")]
    pub queue_max_bytes: NonZeroU64,
}

impl AmqpArgs {
    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            ca: self.amqp_ca_file.clone(),
            client: self.amqp_client_cert_file.clone(),
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct RedisArgs {
    /// Where the limits are counted; `rediss://` for TLS
    #[arg(long, env = "TRUEUP_REDIS_URL", value_name = "URL", global = true, hide_env_values = true,
          value_parser = check::redis_url, default_value = "redis://127.0.0.1:6379/")]
    pub redis_url: SecretString,

    /// Certificates (PEM) of those who vouch for Redis, in place of the system's; for `rediss://`
    #[arg(long, env = "TRUEUP_REDIS_CA_FILE", value_name = "FILE", global = true, value_parser = CaFile::read)]
    pub redis_ca_file: Option<CaFile>,

    /// Our certificate and its key (PEM, in one file), for a Redis that asks for one
    #[arg(long, env = "TRUEUP_REDIS_CLIENT_CERT_FILE", value_name = "FILE", global = true,
          value_parser = ClientCertificate::read)]
    pub redis_client_cert_file: Option<ClientCertificate>,
}

impl RedisArgs {
    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            ca: self.redis_ca_file.clone(),
            client: self.redis_client_cert_file.clone(),
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What is logged: a level, or `target=level,…`
    #[arg(long, env = "TRUEUP_LOG", value_name = "FILTER", global = true,
          value_parser = check::log_filter, default_value = "info")]
    pub log: String,

    /// How it is logged [default: text on a terminal, else json]
    #[arg(long, env = "TRUEUP_LOG_FORMAT", value_name = "FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct GraceArgs {
    /// How long what is in flight may take after SIGTERM
    #[arg(id = "grace_seconds", long = "grace-seconds", env = "TRUEUP_GRACE_SECONDS", value_name = "SECONDS",
          global = true, value_parser = check::parse_seconds, default_value = "20")]
    pub grace: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// How long a process waits at its start for what it cannot work without; then it ends with 69
    #[arg(id = "start_seconds", long = "start-seconds", env = "TRUEUP_START_SECONDS", value_name = "SECONDS",
          global = true, value_parser = check::parse_seconds, default_value = "300")]
    pub within: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// The public door
    #[arg(id = "gateway_listen", long = "gateway-listen", env = "TRUEUP_GATEWAY_LISTEN", value_name = "ADDRESS",
          global = true, value_parser = check::parse_socket, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// /live, /ready and /metrics of the gateway
    #[arg(id = "gateway_ops_listen", long = "gateway-ops-listen", env = "TRUEUP_GATEWAY_OPS_LISTEN", value_name = "ADDRESS",
          global = true, value_parser = check::parse_socket, default_value = "127.0.0.1:9080")]
    pub ops_listen: SocketAddr,

    /// Requests a minute from one source address
    #[arg(long, env = "TRUEUP_LIMIT_IP_PER_MINUTE", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "50")]
    pub limit_ip_per_minute: NonZeroU32,

    /// Requests a minute to one webhook that sets no limit of its own
    #[arg(long, env = "TRUEUP_LIMIT_TOKEN_PER_MINUTE", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "200")]
    pub limit_token_per_minute: NonZeroU32,

    /// Elements of batches that one account may send to this gateway in a second, for long; a kilobyte counts as
    /// one. Beyond it that account's batches are answered 503; single reports are not counted
    #[arg(long, env = "TRUEUP_BATCH_EVENTS_PER_SECOND", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "2500")]
    pub batch_events_per_second: NonZeroU32,

    /// The same at once
    #[arg(long, env = "TRUEUP_BATCH_EVENTS_BURST", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "100000")]
    pub batch_events_burst: NonZeroU32,

    /// Without Redis: count in this process alone, or refuse with 503
    #[arg(
        long,
        env = "TRUEUP_LIMIT_REDIS_DOWN",
        value_name = "WHAT",
        global = true,
        default_value = "local"
    )]
    pub limit_redis_down: RedisDown,

    /// How long a request waits for Redis before the above applies; a healthy Redis nearby answers in 2 ms
    #[arg(
        long,
        env = "TRUEUP_LIMIT_REDIS_TIMEOUT_MS",
        value_name = "MILLISECONDS",
        global = true,
        value_parser = check::parse_milliseconds,
        default_value = "50"
    )]
    pub limit_redis_timeout_ms: Duration,

    /// CIDRs, with commas between, whose X-Forwarded-For is believed
    #[arg(long, env = "TRUEUP_TRUSTED_PROXIES", value_name = "CIDRS", global = true,
          value_parser = Proxies::parse, default_value = "")]
    pub trusted_proxies: Proxies,

    /// Keep reports here while the broker is away [default: none, answer 503]
    #[arg(
        long,
        env = "TRUEUP_SPOOL_DIR",
        value_name = "DIRECTORY",
        global = true
    )]
    pub spool_dir: Option<PathBuf>,

    /// The spool's size at most
    #[arg(long, env = "TRUEUP_SPOOL_MAX_BYTES", value_name = "BYTES", global = true,
          value_parser = check::positive_bytes, default_value = "1073741824")]
    pub spool_max_bytes: NonZeroU64,

    /// Keep a copy of the webhooks here (digests of secrets, no secret), to start from while Postgres is away [default: none]
    #[arg(long, env = "TRUEUP_SNAPSHOT_FILE", value_name = "FILE", global = true)]
    pub snapshot_file: Option<PathBuf>,

    /// Threads of the runtime; on few cores one is fastest, since the broker and Redis need the others
    #[arg(long, env = "TRUEUP_GATEWAY_THREADS", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "1")]
    pub gateway_threads: NonZeroU32,

    /// Connections at once; fewer where the limit of open files is below it (128 files are left for everything else)
    #[arg(long, env = "TRUEUP_MAX_CONNECTIONS", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "20000")]
    pub max_connections: NonZeroU32,

    /// Connections at once from one IPv4 address or IPv6 /64 that is no trusted proxy
    #[arg(long, env = "TRUEUP_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "1000")]
    pub max_connections_per_address: NonZeroU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RedisDown {
    Local,
    Refuse,
}

/// The networks whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split([',', ' '])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse::<IpNet>()
                    .or_else(|_| part.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| {
                        format!(
                            "{part:?} is no network; give CIDRs such as 10.0.0.0/8,192.0.2.7/32"
                        )
                    })
            })
            .collect::<Result<_, _>>()
            .map(Proxies)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }
}

#[derive(Debug, Clone, Args)]
pub struct ConsoleArgs {
    /// The settings API and the pages
    #[arg(id = "console_listen", long = "console-listen", env = "TRUEUP_CONSOLE_LISTEN", value_name = "ADDRESS",
          global = true, value_parser = check::parse_socket, default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,

    /// /live, /ready and /metrics of the console
    #[arg(id = "console_ops_listen", long = "console-ops-listen", env = "TRUEUP_CONSOLE_OPS_LISTEN", value_name = "ADDRESS",
          global = true, value_parser = check::parse_socket, default_value = "127.0.0.1:9100")]
    pub ops_listen: SocketAddr,

    /// What webhook URLs are built from: where buyers reach the gateway
    #[arg(long, env = "TRUEUP_PUBLIC_URL", value_name = "URL", global = true,
          value_parser = check::public_url, default_value = "http://127.0.0.1:8080")]
    pub public_url: String,

    /// Makes accounts [default: none; then no account can be made over HTTP]
    #[arg(long, env = "TRUEUP_ADMIN_KEY", value_name = "KEY", global = true, hide_env_values = true,
          value_parser = check::admin_key)]
    pub admin_key: Option<SecretString>,

    #[command(flatten)]
    pub ceilings: CeilingArgs,
}

/// What the operator lets one account have, and how many accounts there may be. Each is checked when
/// something is made or set; what stands above it already, stays.
#[derive(Debug, Clone, Args)]
pub struct CeilingArgs {
    /// Accounts in all
    #[arg(long, env = "TRUEUP_MAX_ACCOUNTS", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "1000")]
    pub max_accounts: NonZeroU32,

    /// Webhooks of one account, archived ones not counted
    #[arg(long, env = "TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "200")]
    pub max_webhooks_per_account: NonZeroU32,

    /// Secrets of one webhook that are valid at once
    #[arg(long, env = "TRUEUP_MAX_SECRETS_PER_WEBHOOK", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "5")]
    pub max_secrets_per_webhook: NonZeroU32,

    /// API keys of one account, revoked ones not counted
    #[arg(long, env = "TRUEUP_MAX_API_KEYS_PER_ACCOUNT", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "50")]
    pub max_api_keys_per_account: NonZeroU32,

    /// Users of one account who may sign in
    #[arg(long, env = "TRUEUP_MAX_USERS_PER_ACCOUNT", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "100")]
    pub max_users_per_account: NonZeroU32,

    /// Buyers of one account; also its publishers, its campaigns and its assignments, each counted alone
    #[arg(long, env = "TRUEUP_MAX_RECORDS_PER_ACCOUNT", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "10000")]
    pub max_records_per_account: NonZeroU32,

    /// Requests a minute that a webhook may set for itself, in all and from one address (at most 1000000)
    #[arg(long, env = "TRUEUP_MAX_WEBHOOK_LIMIT_PER_MINUTE", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "100000")]
    pub max_webhook_limit_per_minute: NonZeroU32,
}

#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// /live, /ready and /metrics of the worker
    #[arg(id = "worker_ops_listen", long = "worker-ops-listen", env = "TRUEUP_WORKER_OPS_LISTEN", value_name = "ADDRESS",
          global = true, value_parser = check::parse_socket, default_value = "127.0.0.1:9070")]
    pub ops_listen: SocketAddr,

    /// Envelopes that the broker hands over ahead of their settling
    #[arg(long, env = "TRUEUP_WORKER_PREFETCH", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "256")]
    pub worker_prefetch: NonZeroU32,

    /// Settling connections; each settles accounts of its own
    #[arg(long, env = "TRUEUP_WORKER_LANES", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "2")]
    pub worker_lanes: NonZeroU32,

    /// Reports that one transaction settles at most
    #[arg(long, env = "TRUEUP_WORKER_BATCH", value_name = "N", global = true,
          value_parser = check::parse_positive, default_value = "400")]
    pub worker_batch: NonZeroU32,

    /// Days that the rows of events are kept; the ledger is kept for ever
    #[arg(long, env = "TRUEUP_RETENTION_EVENT_DAYS", value_name = "DAYS", global = true,
          value_parser = check::parse_positive, default_value = "400")]
    pub retention_event_days: NonZeroU32,

    /// Days that raw requests are kept
    #[arg(long, env = "TRUEUP_RETENTION_REQUEST_DAYS", value_name = "DAYS", global = true,
          value_parser = check::parse_positive, default_value = "30")]
    pub retention_request_days: NonZeroU32,

    /// Hours between two proofs of the books (`reconcile --replay`), by one worker for all; 0: never
    #[arg(
        long,
        env = "TRUEUP_RECONCILE_EVERY_HOURS",
        value_name = "HOURS",
        global = true,
        value_parser = check::parse_hours, default_value = "24"
    )]
    pub reconcile_every_hours: u32,
}
