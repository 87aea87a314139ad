//! How settings are read, tried with an environment made up for each test.

use std::ffi::OsString;

use clap::Parser;
use secrecy::ExposeSecret;

use crate::settings::*;

#[derive(Debug, Parser)]
#[command(name = "trueup-test")]
struct Settings {
    #[command(flatten)]
    postgres: PostgresArgs,
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    grace: GraceArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    console: ConsoleArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    start: StartArgs,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, clap::Subcommand, PartialEq)]
enum Sub {
    Migrate,
}

fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
    let argv = std::iter::once("trueup-test")
        .chain(args.iter().copied())
        .map(OsString::from)
        .collect();
    let environment: Vec<_> = environment
        .iter()
        .map(|(k, v)| (OsString::from(k), OsString::from(v)))
        .collect();
    match parse_from::<Settings>(argv, &environment) {
        Ok(Parsed::Settings(settings)) => Ok(*settings),
        Ok(Parsed::Help(text)) => Err(text),
        Err(bad) => Err(bad.to_string()),
    }
}

#[test]
fn a_flag_beats_the_environment_beats_the_default() {
    let plain = read(&[], &[]).expect("the defaults stand");
    assert_eq!(plain.gateway.limit_ip_per_minute.get(), 50);
    assert_eq!(plain.gateway.listen.to_string(), "0.0.0.0:8080");
    let env = [
        ("TRUEUP_LIMIT_IP_PER_MINUTE", "7"),
        ("TRUEUP_GRACE_SECONDS", ""),
    ];
    let by_env = read(&[], &env).expect("good");
    assert_eq!(by_env.gateway.limit_ip_per_minute.get(), 7);
    assert_eq!(
        by_env.grace.grace.as_secs(),
        20,
        "a blank variable is not set"
    );
    let by_flag = read(&["--limit-ip-per-minute", "9"], &env).expect("good");
    assert_eq!(by_flag.gateway.limit_ip_per_minute.get(), 9);
    let after = read(&["migrate", "--redis-url", "redis://r/"], &env).expect("good");
    assert_eq!(after.command, Some(Sub::Migrate));
    assert_eq!(after.redis.redis_url.expose_secret(), "redis://r/");
}

#[test]
fn a_file_gives_a_secret_and_both_is_an_error() {
    let path = std::env::temp_dir().join(format!("trueup-config-{}", std::process::id()));
    std::fs::write(&path, "amqp://u:pa%2Fss@broker/v\n").expect("writes");
    let file = path.to_str().expect("text");
    let read_in = read(&[], &[("TRUEUP_AMQP_URL_FILE", file)]).expect("good");
    assert_eq!(
        read_in.amqp.amqp_url.expose_secret(),
        "amqp://u:pa%2Fss@broker/v"
    );
    let both = [
        ("TRUEUP_AMQP_URL_FILE", file),
        ("TRUEUP_AMQP_URL", "amqp://x/"),
    ];
    assert!(
        read(&[], &both)
            .expect_err("both")
            .contains("keep one of them")
    );
    std::fs::remove_file(&path).expect("removes");
    let gone = read(&[], &[("TRUEUP_AMQP_URL_FILE", file)]).expect_err("gone");
    assert!(gone.contains("TRUEUP_AMQP_URL_FILE"), "{gone}");
}

#[test]
fn an_unknown_variable_names_the_nearest_known_one() {
    let error = read(&[], &[("TRUEUP_REDIS_ULR", "redis://x/")]).expect_err("misspelt");
    assert!(error.contains("did you mean TRUEUP_REDIS_URL"), "{error}");
    let error =
        read(&[], &[("TRUEUP_REDIS_ULR_FILE", "/run/secrets/redis")]).expect_err("misspelt");
    assert!(
        error.contains("did you mean TRUEUP_REDIS_URL_FILE"),
        "{error}"
    );
    let error = read(&[], &[("TRUEUP_DATABASE_CONNECTION_STRING", "1")]).expect_err("unknown");
    assert!(error.contains("the nearest name is TRUEUP_"), "{error}");
    read(&[], &[("TRUEUP_WORKER_OPS_LISTEN", "127.0.0.1:0")]).expect("another process reads it");
}

/// kubelet tells each pod of every Service of its namespace, in variables made of the Service's name.
#[test]
fn what_kubelet_makes_of_a_services_name_is_no_setting_and_no_error() {
    for (variable, value) in [
        ("TRUEUP_SERVICE_HOST", "10.96.0.7"),
        ("TRUEUP_GATEWAY_SERVICE_HOST", "10.96.0.7"),
        ("TRUEUP_GATEWAY_SERVICE_PORT", "80"),
        ("TRUEUP_GATEWAY_SERVICE_PORT_HTTP", "80"),
        ("TRUEUP_GATEWAY_PORT", "tcp://10.96.0.7:80"),
        ("TRUEUP_GATEWAY_PORT_80_TCP", "tcp://10.96.0.7:80"),
        ("TRUEUP_GATEWAY_PORT_80_TCP_PROTO", "tcp"),
        ("TRUEUP_GATEWAY_PORT_80_TCP_PORT", "80"),
        ("TRUEUP_GATEWAY_PORT_80_TCP_ADDR", "10.96.0.7"),
        ("TRUEUP_DNS_PORT_53_UDP", "udp://10.96.0.7:53"),
        ("TRUEUP_REDIS_FILE_SERVICE_HOST", "10.96.0.7"),
    ] {
        read(&[], &[(variable, value)]).unwrap_or_else(|error| panic!("{variable}: {error}"));
    }
    for (variable, value) in [
        ("TRUEUP_GATEWAY_PORT", "8080"),
        ("TRUEUP_GATEWAY_PORT_NUMBER", "8080"),
        ("TRUEUP_GATEWAY_PORT_TCP", "tcp://10.96.0.7:80"),
        ("TRUEUP_GATEWAY_PORT_80_TCPX", "tcp://10.96.0.7:80"),
        ("TRUEUP_GATEWAY_PORT_80_TCP_NAME", "http"),
        ("TRUEUP_GATEWAY_SERVICE_PORTS", "80"),
        ("TRUEUP_GATEWAY_SERVICE", "10.96.0.7"),
        ("TRUEUP_GATEWAY_HOST", "10.96.0.7"),
        ("TRUEUP__SERVICE_HOST", "10.96.0.7"),
    ] {
        let error = read(&[], &[(variable, value)]).expect_err(variable);
        assert!(error.contains(variable), "{error}");
    }
}

/// A value that is wrong, and a word of what must be said about it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "TRUEUP_POSTGRES_URL",
        "mysql://root:hunter2@h/db",
        "postgres://",
    ),
    // The driver's own parser tells, where it is linked.
    #[cfg(feature = "postgres-url")]
    (
        "TRUEUP_POSTGRES_URL",
        "postgres://u:hunter2@h:port/db",
        "such as",
    ),
    ("TRUEUP_POSTGRES_URL", "hunter2", "postgres://"),
    #[cfg(feature = "amqp-url")]
    ("TRUEUP_AMQP_URL", "amqp://u:hunter2@h:99999/", "such as"),
    ("TRUEUP_AMQP_URL", "http://u:hunter2@h/", "amqp://"),
    (
        "TRUEUP_POSTGRES_URL",
        "postgres://u:hunter2@h/db?sslmode=on",
        "verify-full",
    ),
    ("TRUEUP_POSTGRES_CA_FILE", "/dev/null", "no certificate"),
    (
        "TRUEUP_POSTGRES_CLIENT_CERT_FILE",
        "/dev/null",
        "no certificate",
    ),
    ("TRUEUP_AMQP_CA_FILE", "/dev/null", "no certificate"),
    (
        "TRUEUP_AMQP_CLIENT_CERT_FILE",
        "/dev/null",
        "no certificate",
    ),
    ("TRUEUP_REDIS_CA_FILE", "/nowhere/ca.pem", "no such file"),
    (
        "TRUEUP_REDIS_CLIENT_CERT_FILE",
        "/dev/null",
        "no certificate",
    ),
    ("TRUEUP_REDIS_URL", "redis:u:hunter2@h", "redis://"),
    ("TRUEUP_QUEUE_MAX_LENGTH", "many", "1 or more"),
    ("TRUEUP_QUEUE_MAX_BYTES", "1 GB", "1GiB"),
    ("TRUEUP_BATCH_EVENTS_BURST", "0", "1 or more"),
    ("TRUEUP_BATCH_EVENTS_PER_SECOND", "0", "1 or more"),
    ("TRUEUP_MAX_ACCOUNTS", "0", "1 or more"),
    ("TRUEUP_MAX_API_KEYS_PER_ACCOUNT", "0", "1 or more"),
    ("TRUEUP_MAX_RECORDS_PER_ACCOUNT", "0", "1 or more"),
    ("TRUEUP_MAX_SECRETS_PER_WEBHOOK", "0", "1 or more"),
    ("TRUEUP_MAX_USERS_PER_ACCOUNT", "0", "1 or more"),
    ("TRUEUP_MAX_WEBHOOKS_PER_ACCOUNT", "0", "1 or more"),
    ("TRUEUP_MAX_WEBHOOK_LIMIT_PER_MINUTE", "0", "1 or more"),
    ("TRUEUP_LIMIT_IP_PER_MINUTE", "0", "1 or more"),
    ("TRUEUP_LIMIT_TOKEN_PER_MINUTE", "-200", "1 or more"),
    ("TRUEUP_LIMIT_REDIS_DOWN", "maybe", "local, refuse"),
    ("TRUEUP_LIMIT_REDIS_TIMEOUT_MS", "50ms", "milliseconds"),
    ("TRUEUP_GATEWAY_LISTEN", "8080", "127.0.0.1:8080"),
    ("TRUEUP_GATEWAY_OPS_LISTEN", "localhost", "127.0.0.1:8080"),
    ("TRUEUP_CONSOLE_LISTEN", "127.0.0.1:99999", "127.0.0.1:8080"),
    ("TRUEUP_CONSOLE_OPS_LISTEN", "127.0.0.1", "127.0.0.1:8080"),
    ("TRUEUP_WORKER_OPS_LISTEN", ":9070", "127.0.0.1:8080"),
    ("TRUEUP_TRUSTED_PROXIES", "10.0.0.0/99", "CIDRs"),
    ("TRUEUP_SPOOL_MAX_BYTES", "1 GB", "1GiB"),
    ("TRUEUP_GATEWAY_THREADS", "0", "1 or more"),
    ("TRUEUP_MAX_CONNECTIONS", "1.5", "1 or more"),
    ("TRUEUP_MAX_CONNECTIONS_PER_ADDRESS", "all", "1 or more"),
    ("TRUEUP_PUBLIC_URL", "hooks.example.com", "https://"),
    ("TRUEUP_ADMIN_KEY", "hunter2", "openssl rand"),
    ("TRUEUP_WORKER_PREFETCH", "0", "1 or more"),
    ("TRUEUP_WORKER_LANES", "0", "1 or more"),
    ("TRUEUP_WORKER_BATCH", "0", "1 or more"),
    ("TRUEUP_RETENTION_EVENT_DAYS", "never", "1 or more"),
    ("TRUEUP_RETENTION_REQUEST_DAYS", "0", "1 or more"),
    ("TRUEUP_RECONCILE_EVERY_HOURS", "daily", "0 for never"),
    ("TRUEUP_GRACE_SECONDS", "-1", "seconds"),
    ("TRUEUP_START_SECONDS", "5m", "seconds"),
    ("TRUEUP_LOG", "info,=x=y", "level"),
    ("TRUEUP_LOG_FORMAT", "xml", "text, json"),
];

/// Any path is well-formed; whether it can be used is tried by the process that uses it.
const PATHS: &[&str] = &["TRUEUP_SPOOL_DIR", "TRUEUP_SNAPSHOT_FILE"];

#[test]
fn what_is_wrong_is_named_with_the_fix_and_without_the_password() {
    for (variable, value, says) in WRONG {
        let flag = format!(
            "--{}={value}",
            variable
                .trim_start_matches(PREFIX)
                .to_lowercase()
                .replace('_', "-")
        );
        for error in [read(&[], &[(variable, value)]), read(&[&flag], &[])] {
            let error = error.expect_err(value);
            assert!(error.contains(variable), "{error}");
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
    let tried = |variable: &String| {
        WRONG.iter().any(|(name, ..)| name == variable) || PATHS.contains(&variable.as_str())
    };
    let untried: Vec<String> = all_settings()
        .into_iter()
        .map(|s| s.variable)
        .filter(|v| !tried(v))
        .collect();
    assert!(untried.is_empty(), "no wrong value is tried of {untried:?}");
}

#[test]
fn bytes_that_are_no_text_are_refused_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let environment = [(
        OsString::from("TRUEUP_PUBLIC_URL"),
        OsString::from_vec(vec![b'h', 0xFF]),
    )];
    let bad =
        parse_from::<Settings>(vec!["trueup-test".into()], &environment).expect_err("no UTF-8");
    assert!(bad.to_string().contains("TRUEUP_PUBLIC_URL"), "{bad}");
}

/// What the services' own documentation writes.
#[test]
fn urls_with_tls_several_hosts_users_and_vhosts_are_taken() {
    for (variable, value) in [
        (
            "TRUEUP_POSTGRES_URL",
            "postgres://u:p%40ss@h1,h2:5433/db?target_session_attrs=read-write",
        ),
        (
            "TRUEUP_POSTGRES_URL",
            "postgresql://u@h/db?sslmode=require&connect_timeout=3",
        ),
        ("TRUEUP_POSTGRES_URL", "postgres://u@h/db?sslmode=disable"),
        ("TRUEUP_POSTGRES_URL", "postgres://u@h/db?sslmode=prefer"),
        ("TRUEUP_POSTGRES_URL", "postgres://u@h/db?sslmode=verify-ca"),
        (
            "TRUEUP_POSTGRES_URL",
            "postgres://u@h1,h2/db?sslmode=verify-full&target_session_attrs=read-write",
        ),
        (
            "TRUEUP_POSTGRES_URL",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/db",
        ),
        ("TRUEUP_POSTGRES_URL", "postgres://u@[::1]:5432/db"),
        (
            "TRUEUP_AMQP_URL",
            "amqps://u:p%2Fss@broker.example:5671/a%2Fb?heartbeat=10",
        ),
        ("TRUEUP_AMQP_URL", "amqp://broker"),
        ("TRUEUP_REDIS_URL", "rediss://u:p%40ss@h:6380/3"),
        ("TRUEUP_REDIS_URL", "redis://:p@h"),
    ] {
        read(&[], &[(variable, value)]).unwrap_or_else(|error| panic!("{value}: {error}"));
    }
}

#[test]
fn passwords_are_redacted_wherever_they_stand() {
    assert_eq!(
        check::redact("to amqp://u:p/w@h:1/v failed"),
        "to amqp://u:***@h:1/v failed"
    );
    assert_eq!(check::redact("redis://h:6379/0"), "redis://h:6379/0");
    assert_eq!(
        check::redact("postgres://u@h/db?password=x&a=1"),
        "postgres://u@h/db?password=***&a=1"
    );
}

#[test]
fn every_setting_is_listed_once() {
    let all = all_settings();
    assert!(all.len() >= 20);
    for pair in all.windows(2) {
        assert!(pair[0].variable < pair[1].variable);
    }
    assert!(
        all.iter()
            .all(|s| s.variable.starts_with(PREFIX) && !s.help.is_empty())
    );
}
