//! A RabbitMQ of a test's own, for what must not happen to the one that others use: memory alarms,
//! stops, kills. Started in a temporary folder on free ports, and ended with its guard.
//!
//! It needs the programs of the package `rabbitmq-server`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use secrecy::SecretString;

use trueup_queue::connection::BrokerConnection;

/// An Erlang virtual machine on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(90);

pub struct Rabbit {
    pub amqp_url: String,
    /// `host:port`, for a cutter.
    pub server: String,
    programs: PathBuf,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
    server_process: Child,
    mapper: Child,
}

impl Rabbit {
    /// Starts one and waits until it takes connections.
    pub async fn start() -> Rabbit {
        let programs = programs();
        let folder = std::env::temp_dir().join(format!(
            "trueup-rabbit-{}-{}",
            std::process::id(),
            free_port()
        ));
        for name in ["home", "data", "log"] {
            std::fs::create_dir_all(folder.join(name)).expect("a temporary folder");
        }
        let conf = "loopback_users.guest = true\ndisk_free_limit.absolute = 50MB\n";
        for (name, text) in [
            ("rabbitmq.conf", conf),
            ("advanced.config", "[].\n"),
            ("env.conf", ""),
            ("enabled_plugins", "[].\n"),
        ] {
            std::fs::write(folder.join(name), text).expect("writes");
        }
        let (port, mapper_port) = (free_port(), free_port());
        let environment = environment(&folder, port, mapper_port);
        // Ours from the start: Erlang would leave one behind that nobody ends.
        let mapper = quiet(&mut Command::new(find(&programs, "epmd")))
            .args(["-port", &mapper_port.to_string(), "-address", "127.0.0.1"])
            .spawn()
            .expect("Erlang's port mapper starts");
        let mut command = Command::new(programs.join("rabbitmq-server"));
        let server_process = quiet(&mut command)
            .current_dir(&folder)
            .envs(environment.clone())
            .spawn()
            .expect("RabbitMQ starts");
        let rabbit = Rabbit {
            amqp_url: format!("amqp://guest:guest@127.0.0.1:{port}/%2f"),
            server: format!("127.0.0.1:{port}"),
            programs,
            environment,
            folder,
            server_process,
            mapper,
        };
        super::eventually("a RabbitMQ of the test's own", UP_WITHIN, async || {
            BrokerConnection::connect_to(&SecretString::from(rabbit.amqp_url.as_str()), "test")
                .await
                .ok()
        })
        .await;
        rabbit
    }

    pub async fn session(&self) -> BrokerConnection {
        BrokerConnection::connect_to(&SecretString::from(self.amqp_url.as_str()), "test")
            .await
            .expect("it runs")
    }

    /// `rabbitmqctl` for this node.
    pub async fn ctl(&self, arguments: &[&str]) {
        let output = tokio::process::Command::new(self.programs.join("rabbitmqctl"))
            .args(arguments)
            .env_clear()
            .envs(surroundings())
            .envs(self.environment.clone())
            .output()
            .await
            .expect("rabbitmqctl starts");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// From now on it takes nothing from publishers, as if its memory were used up.
    pub async fn memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", "1"])
            .await;
    }

    pub async fn no_memory_alarm(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    }

    /// No broker: its connections end, its ports are closed; what is on its disk stays.
    pub async fn stop(&self) {
        self.ctl(&["stop_app"]).await;
    }

    pub async fn start_again(&self) {
        self.ctl(&["start_app"]).await;
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("pid"))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        for process in [&mut self.server_process, &mut self.mapper] {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Debian's scripts without their wrapper, which insists on the user `rabbitmq`; else what is in the path.
fn programs() -> PathBuf {
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin");
    if debian.join("rabbitmq-server").is_file() {
        return debian;
    }
    find(Path::new(""), "rabbitmq-server")
        .parent()
        .map(Path::to_path_buf)
        .expect("a file has a folder")
}

#[allow(
    clippy::disallowed_methods,
    reason = "where programs are, not a setting of the product"
)]
fn find(first: &Path, program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(first.to_owned())
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("tests need {program} (package rabbitmq-server)"))
}

/// Nothing of another node's settings gets in.
fn surroundings() -> impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        name.to_str()
            .is_some_and(|name| !name.starts_with("RABBITMQ_"))
    })
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .env_clear()
        .envs(surroundings())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

fn environment(folder: &Path, port: u16, mapper_port: u16) -> Vec<(&'static str, String)> {
    let path = |name: &str| folder.join(name).display().to_string();
    vec![
        ("HOME", path("home")),
        ("RABBITMQ_NODENAME", format!("trueup{port}@localhost")),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", free_port().to_string()),
        ("ERL_EPMD_PORT", mapper_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        (
            "ERL_FLAGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".into(),
        ),
        ("RABBITMQ_MNESIA_BASE", path("data")),
        ("RABBITMQ_LOG_BASE", path("log")),
        ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
        ("RABBITMQ_CONF_ENV_FILE", path("env.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
        ("RABBITMQ_PID_FILE", path("pid")),
    ]
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
