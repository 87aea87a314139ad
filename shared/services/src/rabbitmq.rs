//! RabbitMQ nodes of our own: each has its own name, ports and data; those of a cluster share a cookie and a
//! port mapper of their own, so that they never meet another Erlang on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::certificates::KeyPair;
use crate::folder::Folder;
use crate::process::{ProcessGuard, forget_variables, output};
use crate::{find_program, probe, spare_port};

/// A cold start of Erlang on a slow, busy machine.
pub const START_PATIENCE: Duration = Duration::from_secs(120);

/// Debian's scripts without their wrapper, which insists on the user `rabbitmq`.
pub fn programs() -> Option<PathBuf> {
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin");
    if debian.join("rabbitmq-server").is_file() {
        return Some(debian);
    }
    Some(find_program("rabbitmq-server")?.parent()?.to_path_buf())
}

/// Does a broker let its guest in?
pub fn answers(port: u16) -> bool {
    probe::amqp(port, "guest", "guest", "/").is_ok()
}

pub struct Node {
    pub name: String,
    /// Its files.
    pub dir: PathBuf,
    /// Erlang's cookie is in here; a cluster shares it.
    pub home: PathBuf,
    pub port: u16,
    pub distribution_port: u16,
    pub mapper_port: u16,
}

impl Node {
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        vec![
            ("HOME", self.home.display().to_string()),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", self.port.to_string()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string()),
            ("ERL_EPMD_PORT", self.mapper_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            // A node that was killed may still be in its list when we end it.
            ("ERL_EPMD_RELAXED_COMMAND_CHECK", "true".into()),
            (
                "ERL_FLAGS",
                "-kernel inet_dist_use_interface {127,0,0,1}".into(),
            ),
            ("RABBITMQ_MNESIA_BASE", path("data")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
            ("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            ("RABBITMQ_PID_FILE", path("rabbitmq.pid")),
        ]
    }

    /// Its settings, and `more` of them; `cluster` names the nodes that form one, if it is to be one of several.
    pub fn write_files(&self, cluster: &[String], more: &str) -> Result<()> {
        for folder in [&self.home, &self.dir.join("data"), &self.dir.join("log")] {
            std::fs::create_dir_all(folder)?;
        }
        // Nothing but loopback; the watermark leaves room for the build beside it.
        let mut conf = String::from(
            "loopback_users.guest = true\nvm_memory_high_watermark.relative = 0.3\ndisk_free_limit.absolute = 200MB\n",
        );
        if cluster.len() > 1 {
            // The first node shall not wait long for the others, which are not there yet.
            conf.push_str(
                "cluster_formation.peer_discovery_backend = classic_config\n\
                 cluster_partition_handling = pause_minority\n\
                 cluster_formation.discovery_retry_limit = 2\n\
                 cluster_formation.discovery_retry_interval = 500\n",
            );
            for (n, name) in (1..).zip(cluster) {
                conf.push_str(&format!(
                    "cluster_formation.classic_config.nodes.{n} = {name}\n"
                ));
            }
        }
        conf.push_str(more);
        let files = [
            ("rabbitmq.conf", conf.as_str()),
            // A dead node is noticed after about 5 s even where no packet tells of it (60 s by default).
            ("advanced.config", "[{kernel, [{net_ticktime, 8}]}].\n"),
            ("rabbitmq-env.conf", ""),
            ("enabled_plugins", "[].\n"),
        ];
        for (name, text) in files {
            std::fs::write(self.dir.join(name), text)?;
        }
        Ok(())
    }

    /// `rabbitmq-server` or `rabbitmqctl` for this node; nothing of another node's settings gets in.
    pub fn command(&self, program: &str) -> Result<Command> {
        let bin = programs().context("rabbitmq-server is not installed")?;
        let mut command = Command::new(bin.join(program));
        forget_variables(&mut command, "RABBITMQ_");
        command.current_dir(&self.dir).envs(self.environment());
        Ok(command)
    }
}

/// Erlang leaves its port mapper behind; one that has a port of its own is ours to end.
pub fn stop_port_mapper(port: u16) {
    if let Some(epmd) = find_program("epmd") {
        let mut command = Command::new(epmd);
        command
            .args(["-port", &port.to_string(), "-kill"])
            .current_dir("/");
        // If it is gone already, all the better.
        let _ = output(command);
    }
}

/// A broker of one's own, of one node or of several, that may be killed.
pub struct RabbitMq {
    nodes: Vec<(Node, Option<ProcessGuard>)>,
    mapper_port: u16,
    _folder: Folder,
}

impl RabbitMq {
    /// `size` nodes that form one cluster.
    pub fn start(size: usize) -> Result<RabbitMq> {
        RabbitMq::start_with(size, "")
    }

    /// One node, over TLS as well, on that port; who comes there must show a certificate of that CA.
    pub fn start_over_tls(port: u16, server: &KeyPair, clients_of: &Path) -> Result<RabbitMq> {
        let conf = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
            clients_of.display(),
            server.certificate.display(),
            server.key.display()
        );
        RabbitMq::start_with(1, &conf)
    }

    fn start_with(size: usize, conf: &str) -> Result<RabbitMq> {
        let mapper_port = spare_port()?;
        let folder = Folder::make("rabbitmq", mapper_port, None)?;
        let mut broker = RabbitMq {
            nodes: Vec::new(),
            mapper_port,
            _folder: folder,
        };
        let home = broker._folder.path.clone();
        for n in 1..=size {
            let node = broker.node(n, &home)?;
            broker.nodes.push((node, None));
        }
        let names: Vec<String> = broker.nodes.iter().map(|(n, _)| n.name.clone()).collect();
        for n in 0..size {
            broker.nodes[n].0.write_files(&names, conf)?;
            // One after the other: the later ones find the first and join it.
            broker.start_node(n)?;
        }
        Ok(broker)
    }

    fn node(&self, n: usize, home: &Path) -> Result<Node> {
        Ok(Node {
            name: format!("trueup{n}@localhost"),
            dir: home.join(format!("node{n}")),
            home: home.to_owned(),
            port: spare_port()?,
            distribution_port: spare_port()?,
            mapper_port: self.mapper_port,
        })
    }

    /// Until it lets a client in.
    pub fn start_node(&mut self, n: usize) -> Result<()> {
        let (node, guard) = &mut self.nodes[n];
        let log = node.dir.join("start.log");
        let mut started = ProcessGuard::start(node.command("rabbitmq-server")?, &log)?;
        started.wait_ready("RabbitMQ", &log, START_PATIENCE, || answers(node.port))?;
        *guard = Some(started);
        Ok(())
    }

    pub fn kill_node(&mut self, n: usize) {
        self.nodes[n].1 = None;
    }

    pub fn start_dead_nodes(&mut self) -> Result<()> {
        for n in 0..self.nodes.len() {
            if self.nodes[n].1.is_none() {
                self.start_node(n)?;
            }
        }
        Ok(())
    }

    pub fn servers(&self) -> Vec<String> {
        let ports = self.nodes.iter().map(|(node, _)| node.port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// The first node's.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.servers().remove(0))
    }

    /// `rabbitmqctl`, of a node that runs.
    pub fn ctl_command(&self, arguments: &[&str]) -> Result<Command> {
        let running = self.nodes.iter().find(|(_, guard)| guard.is_some());
        let (node, _) = running.context("no node runs")?;
        let mut command = node.command("rabbitmqctl")?;
        command.args(arguments);
        Ok(command)
    }

    /// What `rabbitmqctl` says.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        output(self.ctl_command(arguments)?)
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
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&queue))
            .with_context(|| format!("no queue {queue} in:\n{listed}"))?;
        let leader = line.get(1).copied().unwrap_or_default();
        let n = self.nodes.iter().position(|(node, _)| node.name == leader);
        let online = line
            .get(2)
            .map_or(0, |members| members.matches('@').count());
        Ok((
            n.with_context(|| format!("no node is called {leader:?}"))?,
            online,
        ))
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.nodes.clear();
        stop_port_mapper(self.mapper_port);
    }
}
