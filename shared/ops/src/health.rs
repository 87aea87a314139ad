//! How a process is: what it depends on, the state of each, and whether it is ready.
//!
//! Ready means: this process can do its job *or answer honestly*. So what is degraded is told, but
//! only a dependency without which there is no honest answer makes `/ready` a 503.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use crate::metrics::{self, DependencyName};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyState {
    Ok,
    /// The job is done, but not as well; the detail says how.
    Degraded,
    /// Without it there is no honest answer: not ready.
    Down,
}

#[derive(Debug, Clone, Serialize)]
struct DependencyStatus {
    state: DependencyState,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    since: Timestamp,
}

/// What this process depends on and how each of them is.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    process: &'static str,
    draining: AtomicBool,
    dependencies: Mutex<BTreeMap<&'static str, DependencyStatus>>,
}

impl Readiness {
    pub fn new(process: &'static str) -> Self {
        Readiness(Arc::new(Inner {
            process,
            draining: AtomicBool::new(false),
            dependencies: Mutex::default(),
        }))
    }

    /// Names a dependency; it is down until it says otherwise.
    pub fn add_dependency(&self, name: DependencyName) -> Dependency {
        let dependency = Dependency {
            of: self.clone(),
            name,
        };
        dependency.set(DependencyState::Down, "starting");
        dependency
    }

    /// From now on not ready: a balancer should send nothing more.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        let dependencies = self.0.dependencies.lock();
        !self.0.draining.load(Ordering::Relaxed)
            && dependencies
                .values()
                .all(|d| d.state != DependencyState::Down)
    }

    /// Each dependency that is down, and why, for a log.
    pub fn down_summary(&self) -> String {
        let dependencies = self.0.dependencies.lock();
        let down = dependencies
            .iter()
            .filter(|(_, known)| known.state == DependencyState::Down);
        down.map(|(name, known)| format!("{name} ({})", known.detail))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// What `/ready` answers.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct ReadyAnswer<'a> {
            ready: bool,
            draining: bool,
            process: &'a str,
            version: &'a str,
            dependencies: &'a BTreeMap<&'static str, DependencyStatus>,
        }
        let ready = self.is_ready();
        let dependencies = self.0.dependencies.lock();
        let answer = ReadyAnswer {
            ready,
            draining: self.0.draining.load(Ordering::Relaxed),
            process: self.0.process,
            version: env!("CARGO_PKG_VERSION"),
            dependencies: &dependencies,
        };
        serde_json::to_string(&answer).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
    }
}

/// One named dependency; cheap to copy and to set again.
#[derive(Debug, Clone)]
pub struct Dependency {
    of: Readiness,
    name: DependencyName,
}

impl Dependency {
    pub fn ok(&self) {
        self.set(DependencyState::Ok, "");
    }

    pub fn set_degraded(&self, detail: impl Into<String>) {
        self.set(DependencyState::Degraded, detail);
    }

    pub fn set_down(&self, detail: impl Into<String>) {
        self.set(DependencyState::Down, detail);
    }

    /// Logs a change of state, once.
    pub fn set(&self, state: DependencyState, detail: impl Into<String>) {
        let detail = detail.into();
        let value = match state {
            DependencyState::Ok => 2,
            DependencyState::Degraded => 1,
            DependencyState::Down => 0,
        };
        metrics::process().dependency.set(self.name, value);
        let name = self.name.code();
        let mut all = self.of.0.dependencies.lock();
        let before = all.get(name).map(|known| (known.state, known.since));
        let since = match before {
            Some((was, since)) if was == state => since,
            _ => Timestamp::now(),
        };
        let changed = before.is_some_and(|(was, _)| was != state);
        if changed {
            match state {
                DependencyState::Ok => tracing::info!(dependency = name, "as it should be"),
                _ => tracing::warn!(dependency = name, ?state, detail, "not as it should be"),
            }
        }
        all.insert(
            name,
            DependencyStatus {
                state,
                detail,
                since,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_down_or_draining_is_not_ready() {
        let readiness = Readiness::new("trueup-test");
        let broker = readiness.add_dependency(DependencyName::Broker);
        assert!(!readiness.is_ready(), "starting");
        broker.set_degraded("not connected");
        assert!(readiness.is_ready());
        let json = readiness.json();
        assert!(
            json.contains("\"broker\":{\"state\":\"degraded\",\"detail\":\"not connected\""),
            "{json}"
        );
        broker.ok();
        readiness.start_draining();
        assert!(!readiness.is_ready());
    }
}
