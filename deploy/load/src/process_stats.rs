//! What the processes of this machine use: CPU by name, memory by process. From /proc.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trueup_testkit::services::process::memory_of;

/// The kernel's clock tick (`_SC_CLK_TCK` of every Linux that we build for).
const TICKS_PER_SECOND: f64 = 100.0;

/// Whose CPU is told apart: a process's name, and what it is called here.
const NAMES: [(&str, &str); 6] = [
    ("trueup-gateway", "gateway"),
    ("trueup-worker", "worker"),
    ("trueup-console", "console"),
    ("redis-server", "Redis"),
    ("beam.smp", "RabbitMQ"),
    ("postgres", "Postgres"),
];

/// CPU seconds by name, so far.
#[derive(Debug, Clone)]
pub struct Cpu {
    at: Instant,
    by_name: BTreeMap<&'static str, f64>,
}

impl Cpu {
    pub fn now() -> Cpu {
        let mut by_name = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let Some((name, fields)) = stat
                .split_once('(')
                .and_then(|(_, rest)| rest.rsplit_once(')'))
            else {
                continue;
            };
            let Some(known) = known(name, &entry.file_name().to_string_lossy()) else {
                continue;
            };
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let ticks = |n: usize| {
                fields
                    .get(n)
                    .and_then(|t| t.parse::<f64>().ok())
                    .unwrap_or(0.0)
            };
            *by_name.entry(known).or_insert(0.0) += (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
        }
        Cpu {
            at: Instant::now(),
            by_name,
        }
    }

    /// Cores in use since `before`, by name; what used none is left out.
    pub fn since(&self, before: &Cpu) -> Vec<(&'static str, f64)> {
        let span = self
            .at
            .duration_since(before.at)
            .max(Duration::from_millis(1))
            .as_secs_f64();
        self.by_name
            .iter()
            .map(|(name, seconds)| {
                (
                    *name,
                    (seconds - before.by_name.get(name).unwrap_or(&0.0)) / span,
                )
            })
            .filter(|(_, cores)| *cores > 0.004)
            .collect()
    }
}

fn known(name: &str, pid: &str) -> Option<&'static str> {
    // `self` and `thread-self` stand there, too.
    pid.parse::<u32>().ok()?;
    if name == "trueup-load" {
        return Some(if pid == std::process::id().to_string() {
            "load"
        } else {
            "hyper alone"
        });
    }
    // The kernel cuts a name after 15 bytes.
    NAMES
        .iter()
        .find(|(known, _)| known.starts_with(name) && name.len() >= 8)
        .map(|(_, ours)| *ours)
}

/// Resident memory of a process (bytes).
pub fn resident(pid: u32) -> u64 {
    memory_of(pid, "VmRSS:")
}

/// Processes of that name.
pub fn pids_of(name: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect()
}
