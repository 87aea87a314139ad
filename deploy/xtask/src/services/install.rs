//! Installs Debian's packages of the services that are missing, without letting Debian start them:
//! the machine gets programs, not daemons on its default ports.

use std::path::Path;

use anyhow::{Context, Result, bail};
use trueup_services::process::output;
use trueup_services::{find_program, postgres, rabbitmq};

use super::found_services::Purpose;
use crate::child_process;
use crate::layout::Layout;
use crate::progress::{Note, step};

/// Another apt (an unattended upgrade, say) may hold the lock for some minutes.
const LOCK_PATIENCE: &str = "DPkg::Lock::Timeout=600";

/// `have` says of Postgres, Redis and RabbitMQ whether one is running already.
pub fn missing_packages(layout: &Layout, have: [bool; 3], need: Purpose) -> Result<()> {
    let [postgres_runs, redis_runs, rabbitmq_runs] = have;
    let mut packages = Vec::new();
    if !postgres_runs && postgres::programs().is_none() {
        packages.push("postgresql");
    }
    if !redis_runs && find_program("redis-server").is_none() {
        packages.push("redis-server");
    }
    if !rabbitmq_runs && rabbitmq::programs().is_none() {
        packages.push("rabbitmq-server");
    }
    let prefix = need.prefix();
    let or_else = format!(
        ", or name running ones: {prefix}_POSTGRES_URL, {prefix}_REDIS_URL, {prefix}_AMQP_URL"
    );
    install_with_apt(layout, &packages, &or_else)
}

/// The browser that the pages' tests drive.
pub fn browser(layout: &Layout) -> Result<()> {
    let have = |program| find_program(program).is_some();
    if have("chromium") && have("chromedriver") {
        return Ok(());
    }
    install_with_apt(layout, &["chromium", "chromium-driver"], "")
}

/// What the alerts are tried with.
pub fn promtool(layout: &Layout) -> Result<()> {
    if find_program("promtool").is_some() {
        return Ok(());
    }
    install_with_apt(layout, &["prometheus"], "")
}

/// What shifts the clocks of fault runs' gateways. Runs do without it, and then meet no wrong clock.
pub fn clock_shifter(layout: &Layout) -> Result<()> {
    let have = |machine| {
        Path::new("/usr/lib")
            .join(machine)
            .join("faketime/libfaketime.so.1")
            .exists()
    };
    if have("x86_64-linux-gnu") || have("aarch64-linux-gnu") {
        return Ok(());
    }
    install_with_apt(layout, &["libfaketime"], "")
}

fn install_with_apt(layout: &Layout, packages: &[&str], or_else: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    let Some(apt) = find_program("apt-get") else {
        bail!(
            "{names}: not installed, and this machine has no apt-get; please install them{or_else}"
        );
    };
    if child_process::as_root(&apt).is_none() {
        bail!(
            "{names}: not installed, and installing needs root (there is no sudo that works without a password here); \
             have it done by `apt-get install --no-install-recommends {names}`{or_else}"
        );
    }
    child_process::ask_for_sudo()?;
    step(&format!("installing {names}"), |note| {
        install(layout, &apt, packages, note)
    })
}

fn install(layout: &Layout, apt: &Path, packages: &[&str], note: &Note) -> Result<()> {
    let _quiet = NoDaemons::forbid(layout)?;
    let log = layout.services().join("apt.log");
    let run = |arguments: &[&str]| -> Result<()> {
        // Through `env`, since sudo passes no variables on.
        let mut command = child_process::as_root(Path::new("/usr/bin/env"))
            .context("root was there a moment ago")?;
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"])
            .arg(apt)
            .args(["-q", "-y", "-o", LOCK_PATIENCE]);
        command.args(arguments);
        child_process::run_logged(command, &log, note)
    };
    run(&["update"])?;
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    run(&arguments)
}

/// While it lives, Debian's packages start no daemon (policy-rc.d answers 101, "forbidden").
struct NoDaemons {
    made: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoDaemons {
    fn forbid(layout: &Layout) -> Result<Self> {
        // Somebody else's policy stays.
        if Path::new(POLICY).exists() {
            return Ok(NoDaemons { made: false });
        }
        std::fs::create_dir_all(layout.services())?;
        let ours = layout.services().join("policy-rc.d");
        std::fs::write(&ours, "#!/bin/sh\nexit 101\n")?;
        let mut install = child_process::as_root(Path::new("/usr/bin/install"))
            .context("root was there a moment ago")?;
        install.args(["-m", "755"]).arg(&ours).arg(POLICY);
        output(install)?;
        Ok(NoDaemons { made: true })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        if let Some(mut remove) = child_process::as_root(Path::new("/usr/bin/rm")) {
            remove.args(["-f", POLICY]);
            // What is left behind only keeps daemons from starting at installation.
            let _ = output(remove);
        }
    }
}
