//! Postgres servers of our own: a cluster in a folder; it refuses to run as root, so it runs as `postgres` then.
//!
//! A pair replicates synchronously: `synchronous_standby_names` on the primary and the default
//! `synchronous_commit=on`, so that a commit is on both disks before the worker acks the report. After a
//! promotion the replica runs alone and waits for nobody (it was started without the name).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::certificates::{KeyPair, copy_file};
use crate::folder::Folder;
use crate::process::{ProcessGuard, output, wait};
use crate::{find_program, pg_wire, spare_port};

/// A recovery after a crash, on a slow and busy machine.
pub const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const STANDBY: &str = "trueup_replica";
/// Of the settings that are there twice, the last counts. The connections are enough for all processes and for
/// tests that run side by side.
const SETTINGS: [&str; 4] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "wal_compression=off",
];

/// The newest installed server's programs. In PATH there may be Debian's wrappers of the same names, which want
/// a cluster of theirs.
pub fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let newest = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").is_file().then_some((version, bin))
        })
        .max();
    match newest {
        Some((_, bin)) => Some(bin),
        None => Some(find_program("initdb")?.parent()?.to_path_buf()),
    }
}

/// Whom a server runs as: ourselves, or `postgres` if we are root.
pub fn owner() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?
        .context("Postgres refuses to run as root and there is no user `postgres` to run it as")?;
    Ok(Some(user))
}

/// A command as that user.
pub fn command(program: &Path, owner: Option<&User>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("LC_ALL", "C.UTF-8");
    if let Some(user) = owner {
        command
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw())
            .env("HOME", dir);
    }
    command
}

/// A cluster's files: `data` in a folder of the owner.
pub struct Cluster {
    bin: PathBuf,
    owner: Option<User>,
    dir: PathBuf,
}

impl Cluster {
    pub fn in_folder(dir: &Path) -> Result<Cluster> {
        Ok(Cluster {
            bin: programs().context("PostgreSQL's server is not installed")?,
            owner: owner()?,
            dir: dir.to_owned(),
        })
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn command(&self, program: &str) -> Command {
        command(&self.bin.join(program), self.owner.as_ref(), &self.dir)
    }

    /// Makes the cluster, if it is not there. Made beside its place and moved there when it is whole: an
    /// interrupted one is made anew.
    pub fn init(&self) -> Result<()> {
        if self.data().join("PG_VERSION").exists() {
            return Ok(());
        }
        let making = self.dir.join("data.new");
        if making.exists() {
            std::fs::remove_dir_all(&making)?;
        }
        let mut initdb = self.command("initdb");
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "-D"])
            .arg(&making);
        output(initdb)?;
        Ok(std::fs::rename(&making, self.data())?)
    }

    /// Copies a running server's, to follow it.
    fn copy_from(&self, port: u16) -> Result<()> {
        let mut copy = self.command("pg_basebackup");
        copy.args(["-h", "127.0.0.1", "-U", "postgres", "-X", "stream"])
            .args(["-c", "fast", "-p", &port.to_string(), "-D"])
            .arg(self.data());
        output(copy)?;
        Ok(std::fs::write(self.data().join("standby.signal"), "")?)
    }

    /// Serves it, with these settings (`name=value`) beside our own.
    pub fn server(&self, port: u16, settings: &[String]) -> Command {
        let mut server = self.command("postgres");
        server
            .arg("-D")
            .arg(self.data())
            .args(["-p", &port.to_string()]);
        for setting in settings.iter().map(String::as_str).chain(SETTINGS) {
            server.args(["-c", setting]);
        }
        server
    }
}

pub fn answers(port: u16) -> bool {
    ask(port, "SELECT 1").is_ok()
}

fn ask(port: u16, statement: &str) -> Result<pg_wire::TextRows> {
    pg_wire::execute(port, "postgres", "postgres", statement)
}

/// A server of one's own, that may be killed.
pub struct Postgres {
    pub port: u16,
    guard: Option<ProcessGuard>,
    cluster: Cluster,
    settings: Vec<String>,
    folder: Folder,
}

impl Postgres {
    pub fn start() -> Result<Postgres> {
        let mut postgres = Postgres::new()?;
        postgres.cluster.init()?;
        postgres.run()?;
        Ok(postgres)
    }

    /// Over TLS as well, with this certificate. Who comes over TLS must show a certificate of that CA.
    pub fn start_over_tls(server: &KeyPair, clients_of: &Path) -> Result<Postgres> {
        let mut postgres = Postgres::new()?;
        postgres.cluster.init()?;
        let (folder, owner) = (postgres.folder.path.clone(), owner()?);
        let pair = server.copy_for(&folder, owner.as_ref())?;
        let ca = copy_file(clients_of, &folder, owner.as_ref())?;
        for (name, file) in [
            ("ssl_cert_file", &pair.certificate),
            ("ssl_key_file", &pair.key),
            ("ssl_ca_file", &ca),
        ] {
            postgres.settings.push(format!("{name}={}", file.display()));
        }
        postgres.settings.push("ssl=on".to_owned());
        let rules = "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n\
                     hostnossl all postgres 127.0.0.1/32 trust\n";
        std::fs::write(postgres.cluster.data().join("pg_hba.conf"), rules)?;
        postgres.run()?;
        Ok(postgres)
    }

    fn new() -> Result<Postgres> {
        let port = spare_port()?;
        let folder = Folder::make("postgres", port, owner()?.as_ref())?;
        Ok(Postgres {
            port,
            guard: None,
            cluster: Cluster::in_folder(&folder.path)?,
            settings: Vec::new(),
            folder,
        })
    }

    /// A primary and its synchronous replica.
    pub fn start_pair() -> Result<(Postgres, Postgres)> {
        let mut primary = Postgres::start()?;
        let mut replica = Postgres::new()?;
        replica.cluster.copy_from(primary.port)?;
        replica.settings.push(format!(
            "primary_conninfo=host=127.0.0.1 port={} user=postgres application_name={STANDBY}",
            primary.port
        ));
        replica.run()?;
        // Only now: until the standby is there, every commit would wait for it.
        primary
            .settings
            .push(format!("synchronous_standby_names={STANDBY}"));
        primary.restart()?;
        let in_sync = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
        ensure!(
            wait(START_PATIENCE, || ask(primary.port, in_sync)
                .is_ok_and(|rows| !rows.is_empty())),
            "the replica is not in step in time"
        );
        Ok((primary, replica))
    }

    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn run(&mut self) -> Result<()> {
        let log = self.folder.path.join("postgres.log");
        let server = self.cluster.server(self.port, &self.settings);
        let mut guard = ProcessGuard::start(server, &log)?;
        guard.wait_ready("Postgres", &log, START_PATIENCE, || answers(self.port))?;
        self.guard = Some(guard);
        Ok(())
    }

    /// SIGKILL, for good.
    pub fn kill(&mut self) {
        self.guard = None;
    }

    /// Ended as a crash ends it (no checkpoint, every backend at once), and recovering from its log.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(mut guard) = self.guard.take() {
            guard.end(Signal::SIGQUIT, STOP_PATIENCE);
        }
        self.run()
    }

    /// The replica becomes the primary.
    pub fn promote(&self) -> Result<()> {
        ask(self.port, "SELECT pg_promote(true, 25)").map(|_| ())
    }
}
