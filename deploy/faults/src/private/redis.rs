//! A Redis that may be killed.

use std::process::Command;

use anyhow::Result;
use tokio::net::TcpStream;

use super::{Daemon, Folder, find, spare_port};

pub struct Redis {
    port: u16,
    folder: Folder,
    daemon: Option<Daemon>,
}

impl Redis {
    pub async fn start() -> Result<Redis> {
        let mut redis = Redis {
            port: spare_port()?,
            folder: Folder::make("redis", None)?,
            daemon: None,
        };
        redis.run().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn run(&mut self) -> Result<()> {
        let mut command = Command::new(find("redis-server", "/usr/bin")?);
        command.current_dir(&self.folder.path).args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--port", &self.port.to_string()]);
        let mut daemon = Daemon::start(command, &self.folder.path.join("redis.log"))?;
        let port = self.port;
        daemon
            .wait("Redis", async || {
                TcpStream::connect(("127.0.0.1", port)).await.is_ok()
            })
            .await?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Killed, and started again with nothing in it.
    pub async fn restart(&mut self) -> Result<()> {
        self.daemon = None;
        self.run().await
    }
}
