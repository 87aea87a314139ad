//! Redis: holds nothing but the counters of the limits, so a private one saves nothing to disk.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Found, Purpose, ServiceMode, Services, probe, remembered, serving, spare_port};
use crate::child_process;
use crate::layout::Layout;
use crate::state::State;

const DEFAULT_PORT: u16 = 6379;
const PRIVATE_FROM_PORT: u16 = 56379;
/// A Redis database of our own in a server that others use, too (0 is everybody's).
const DATABASE: u8 = 15;
const TEST_DATABASE: u8 = 1;

pub fn find(
    services: &mut Services,
    state: &State,
    choice: ServiceMode,
    need: Purpose,
) -> Result<bool> {
    if choice == ServiceMode::Private {
        return Ok(false);
    }
    if let Some(url) = need.named("REDIS") {
        services.redis_test_url.clone_from(&url);
        services.redis_url = url;
        return Ok(true);
    }
    if remembered(state, "redis").is_some() {
        return Ok(false);
    }
    // Tests empty the databases that they use: never somebody's.
    if need != Purpose::System {
        return Ok(false);
    }
    match probe::redis(DEFAULT_PORT) {
        Ok(()) => {
            set(services, DEFAULT_PORT);
            println!("ok   Redis runs on port {DEFAULT_PORT}");
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

fn set(services: &mut Services, port: u16) {
    services.redis_url = format!("redis://127.0.0.1:{port}/{DATABASE}");
    services.redis_test_url = format!("redis://127.0.0.1:{port}/{TEST_DATABASE}");
}

pub fn start(layout: &Layout, state: &mut State, services: &mut Services) -> Result<Found> {
    if let Some(port) = serving(state, "redis", |port| probe::redis(port).is_ok())? {
        set(services, port);
        return Ok(Found { started: false });
    }
    let dir = layout.services().join("redis");
    std::fs::create_dir_all(&dir)?;
    let program =
        child_process::find_program("redis-server").context("redis-server is not installed")?;
    let port = spare_port(PRIVATE_FROM_PORT)?;
    let mut command = Command::new(program);
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .arg("--dir")
        .arg(&dir)
        .current_dir(&dir);
    let log = dir.join("redis.log");
    let daemon = child_process::start(command, &log)?;
    state.set("redis", json!({ "daemon": daemon.to_json(), "port": port }))?;
    child_process::wait_ready("Redis", daemon, &log, Duration::from_secs(20), || {
        probe::redis(port).is_ok()
    })?;
    set(services, port);
    Ok(Found { started: true })
}
