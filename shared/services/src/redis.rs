//! Redis: holds nothing but the counters of the limits, so a private one saves nothing to disk.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

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

/// A Redis of one's own, that may be killed.
pub struct Redis {
    pub port: u16,
    guard: Option<ProcessGuard>,
    folder: Folder,
}

impl Redis {
    pub fn start() -> Result<Redis> {
        let port = spare_port()?;
        let mut redis = Redis {
            port,
            guard: None,
            folder: Folder::make("redis", port, None)?,
        };
        redis.restart()?;
        Ok(redis)
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
        let mut guard = ProcessGuard::start(server(&self.folder.path, self.port)?, &log)?;
        guard.wait_ready("Redis", &log, START_PATIENCE, || answers(self.port))?;
        self.guard = Some(guard);
        Ok(())
    }
}
