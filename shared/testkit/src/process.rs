//! One of our binaries, on free ports, with its logs at hand. Killed when the guard is dropped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use trueup_services::process::{ProcessGuard, forget_variables};

use crate::http;

/// Each process is ready alone within this (contract).
const READY_WITHIN: Duration = Duration::from_secs(20);

pub struct Process {
    name: String,
    guard: ProcessGuard,
    log: Arc<Mutex<Vec<String>>>,
    /// They end with what they read.
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// What is started, and with which settings. Nothing of the surroundings' `TRUEUP_…` gets in.
pub struct Start {
    binary: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    files: Option<u64>,
}

impl Start {
    /// `binary` is `env!("CARGO_BIN_EXE_…")`. All listeners are on free ports of 127.0.0.1.
    pub fn new(binary: &str) -> Start {
        let mut environment = BTreeMap::new();
        for name in [
            "GATEWAY",
            "GATEWAY_OPS",
            "CONSOLE",
            "CONSOLE_OPS",
            "WORKER_OPS",
        ] {
            environment.insert(format!("TRUEUP_{name}_LISTEN"), "127.0.0.1:0".to_owned());
        }
        environment.insert("TRUEUP_LOG_FORMAT".into(), "json".into());
        Start {
            binary: binary.to_owned(),
            arguments: Vec::new(),
            environment,
            files: None,
        }
    }

    #[must_use]
    pub fn env(mut self, variable: &str, value: impl ToString) -> Start {
        self.environment
            .insert(variable.to_owned(), value.to_string());
        self
    }

    /// As kubelet starts it in a namespace that has all the Services of a whole system.
    #[must_use]
    pub fn beside_services(mut self) -> Start {
        const ADDRESS: &str = "10.96.0.7";
        const SERVICES: [&str; 6] = [
            "trueup",
            "trueup-gateway",
            "trueup-console",
            "trueup-worker",
            "trueup-postgres",
            "trueup-redis",
        ];
        for service in SERVICES {
            let of = service.to_uppercase().replace('-', "_");
            let url = format!("tcp://{ADDRESS}:80");
            for (suffix, value) in [
                ("SERVICE_HOST", ADDRESS),
                ("SERVICE_PORT", "80"),
                ("SERVICE_PORT_HTTP", "80"),
                ("PORT", &url),
                ("PORT_80_TCP", &url),
                ("PORT_80_TCP_PROTO", "tcp"),
                ("PORT_80_TCP_PORT", "80"),
                ("PORT_80_TCP_ADDR", ADDRESS),
            ] {
                self = self.env(&format!("{of}_{suffix}"), value);
            }
        }
        self
    }

    #[must_use]
    pub fn arg(mut self, argument: impl ToString) -> Start {
        self.arguments.push(argument.to_string());
        self
    }

    /// It may have so many descriptors.
    #[must_use]
    pub fn files(mut self, most: u64) -> Start {
        self.files = Some(most);
        self
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&self) -> Process {
        let mut command = match self.files {
            None => Command::new(&self.binary),
            Some(most) => {
                let mut shell = Command::new("sh");
                // The shell becomes the process: it has its id.
                shell.args([
                    "-c",
                    &format!("ulimit -n {most} && exec \"$0\" \"$@\""),
                    &self.binary,
                ]);
                shell
            }
        };
        forget_variables(&mut command, "TRUEUP_");
        command.args(&self.arguments).envs(&self.environment);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.binary));
        let log = Arc::new(Mutex::new(Vec::new()));
        let name = self
            .binary
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("piped above")),
            Box::new(child.stderr.take().expect("piped above")),
        ];
        let readers = streams.map(|stream| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    log.lock().expect("no writer panics").push(line);
                }
            })
        });
        Process {
            name,
            guard: ProcessGuard::new(child),
            log,
            readers: readers.into(),
        }
    }

    /// Starts it and waits until `/ready` says 200.
    pub async fn ready(&self) -> Process {
        let mut process = self.spawn();
        process.wait_ready().await;
        process
    }
}

/// Every process of a namespace is told of all its Services, those of Postgres and Redis too: kubelet's variables
/// are no error in a binary of ours, and other unknown ones are.
pub async fn check_kubelets_variables(binary: &str, within: Duration) {
    let beside = || Start::new(binary).beside_services().arg("check-config");
    let mut good = beside().spawn();
    assert_eq!(good.exit_code(within).await, 0, "{}", good.log());
    for variable in ["TRUEUP_GATEWAY_PROT", "TRUEUP_GATEWAY_SERVICE_HOSTS"] {
        let mut bad = beside().env(variable, "10.96.0.7").spawn();
        assert_eq!(bad.exit_code(within).await, 64, "{}", bad.log());
        assert!(bad.log().contains(variable), "{}", bad.log());
    }
}

/// The path of another package's binary, up to date: a test knows where its own package's are, but not
/// those. The package has the binary's name. It is built as its own tests build it, so that the file they
/// use is never replaced by one with fewer features.
pub fn built(package: &str) -> String {
    let mine = std::env::current_exe().expect("a test is a file");
    // …/<profile>/deps/<test>
    let folder = mine
        .parent()
        .and_then(std::path::Path::parent)
        .expect("cargo's layout");
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "test",
        "--no-run",
        "--quiet",
        "--locked",
        "-p",
        package,
        "--test",
        "it",
        "--target-dir",
    ]);
    build.arg(folder.parent().expect("cargo's layout"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(
        build.status().is_ok_and(|status| status.success()),
        "{package} does not build"
    );
    folder.join(package).to_string_lossy().into_owned()
}

impl Process {
    pub fn id(&self) -> u32 {
        self.guard.id()
    }

    /// Everything that it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no writer panics").join("\n")
    }

    /// The address that it logged for a listener: `public`, `ops`, `console` …
    pub async fn address(&mut self, listener: &str) -> SocketAddr {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let found = self
                .log
                .lock()
                .expect("no writer panics")
                .iter()
                .find_map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).ok()?;
                    (line["message"] == "listening" && line["listener"] == listener)
                        .then(|| line["address"].as_str()?.parse().ok())?
                });
            match found {
                Some(address) => return address,
                None => self.check_alive(deadline, &format!("a listener {listener:?}")),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn wait_ready(&mut self) {
        let ops = self.address("ops").await;
        let deadline = Instant::now() + READY_WITHIN;
        while http::get(ops, "/ready").await.map(|answer| answer.status) != Ok(200) {
            self.check_alive(deadline, "being ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `/ready` as JSON.
    pub async fn readiness(&mut self) -> serde_json::Value {
        let ops = self.address("ops").await;
        let answer = http::get(ops, "/ready").await.expect("/ready answers");
        serde_json::from_slice(&answer.body).expect("/ready is JSON")
    }

    /// One sample of `/metrics`, such as `trueup_gateway_responses_total{result="accepted"}`.
    pub async fn metric(&mut self, sample: &str) -> f64 {
        let ops = self.address("ops").await;
        let answer = http::get(ops, "/metrics").await.expect("/metrics answers");
        let text = answer.text();
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("no {sample} in:\n{text}"))
    }

    pub fn signal(&self, signal: Signal) {
        self.guard.signal(signal);
    }

    /// SIGTERM: drain.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGKILL, and the body is cleared away.
    pub fn kill(&mut self) {
        self.guard.kill();
    }

    pub fn is_running(&mut self) -> bool {
        self.guard.status().is_none()
    }

    /// Its exit code; panics if it does not end in time. (128 + n if signal n ended it.) The log is whole
    /// then: what it said last may be read a moment after its end.
    pub async fn exit_code(&mut self, within: Duration) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let deadline = Instant::now() + within;
        loop {
            let read = self
                .readers
                .iter()
                .all(std::thread::JoinHandle::is_finished);
            if let (Some(status), true) = (self.guard.status(), read) {
                return status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end within {within:?}:\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn check_alive(&mut self, deadline: Instant, what: &str) {
        if let Some(status) = self.guard.status() {
            panic!(
                "{} ended ({status}) before {what}:\n{}",
                self.name,
                self.log()
            );
        }
        assert!(
            Instant::now() < deadline,
            "{} not in time: {what}:\n{}",
            self.name,
            self.log()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}
