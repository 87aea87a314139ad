//! What a change must pass, in the order in which it fails fastest. Each step says its time; the
//! last lines are the test runner's own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::child_process;
use crate::layout::Layout;
use crate::progress::seconds;
use crate::services::{self, Purpose, ServiceMode};
use crate::{alerts, faults, licences, suite, unused_dependencies};

pub fn run(layout: &Layout, choice: ServiceMode) -> Result<()> {
    let mut times = Vec::new();
    let cargo = |args: &[&str]| {
        let mut command = layout.cargo();
        command.args(args);
        child_process::run_shown(command, "cargo")
    };
    timed(&mut times, "format", || cargo(&["fmt", "--all", "--check"]))?;
    timed(&mut times, "licences", || licences::check(layout))?;
    timed(&mut times, "unused dependencies", || {
        unused_dependencies::check(layout)
    })?;
    timed(&mut times, "lints", || {
        cargo(&[
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    timed(&mut times, "alerts", || alerts::check(layout))?;
    // They are workspaces of their own: nothing else would notice that a renaming has left them behind.
    for fuzz in ["shared/domain/fuzz", "gateway/fuzz"] {
        let manifest = format!("{fuzz}/Cargo.toml");
        timed(&mut times, fuzz, || {
            cargo(&["check", "--locked", "--manifest-path", &manifest])
        })?;
    }
    let services = timed(&mut times, "services", || {
        services::browser(layout)?;
        services::ensure(layout, choice, Purpose::Tests)
    })?;
    let mut tally = suite::Tally::default();
    let tests = timed(&mut times, "tests", || {
        tally = suite::with_services(layout, &services, &["--locked".to_owned()])?;
        tally.verdict()
    });
    let faults = timed(&mut times, "faults", || {
        faults::with_services(layout, &services, &faults::Options::of_ci())?;
        faults::with_services(layout, &services, &faults::Options::overload_of_ci())
    });
    services::stop(layout, &services.started)?;
    println!();
    for (name, time) in &times {
        println!("{:>10}  {name}", seconds(*time));
    }
    println!();
    if let Err(error) = &faults {
        println!("faults: {error:#}");
    }
    tally.print();
    tests.and(faults)
}

fn timed<T>(
    times: &mut Vec<(&'static str, Duration)>,
    name: &'static str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    println!("== {name}");
    let began = Instant::now();
    let result = work().with_context(|| format!("the step \"{name}\" failed"));
    times.push((name, began.elapsed()));
    println!(
        "== {name}: {} ({})",
        if result.is_ok() { "ok" } else { "FAILED" },
        seconds(began.elapsed())
    );
    result
}
