//! RabbitMQ. In a broker that runs already: a vhost `trueup`, if we may make one. Else a
//! private one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trueup_services::probe::{self, AmqpLogin};
use trueup_services::process::{Daemon, output};
use trueup_services::rabbitmq::{self, Node, START_PATIENCE, answers, programs};
use trueup_services::{find_program, spare_port_from};

use super::found_services::{Found, Purpose, ServiceMode, Services, remembered, serving};
use crate::child_process;
use crate::layout::Layout;
use crate::state::State;

const DEFAULT_PORT: u16 = 5672;
const PRIVATE_FROM_PORT: u16 = 55672;
const PRIVATE_DISTRIBUTION_FROM_PORT: u16 = 57672;
const PRIVATE_MAPPER_FROM_PORT: u16 = 54369;
const VHOST: &str = "trueup";

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
    if !answers(DEFAULT_PORT) {
        return Ok(false);
    }
    // Debian's wrapper wants root; without it there is the default vhost.
    let program = find_program("rabbitmqctl");
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
            Ok(AmqpLogin::LetsIn)
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
            let _ = output(command);
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

/// A script that administers this node: what `rabbitmqctl` is to the machine's own.
fn write_ctl(node: &Node, bin: &Path) -> Result<()> {
    let mut script = String::from("#!/bin/sh\n# Administers the private RabbitMQ beside it.\n");
    for (name, value) in node.environment() {
        script.push_str(&format!("export {name}='{value}'\n"));
    }
    let program = bin.join("rabbitmqctl");
    script.push_str(&format!("exec '{}' \"$@\"\n", program.display()));
    let path = node.dir.join("rabbitmqctl");
    std::fs::write(&path, script)?;
    Ok(std::fs::set_permissions(
        &path,
        std::fs::Permissions::from_mode(0o755),
    )?)
}

pub fn start(layout: &Layout, state: &mut State, services: &mut Services) -> Result<Found> {
    let dir = layout.services().join("rabbitmq");
    if let Some(port) = serving(state, "rabbitmq", answers)? {
        set(services, &dir, port);
        return Ok(Found { started: false });
    }
    let bin = programs().context("rabbitmq-server is not installed")?;
    // One that outlived a broker that was killed.
    stop_port_mapper(state);
    let node = Node {
        name: "trueup@localhost".to_owned(),
        port: spare_port_from(PRIVATE_FROM_PORT)?,
        distribution_port: spare_port_from(PRIVATE_DISTRIBUTION_FROM_PORT)?,
        mapper_port: spare_port_from(PRIVATE_MAPPER_FROM_PORT)?,
        home: dir.join("home"),
        dir: dir.clone(),
    };
    node.write_files(&[], "")?;
    write_ctl(&node, &bin)?;
    let log = dir.join("start.log");
    let daemon = Daemon::start(node.command("rabbitmq-server")?, &log)?;
    let remember =
        json!({ "daemon": daemon.to_json(), "port": node.port, "mapper_port": node.mapper_port });
    state.set("rabbitmq", remember)?;
    daemon.wait_ready("RabbitMQ", &log, START_PATIENCE, || answers(node.port))?;
    set(services, &dir, node.port);
    Ok(Found { started: true })
}

fn set(services: &mut Services, dir: &Path, port: u16) {
    services.amqp_url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    services.rabbitmqctl = Some(dir.join("rabbitmqctl").display().to_string());
}

/// The one that was started with the private broker.
pub fn stop_port_mapper(state: &State) {
    let port = state
        .get("rabbitmq")
        .and_then(|r| r.get("mapper_port"))
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    if let Some(port) = port {
        rabbitmq::stop_port_mapper(port);
    }
}
