//! Two gateways, two workers, a console, and a cutter on every link between them and their neighbours.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use trueup_testkit::process::{Process, Start};
use trueup_testkit::services::spare_port;
use trueup_testkit::tcp_proxy::FaultProxy;

use crate::arguments::Arguments;
use crate::fixtures::{self, Account};
use crate::services::{Services, TestEnv};

/// The links that can fail.
pub const LINKS: [&str; 6] = [
    "gateway-redis",
    "gateway-broker",
    "gateway-postgres",
    "worker-broker",
    "worker-postgres",
    "console-postgres",
];
/// Where Debian keeps the library that shifts a process's clock.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];
/// A process drains within its grace (20 s), and then some.
const DRAINS_WITHIN: Duration = Duration::from_secs(40);

pub struct Cluster {
    pub ground: TestEnv,
    pub account: Account,
    cutters: Vec<FaultProxy>,
    since: Instant,
    pub gateways: Vec<Option<Process>>,
    pub workers: Vec<Option<Process>>,
    pub console: Option<Process>,
    /// The public addresses; they stay the same over a restart.
    pub doors: Vec<SocketAddr>,
    pub desk: SocketAddr,
    /// By how many seconds each gateway's clock is off.
    clocks: [i32; 2],
    binaries: PathBuf,
    log: String,
    queue_max_length: Option<u32>,
    spools: Option<PathBuf>,
}

impl Cluster {
    pub async fn set(
        arguments: &Arguments,
        services: Services,
        spool: bool,
    ) -> anyhow::Result<Cluster> {
        let ground = TestEnv::prepare(services).await;
        let account = fixtures::open(&ground.database.client().await).await;
        let postgres = [ground.database.server()];
        let redis = [ground.lease.redis_server().to_owned()];
        let mut cutters = Vec::new();
        for link in LINKS {
            let targets: &[String] = match link.split('-').nth(1) {
                Some("redis") => &redis,
                Some("broker") => &ground.brokers,
                _ => &postgres,
            };
            cutters.push(FaultProxy::to_any(targets).await);
        }
        let spools = spool
            .then(|| std::env::temp_dir().join(format!("trueup-faults-{}", ground.database.name)));
        Ok(Cluster {
            ground,
            account,
            cutters,
            since: Instant::now(),
            gateways: vec![None, None],
            workers: vec![None, None],
            console: None,
            doors: vec![free_address()?, free_address()?],
            desk: free_address()?,
            clocks: [0, 0],
            binaries: arguments.binaries.clone(),
            log: arguments.log.clone(),
            queue_max_length: None,
            spools,
        })
    }

    /// A queue that is soon full; before anything is started.
    pub fn bound_the_queue(&mut self, envelopes: u32) {
        self.queue_max_length = Some(envelopes);
    }

    pub async fn start_all(&mut self) {
        for n in 0..2 {
            self.start_worker(n);
            self.start_gateway(n);
        }
        self.start_console();
        self.all_ready().await;
    }

    async fn all_ready(&mut self) {
        for process in self.processes() {
            process.wait_ready().await;
        }
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.gateways
            .iter_mut()
            .chain(&mut self.workers)
            .chain([&mut self.console])
            .flatten()
    }

    /// RabbitMQ writes down which quorum queues it has half a second after it made one: killed before, it
    /// knows the queue and has no data for it. That is its maker's to mend.
    pub fn broker_is_safe_to_kill(&self) -> bool {
        const QUEUE_IS_WRITTEN_DOWN: Duration = Duration::from_secs(3);
        self.ground.services.is_some() && self.since.elapsed() > QUEUE_IS_WRITTEN_DOWN
    }

    pub async fn client(&self) -> tokio_postgres::Client {
        self.ground.database.client().await
    }

    pub fn proxy(&self, link: usize) -> &FaultProxy {
        &self.cutters[link % self.cutters.len()]
    }

    fn start(&self, name: &str) -> Start {
        let mut start =
            Start::new(&self.binaries.join(name).to_string_lossy()).env("TRUEUP_LOG", &self.log);
        if let Some(length) = self.queue_max_length {
            start = start.env("TRUEUP_QUEUE_MAX_LENGTH", length);
        }
        start
    }

    fn postgres_through(&self, link: usize) -> String {
        if self.ground.follows_primary {
            return self.ground.database.url.clone();
        }
        self.ground.database.url_through(self.cutters[link].address)
    }

    pub fn start_gateway(&mut self, n: usize) {
        let lease = &self.ground.lease;
        let mut start = self
            .start("trueup-gateway")
            .env(
                "TRUEUP_REDIS_URL",
                lease.redis_through(self.cutters[0].address),
            )
            .env(
                "TRUEUP_AMQP_URL",
                lease.amqp_through(self.cutters[1].address),
            )
            .env("TRUEUP_POSTGRES_URL", self.postgres_through(2))
            .env("TRUEUP_GATEWAY_LISTEN", self.doors[n])
            .env("TRUEUP_LIMIT_IP_PER_MINUTE", 1_000_000)
            .env("TRUEUP_LIMIT_TOKEN_PER_MINUTE", 1_000_000);
        if let Some(spools) = &self.spools {
            start = start.env("TRUEUP_SPOOL_DIR", spools.join(n.to_string()).display());
        }
        if let Some(library) = faketime().filter(|_| self.clocks[n] != 0) {
            start = start
                .env("LD_PRELOAD", library.display())
                .env("FAKETIME", format!("{:+}s", self.clocks[n]))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", 1);
        }
        // A gateway that starts while Postgres is cut off goes by what it knew.
        start = start.env("TRUEUP_SNAPSHOT_FILE", self.snapshot_file(n).display());
        self.gateways[n] = Some(start.spawn());
    }

    fn snapshot_file(&self, n: usize) -> PathBuf {
        std::env::temp_dir().join(format!(
            "trueup-faults-{}-{n}.snapshot",
            self.ground.database.name
        ))
    }

    pub fn start_worker(&mut self, n: usize) {
        let start = self
            .start("trueup-worker")
            .env(
                "TRUEUP_AMQP_URL",
                self.ground.lease.amqp_through(self.cutters[3].address),
            )
            .env("TRUEUP_POSTGRES_URL", self.postgres_through(4));
        self.workers[n] = Some(start.spawn());
    }

    pub fn start_console(&mut self) {
        let start = self
            .start("trueup-console")
            .env("TRUEUP_POSTGRES_URL", self.postgres_through(5))
            .env("TRUEUP_CONSOLE_LISTEN", self.desk);
        self.console = Some(start.spawn());
    }

    /// From the gateway's next start on.
    pub fn set_clock(&mut self, n: usize, seconds: i32) {
        self.clocks[n] = seconds;
    }

    /// SIGTERM, and its end, which must be a clean one.
    pub async fn stop_worker(&mut self, n: usize) -> anyhow::Result<()> {
        match self.workers[n].take() {
            Some(worker) => ended(worker).await.context("a worker"),
            None => Ok(()),
        }
    }

    pub async fn stop_gateway(&mut self, n: usize) -> anyhow::Result<()> {
        match self.gateways[n].take() {
            Some(gateway) => ended(gateway).await.context("a gateway"),
            None => Ok(()),
        }
    }

    /// Every link is whole and every process runs.
    pub async fn heal_and_restart(&mut self) -> anyhow::Result<()> {
        for cutter in &self.cutters {
            cutter.restore();
        }
        for n in 0..2 {
            if self.workers[n].is_none() {
                self.start_worker(n);
            }
            if self.gateways[n].is_none() {
                self.start_gateway(n);
            }
        }
        if self.console.is_none() {
            self.start_console();
        }
        for process in self.processes() {
            ensure!(
                process.is_running(),
                "a process ended by itself:\n{}",
                process.log()
            );
        }
        self.all_ready().await;
        Ok(())
    }

    /// What the processes said, for a run that failed.
    pub fn logs(&mut self) -> String {
        self.processes()
            .map(|process| process.log())
            .collect::<Vec<_>>()
            .join("\n---\n")
    }

    /// Runs one of the worker's commands to its end.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String) {
        let mut start = self
            .start("trueup-worker")
            .env("TRUEUP_AMQP_URL", &self.ground.lease.amqp_url)
            .env("TRUEUP_POSTGRES_URL", &self.ground.database.url);
        for argument in arguments {
            start = start.arg(argument);
        }
        let mut process = start.spawn();
        let code = process.exit_code(Duration::from_secs(120)).await;
        (code, process.log())
    }
}

async fn ended(mut process: Process) -> anyhow::Result<()> {
    process.terminate();
    let code = process.exit_code(DRAINS_WITHIN).await;
    // Stopped in the milliseconds before it could ask for the signal, and before it said or did anything.
    let unborn = code == 128 + Signal::SIGTERM as i32 && process.log().is_empty();
    ensure!(
        unborn || matches!(code, 0 | 75),
        "ended with {code}:\n{}",
        process.log()
    );
    Ok(())
}

/// The library that shifts clocks, where it is installed (Debian: `libfaketime`).
pub fn faketime() -> Option<PathBuf> {
    FAKETIME
        .iter()
        .map(PathBuf::from)
        .find(|file| file.is_file())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes() {
            process.kill();
        }
        // Leftovers of a run are of no use; a failure to remove them harms nothing.
        if let Some(spools) = &self.spools {
            let _ = std::fs::remove_dir_all(spools);
        }
        for n in 0..2 {
            let _ = std::fs::remove_file(self.snapshot_file(n));
        }
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], spare_port()?)))
}
