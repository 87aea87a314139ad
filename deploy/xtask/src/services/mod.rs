//! Postgres, Redis and RabbitMQ for a developer's machine: those that run on the default ports if
//! they let us in, else private ones under `target/services/`.
//!
//! In services that somebody else runs, Trueup keeps to a database, a vhost and a Redis database of
//! its own. What is started here is remembered, and only that is ever stopped.

mod install;
mod postgres;
mod rabbitmq;
mod redis;

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use trueup_services::process::{self, Daemon};

use crate::layout::Layout;
use crate::progress::step;
use crate::state::State;

/// How long one that was started before may take to answer: it may be starting just now.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// How long a private service may take to go before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceMode {
    /// Running ones first.
    Found,
    /// Private ones, whatever is running.
    Private,
}

impl ServiceMode {
    pub fn from_flag(private: bool) -> Self {
        if private {
            ServiceMode::Private
        } else {
            ServiceMode::Found
        }
    }
}

/// What the services are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The running system, which keeps to a corner of its own.
    System,
    /// Tests: they make databases, roles and vhosts, and empty Redis databases. The system's own
    /// variables are not for them, lest somebody's real database be named there.
    Tests,
    /// As tests; a private Postgres is set up as `deploy/postgres/postgresql.conf` advises.
    Load,
}

impl Purpose {
    /// The service as somebody named it from outside.
    fn named(self, service: &str) -> Option<String> {
        std::env::var(format!("{}_{service}_URL", self.prefix()))
            .ok()
            .filter(|url| !url.is_empty())
    }

    fn prefix(self) -> &'static str {
        if self == Purpose::System {
            "TRUEUP"
        } else {
            "TRUEUP_TEST"
        }
    }
}

/// Where the services are, and what of them this run started.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// The database of the running system.
    pub postgres_url: String,
    /// The same server's `postgres` database, as a superuser: tests make databases and roles.
    pub postgres_admin_url: String,
    /// The server's port and our role there, unless it was named from outside.
    pub postgres_at: Option<(u16, String)>,
    pub redis_url: String,
    /// A Redis database apart, for tests.
    pub redis_test_url: String,
    pub amqp_url: String,
    /// A command that administers the broker, if there is one.
    pub rabbitmqctl: Option<String>,
    /// Names of private services that were not running before this run.
    pub started: Vec<&'static str>,
}

impl Services {
    /// Tells a test program where they are.
    pub fn tell_tests(&self, command: &mut Command) {
        command
            .env("TRUEUP_TEST_POSTGRES_URL", &self.postgres_admin_url)
            .env("TRUEUP_TEST_REDIS_URL", &self.redis_test_url)
            .env("TRUEUP_TEST_AMQP_URL", &self.amqp_url);
        if let Some(ctl) = &self.rabbitmqctl {
            command.env("TRUEUP_TEST_RABBITMQCTL", ctl);
        }
    }
}

/// One service's outcome: was it started just now?
struct Found {
    started: bool,
}

/// The programs of all three, for whoever starts services of its own.
pub fn ensure_programs(layout: &Layout) -> Result<()> {
    install::missing_packages(layout, [false; 3], Purpose::Tests)
}

/// Finds or starts all three.
pub fn ensure(layout: &Layout, choice: ServiceMode, need: Purpose) -> Result<Services> {
    let mut state = open(layout);
    let mut services = Services::default();
    let missing = [
        postgres::find(&mut services, &state, choice, need)?,
        redis::find(&mut services, &state, choice, need)?,
        rabbitmq::find(&mut services, &state, choice, need)?,
    ];
    if missing.iter().any(|found| !found) {
        install::missing_packages(layout, missing, need)?;
    }
    let [have_postgres, have_redis, have_rabbitmq] = missing;
    if !have_postgres {
        let found = step("private Postgres", |note| {
            postgres::start(layout, &mut state, &mut services, need, note)
        })?;
        note_started(&mut services, "postgres", found);
    }
    if !have_redis {
        let found = step("private Redis", |_| {
            redis::start(layout, &mut state, &mut services)
        })?;
        note_started(&mut services, "redis", found);
    }
    if !have_rabbitmq {
        let found = step("private RabbitMQ", |_| {
            rabbitmq::start(layout, &mut state, &mut services)
        })?;
        note_started(&mut services, "rabbitmq", found);
    }
    if need == Purpose::System {
        step("database, vhost", |_| {
            postgres::create_database(&services)?;
            rabbitmq::use_own_vhost(&mut services);
            Ok(())
        })?;
    }
    Ok(services)
}

/// The library that gives a process another clock, installed where it is missing and can be.
pub fn clock_shifter(layout: &Layout) -> Result<()> {
    install::clock_shifter(layout)
}

/// Installs what the alerts are tried with, if it is missing.
pub fn promtool(layout: &Layout) -> Result<()> {
    install::promtool(layout)
}

/// Installs the browser that the pages' tests drive, if it is missing.
pub fn browser(layout: &Layout) -> Result<()> {
    install::browser(layout)
}

/// Prints the services as settings, to be pasted or evaluated.
pub fn tell(services: &Services) -> Result<()> {
    println!();
    println!("TRUEUP_POSTGRES_URL={}", services.postgres_url);
    println!("TRUEUP_REDIS_URL={}", services.redis_url);
    println!("TRUEUP_AMQP_URL={}", services.amqp_url);
    if let Some(ctl) = &services.rabbitmqctl {
        println!("# the broker is administered by: {ctl}");
    }
    Ok(())
}

fn note_started(services: &mut Services, name: &'static str, found: Found) {
    if found.started {
        services.started.push(name);
    }
}

fn open(layout: &Layout) -> State {
    State::load(&layout.services().join("state.json"))
}

/// Stops the private services.
pub fn down(layout: &Layout) -> Result<()> {
    stop(layout, &["rabbitmq", "redis", "postgres"])
}

/// Stops those named (and no other).
pub fn stop(layout: &Layout, names: &[&str]) -> Result<()> {
    let mut state = open(layout);
    for name in names {
        let Some(daemon) = remembered(&state, name) else {
            continue;
        };
        // Postgres: SIGINT is the fast shutdown, SIGTERM would wait for its clients.
        let signal = if *name == "postgres" {
            Signal::SIGINT
        } else {
            Signal::SIGTERM
        };
        step(&format!("stopping private {name}"), |_| {
            daemon.stop(signal, STOP_PATIENCE)?;
            if *name == "rabbitmq" {
                rabbitmq::stop_port_mapper(&state);
            }
            Ok(())
        })?;
        state.remove(name)?;
    }
    Ok(())
}

/// The private service of that name, if it was started and lives.
fn remembered(state: &State, name: &str) -> Option<Daemon> {
    let daemon = Daemon::from_json(state.get(name)?.get("daemon")?)?;
    daemon.alive().then_some(daemon)
}

/// The port of a private service that was started before and still answers. One that lives and does not
/// (its server was killed under its start script, say) is ended, so that it can be started anew.
fn serving(state: &State, name: &str, answers: impl Fn(u16) -> bool) -> Result<Option<u16>> {
    let (Some(daemon), Some(port)) = (remembered(state, name), remembered_port(state, name)) else {
        return Ok(None);
    };
    process::wait(ANSWER_PATIENCE, || answers(port) || !daemon.alive());
    if daemon.alive() && answers(port) {
        return Ok(Some(port));
    }
    daemon.stop(Signal::SIGTERM, STOP_PATIENCE)?;
    Ok(None)
}

fn remembered_port(state: &State, name: &str) -> Option<u16> {
    u16::try_from(state.get(name)?.get("port")?.as_u64()?).ok()
}
