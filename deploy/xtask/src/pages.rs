//! `screenshots` and `panel`: build what they need and hand on to the program `trueup-console-samples`, which makes
//! a database of its own and drops it.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::child_process;
use crate::layout::Layout;
use crate::services::{self, Purpose, ServiceMode, Services};

/// Where the documents have their pictures.
const PICTURES: &str = "deploy/docs/pictures";

#[derive(Args, Clone)]
pub struct PanelOptions {
    /// Events of the one account
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Write the figures and plans to this file, too
    #[arg(long)]
    report: Option<String>,
}

pub fn screenshots(layout: &Layout, choice: ServiceMode) -> Result<()> {
    with_services(layout, choice, |services| {
        let mut build = layout.cargo();
        build.args([
            "build",
            "--locked",
            "-p",
            "trueup-console",
            "-p",
            "trueup-console-samples",
            "--bins",
        ]);
        child_process::run_shown(build, "the build")?;
        let mut pages = program(layout, services);
        pages
            .arg("screenshots")
            .arg("--to")
            .arg(layout.root.join(PICTURES));
        pages
            .arg("--console")
            .arg(layout.target.join("debug/trueup-console"));
        child_process::run_shown(pages, "the taking of pictures")
    })
}

pub fn panel(layout: &Layout, choice: ServiceMode, options: &PanelOptions) -> Result<()> {
    with_services(layout, choice, |services| {
        let mut build = layout.cargo();
        build.args(["build", "--locked", "-p", "trueup-console-samples"]);
        child_process::run_shown(build, "the build")?;
        let mut pages = program(layout, services);
        pages.args(["panel", "--events", &options.events.to_string()]);
        if let Some(report) = &options.report {
            pages.args(["--report", report]);
        }
        child_process::run_shown(pages, "the panel's check")
    })
}

fn program(layout: &Layout, services: &Services) -> Command {
    let mut command = Command::new(layout.target.join("debug/trueup-console-samples"));
    command.current_dir(&layout.root);
    services.pass_to_tests(&mut command);
    command
}

fn with_services(
    layout: &Layout,
    choice: ServiceMode,
    run: impl FnOnce(&Services) -> Result<()>,
) -> Result<()> {
    let services = services::ensure(layout, choice, Purpose::Tests)?;
    let outcome = run(&services);
    services::stop(layout, &services.started)?;
    outcome
}
