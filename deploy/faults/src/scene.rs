//! Two gateways, two workers, and a cutter on every link between them and their neighbours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use trueup_shared::testkit::cutter::Cutter;
use trueup_shared::testkit::database::TestDatabase;
use trueup_shared::testkit::fixtures::{self, Webhook, WebhookSpec};
use trueup_shared::testkit::lease::Lease;
use trueup_shared::testkit::process::{Process, Start};
use uuid::Uuid;

/// Calls that the senders report about.
pub const CALLS: usize = 60;
const SECRET: &str = "whsec-for-the-fault-runs-only";

/// The links that can fail.
pub const LINKS: [&str; 5] =
    ["gateway-redis", "gateway-broker", "gateway-postgres", "worker-broker", "worker-postgres"];

pub struct Scene {
    pub database: TestDatabase,
    pub lease: Lease,
    pub client: tokio_postgres::Client,
    pub webhook: Webhook,
    cutters: Vec<Cutter>,
    pub gateways: Vec<Option<Process>>,
    pub workers: Vec<Option<Process>>,
    /// The public addresses; they stay the same over a restart.
    pub doors: Vec<SocketAddr>,
    binaries: PathBuf,
    spools: Option<PathBuf>,
}

impl Scene {
    pub async fn set(binaries: &Path, spool: bool) -> anyhow::Result<Scene> {
        let database = TestDatabase::fresh().await;
        let lease = Lease::take().await;
        let client = database.client().await;
        let account = fixtures::account(&client).await;
        let webhook = fixtures::webhook(&client, account, &WebhookSpec::with_secret(SECRET)).await;
        books(&client, account).await?;
        let cutters = vec![
            Cutter::to(lease.redis_server()).await,
            Cutter::to(lease.amqp_server()).await,
            Cutter::to(&database.server()).await,
            Cutter::to(lease.amqp_server()).await,
            Cutter::to(&database.server()).await,
        ];
        let spools = spool.then(|| std::env::temp_dir().join(format!("trueup-faults-{}", database.name)));
        let mut scene = Scene {
            database,
            lease,
            client,
            webhook,
            cutters,
            gateways: vec![None, None],
            workers: vec![None, None],
            doors: vec![free_port()?, free_port()?],
            binaries: binaries.to_owned(),
            spools,
        };
        for n in 0..2 {
            scene.start_worker(n);
            scene.start_gateway(n);
        }
        for process in scene.gateways.iter_mut().chain(&mut scene.workers).flatten() {
            process.wait_ready().await;
        }
        Ok(scene)
    }

    pub fn cutter(&self, link: usize) -> &Cutter {
        &self.cutters[link % self.cutters.len()]
    }

    fn binary(&self, name: &str) -> String {
        self.binaries.join(name).to_string_lossy().into_owned()
    }

    pub fn start_gateway(&mut self, n: usize) {
        let mut start = Start::new(&self.binary("trueup-gateway"))
            .env("TRUEUP_REDIS_URL", self.lease.redis_through(self.cutters[0].address))
            .env("TRUEUP_AMQP_URL", self.lease.amqp_through(self.cutters[1].address))
            .env("TRUEUP_POSTGRES_URL", self.database.url_through(self.cutters[2].address))
            .env("TRUEUP_GATEWAY_LISTEN", self.doors[n])
            .env("TRUEUP_LIMIT_IP_PER_MINUTE", 1_000_000)
            .env("TRUEUP_LIMIT_TOKEN_PER_MINUTE", 1_000_000);
        if let Some(spools) = &self.spools {
            start = start.env("TRUEUP_SPOOL_DIR", spools.join(n.to_string()).display());
        }
        // A gateway that starts while Postgres is cut off goes by what it knew.
        start = start.env("TRUEUP_SNAPSHOT_FILE", self.snapshot_file(n).display());
        self.gateways[n] = Some(start.spawn());
    }

    fn snapshot_file(&self, n: usize) -> PathBuf {
        std::env::temp_dir().join(format!("trueup-faults-{}-{n}.snapshot", self.database.name))
    }

    pub fn start_worker(&mut self, n: usize) {
        let start = Start::new(&self.binary("trueup-worker"))
            .env("TRUEUP_AMQP_URL", self.lease.amqp_through(self.cutters[3].address))
            .env("TRUEUP_POSTGRES_URL", self.database.url_through(self.cutters[4].address));
        self.workers[n] = Some(start.spawn());
    }

    pub fn secret() -> &'static str {
        SECRET
    }

    /// Every link is whole and every process runs.
    pub async fn fair_weather(&mut self) -> anyhow::Result<()> {
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
        for process in self.gateways.iter_mut().chain(&mut self.workers).flatten() {
            anyhow::ensure!(process.is_running(), "a process ended by itself:\n{}", process.log());
            process.wait_ready().await;
        }
        Ok(())
    }

    /// What the processes said, for a run that failed.
    pub fn logs(&self) -> String {
        let all = self.gateways.iter().chain(&self.workers).flatten();
        all.map(Process::log).collect::<Vec<_>>().join("\n---\n")
    }

    /// Runs one of the worker's commands to its end.
    pub async fn command(&self, arguments: &[&str]) -> (i32, String) {
        let mut start = Start::new(&self.binary("trueup-worker"))
            .env("TRUEUP_AMQP_URL", &self.lease.amqp_url)
            .env("TRUEUP_POSTGRES_URL", &self.database.url);
        for argument in arguments {
            start = start.arg(argument);
        }
        let mut process = start.spawn();
        let code = process.exit_code(std::time::Duration::from_secs(120)).await;
        (code, process.log())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for process in self.gateways.iter_mut().chain(&mut self.workers).flatten() {
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

fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?)
}

/// Calls of a flat and a rev-share publisher.
async fn books(client: &tokio_postgres::Client, account: Uuid) -> anyhow::Result<()> {
    let campaign = Uuid::new_v4();
    client
        .execute("INSERT INTO campaigns (id, account_id, name) VALUES ($1, $2, 'faults')", &[&campaign, &account])
        .await?;
    let mut assignments = Vec::new();
    for (kind, amount, percent) in [("flat", Some(1_800_i64), None), ("rev_share", None, Some(333_300_i32))] {
        let (publisher, id) = (Uuid::new_v4(), Uuid::new_v4());
        let insert = "INSERT INTO publishers (id, account_id, name) VALUES ($1, $2, $3)";
        client.execute(insert, &[&publisher, &account, &kind]).await?;
        client
            .execute(
                "INSERT INTO assignments (id, account_id, campaign_id, publisher_id, kind, amount_cents, percent_e4)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[&id, &account, &campaign, &publisher, &kind, &amount, &percent],
            )
            .await?;
        assignments.push(id);
    }
    for n in 0..CALLS {
        let (id, ref_id) = (Uuid::new_v4(), ref_id(n));
        let (caller, duration) = (caller(n), i32::try_from(60 + n)?);
        client
            .execute(
                "INSERT INTO calls (account_id, id, ref_id, caller, duration_seconds, started_at, ended_at, assignment_id)
                 VALUES ($1, $2, $3, $4, $5, now() - interval '10 min', now() - interval '5 min', $6)",
                &[&account, &id, &ref_id, &caller, &duration, &assignments[n % 2]],
            )
            .await?;
    }
    Ok(())
}

pub fn ref_id(n: usize) -> String {
    format!("F{n}")
}

pub fn caller(n: usize) -> String {
    format!("+1305555{n:04}")
}
