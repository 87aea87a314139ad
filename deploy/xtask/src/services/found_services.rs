//! Services that run: where they are, what they are for, and which of them were started here before.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use trueup_services::process::{self, Daemon};

use crate::state::State;

/// How long one that was started before may take to answer: it may be starting just now.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// How long a private service may take to go before it is killed.
pub const STOP_PATIENCE: Duration = Duration::from_secs(20);

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
    pub fn named(self, service: &str) -> Option<String> {
        std::env::var(format!("{}_{service}_URL", self.prefix()))
            .ok()
            .filter(|url| !url.is_empty())
    }

    pub fn prefix(self) -> &'static str {
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
    pub fn pass_to_tests(&self, command: &mut Command) {
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
pub struct Found {
    pub started: bool,
}

/// The private service of that name, if it was started and lives.
pub fn remembered(state: &State, name: &str) -> Option<Daemon> {
    let daemon = Daemon::from_json(state.get(name)?.get("daemon")?)?;
    daemon.alive().then_some(daemon)
}

/// The port of a private service that was started before and still answers. One that lives and does not
/// (its server was killed under its start script, say) is ended, so that it can be started anew.
pub fn serving(state: &State, name: &str, answers: impl Fn(u16) -> bool) -> Result<Option<u16>> {
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

pub fn remembered_port(state: &State, name: &str) -> Option<u16> {
    u16::try_from(state.get(name)?.get("port")?.as_u64()?).ok()
}
