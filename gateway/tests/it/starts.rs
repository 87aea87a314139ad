//! How the gateway starts and refuses to: settings, ports, Postgres that never comes.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;
use trueup_testkit::http;
use trueup_testkit::process::{Start, check_kubelets_variables};

use crate::ingest::World;

const GATEWAY: &str = env!("CARGO_BIN_EXE_trueup-gateway");
const SOON: Duration = Duration::from_secs(30);
const NOBODY_LISTENS: &str = "127.0.0.1:1";

#[tokio::test]
async fn bad_settings_are_refused_by_name_before_a_port_is_bound() {
    for (variable, value, says) in [
        (
            "TRUEUP_POSTGRES_URL",
            "postgres://u:hunter2@h:port/db",
            "TRUEUP_POSTGRES_URL",
        ),
        (
            "TRUEUP_REDIS_URL",
            "redis://u:hunter2@h:6379/one",
            "TRUEUP_REDIS_URL",
        ),
        ("TRUEUP_AMQP_URL", "http://u:hunter2@h/", "TRUEUP_AMQP_URL"),
        (
            "TRUEUP_TRUSTED_PROXIES",
            "everybody",
            "TRUEUP_TRUSTED_PROXIES",
        ),
        (
            "TRUEUP_LIMIT_IP_PER_MINUT",
            "50",
            "TRUEUP_LIMIT_IP_PER_MINUTE",
        ),
        (
            "TRUEUP_REDIS_URL_FILE",
            "/dev/null",
            "TRUEUP_REDIS_URL_FILE",
        ),
        ("TRUEUP_POSTGRES_CA_FILE", "/dev/null", "no certificate"),
    ] {
        let mut process = Start::new(GATEWAY).env(variable, value).spawn();
        assert_eq!(
            process.exit_code(SOON).await,
            64,
            "{variable}: {}",
            process.log()
        );
        let log = process.log();
        assert!(log.contains(says), "{log}");
        assert!(
            !log.contains("\"listening\"") && !log.contains("hunter2"),
            "{log}"
        );
    }
}

/// A secret that is mounted late, and a CA's certificate: whoever restarts the process finds it then.
#[tokio::test]
async fn a_file_that_is_not_there_yet_is_named_and_worth_another_start() {
    for variable in ["TRUEUP_REDIS_URL_FILE", "TRUEUP_AMQP_CA_FILE"] {
        let mut process = Start::new(GATEWAY).env(variable, "/nowhere/file").spawn();
        assert_eq!(process.exit_code(SOON).await, 69, "{}", process.log());
        assert!(process.log().contains(variable), "{}", process.log());
    }
}

#[tokio::test]
async fn a_hangup_drains() {
    let world = World::new().await;
    let mut gateway = world.gateway().ready().await;
    gateway.signal(Signal::SIGHUP);
    assert_eq!(gateway.exit_code(SOON).await, 0, "{}", gateway.log());
    assert!(gateway.log().contains("draining"), "{}", gateway.log());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_worth_another_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for variable in ["TRUEUP_GATEWAY_LISTEN", "TRUEUP_GATEWAY_OPS_LISTEN"] {
        let mut process = Start::new(GATEWAY).env(variable, &address).spawn();
        assert_eq!(process.exit_code(SOON).await, 69, "{}", process.log());
        assert!(
            process.log().contains(variable) && process.log().contains(&address),
            "{}",
            process.log()
        );
    }
}

#[tokio::test]
async fn a_port_that_becomes_free_within_moments_is_waited_for() {
    let world = World::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let mut gateway = world
        .gateway()
        .env("TRUEUP_GATEWAY_LISTEN", address)
        .spawn();
    gateway.address("ops").await;
    drop(taken);
    gateway.wait_ready().await;
    assert_eq!(gateway.address("public").await, address);
}

#[tokio::test]
async fn a_gateway_that_never_knew_a_webhook_ends_with_69() {
    let world = World::new().await;
    let start = world.gateway().env(
        "TRUEUP_POSTGRES_URL",
        format!("postgres://x@{NOBODY_LISTENS}/x"),
    );
    let mut gateway = start.env("TRUEUP_START_SECONDS", 1).spawn();
    assert_eq!(gateway.exit_code(SOON).await, 69, "{}", gateway.log());
    assert!(
        gateway.log().contains("Postgres never came up"),
        "{}",
        gateway.log()
    );
}

/// As an orchestrator gives them: secrets in files, the rest as flags.
#[tokio::test]
async fn files_and_flags_are_as_good_as_variables() {
    let world = World::new().await;
    let secrets = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, format!("{text}\n")).expect("writes");
        path.display().to_string()
    };
    let mut gateway = Start::new(GATEWAY)
        .env("TRUEUP_POSTGRES_URL_FILE", file("postgres", &world.db.url))
        .env(
            "TRUEUP_REDIS_URL_FILE",
            file("redis", &world.lease.redis_url),
        )
        .env("TRUEUP_AMQP_URL", "amqp://nobody:nothing@127.0.0.1:1/x")
        .arg(format!("--amqp-url={}", world.lease.amqp_url))
        .arg("--limit-ip-per-minute")
        .arg("3")
        .ready()
        .await;
    let readiness = gateway.readiness().await;
    for dependency in ["broker", "postgres", "redis", "snapshot"] {
        assert_eq!(
            readiness["dependencies"][dependency]["state"], "ok",
            "{readiness}"
        );
    }
    let public = gateway.address("public").await;
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(
            http::get(public, path).await.expect("answers").status,
            404,
            "{path} is not for the public"
        );
    }
}

#[tokio::test]
async fn kubelets_variables_are_no_error_and_other_unknown_ones_are() {
    check_kubelets_variables(GATEWAY, SOON).await;
}
