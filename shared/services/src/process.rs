//! Processes in the background. Some end with their guard; others outlive who started them and are found again
//! by pid *and* start time (a pid alone may have been given to somebody else since). Refuses to signal what it
//! cannot prove to have started.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// A child that is killed with its guard.
pub struct ProcessGuard {
    child: Child,
    /// It leads a process group, which ends with it.
    leads: bool,
}

impl ProcessGuard {
    pub fn new(child: Child) -> ProcessGuard {
        ProcessGuard {
            child,
            leads: false,
        }
    }

    /// In a process group of its own, with its output in a log.
    pub fn start(command: Command, log: &Path) -> Result<ProcessGuard> {
        Ok(ProcessGuard {
            child: spawn(command, log)?,
            leads: true,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// None while it runs, or if nobody can tell.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: Signal) {
        // One that has ended hears nothing.
        let _ = kill(self.pid(), signal);
    }

    /// SIGKILL to all of it, and the body is cleared away.
    pub fn kill(&mut self) {
        if self.leads {
            let _ = killpg(self.pid(), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A signal, the wait for its end, and an end to what it left behind.
    pub fn end(&mut self, signal: Signal, patience: Duration) {
        self.signal(signal);
        wait(patience, || self.status().is_some());
        self.kill();
    }

    /// Waits until it is ready; if it ends instead, shows the end of its log.
    pub fn wait_ready(
        &mut self,
        name: &str,
        log: &Path,
        patience: Duration,
        ready: impl FnMut() -> bool,
    ) -> Result<()> {
        wait_ready(name, log, patience, || self.status().is_none(), ready)
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that outlives who started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    pid: i32,
    /// Field 22 of /proc/PID/stat: ticks since boot at which the process began.
    began: u64,
}

impl Daemon {
    /// In a process group of its own (Ctrl-C is not for it), with its output in a log.
    pub fn start(command: Command, log: &Path) -> Result<Daemon> {
        let name = display_name(&command);
        let mut child = spawn(command, log)?;
        let pid = i32::try_from(child.id()).context("a pid fits")?;
        let began =
            began(pid).with_context(|| format!("{name} ended at once; see {}", log.display()))?;
        // Reaps it if it ends while we run, so that `alive` tells the truth.
        std::thread::spawn(move || child.wait());
        Ok(Daemon { pid, began })
    }

    pub fn to_json(self) -> Value {
        json!({ "pid": self.pid, "began": self.began })
    }

    pub fn from_json(value: &Value) -> Option<Self> {
        let pid = i32::try_from(value.get("pid")?.as_i64()?).ok()?;
        Some(Daemon {
            pid,
            began: value.get("began")?.as_u64()?,
        })
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    pub fn alive(self) -> bool {
        began(self.pid) == Some(self.began)
    }

    /// Asks with `signal`, waits, and kills what does not go. Nothing happens if it is gone already.
    pub fn stop(self, signal: Signal, patience: Duration) -> Result<()> {
        if !self.alive() {
            return Ok(());
        }
        kill(Pid::from_raw(self.pid), signal)?;
        if !wait(patience, || !self.alive()) && self.alive() {
            // The whole group: a start script may have the server proper as its child.
            killpg(Pid::from_raw(self.pid), Signal::SIGKILL)?;
            wait(Duration::from_secs(5), || !self.alive());
        }
        Ok(())
    }

    /// Waits until it is ready; if it ends instead, shows the end of its log.
    pub fn wait_ready(
        self,
        name: &str,
        log: &Path,
        patience: Duration,
        ready: impl FnMut() -> bool,
    ) -> Result<()> {
        wait_ready(name, log, patience, || self.alive(), ready)
    }
}

/// The start time of a living process; `None` if there is none (a zombie has ended, too).
fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold spaces: count from after it.
    let rest = stat.rsplit_once(") ")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    if fields.first() == Some(&"Z") || fields.first() == Some(&"X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let name = display_name(&command);
    command.stdin(Stdio::null()).process_group(0);
    log_to(&mut command, log)?;
    command
        .spawn()
        .with_context(|| format!("cannot start {name}"))
}

/// What this process was told in variables that begin so is no setting of what it starts.
pub fn forget_variables(command: &mut Command, prefix: &str) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(prefix) {
            command.env_remove(name);
        }
    }
}

/// A figure of /proc/PID/status, such as `VmRSS:`, in bytes; 0 of a process that has ended.
pub fn memory_of(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Its output is added to a log.
pub fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    let out = OpenOptions::new().create(true).append(true).open(log)?;
    command.stdout(out.try_clone()?).stderr(out);
    Ok(())
}

/// Looks until `done` or until the time is up; says which.
pub fn wait(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

fn wait_ready(
    name: &str,
    log: &Path,
    patience: Duration,
    mut alive: impl FnMut() -> bool,
    mut ready: impl FnMut() -> bool,
) -> Result<()> {
    let mut up = false;
    wait(patience, || {
        up = ready();
        up || !alive()
    });
    if up {
        return Ok(());
    }
    let what = if alive() {
        "is not ready in time"
    } else {
        "ended"
    };
    bail!(
        "{name} {what}; the end of {}:\n{}",
        log.display(),
        tail(log, 15)
    )
}

/// The last lines of a log.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

/// Runs to the end and gives what it printed, or an error with what it complained of.
pub fn output(mut command: Command) -> Result<String> {
    let name = display_name(&command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !out.status.success() {
        bail!(
            "{name} failed ({}): {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The program, without its folder.
pub fn display_name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}
