//! Runs the tests against real services and counts what they say. It refuses to filter, retry or
//! soften: what the test runner prints is what is reported.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::layout::Layout;
use crate::services::{self, Purpose, ServiceMode, Services};

/// What a run of the tests came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// The runner's own summary lines.
    pub lines: Vec<String>,
    /// A test binary did not build, or died.
    pub broken: bool,
}

pub fn run(layout: &Layout, choice: ServiceMode, args: &[String]) -> Result<()> {
    services::browser(layout)?;
    let services = services::ensure(layout, choice, Purpose::Tests)?;
    let tally = with_services(layout, &services, args);
    services::stop(layout, &services.started)?;
    finish(&tally?)
}

/// Prints the end of a run; an error if anything failed.
pub fn finish(tally: &Tally) -> Result<()> {
    for line in &tally.lines {
        println!("{line}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 {
        bail!("{} tests failed", tally.failed);
    }
    if tally.broken {
        bail!("the tests did not run to their end");
    }
    Ok(())
}

/// `cargo test`, told where the services are.
pub fn with_services(layout: &Layout, services: &Services, args: &[String]) -> Result<Tally> {
    let mut command = layout.cargo();
    command.args(["test", "--no-fail-fast"]);
    if !args
        .iter()
        .any(|arg| arg == "-p" || arg.starts_with("--package"))
    {
        command.arg("--workspace");
    }
    command.args(args);
    services.tell_tests(&mut command);
    count(command)
}

fn count(mut command: Command) -> Result<Tally> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let out = child.stdout.take().context("the output is piped")?;
    let mut tally = Tally::default();
    for line in BufReader::new(out).lines() {
        let line = line?;
        println!("{line}");
        if let Some((passed, failed)) = summary(&line) {
            tally.passed += passed;
            tally.failed += failed;
            tally.lines.push(line);
        }
    }
    tally.broken = !child.wait()?.success();
    Ok(tally)
}

/// `test result: ok. 12 passed; 0 failed; …`
fn summary(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let mut numbers = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter(|n| !n.is_empty());
    let passed = numbers.next()?.parse().ok()?;
    let failed = numbers.next()?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_runners_summary_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(super::summary(line), Some((12, 3)));
        assert_eq!(super::summary("test a::b ... ok"), None);
    }
}
