//! Programs that are run to their end: with a log and a note of how far they are, in sight, or as root.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use trueup_services::find_program;
use trueup_services::process::{display_name, log_to, output, tail};

use crate::progress::Note;

/// Between two looks at a log's last line.
const POLL: Duration = Duration::from_millis(200);

/// Runs to the end with its output in a log; the last line shows as the step's note.
pub fn run_logged(mut command: Command, log: &Path, note: &Note) -> Result<()> {
    let name = display_name(&command);
    log_to(&mut command, log)?;
    let mut child = command
        .stdin(Stdio::null())
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
        std::thread::sleep(POLL);
    }
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
