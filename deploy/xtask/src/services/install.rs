//! Installs Debian's packages of the services that are missing, without letting Debian start them:
//! the machine gets programs, not daemons on its default ports.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{postgres, rabbitmq};
use crate::layout::Layout;
use crate::process;
use crate::progress::{Note, step};

/// `have` says of Postgres, Redis and RabbitMQ whether one is running already.
pub fn missing_packages(layout: &Layout, have: [bool; 3]) -> Result<()> {
    let [postgres_runs, redis_runs, rabbitmq_runs] = have;
    let mut packages = Vec::new();
    if !postgres_runs && postgres::programs().is_none() {
        packages.push("postgresql");
    }
    if !redis_runs && process::find_program("redis-server").is_none() {
        packages.push("redis-server");
    }
    if !rabbitmq_runs && rabbitmq::programs().is_none() {
        packages.push("rabbitmq-server");
    }
    install_with_apt(layout, &packages, ", or set TRUEUP_POSTGRES_URL, TRUEUP_REDIS_URL and TRUEUP_AMQP_URL")
}

/// The browser that the pages' tests drive.
pub fn browser(layout: &Layout) -> Result<()> {
    let have = |program| process::find_program(program).is_some();
    if have("chromium") && have("chromedriver") {
        return Ok(());
    }
    install_with_apt(layout, &["chromium", "chromium-driver"], "")
}

fn install_with_apt(layout: &Layout, packages: &[&str], or_else: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    let Some(apt) = process::find_program("apt-get") else {
        bail!("please install {names} (this machine has no apt-get){or_else}");
    };
    if process::as_root(&apt).is_none() {
        bail!(
            "please install {names} (apt-get install {names}): this needs root, and there is no sudo that works without a password"
        );
    }
    step(&format!("installing {names}"), |note| install(layout, &apt, packages, note))
}

fn install(layout: &Layout, apt: &Path, packages: &[&str], note: &Note) -> Result<()> {
    let _quiet = NoDaemons::forbid()?;
    let log = layout.services().join("apt.log");
    let run = |arguments: &[&str]| -> Result<()> {
        let mut command = process::as_root(apt).context("root was there a moment ago")?;
        command.args(["-q", "-y"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::run_logged(command, &log, note)
    };
    run(&["update"])?;
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    run(&arguments)
}

/// While it lives, Debian's packages start no daemon (policy-rc.d answers 101, "forbidden").
struct NoDaemons {
    made: Option<PathBuf>,
}

impl NoDaemons {
    fn forbid() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        // Somebody else's policy stays; and without root the worst is a daemon on its default port.
        if path.exists() || !process::is_root() {
            return Ok(NoDaemons { made: None });
        }
        std::fs::write(&path, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(NoDaemons { made: Some(path) })
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            let _ = std::fs::remove_file(path);
        }
    }
}
