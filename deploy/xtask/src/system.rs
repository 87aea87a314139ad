//! Trueup's own three processes on this machine: built, migrated, started, found again,
//! stopped. They listen on loopback, on their usual ports where those are free.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use trueup_services::process::{Daemon, forget_variables};
use trueup_services::{is_free, spare_port_from};

use crate::child_process;
use crate::http;
use crate::layout::Layout;
use crate::progress::{Note, step};
use crate::services::{self, Services};
use crate::state::State;

/// The contract's own bound for `/ready` on an empty database is 20 s; a busy machine gets thrice that.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// Above the processes' own grace of 20 s.
const STOP_PATIENCE: Duration = Duration::from_secs(25);

struct Kind {
    name: &'static str,
    binary: &'static str,
    /// The public (or API) listener: its variable and usual port.
    listen: Option<(&'static str, u16)>,
    ops: (&'static str, u16),
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "worker",
        binary: "trueup-worker",
        listen: None,
        ops: ("TRUEUP_WORKER_OPS_LISTEN", 9070),
    },
    Kind {
        name: "gateway",
        binary: "trueup-gateway",
        listen: Some(("TRUEUP_GATEWAY_LISTEN", 8080)),
        ops: ("TRUEUP_GATEWAY_OPS_LISTEN", 9080),
    },
    Kind {
        name: "console",
        binary: "trueup-console",
        listen: Some(("TRUEUP_CONSOLE_LISTEN", 8090)),
        ops: ("TRUEUP_CONSOLE_OPS_LISTEN", 9100),
    },
];

/// Where the running system is.
#[derive(Debug, Clone)]
pub struct System {
    pub gateway: String,
    pub console: String,
    pub ops: Vec<(&'static str, String)>,
}

pub fn open_state(layout: &Layout) -> State {
    State::load(&layout.trueup().join("state.json"))
}

/// The running system, as `up` left it.
pub fn running(state: &State) -> Option<System> {
    let port = |name: &str, which: &str| -> Option<u64> {
        let process = state.get(name)?;
        Daemon::from_json(process.get("daemon")?)?
            .alive()
            .then_some(())?;
        process.get(which)?.as_u64()
    };
    let mut ops = Vec::new();
    for kind in &KINDS {
        ops.push((
            kind.name,
            format!("http://127.0.0.1:{}", port(kind.name, "ops_port")?),
        ));
    }
    Some(System {
        gateway: format!("http://127.0.0.1:{}", port("gateway", "port")?),
        console: format!("http://127.0.0.1:{}", port("console", "port")?),
        ops,
    })
}

/// Which of cargo's builds is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    Release,
    /// Slower programs that are built faster: for working on Trueup itself.
    Dev,
}

pub fn build(layout: &Layout, build: Build) -> Result<()> {
    println!("...  building the three programs (some minutes the first time)");
    let mut command = layout.cargo();
    command.args([
        "build",
        "--locked",
        "-p",
        "trueup-gateway",
        "-p",
        "trueup-console",
        "-p",
        "trueup-worker",
    ]);
    if build == Build::Release {
        command.arg("--release");
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

fn binary(layout: &Layout, build: Build, name: &str) -> PathBuf {
    layout
        .target
        .join(if build == Build::Release {
            "release"
        } else {
            "debug"
        })
        .join(name)
}

/// A command of ours that sees these services and no setting from outside.
pub fn command(layout: &Layout, build: Build, name: &str, services: &Services) -> Command {
    let mut command = Command::new(binary(layout, build, name));
    command.current_dir(&layout.root);
    forget_variables(&mut command, "TRUEUP_");
    command
        .env("TRUEUP_POSTGRES_URL", &services.postgres_url)
        .env("TRUEUP_REDIS_URL", &services.redis_url)
        .env("TRUEUP_AMQP_URL", &services.amqp_url)
        .env("TRUEUP_LOG_FORMAT", "text");
    command
}

pub fn migrate(layout: &Layout, build: Build, services: &Services) -> Result<()> {
    let mut migrate = command(layout, build, "trueup-worker", services);
    migrate.arg("migrate");
    let log = layout.trueup().join("migrate.log");
    step("migrating the database, declaring the queues", |note| {
        child_process::run_logged(migrate, &log, note)
    })
}

/// Starts what does not run, and starts again what runs from an older build or on other services.
pub fn start_all(
    layout: &Layout,
    build: Build,
    services: &Services,
    state: &mut State,
    admin_key: &str,
) -> Result<System> {
    // The console builds webhook URLs from the gateway's address, so that is settled first.
    let gateway_port = port_for(state, "gateway", "port", 8080)?;
    for kind in &KINDS {
        let built = built_at(layout, build, kind.binary)?;
        let same = |p: &Value| {
            p.get("built").and_then(Value::as_u64) == Some(built)
                && p.get("postgres").and_then(Value::as_str) == Some(&services.postgres_url)
                && p.get("amqp").and_then(Value::as_str) == Some(&services.amqp_url)
        };
        let before = state.get(kind.name).cloned().unwrap_or_default();
        let alive = before
            .get("daemon")
            .and_then(Daemon::from_json)
            .filter(|d| d.alive());
        match alive {
            Some(_) if same(&before) => {
                println!("ok   {} runs already", kind.binary);
                continue;
            }
            Some(daemon) => {
                step(&format!("stopping the older {}", kind.binary), |_| {
                    daemon.stop(Signal::SIGTERM, STOP_PATIENCE)
                })?;
            }
            None => {}
        }
        step(&format!("starting {}", kind.binary), |note| {
            start_one(
                layout,
                services,
                state,
                kind,
                (build, gateway_port, admin_key, built),
                note,
            )
        })?;
    }
    running(state).context("a process ended just after it had started; see target/trueup/*.log")
}

fn start_one(
    layout: &Layout,
    services: &Services,
    state: &mut State,
    kind: &Kind,
    (build, gateway_port, admin_key, built): (Build, u16, &str, u64),
    note: &Note,
) -> Result<()> {
    let mut command = command(layout, build, kind.binary, services);
    let (ops_variable, ops_usual) = kind.ops;
    let ops_port = port_for(state, kind.name, "ops_port", ops_usual)?;
    command.env(ops_variable, format!("127.0.0.1:{ops_port}"));
    let mut port = None;
    if let Some((variable, usual)) = kind.listen {
        let chosen = if kind.name == "gateway" {
            gateway_port
        } else {
            port_for(state, kind.name, "port", usual)?
        };
        command.env(variable, format!("127.0.0.1:{chosen}"));
        port = Some(chosen);
    }
    if kind.name == "gateway" {
        // Only this machine can reach it; so that a demo can stand for many senders.
        command.env("TRUEUP_TRUSTED_PROXIES", "127.0.0.1/32");
    }
    if kind.name == "console" {
        command.env("TRUEUP_ADMIN_KEY", admin_key).env(
            "TRUEUP_PUBLIC_URL",
            format!("http://127.0.0.1:{gateway_port}"),
        );
    }
    let log = layout.trueup().join(format!("{}.log", kind.name));
    let daemon = Daemon::start(command, &log)?;
    state.set(
        kind.name,
        json!({
            "daemon": daemon.to_json(), "port": port, "ops_port": ops_port, "built": built,
            "postgres": services.postgres_url, "amqp": services.amqp_url,
        }),
    )?;
    let ready = format!("http://127.0.0.1:{ops_port}/ready");
    daemon.wait_ready(kind.binary, &log, READY_PATIENCE, || {
        note.set("waiting for /ready");
        http::get(&ready).is_ok_and(|answer| answer.status == 200)
    })
}

/// The port it had before, else its usual one, else the next that is free.
fn port_for(state: &State, name: &str, which: &str, usual: u16) -> Result<u16> {
    let before = state
        .get(name)
        .and_then(|p| p.get(which))
        .and_then(Value::as_u64);
    if let Some(port) = before.and_then(|port| u16::try_from(port).ok()) {
        let daemon = state
            .get(name)
            .and_then(|p| p.get("daemon"))
            .and_then(Daemon::from_json);
        if daemon.is_some_and(Daemon::alive) || is_free(port) {
            return Ok(port);
        }
    }
    spare_port_from(usual)
}

fn built_at(layout: &Layout, build: Build, name: &str) -> Result<u64> {
    let path = binary(layout, build, name);
    let meta = std::fs::metadata(&path)
        .with_context(|| format!("{} was not built", layout.show(&path)))?;
    let millis = meta.modified()?.duration_since(UNIX_EPOCH)?.as_millis();
    Ok(u64::try_from(millis)?)
}

/// Stops the processes (senders' door first), then the private services.
pub fn down(layout: &Layout) -> Result<()> {
    let mut state = open_state(layout);
    for name in ["gateway", "console", "worker"] {
        let daemon = state
            .get(name)
            .and_then(|p| p.get("daemon"))
            .and_then(Daemon::from_json);
        let Some(daemon) = daemon.filter(|d| d.alive()) else {
            continue;
        };
        step(
            &format!("stopping trueup-{name} (pid {})", daemon.pid()),
            |note| {
                note.set("draining");
                daemon.stop(Signal::SIGTERM, STOP_PATIENCE)
            },
        )?;
        // The ports stay remembered, so that the URLs are the same next time.
        if let Some(mut process) = state.get(name).cloned() {
            if let Some(map) = process.as_object_mut() {
                map.remove("daemon");
            }
            state.set(name, process)?;
        }
    }
    services::down(layout)?;
    println!(
        "down: what `up` started is stopped; the data stays (in target/, or in the services that were running)"
    );
    Ok(())
}
