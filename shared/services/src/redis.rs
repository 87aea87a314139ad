//! Redis: holds nothing but the counters of the limits, so a private one saves nothing to disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::certificates::{KeyPair, copy_file};
use crate::folder::Folder;
use crate::process::ProcessGuard;
use crate::{find_program, probe, spare_port};

pub const START_PATIENCE: Duration = Duration::from_secs(20);

/// Starts one in a folder that is there.
pub fn server(dir: &Path, port: u16) -> Result<Command> {
    let program = find_program("redis-server").context("redis-server is not installed")?;
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string()])
        .arg("--dir")
        .arg(dir)
        .current_dir(dir);
    Ok(command)
}

pub fn answers(port: u16) -> bool {
    probe::redis(port).is_ok()
}

struct RedisTls {
    port: u16,
    server: KeyPair,
    clients_of: PathBuf,
}

impl RedisTls {
    fn configure(&self, command: &mut Command) {
        command
            .args(["--tls-port", &self.port.to_string(), "--tls-cert-file"])
            .arg(&self.server.certificate)
            .arg("--tls-key-file")
            .arg(&self.server.key)
            .arg("--tls-ca-cert-file")
            .arg(&self.clients_of)
            .args(["--tls-auth-clients", "yes"]);
    }
}

/// A Redis of one's own, that may be killed.
pub struct Redis {
    pub port: u16,
    tls: Option<RedisTls>,
    guard: Option<ProcessGuard>,
    folder: Folder,
}

impl Redis {
    fn new() -> Result<Redis> {
        let port = spare_port()?;
        Ok(Redis {
            port,
            tls: None,
            guard: None,
            folder: Folder::make("redis", port, None)?,
        })
    }

    pub fn start() -> Result<Redis> {
        let mut redis = Redis::new()?;
        redis.restart()?;
        Ok(redis)
    }

    /// Over TLS as well, on a port beside; who comes there must show a certificate of that CA.
    pub fn start_over_tls(server: &KeyPair, clients_of: &Path) -> Result<Redis> {
        let mut redis = Redis::new()?;
        redis.tls = Some(RedisTls {
            port: spare_port()?,
            server: server.copy_for(&redis.folder.path, None)?,
            clients_of: copy_file(clients_of, &redis.folder.path, None)?,
        });
        redis.restart()?;
        Ok(redis)
    }

    pub fn tls_port(&self) -> Option<u16> {
        self.tls.as_ref().map(|tls| tls.port)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.guard = None;
    }

    /// Killed if it runs, and started again with nothing in it.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = self.folder.path.join("redis.log");
        let mut command = server(&self.folder.path, self.port)?;
        if let Some(tls) = &self.tls {
            tls.configure(&mut command);
        }
        let mut guard = ProcessGuard::start(command, &log)?;
        guard.wait_ready("Redis", &log, START_PATIENCE, || answers(self.port))?;
        self.guard = Some(guard);
        Ok(())
    }
}
