//! The system as it is measured: real binaries, a database, a vhost and a Redis database of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use lapin::options::QueuePurgeOptions;
use trueup_queue::topology;
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::builders;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::process::{Process, Start};

use crate::fixtures::{self, ACCOUNT, ACCOUNTS, Dataset, sql_id};
use crate::requests::{SECRET, WEBHOOKS, token};

/// Kinds of ids beside `books`'.
const SECRET_WEBHOOK: u32 = 7;
const WEBHOOK_SECRET: u32 = 8;

pub struct Testbed {
    pub database: TestDatabase,
    pub lease: Lease,
    pub client: tokio_postgres::Client,
    pub books: Dataset,
    binaries: PathBuf,
    pub gateways: Vec<Process>,
    pub doors: Vec<SocketAddr>,
    pub workers: Vec<Process>,
    pub console: Option<Process>,
}

impl Testbed {
    pub async fn set(binaries: &std::path::Path, calls: i64) -> anyhow::Result<Testbed> {
        let database = TestDatabase::fresh().await;
        let lease = Lease::acquire().await;
        let client = database.client().await;
        let books = Dataset::make(&client, calls, false).await?;
        webhooks(&client).await?;
        client.batch_execute("CHECKPOINT").await?;
        let binaries = binaries.to_owned();
        Ok(Testbed {
            database,
            lease,
            client,
            books,
            binaries,
            gateways: Vec::new(),
            doors: Vec::new(),
            workers: Vec::new(),
            console: None,
        })
    }

    pub fn start(&self, binary: &str) -> Start {
        self.surrounded(Start::new(&self.binaries.join(binary).to_string_lossy()))
    }

    /// The same, run by another program.
    pub fn start_under(&self, program: &str, arguments: &[&str], binary: &str) -> Start {
        let start = arguments
            .iter()
            .fold(Start::new(program), |start, argument| start.arg(argument));
        self.surrounded(start.arg(self.binaries.join(binary).display()))
    }

    fn surrounded(&self, start: Start) -> Start {
        on_services(start, &self.database, &self.lease)
    }

    /// A door behind a trusted proxy: us.
    pub async fn open_doors(&mut self, count: usize) -> anyhow::Result<()> {
        while self.gateways.len() < count {
            self.open_door(self.start("trueup-gateway")).await;
        }
        Ok(())
    }

    pub async fn open_door(&mut self, start: Start) {
        let mut gateway = start
            .env("TRUEUP_TRUSTED_PROXIES", "127.0.0.1/32")
            .ready()
            .await;
        self.doors.push(gateway.address("public").await);
        self.gateways.push(gateway);
    }

    /// Nothing waits in the queue any more: what was accepted without a worker is no part of what follows.
    pub async fn empty_queue(&self) -> anyhow::Result<()> {
        let session = self.lease.broker().await;
        let channel = session.open_channel().await?;
        channel
            .queue_purge(topology::QUEUE.into(), QueuePurgeOptions::default())
            .await?;
        session.close().await;
        Ok(())
    }

    pub async fn start_workers(&mut self, count: usize) {
        while self.workers.len() < count {
            self.workers.push(self.start("trueup-worker").ready().await);
        }
    }
}

impl Testbed {
    /// The same on new books: what was tried before has left nothing behind.
    pub async fn recreate(self) -> anyhow::Result<Testbed> {
        let (binaries, calls) = (self.binaries.clone(), self.books.calls);
        let (gateways, workers) = (self.gateways.len(), self.workers.len());
        drop(self);
        let mut stage = Testbed::set(&binaries, calls).await?;
        stage.open_doors(gateways).await?;
        stage.start_workers(workers).await;
        Ok(stage)
    }

    /// Opens the console; gives a key of the first account.
    pub async fn open_console(&mut self) -> &'static str {
        const KEY: &str = "key-of-the-load-bench-0123456789abcdef";
        if self.console.is_none() {
            self.console = Some(self.start("trueup-console").ready().await);
            builders::api_key(&self.client, fixtures::id(ACCOUNT, 0), KEY).await;
        }
        KEY
    }
}

/// Webhooks that require a secret, spread over the accounts of the books.
async fn webhooks(client: &tokio_postgres::Client) -> anyhow::Result<()> {
    let script = format!(
        "INSERT INTO webhooks (id, account_id, name, token, require_secret)
           SELECT {webhook}, {account}, 's' || n, '{prefix}' || n, true FROM generate_series(0, {last}) n;
         INSERT INTO webhook_secrets (id, webhook_id, digest)
           SELECT {secret}, {webhook}, sha256('{SECRET}') FROM generate_series(0, {last}) n;
         ANALYZE webhooks, webhook_secrets;",
        webhook = sql_id(SECRET_WEBHOOK, "n"),
        secret = sql_id(WEBHOOK_SECRET, "n"),
        account = sql_id(ACCOUNT, &format!("n % {ACCOUNTS}")),
        prefix = token(0).trim_end_matches('0'),
        last = WEBHOOKS - 1,
    );
    client
        .batch_execute(&script)
        .await
        .context("the webhooks could not be made")
}

/// A ceiling's process. Ended with its guard.
pub struct Baseline {
    _process: Process,
    pub address: SocketAddr,
}

impl Baseline {
    pub async fn start() -> anyhow::Result<Baseline> {
        let me = std::env::current_exe()?;
        let mut process = Start::new(&me.to_string_lossy()).arg("ceiling").spawn();
        Ok(Baseline {
            address: process.address("ceiling").await,
            _process: process,
        })
    }
}

/// On these services, and with nothing to do beside the reports.
pub fn on_services(start: Start, database: &TestDatabase, lease: &Lease) -> Start {
    start
        .env("TRUEUP_POSTGRES_URL", without_tls(&database.url))
        .env("TRUEUP_REDIS_URL", &lease.redis_url)
        .env("TRUEUP_AMQP_URL", &lease.amqp_url)
        .env("TRUEUP_RECONCILE_EVERY_HOURS", "0")
}

/// The ceilings speak to Postgres of this machine in the clear; so must what is measured beside them.
pub fn without_tls(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}sslmode=disable")
}
