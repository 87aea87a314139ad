//! Postgres. In a server that runs already: a database `trueup`. A private one is a cluster of its
//! own, in a folder which its user can reach.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::User;
use serde_json::json;
use trueup_services::postgres::{Cluster, START_PATIENCE, answers, command, owner};
use trueup_services::process::{Daemon, tail, wait};
use trueup_services::{pg_wire, spare_port_from};

use super::found_services::{Found, Purpose, ServiceMode, Services, remembered, serving};
use crate::layout::Layout;
use crate::progress::Note;
use crate::state::State;

const DEFAULT_PORT: u16 = 5432;
const PRIVATE_FROM_PORT: u16 = 55432;
const DATABASE: &str = "trueup";
/// A killed server's other processes end by themselves when they notice.
const HELD_PATIENCE: Duration = Duration::from_secs(30);

pub fn find(
    services: &mut Services,
    state: &State,
    choice: ServiceMode,
    need: Purpose,
) -> Result<bool> {
    if choice == ServiceMode::Private {
        return Ok(false);
    }
    if let Some(url) = need.named("POSTGRES") {
        services.postgres_admin_url.clone_from(&url);
        services.postgres_url = url;
        return Ok(true);
    }
    if remembered(state, "postgres").is_some() {
        return Ok(false);
    }
    let me = std::env::var("USER").unwrap_or_else(|_| "root".into());
    for user in ["postgres", me.as_str()] {
        let may = "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolsuper";
        if pg_wire::ask(DEFAULT_PORT, user, "postgres", may).is_ok_and(|rows| !rows.is_empty()) {
            set(services, user, DEFAULT_PORT);
            println!("ok   Postgres runs on port {DEFAULT_PORT}");
            return Ok(true);
        }
    }
    Ok(false)
}

fn set(services: &mut Services, user: &str, port: u16) {
    services.postgres_url = format!("postgres://{user}@127.0.0.1:{port}/{DATABASE}");
    services.postgres_admin_url = format!("postgres://{user}@127.0.0.1:{port}/postgres");
    services.postgres_at = Some((port, user.to_owned()));
}

/// Makes the system's database, if it is not there. One that was named from outside is expected to be.
pub fn create_database(services: &Services) -> Result<()> {
    let Some((port, user)) = &services.postgres_at else {
        return Ok(());
    };
    if pg_wire::execute(*port, user, DATABASE, "SELECT 1").is_ok() {
        return Ok(());
    }
    pg_wire::execute(
        *port,
        user,
        "postgres",
        &format!("CREATE DATABASE {DATABASE}"),
    )
    .with_context(|| format!("cannot make the database `{DATABASE}`"))?;
    Ok(())
}

/// The folder of the cluster. Where `postgres` cannot reach into `target/` (a clone under /root is
/// closed to it), the folder lies beside Debian's own clusters, with a link to it in `target/`.
fn prepare_folder(layout: &Layout, owner: Option<&User>) -> Result<PathBuf> {
    let link = layout.services().join("postgres");
    std::fs::create_dir_all(layout.services())?;
    let Some(user) = owner else {
        std::fs::create_dir_all(&link)?;
        return Ok(link);
    };
    let mut look = command(Path::new("/bin/sh"), owner, Path::new("/"));
    look.args(["-c", "test -x \"$0\""]).arg(layout.services());
    let dir = if look.status()?.success() {
        link
    } else {
        let mut hash = DefaultHasher::new();
        layout.target.hash(&mut hash);
        let name = format!("trueup-{:08x}", hash.finish() & 0xFFFF_FFFF);
        let dir = user.dir.join(name);
        if !link.exists() {
            symlink(&dir, &link)?;
        }
        dir
    };
    std::fs::create_dir_all(&dir)?;
    chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

pub fn start(
    layout: &Layout,
    state: &mut State,
    services: &mut Services,
    need: Purpose,
    note: &Note,
) -> Result<Found> {
    if let Some(port) = serving(state, "postgres", answers)? {
        set(services, "postgres", port);
        return Ok(Found { started: false });
    }
    let owner = owner()?;
    let dir = prepare_folder(layout, owner.as_ref())?;
    let log = layout.services().join("postgres.log");
    let cluster = Cluster::in_folder(&dir)?;
    note.set("initdb");
    cluster.init()?;
    let advised = if need == Purpose::Load {
        advised(layout)?
    } else {
        Vec::new()
    };
    let port = spare_port_from(PRIVATE_FROM_PORT)?;
    let began = Instant::now();
    let daemon = loop {
        let daemon = Daemon::start(cluster.server(port, &advised), &log)?;
        state.set(
            "postgres",
            json!({ "daemon": daemon.to_json(), "port": port }),
        )?;
        wait(START_PATIENCE, || answers(port) || !daemon.alive());
        if daemon.alive() || !is_held(&log) || began.elapsed() > HELD_PATIENCE {
            break daemon;
        }
        note.set("processes of an earlier server are still leaving its data");
        std::thread::sleep(Duration::from_millis(500));
    };
    set(services, "postgres", port);
    daemon.wait_ready("Postgres", &log, START_PATIENCE, || answers(port))?;
    if pg_wire::execute(port, "postgres", "postgres", "SHOW fsync")?
        != vec![vec![Some("on".to_owned())]]
    {
        bail!("this Postgres does not write durably (fsync is off)");
    }
    Ok(Found { started: true })
}

/// The settings of `deploy/postgres/postgresql.conf`, as `name=value`.
fn advised(layout: &Layout) -> Result<Vec<String>> {
    let file = layout.root.join("deploy/postgres/postgresql.conf");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let settings = text
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once('='));
    Ok(settings
        .map(|(name, value)| format!("{}={}", name.trim(), value.trim()))
        .collect())
}

/// Did it end because an earlier server, killed just now, has not quite left the data?
fn is_held(log: &Path) -> bool {
    let end = tail(log, 4);
    end.contains("postmaster.pid") || end.contains("pre-existing shared memory block")
}
