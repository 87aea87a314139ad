//! The alerts, read and tried by Prometheus' own `promtool`: each rule's form, and what fires in which outage
//! (`deploy/prometheus/*.test.yml`). That each alert has a test is checked in `tests/it/operations.rs`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use trueup_services::{find_program, process::output};

use crate::layout::Layout;
use crate::services;

const RULES: &str = "trueup.rules.yml";
const TESTS: &str = ".test.yml";

pub fn check(layout: &Layout) -> Result<()> {
    services::promtool(layout)?;
    let folder = layout.root.join("deploy/prometheus");
    let promtool = find_program("promtool").context("promtool is not there")?;
    let run = |arguments: &[&str], files: &[PathBuf]| {
        let mut command = Command::new(&promtool);
        command.args(arguments).args(files).current_dir(&folder);
        output(command)
    };
    run(&["check", "rules"], &[folder.join(RULES)])?;
    let mut tests = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(TESTS) {
            tests.push(path);
        }
    }
    ensure!(!tests.is_empty(), "no test of the alerts was found");
    tests.sort();
    run(&["test", "rules"], &tests)?;
    Ok(())
}
