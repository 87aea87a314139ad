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
    let tally = tally?;
    tally.print();
    tally.verdict()
}

impl Tally {
    pub fn print(&self) {
        for line in &self.lines {
            println!("{line}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
    }

    /// An error if a test failed or never ran.
    pub fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} tests failed", self.failed);
        }
        if self.broken {
            bail!("the tests did not run to their end");
        }
        Ok(())
    }
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
    services.pass_to_tests(&mut command);
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
    use super::Tally;

    #[test]
    fn a_failed_test_and_a_binary_that_died_are_failures() {
        assert!(Tally::default().verdict().is_ok());
        let failed = Tally {
            failed: 1,
            ..Tally::default()
        };
        let broken = Tally {
            broken: true,
            ..Tally::default()
        };
        for tally in [failed, broken] {
            assert!(tally.verdict().is_err(), "{tally:?}");
        }
    }

    #[test]
    fn the_runners_summary_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(super::summary(line), Some((12, 3)));
        assert_eq!(super::summary("test a::b ... ok"), None);
    }
}
