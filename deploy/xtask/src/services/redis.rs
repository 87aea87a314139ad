//! Redis. In a server that runs already: a database of our own.

use anyhow::Result;
use serde_json::json;
use trueup_services::process::Daemon;
use trueup_services::redis::{START_PATIENCE, answers, server};
use trueup_services::spare_port_from;

use super::found_services::{Found, Purpose, ServiceMode, Services, remembered, serving};
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
    let runs = answers(DEFAULT_PORT);
    if runs {
        set(services, DEFAULT_PORT);
        println!("ok   Redis runs on port {DEFAULT_PORT}");
    }
    Ok(runs)
}

fn set(services: &mut Services, port: u16) {
    services.redis_url = format!("redis://127.0.0.1:{port}/{DATABASE}");
    services.redis_test_url = format!("redis://127.0.0.1:{port}/{TEST_DATABASE}");
}

pub fn start(layout: &Layout, state: &mut State, services: &mut Services) -> Result<Found> {
    if let Some(port) = serving(state, "redis", answers)? {
        set(services, port);
        return Ok(Found { started: false });
    }
    let dir = layout.services().join("redis");
    std::fs::create_dir_all(&dir)?;
    let port = spare_port_from(PRIVATE_FROM_PORT)?;
    let log = dir.join("redis.log");
    let daemon = Daemon::start(server(&dir, port)?, &log)?;
    state.set("redis", json!({ "daemon": daemon.to_json(), "port": port }))?;
    daemon.wait_ready("Redis", &log, START_PATIENCE, || answers(port))?;
    set(services, port);
    Ok(Found { started: true })
}
