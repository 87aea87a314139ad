//! RabbitMQ. In a broker that runs already: a vhost `trueup`, if we may make one. A private one has
//! its own node name, port mapper, cookie and data, so that it never meets another on the machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::probe::{self, Broker};
use super::{Found, Purpose, ServiceMode, Services, remembered, serving, spare_port};
use crate::child_process;
use crate::layout::Layout;
use crate::state::State;

const DEFAULT_PORT: u16 = 5672;
const PRIVATE_FROM_PORT: u16 = 55672;
const PRIVATE_DISTRIBUTION_FROM_PORT: u16 = 57672;
const PRIVATE_MAPPER_FROM_PORT: u16 = 54369;
const VHOST: &str = "trueup";
/// A cold start of Erlang on a slow, busy machine.
const START_PATIENCE: Duration = Duration::from_secs(120);

pub fn find(
    services: &mut Services,
    state: &State,
    choice: ServiceMode,
    need: Purpose,
) -> Result<bool> {
    if choice == ServiceMode::Private {
        return Ok(false);
    }
    if let Some(url) = need.named("AMQP") {
        services.amqp_url = url;
        return Ok(true);
    }
    if remembered(state, "rabbitmq").is_some() {
        return Ok(false);
    }
    if probe::amqp(DEFAULT_PORT, "guest", "guest", "/").is_err() {
        return Ok(false);
    }
    // Debian's wrapper wants root; without it there is the default vhost.
    let program = child_process::find_program("rabbitmqctl");
    services.rabbitmqctl = match program {
        Some(program) if child_process::is_root() => Some(program.display().to_string()),
        Some(program) => {
            child_process::as_root(&program).map(|_| format!("sudo -n {}", program.display()))
        }
        None => None,
    };
    // Tests make vhosts.
    if need != Purpose::System && services.rabbitmqctl.is_none() {
        return Ok(false);
    }
    services.amqp_url = format!("amqp://guest:guest@127.0.0.1:{DEFAULT_PORT}/%2f");
    println!("ok   RabbitMQ runs on port {DEFAULT_PORT}");
    Ok(true)
}

/// Moves the URL to the vhost `trueup`, making it if we may; else stays in the default one.
pub fn use_own_vhost(services: &mut Services) {
    let Some(port) = guest_port(&services.amqp_url) else {
        return;
    };
    let opens = || {
        matches!(
            probe::amqp(port, "guest", "guest", VHOST),
            Ok(Broker::LetsIn)
        )
    };
    if !opens() {
        let Some(ctl) = &services.rabbitmqctl else {
            return;
        };
        let make = [
            &["add_vhost", VHOST][..],
            &["set_permissions", "-p", VHOST, "guest", ".*", ".*", ".*"],
        ];
        for arguments in make {
            let mut words = ctl.split(' ');
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words).args(arguments);
            // "Already there" is fine; whether it worked is asked below.
            let _ = child_process::output(command);
        }
        if !opens() {
            return;
        }
    }
    services.amqp_url = format!("amqp://guest:guest@127.0.0.1:{port}/{VHOST}");
}

/// The port of a URL that was made in here; `None` for one that was given from outside.
fn guest_port(url: &str) -> Option<u16> {
    url.strip_prefix("amqp://guest:guest@127.0.0.1:")?
        .strip_suffix("/%2f")?
        .parse()
        .ok()
}

/// Debian's scripts without their wrapper, which insists on the user `rabbitmq`.
pub fn programs() -> Option<PathBuf> {
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin");
    if debian.join("rabbitmq-server").is_file() {
        return Some(debian);
    }
    child_process::find_program("rabbitmq-server")?
        .parent()
        .map(Path::to_path_buf)
}

struct Node {
    dir: PathBuf,
    port: u16,
    distribution_port: u16,
    mapper_port: u16,
}

impl Node {
    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        vec![
            ("HOME", path("home")),
            ("RABBITMQ_NODENAME", "trueup@localhost".into()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODE_PORT", self.port.to_string()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string()),
            ("ERL_EPMD_PORT", self.mapper_port.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
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

    fn write_files(&self) -> Result<()> {
        for folder in ["home", "data", "log"] {
            std::fs::create_dir_all(self.dir.join(folder))?;
        }
        let files = [
            // Nothing but loopback; the watermark leaves room for the build beside it.
            (
                "rabbitmq.conf",
                "loopback_users.guest = true\nvm_memory_high_watermark.relative = 0.3\ndisk_free_limit.absolute = 200MB\n",
            ),
            ("advanced.config", "[].\n"),
            ("rabbitmq-env.conf", ""),
            ("enabled_plugins", "[].\n"),
        ];
        for (name, text) in files {
            std::fs::write(self.dir.join(name), text)?;
        }
        Ok(())
    }

    /// A script that administers this node: what `rabbitmqctl` is to the machine's own.
    fn write_ctl(&self, bin: &Path) -> Result<PathBuf> {
        let mut script = String::from("#!/bin/sh\n# Administers the private RabbitMQ beside it.\n");
        for (name, value) in self.environment() {
            script.push_str(&format!("export {name}='{value}'\n"));
        }
        script.push_str(&format!(
            "exec '{}' \"$@\"\n",
            bin.join("rabbitmqctl").display()
        ));
        let path = self.dir.join("rabbitmqctl");
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }
}

pub fn start(layout: &Layout, state: &mut State, services: &mut Services) -> Result<Found> {
    let dir = layout.services().join("rabbitmq");
    if let Some(port) = serving(state, "rabbitmq", |port| {
        probe::amqp(port, "guest", "guest", "/").is_ok()
    })? {
        set(services, &dir, port);
        return Ok(Found { started: false });
    }
    let bin = programs().context("rabbitmq-server is not installed")?;
    // One that outlived a broker that was killed.
    stop_port_mapper(layout, state);
    let node = Node {
        port: spare_port(PRIVATE_FROM_PORT)?,
        distribution_port: spare_port(PRIVATE_DISTRIBUTION_FROM_PORT)?,
        mapper_port: spare_port(PRIVATE_MAPPER_FROM_PORT)?,
        dir: dir.clone(),
    };
    node.write_files()?;
    node.write_ctl(&bin)?;
    let mut command = Command::new(bin.join("rabbitmq-server"));
    command.current_dir(&dir);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RABBITMQ_") {
            command.env_remove(name);
        }
    }
    command.envs(node.environment());
    let log = dir.join("start.log");
    let daemon = child_process::start(command, &log)?;
    let remember =
        json!({ "daemon": daemon.to_json(), "port": node.port, "mapper_port": node.mapper_port });
    state.set("rabbitmq", remember)?;
    child_process::wait_ready("RabbitMQ", daemon, &log, START_PATIENCE, || {
        probe::amqp(node.port, "guest", "guest", "/").is_ok()
    })?;
    set(services, &dir, node.port);
    Ok(Found { started: true })
}

fn set(services: &mut Services, dir: &Path, port: u16) {
    services.amqp_url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    services.rabbitmqctl = Some(dir.join("rabbitmqctl").display().to_string());
}

/// Erlang leaves its port mapper behind; ours has a port of its own, so it is ours to end.
pub fn stop_port_mapper(layout: &Layout, state: &State) {
    let port = state
        .get("rabbitmq")
        .and_then(|r| r.get("mapper_port"))
        .and_then(Value::as_u64);
    let (Some(port), Some(epmd)) = (port, child_process::find_program("epmd")) else {
        return;
    };
    let mut command = Command::new(epmd);
    command
        .args(["-port", &port.to_string(), "-kill"])
        .current_dir(layout.services());
    // If it is gone already, all the better.
    let _ = child_process::output(command);
}
