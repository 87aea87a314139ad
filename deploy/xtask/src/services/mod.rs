//! Postgres, Redis and RabbitMQ for a developer's machine: those that run on the default ports if
//! they let us in, else private ones under `target/services/`.
//!
//! In services that somebody else runs, Trueup keeps to a database, a vhost and a Redis database of
//! its own. What is started here is remembered, and only that is ever stopped.

mod found_services;
mod install;
mod postgres;
mod rabbitmq;
mod redis;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::layout::Layout;
use crate::progress::step;
use crate::state::State;
use found_services::{Found, STOP_PATIENCE, remembered};
pub use found_services::{Purpose, ServiceMode, Services};

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
        record_started(&mut services, "postgres", found);
    }
    if !have_redis {
        let found = step("private Redis", |_| {
            redis::start(layout, &mut state, &mut services)
        })?;
        record_started(&mut services, "redis", found);
    }
    if !have_rabbitmq {
        let found = step("private RabbitMQ", |_| {
            rabbitmq::start(layout, &mut state, &mut services)
        })?;
        record_started(&mut services, "rabbitmq", found);
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
pub fn print_settings(services: &Services) -> Result<()> {
    println!();
    println!("TRUEUP_POSTGRES_URL={}", services.postgres_url);
    println!("TRUEUP_REDIS_URL={}", services.redis_url);
    println!("TRUEUP_AMQP_URL={}", services.amqp_url);
    if let Some(ctl) = &services.rabbitmqctl {
        println!("# the broker is administered by: {ctl}");
    }
    Ok(())
}

fn record_started(services: &mut Services, name: &'static str, found: Found) {
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
