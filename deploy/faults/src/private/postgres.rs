//! Postgres servers that may be killed: one, or a primary with a streaming replica.
//!
//! The pair replicates synchronously: `synchronous_standby_names` on the primary and the default
//! `synchronous_commit=on`, so that a commit is on both disks before the worker acks the report.
//! After a promotion the replica runs alone and waits for nobody (it was started without the name).

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;

use super::{Daemon, Folder, find, spare_port};

const STANDBY: &str = "trueup_replica";

pub struct Postgres {
    pub port: u16,
    /// Extra settings, as on the command line.
    settings: Vec<String>,
    folder: Folder,
    daemon: Option<Daemon>,
}

fn owner() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?;
    Ok(Some(user.context(
        "Postgres refuses to run as root and there is no user `postgres` to run it as",
    )?))
}

/// Debian keeps the server's programs apart, by version.
fn program(name: &str) -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    // In PATH there may be Debian's wrappers of the same names, which want a cluster of theirs.
    match newest
        .max()
        .map(|(_, bin)| bin.join(name))
        .filter(|file| file.is_file())
    {
        Some(file) => Ok(file),
        None => find(name, "/usr/local/bin"),
    }
}

fn command(name: &str, dir: &Path) -> Result<Command> {
    let mut command = Command::new(program(name)?);
    command.current_dir(dir).env("LC_ALL", "C.UTF-8");
    if let Some(user) = owner()? {
        command
            .uid(user.uid.as_raw())
            .gid(user.gid.as_raw())
            .env("HOME", dir);
    }
    Ok(command)
}

fn done(mut command: Command) -> Result<()> {
    let output = command.output()?;
    let name = command.get_program().to_string_lossy().into_owned();
    ensure!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Postgres {
    pub async fn start() -> Result<Postgres> {
        let folder = Folder::make("postgres", owner()?.as_ref())?;
        let mut initdb = command("initdb", &folder.path)?;
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "-D",
        ]);
        initdb.arg(folder.path.join("data"));
        done(initdb)?;
        let mut postgres = Postgres {
            port: spare_port()?,
            settings: Vec::new(),
            folder,
            daemon: None,
        };
        postgres.run().await?;
        Ok(postgres)
    }

    /// A primary and its synchronous replica.
    pub async fn pair() -> Result<(Postgres, Postgres)> {
        let mut primary = Postgres::start().await?;
        let folder = Folder::make("replica", owner()?.as_ref())?;
        let mut copy = command("pg_basebackup", &folder.path)?;
        copy.args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-X",
            "stream",
            "-c",
            "fast",
        ]);
        copy.args(["-p", &primary.port.to_string()]);
        copy.arg("-D").arg(folder.path.join("data"));
        done(copy)?;
        std::fs::write(folder.path.join("data/standby.signal"), "")?;
        let stream = format!(
            "primary_conninfo=host=127.0.0.1 port={} user=postgres application_name={STANDBY}",
            primary.port
        );
        let mut replica = Postgres {
            port: spare_port()?,
            settings: vec![stream],
            folder,
            daemon: None,
        };
        replica.run().await?;
        // Only now: until the standby is there, every commit would wait for it.
        primary
            .settings
            .push(format!("synchronous_standby_names={STANDBY}"));
        primary.restart().await?;
        let client = primary.client().await?;
        let in_sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let daemon = primary.daemon.as_mut().context("it runs")?;
        let waits = async || matches!(client.query_one(in_sync, &[]).await, Ok(row) if row.get::<_, i64>(0) == 1);
        daemon.wait("the replica", waits).await?;
        Ok((primary, replica))
    }

    pub fn server(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.server())
    }

    async fn client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    async fn run(&mut self) -> Result<()> {
        let mut server = command("postgres", &self.folder.path)?;
        server
            .arg("-D")
            .arg(self.folder.path.join("data"))
            .args(["-p", &self.port.to_string()]);
        let fixed = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
        ];
        for setting in fixed
            .into_iter()
            .chain(self.settings.iter().map(String::as_str))
        {
            server.args(["-c", setting]);
        }
        let mut daemon = Daemon::start(server, &self.folder.path.join("postgres.log"))?;
        let url = self.url();
        daemon
            .wait("Postgres", async || {
                match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
                    Ok((_client, _connection)) => true,
                    Err(_) => false,
                }
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// SIGKILL, for good.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// As a crash ends it: no checkpoint, every backend at once.
    pub async fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.end(Signal::SIGQUIT).await;
        }
    }

    /// Crashed, and recovering from its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.crash().await;
        self.run().await
    }

    /// The replica becomes the primary.
    pub async fn promote(&self) -> Result<()> {
        let client = self.client().await?;
        client.query_one("SELECT pg_promote(true, 60)", &[]).await?;
        Ok(())
    }
}
