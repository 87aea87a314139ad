//! Small JSON files under `target/` that remember what was started, so that a second run finds it
//! and `down` stops that and nothing else. Written by rename, readable by the owner alone (keys).

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

pub struct State {
    path: PathBuf,
    values: Map<String, Value>,
}

impl State {
    /// A file that is missing or torn counts as empty: it is a memory, not a book.
    pub fn load(path: &Path) -> Self {
        let values = fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        State {
            path: path.to_path_buf(),
            values,
        }
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<()> {
        self.values.insert(name.to_owned(), value.into());
        self.save()
    }

    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.values.remove(name);
        self.save()
    }

    fn save(&self) -> Result<()> {
        let dir = self
            .path
            .parent()
            .context("a state file lies in a folder")?;
        fs::create_dir_all(dir)?;
        let beside = self.path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&beside)
            .with_context(|| format!("cannot write {}", beside.display()))?;
        file.write_all(serde_json::to_string_pretty(&self.values)?.as_bytes())?;
        fs::rename(&beside, &self.path)?;
        Ok(())
    }
}
