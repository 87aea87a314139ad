//! What is shipped beside the code, as far as it can be read or run without an engine of containers: secrets,
//! docker-compose.yml, the Kubernetes manifests, the alerts, and that every metric is written by somebody.
#![allow(
    clippy::disallowed_methods,
    reason = "a test looks for the programs that it runs"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trueup_services::process::{ProcessGuard, output, wait};
use trueup_services::{find_program, spare_port};

use crate::house_rules::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A folder of this test's own, gone with its guard.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("trueup-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn make_secrets(file: &Path) -> String {
    let mut command = Command::new(root().join("deploy/secrets.sh"));
    command.arg(file);
    output(command).expect("deploy/secrets.sh runs");
    fs::read_to_string(file).expect("it is made")
}

/// The names in `${NAME<operator>`.
fn asked_for(text: &str, operator: &str) -> BTreeSet<String> {
    let parts = text.split("${").skip(1);
    let names = parts.filter_map(|part| {
        let end = part.find(|c: char| !(c.is_ascii_uppercase() || c == '_'))?;
        part[end..]
            .starts_with(operator)
            .then(|| part[..end].to_owned())
    });
    names.collect()
}

#[test]
fn every_secret_is_made_and_none_has_a_default() {
    let folder = Folder::new("secrets");
    let file = folder.0.join("env");
    let made = make_secrets(&file);
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may read it");
    assert_eq!(make_secrets(&file), made, "what is there is kept");

    let compose = read("docker-compose.yml");
    let required = asked_for(&compose, ":?");
    let names: BTreeSet<String> = made
        .lines()
        .filter_map(|line| line.split_once('='))
        .inspect(|(name, value)| assert!(value.len() >= 48, "{name}={value}"))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(required, names, "docker-compose.yml and deploy/secrets.sh");
    let values: BTreeSet<&str> = made.lines().filter_map(|l| l.split('=').nth(1)).collect();
    assert_eq!(values.len(), names.len(), "each is another");
    for name in asked_for(&compose, ":-") {
        let is_secret = ["PASSWORD", "SECRET"]
            .iter()
            .any(|word| name.contains(word));
        assert!(!is_secret, "{name} has a default");
    }
    assert!(compose.contains("${ADMIN_KEY:-}"), "no key is the default");
    for path in [
        "docker-compose.yml",
        "deploy/redis/users.acl.template",
        "deploy/rabbitmq/definitions.json.template",
    ] {
        assert!(!read(path).contains("change-me"), "{path}");
    }
    let ignored = read(".dockerignore");
    for line in [".env", "**/target"] {
        assert!(
            ignored.lines().any(|l| l == line),
            "{line} goes into the build's context"
        );
    }
}

/// The part of docker-compose.yml that is one service's.
fn compose_service(name: &str) -> String {
    let compose = read("docker-compose.yml");
    let head = format!("\n  {name}:\n");
    let at = compose.find(&head).unwrap_or_else(|| panic!("{name}"));
    let rest = &compose[at + head.len()..];
    let end = rest.find("\n\n").unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// The picture of ARCHITECTURE.md is true on the wire: a network is one link, and nothing else is linked.
#[test]
fn docker_composes_networks_are_the_links_of_the_picture_and_memory_is_bounded() {
    let mut linked = BTreeSet::new();
    for name in [
        "postgres", "redis", "rabbitmq", "migrate", "gateway", "console", "worker",
    ] {
        let service = compose_service(name);
        assert!(service.contains("mem_limit: "), "{name} has no limit");
        let networks = service
            .lines()
            .find_map(|line| line.trim().strip_prefix("networks: ["))
            .unwrap_or_else(|| panic!("{name} has no networks"));
        for network in networks.trim_end_matches(']').split(", ") {
            linked.insert(format!("{network} {name}"));
        }
    }
    let links = [
        ("migrate", "postgres"),
        ("migrate", "broker"),
        ("gateway", "postgres"),
        ("gateway", "broker"),
        ("gateway", "redis"),
        ("console", "postgres"),
        ("worker", "postgres"),
        ("worker", "broker"),
    ];
    let mut wanted = BTreeSet::from(["public gateway".to_owned(), "operators console".to_owned()]);
    for (from, to) in links {
        let service = if to == "broker" { "rabbitmq" } else { to };
        wanted.insert(format!("{from}-{to} {from}"));
        wanted.insert(format!("{from}-{to} {service}"));
    }
    assert_eq!(linked, wanted);
}

/// What PERFORMANCE.md says that a process may hold is what compose and Kubernetes allow it, in MiB.
#[test]
fn the_memory_of_a_process_is_bounded_as_the_table_of_senders_says() {
    let table = read("deploy/docs/PERFORMANCE.md");
    let manifest = read("deploy/kubernetes/trueup.yaml");
    for (name, mib) in [("gateway", 256), ("console", 256), ("worker", 384)] {
        assert!(
            table.contains(&format!("a {name} {mib} MiB")),
            "PERFORMANCE.md does not bound the {name} by {mib} MiB"
        );
        let compose = compose_service(name);
        assert!(
            compose.contains(&format!("mem_limit: {mib}m\n")),
            "{compose}"
        );
        let begin = format!("        - name: {name}\n");
        let (_, container) = manifest
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no container {name}"));
        let container = container.split("\n---").next().unwrap_or_default();
        assert!(
            container.contains(&format!("limits: {{ memory: {mib}Mi }}")),
            "{container}"
        );
    }
}

#[test]
fn no_pod_is_told_of_the_namespaces_services() {
    let manifest = read("deploy/kubernetes/trueup.yaml");
    let count = |what: &str| manifest.lines().filter(|line| line.trim() == what).count();
    assert_eq!(count("containers:"), 4);
    assert_eq!(count("enableServiceLinks: false"), 4);
}

/// The container's own start script with the real Redis: the password of the environment is let in, no other.
#[test]
fn redis_starts_with_the_password_of_the_environment_and_no_other() {
    assert!(
        find_program("redis-server").is_some(),
        "it is not installed"
    );
    let folder = Folder::new("redis-start");
    let port = spare_port().expect("a port");
    let mut command = Command::new(root().join("deploy/redis/start.sh"));
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .env("REDIS_PASSWORD", "of-this-test")
        .env(
            "ACL_TEMPLATE",
            root().join("deploy/redis/users.acl.template"),
        )
        .env("CONFIG", root().join("deploy/redis/redis.conf"))
        .env("TMPDIR", &folder.0)
        .current_dir(&folder.0);
    let log = folder.0.join("redis.log");
    let _guard = ProcessGuard::start(command, &log).expect("it starts");
    let ping = |password: &str| {
        let mut cli = Command::new("redis-cli");
        cli.args([
            "--no-auth-warning",
            "--user",
            "trueup_gateway",
            "-p",
            &port.to_string(),
            "ping",
        ])
        .env("REDISCLI_AUTH", password);
        output(cli).unwrap_or_default()
    };
    let up = wait(Duration::from_secs(20), || {
        ping("of-this-test").trim() == "PONG"
    });
    assert!(up, "{}", fs::read_to_string(&log).unwrap_or_default());
    for wrong in ["change-me", "", "of-another-test"] {
        assert_ne!(ping(wrong).trim(), "PONG", "{wrong:?} is let in");
    }
    let mut without = Command::new(root().join("deploy/redis/start.sh"));
    without.env_remove("REDIS_PASSWORD");
    assert!(output(without).is_err(), "it does not start without one");
}

/// Each alert says how urgent it is and where it is explained, and is seen to fire in a test.
#[test]
fn every_alert_has_a_severity_a_runbook_and_a_test() {
    let rules = read("deploy/prometheus/trueup.rules.yml");
    let folder = root().join("deploy/prometheus");
    let tests: String = fs::read_dir(folder)
        .expect("the rules' folder")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".test.yml"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect();
    let mut found = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default();
        let rule = rule.split("- record: ").next().unwrap_or_default();
        let severe = ["severity: page", "severity: ticket"];
        assert!(
            severe.iter().any(|s| rule.contains(s)),
            "{name}: how urgent?"
        );
        let link = format!(
            "runbook_url: https://runbooks.example.com/trueup#{}",
            name.to_lowercase()
        );
        assert!(rule.contains(&link), "{name}: {link}");
        assert!(
            tests.contains(&format!("alertname=\"{name}\"")),
            "{name} is never seen to fire"
        );
        found += 1;
    }
    assert!(found > 20, "the alerts were not found");
    assert!(
        !rules.contains("job=~"),
        "processes are known by trueup_build_info"
    );
}

fn rust_sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of ours").flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs")
            && !path.ends_with("metrics/table.rs")
        {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            all.extend(product.chars().filter(|c| !c.is_whitespace()));
        }
    }
}

/// A metric that nobody writes is always 0, and the alert on it never fires.
#[test]
fn every_metric_of_the_table_is_written_outside_of_it() {
    let mut sources = String::new();
    for folder in ["shared", "gateway/src", "gateway/console/src", "worker/src"] {
        for sub in fs::read_dir(root().join(folder))
            .expect("a folder")
            .flatten()
        {
            if sub.path().is_dir() && !sub.path().ends_with("testkit") {
                rust_sources(&sub.path(), &mut sources);
            }
        }
        let own = root().join(folder);
        if own.ends_with("src") {
            rust_sources(&own, &mut sources);
        }
    }
    let table = read("shared/ops/src/metrics/table.rs");
    let mut silent = Vec::new();
    let mut group = String::new();
    for line in table.lines().map(str::trim) {
        if let [_, access, "{"] = line.split(' ').collect::<Vec<_>>()[..] {
            group = access.to_owned();
        }
        let Some((field, _)) = line
            .split_once(": ")
            .filter(|_| line.contains("= \"trueup_"))
        else {
            continue;
        };
        let written = [
            "set",
            "inc",
            "add",
            "sub",
            "since",
            "observe_value",
            "observe_count",
            "show",
        ];
        let is_written = written
            .iter()
            .any(|call| sources.contains(&format!(".{field}.{call}(")))
            || sources.contains(&format!("{group}().{field};"));
        if !is_written {
            silent.push(format!("{group}().{field}"));
        }
    }
    assert!(!group.is_empty(), "the table was not read");
    assert!(silent.is_empty(), "nobody writes {silent:?}");
}
