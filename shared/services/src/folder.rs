//! A temporary folder that goes with its guard.

use std::path::PathBuf;

use anyhow::Result;
use nix::unistd::User;

pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    /// Postgres refuses to run as root, so it may be another user's. The port makes the name our own.
    pub fn make(service: &str, port: u16, owner: Option<&User>) -> Result<Folder> {
        let name = format!("trueup-{service}-{}-{port}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        if let Some(user) = owner {
            std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leftovers are of no use; a failure to remove them harms nothing.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
