//! Dependencies that a manifest names and no source uses, found by cargo-machete, which is installed
//! under `target/` if it is not there.

use anyhow::Result;

use crate::child_process;
use crate::layout::Layout;

/// Pinned, so that a new release of the tool cannot fail a change that did not touch it.
const VERSION: &str = "0.9.2";

pub fn check(layout: &Layout) -> Result<()> {
    let tools = layout.target.join("tools");
    let program = tools.join("bin/cargo-machete");
    if !program.is_file() {
        let mut install = layout.cargo();
        install
            .args(["install", "--locked", "cargo-machete", "--version", VERSION])
            .arg("--root")
            .arg(&tools);
        child_process::run_shown(install, "the installation of cargo-machete")?;
    }
    let mut machete = std::process::Command::new(program);
    machete
        .current_dir(&layout.root)
        .args(["--skip-target-dir", "."]);
    child_process::run_shown(machete, "cargo machete")
}
