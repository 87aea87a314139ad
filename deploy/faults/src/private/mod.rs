//! Services of a run's own, that may be killed: each on spare ports of loopback, in a folder that
//! goes with it. Nothing that runs already is touched.

pub mod postgres;
pub mod rabbitmq;
pub mod redis;

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};

/// A cold start of Erlang on a slow, busy machine.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A child in a process group of its own; it and its children die with the guard.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(mut command: Command, log: &Path) -> Result<Daemon> {
        let name = command.get_program().to_string_lossy().into_owned();
        let out: File = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Daemon {
            child,
            log: log.to_owned(),
        })
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// SIGKILL to all of it.
    pub fn kill(&mut self) {
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// A signal to the process itself, and the wait for its end.
    pub async fn end(&mut self, signal: Signal) {
        let _ = nix::sys::signal::kill(self.group(), signal);
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return self.kill();
            }
            tokio::time::sleep(POLL).await;
        }
        // What the leader left behind.
        let _ = killpg(self.group(), Signal::SIGKILL);
    }

    /// Waits for `ready`; if the process ends instead, shows the end of its log.
    pub async fn wait(&mut self, what: &str, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !ready().await {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || Instant::now() > deadline {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(15).collect();
                bail!(
                    "{what} {}: {lines:#?}",
                    if ended {
                        "ended"
                    } else {
                        "is not ready in time"
                    }
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder that goes with its guard. Postgres refuses to run as root, so it is the server's user's.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    pub fn make(name: &str, owner: Option<&User>) -> Result<Folder> {
        let path =
            std::env::temp_dir().join(format!("trueup-faults-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        if let Some(user) = owner {
            std::os::unix::fs::chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leftovers of a run are of no use; a failure to remove them harms nothing.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A free port below those that the kernel deals out to clients, so that none takes it in between.
pub fn spare_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FROM: u16 = 22_000;
    const COUNT: u16 = 8_000;
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FROM + start.wrapping_add(n) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port of loopback")
}

#[allow(
    clippy::disallowed_methods,
    reason = "where programs are is the machine's business, no setting of ours"
)]
/// A program in PATH, or where Debian hides the administrators'.
pub fn find(name: &str, also: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from(also), "/usr/sbin".into()]);
    places
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed"))
}
