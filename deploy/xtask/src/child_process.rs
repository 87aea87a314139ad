//! Processes: run to the end, start in the background, find again by pid *and* start time (a pid
//! alone may have been given to somebody else since), stop. Refuses to signal what it cannot prove
//! to have started.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::progress::Note;

/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(50);

/// A process in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    pid: i32,
    /// Field 22 of /proc/PID/stat: ticks since boot at which the process began.
    began: u64,
}

impl Daemon {
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

/// Starts a process in a group of its own (Ctrl-C is not for it) that outlives this one.
pub fn start(mut command: Command, log: &Path) -> Result<Daemon> {
    let name = display_name(&command);
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    let out = OpenOptions::new().create(true).append(true).open(log)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let pid = i32::try_from(child.id()).context("a pid fits")?;
    let began =
        began(pid).with_context(|| format!("{name} ended at once; see {}", log.display()))?;
    // Reaps it if it ends while we run, so that `alive` tells the truth.
    std::thread::spawn(move || {
        let mut child = child;
        let _ = child.wait();
    });
    Ok(Daemon { pid, began })
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

/// Waits for a daemon to be ready; if it dies instead, shows the end of its log.
pub fn wait_ready(
    name: &str,
    daemon: Daemon,
    log: &Path,
    patience: Duration,
    mut ready: impl FnMut() -> bool,
) -> Result<()> {
    let mut up = false;
    wait(patience, || {
        up = ready();
        up || !daemon.alive()
    });
    if up {
        return Ok(());
    }
    let what = if daemon.alive() {
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

/// Runs to the end with its output in a log; the last line shows as the step's note.
pub fn run_logged(mut command: Command, log: &Path, note: &Note) -> Result<()> {
    let name = display_name(&command);
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    let out = OpenOptions::new().create(true).append(true).open(log)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!(
                "{name} failed ({status}); the end of {}:\n{}",
                log.display(),
                tail(log, 15)
            );
        }
        note.set(tail(log, 1));
        std::thread::sleep(POLL * 4);
    }
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

fn display_name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Runs with its output on ours. `what` names it in the error.
pub fn run_shown(mut command: Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{what} cannot be started"))?;
    if status.success() {
        return Ok(());
    }
    bail!("{what} failed ({status})")
}

/// Finds a program in PATH, or in the places where Debian hides the administrators'.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let hidden = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(hidden)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs as root: as it is if we are, else through sudo. `None` if there is no way.
pub fn as_root(program: &Path) -> Option<Command> {
    if is_root() {
        return Some(Command::new(program));
    }
    let sudo = find_program("sudo")?;
    use std::io::IsTerminal;
    let mut command = Command::new(&sudo);
    if !std::io::stdin().is_terminal() {
        // Nobody is there to type a password.
        let mut ask = Command::new(&sudo);
        ask.args(["-n", "true"]);
        output(ask).ok()?;
        command.arg("-n");
    }
    command.arg(program);
    Some(command)
}

/// Lets sudo ask for its password now, while nothing else is written to the terminal.
pub fn ask_for_sudo() -> Result<()> {
    use std::io::IsTerminal;
    if is_root() || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let sudo = find_program("sudo").context("there is no sudo")?;
    if Command::new(sudo).arg("-v").status()?.success() {
        return Ok(());
    }
    bail!("sudo does not let this user become root")
}
