//! How settings are read, tried with an environment made up for each test.

use std::ffi::OsString;

use clap::Parser;
use secrecy::ExposeSecret;

use super::*;

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
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, clap::Subcommand, PartialEq)]
enum Sub {
    Migrate,
}

fn read(args: &[&str], environment: &[(&str, &str)]) -> Result<Settings, String> {
    let argv = std::iter::once("trueup-test").chain(args.iter().copied()).map(OsString::from).collect();
    let environment: Vec<_> = environment.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect();
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
    let env = [("TRUEUP_LIMIT_IP_PER_MINUTE", "7"), ("TRUEUP_GRACE_SECONDS", "")];
    let by_env = read(&[], &env).expect("good");
    assert_eq!(by_env.gateway.limit_ip_per_minute.get(), 7);
    assert_eq!(by_env.grace.grace.as_secs(), 20, "a blank variable is not set");
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
    assert_eq!(read_in.amqp.amqp_url.expose_secret(), "amqp://u:pa%2Fss@broker/v");
    let both = [("TRUEUP_AMQP_URL_FILE", file), ("TRUEUP_AMQP_URL", "amqp://x/")];
    assert!(read(&[], &both).expect_err("both").contains("keep one of them"));
    std::fs::remove_file(&path).expect("removes");
    let gone = read(&[], &[("TRUEUP_AMQP_URL_FILE", file)]).expect_err("gone");
    assert!(gone.contains("TRUEUP_AMQP_URL_FILE"), "{gone}");
}

#[test]
fn an_unknown_variable_names_the_nearest_known_one() {
    let error = read(&[], &[("TRUEUP_REDIS_ULR", "redis://x/")]).expect_err("misspelt");
    assert!(error.contains("did you mean TRUEUP_REDIS_URL"), "{error}");
    assert!(read(&[], &[("TRUEUP_COMPLETELY_OTHER_THING", "1")]).is_err());
    read(&[], &[("TRUEUP_WORKER_OPS_LISTEN", "127.0.0.1:0")]).expect("another process reads it");
}

#[test]
fn what_is_wrong_is_named_with_the_fix_and_without_the_password() {
    for (variable, value, says) in [
        ("TRUEUP_POSTGRES_URL", "mysql://root:hunter2@h/db", "postgres://"),
        ("TRUEUP_POSTGRES_URL", "postgres://u:hunter2@h:port/db", "such as"),
        ("TRUEUP_POSTGRES_URL", "hunter2", "postgres://"),
        ("TRUEUP_AMQP_URL", "amqp://u:hunter2@h:99999/", "such as"),
        ("TRUEUP_REDIS_URL", "redis:u:hunter2@h", "redis://"),
        ("TRUEUP_LIMIT_IP_PER_MINUTE", "0", "1 or more"),
        ("TRUEUP_GATEWAY_LISTEN", "8080", "127.0.0.1:8080"),
        ("TRUEUP_TRUSTED_PROXIES", "10.0.0.0/99", "CIDRs"),
        ("TRUEUP_LIMIT_REDIS_DOWN", "maybe", "local, refuse"),
        ("TRUEUP_ADMIN_KEY", "hunter2", "openssl rand"),
        ("TRUEUP_GRACE_SECONDS", "-1", "seconds"),
        ("TRUEUP_LOG", "info,=x=y", "level"),
    ] {
        let error = read(&[], &[(variable, value)]).expect_err(value);
        assert!(error.contains(variable), "{error}");
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn passwords_are_redacted_wherever_they_stand() {
    assert_eq!(check::redact("to amqp://u:p/w@h:1/v failed"), "to amqp://u:***@h:1/v failed");
    assert_eq!(check::redact("redis://h:6379/0"), "redis://h:6379/0");
    assert_eq!(check::redact("postgres://u@h/db?password=x&a=1"), "postgres://u@h/db?password=***&a=1");
}

#[test]
fn every_setting_is_listed_once() {
    let all = settings();
    assert!(all.len() >= 20);
    for pair in all.windows(2) {
        assert!(pair[0].variable < pair[1].variable);
    }
    assert!(all.iter().all(|s| s.variable.starts_with(PREFIX) && !s.help.is_empty()));
}
