//! Postgres, Redis and RabbitMQ as programs: found, started on spare ports of loopback, asked in their own
//! tongue, ended. And what else tests and tools share. No part of the product.
//!
//! It refuses a runtime and a driver: `xtask` stands on it, which is built before everything else. Everything
//! in here blocks.
//!
//! * [`process`]: processes in the background: a guard that ends one, and a daemon that outlives its starter.
//! * [`postgres`], [`redis`], [`rabbitmq`]: each a command to start it with, and a private one that may be killed.
//! * [`certificates`]: a CA of a test's own, for services over TLS.
//! * [`probe`], [`pg_wire`]: does a service that answers on a port let us in?
//! * [`seeded_rng`]: chance that can be repeated.
#![allow(
    clippy::disallowed_methods,
    reason = "blocking sleeps between polls, and where programs are, are the business of tests and tools"
)]

pub mod certificates;
mod folder;
pub mod pg_wire;
pub mod postgres;
pub mod probe;
pub mod process;
pub mod rabbitmq;
pub mod redis;
pub mod seeded_rng;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Finds a program in PATH, or in the places where Debian hides the administrators'.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let hidden = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(hidden)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A free port of loopback, another each time, below those that the kernel deals out to clients, so that none
/// takes it in between.
pub fn spare_port() -> Result<u16> {
    const FROM: u16 = 22_000;
    const COUNT: u16 = 8_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT))?;
    (0..COUNT)
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
        .map(|n| FROM + n % COUNT)
        .find(|port| is_free(*port))
        .context("no free port of loopback")
}

/// The first free port of loopback at or above `from`: the same from one start to the next, if it can be.
pub fn spare_port_from(from: u16) -> Result<u16> {
    (from..from.saturating_add(500))
        .find(|port| is_free(*port))
        .with_context(|| format!("no free port from {from} on"))
}

pub fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
