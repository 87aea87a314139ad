//! RabbitMQ nodes that may be killed: one, or a cluster of three on loopback.
//!
//! Each has its own node name, ports and data; all of a run share a cookie and a port mapper of
//! their own, so that they never meet another Erlang on the machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lapin::{Connection, ConnectionProperties};

use super::{Daemon, Folder, find, spare_port};

const DEBIAN: &str = "/usr/lib/rabbitmq/bin";

struct Node {
    name: String,
    port: u16,
    distribution_port: u16,
    daemon: Option<Daemon>,
}

pub struct RabbitMq {
    folder: Folder,
    mapper_port: u16,
    nodes: Vec<Node>,
}

impl RabbitMq {
    /// `size` nodes that form one cluster.
    pub async fn start(size: usize) -> Result<RabbitMq> {
        let folder = Folder::make("rabbitmq", None)?;
        let nodes = (1..=size).map(|n| {
            let name = format!("faults{n}@localhost");
            Ok(Node {
                name,
                port: spare_port()?,
                distribution_port: spare_port()?,
                daemon: None,
            })
        });
        let nodes: Vec<Node> = nodes.collect::<Result<_>>()?;
        let mut broker = RabbitMq {
            folder,
            mapper_port: spare_port()?,
            nodes,
        };
        for n in 0..size {
            broker.write_files(n)?;
            // One after the other: the later ones find the first and join it.
            broker.start_node(n).await?;
        }
        Ok(broker)
    }

    fn dir(&self, n: usize) -> PathBuf {
        self.folder.path.join(format!("node{}", n + 1))
    }

    fn write_files(&self, n: usize) -> Result<()> {
        let dir = self.dir(n);
        for folder in ["data", "log"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        let mut conf = String::from(
            "loopback_users.guest = true\nvm_memory_high_watermark.relative = 0.3\ndisk_free_limit.absolute = 200MB\n",
        );
        if self.nodes.len() > 1 {
            conf.push_str("cluster_formation.peer_discovery_backend = classic_config\n");
            conf.push_str("cluster_partition_handling = pause_minority\n");
            // The first node shall not wait long for the others, which are not there yet.
            conf.push_str("cluster_formation.discovery_retry_limit = 2\n");
            conf.push_str("cluster_formation.discovery_retry_interval = 500\n");
            for (at, node) in self.nodes.iter().enumerate() {
                conf.push_str(&format!(
                    "cluster_formation.classic_config.nodes.{} = {}\n",
                    at + 1,
                    node.name
                ));
            }
        }
        std::fs::write(dir.join("rabbitmq.conf"), conf)?;
        // A dead node is noticed after about 5 s even where no packet tells of it (60 s by default).
        std::fs::write(
            dir.join("advanced.config"),
            "[{kernel, [{net_ticktime, 8}]}].\n",
        )?;
        std::fs::write(dir.join("rabbitmq-env.conf"), "")?;
        Ok(std::fs::write(dir.join("enabled_plugins"), "[].\n")?)
    }

    fn command(&self, program: &str, n: usize) -> Result<Command> {
        let mut command = Command::new(find(program, DEBIAN).map(|found| {
            // Debian's wrapper in PATH insists on its own user.
            let debian = PathBuf::from(DEBIAN).join(program);
            if debian.is_file() { debian } else { found }
        })?);
        let (dir, node) = (self.dir(n), &self.nodes[n]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RABBITMQ_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&dir)
            .env("HOME", &self.folder.path)
            .env("RABBITMQ_NODENAME", &node.name)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", node.port.to_string())
            .env("RABBITMQ_DIST_PORT", node.distribution_port.to_string())
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // A node that was killed may still be in its list when we end it.
            .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "true")
            .env("ERL_FLAGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("RABBITMQ_MNESIA_BASE", dir.join("data"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("rabbitmq-env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", dir.join("rabbitmq.pid"));
        Ok(command)
    }

    /// Until it lets a client in.
    pub async fn start_node(&mut self, n: usize) -> Result<()> {
        let command = self.command("rabbitmq-server", n)?;
        let mut daemon = Daemon::start(command, &self.dir(n).join("start.log"))?;
        let url = self.url(n);
        daemon
            .wait("RabbitMQ", async || {
                match Connection::connect(&url, ConnectionProperties::default()).await {
                    Ok(connection) => {
                        let _ = connection.close(200, "".into()).await;
                        true
                    }
                    Err(_) => false,
                }
            })
            .await?;
        self.nodes[n].daemon = Some(daemon);
        Ok(())
    }

    pub fn kill_node(&mut self, n: usize) {
        self.nodes[n].daemon = None;
    }

    pub async fn start_dead_nodes(&mut self) -> Result<()> {
        for n in 0..self.nodes.len() {
            if self.nodes[n].daemon.is_none() {
                self.start_node(n).await?;
            }
        }
        Ok(())
    }

    pub fn server(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[n].port)
    }

    pub fn servers(&self) -> Vec<String> {
        (0..self.nodes.len()).map(|n| self.server(n)).collect()
    }

    pub fn url(&self, n: usize) -> String {
        format!("amqp://guest:guest@{}/%2f", self.server(n))
    }

    /// What `rabbitmqctl` says, asked of a node that runs.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let n = self
            .nodes
            .iter()
            .position(|node| node.daemon.is_some())
            .context("no node runs")?;
        let output = self.command("rabbitmqctl", n)?.args(arguments).output()?;
        ensure!(
            output.status.success(),
            "rabbitmqctl {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The node that leads a quorum queue, and how many of its members are there.
    pub fn leader(&self, queue: &str) -> Result<(usize, usize)> {
        let listed = self.ctl(&[
            "-q",
            "list_queues",
            "--no-table-headers",
            "name",
            "leader",
            "online",
        ])?;
        let line = listed
            .lines()
            .find(|line| line.split('\t').next() == Some(queue));
        let line = line.with_context(|| format!("no queue {queue} in:\n{listed}"))?;
        let leader = line.split('\t').nth(1).unwrap_or_default();
        let n = self.nodes.iter().position(|node| node.name == leader);
        let online = line
            .split('\t')
            .nth(2)
            .unwrap_or_default()
            .matches("faults")
            .count();
        Ok((
            n.with_context(|| format!("no node is called {leader:?}"))?,
            online,
        ))
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.daemon = None;
        }
        // Erlang leaves its port mapper behind; ours has a port of its own, so it is ours to end.
        if let Ok(epmd) = find("epmd", "/usr/bin") {
            let mut command = Command::new(epmd);
            let _ = command
                .args(["-port", &self.mapper_port.to_string(), "-kill"])
                .output();
        }
    }
}
