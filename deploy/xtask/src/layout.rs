//! Where things lie: the workspace and its target folder. Nothing else in here builds a path from
//! the environment, and nothing is written outside `target/` (but see `services::postgres`).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

#[derive(Debug, Clone)]
pub struct Layout {
    pub root: PathBuf,
    pub target: PathBuf,
}

impl Layout {
    /// From the running program: cargo says where the manifest is, and `target/debug/xtask` is us.
    pub fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = match manifest {
            Some(dir) => dir
                .ancestors()
                .nth(2)
                .context("the xtask crate is two folders below the workspace")?
                .to_path_buf(),
            None => std::env::current_dir()?,
        };
        let exe = std::env::current_exe()?;
        let target = exe
            .ancestors()
            .nth(2)
            .context("the program lies in target/<profile>/")?
            .to_path_buf();
        Ok(Layout { root, target })
    }

    /// State, logs and data of the private services.
    pub fn services(&self) -> PathBuf {
        self.target.join("services")
    }

    /// State and logs of the three processes that `up` starts.
    pub fn trueup(&self) -> PathBuf {
        self.target.join("trueup")
    }

    /// A path to print: relative to the workspace where it lies inside.
    pub fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    pub fn cargo(&self) -> std::process::Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = std::process::Command::new(cargo);
        command.current_dir(&self.root);
        // What cargo set for us is not meant for the cargo that we start.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let ours = name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name.starts_with("TRUEUP_");
            if ours || name == "CARGO_BIN_NAME" || name == "CARGO_CRATE_NAME" {
                command.env_remove(name);
            }
        }
        command
    }
}
