//! What each crate links: the picture of ARCHITECTURE.md, asked of cargo.

use crate::house_rules::root;

/// What a crate links, itself aside.
fn linked_by(package: &str) -> Vec<String> {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "-p", package])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let mut names: Vec<String> = String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .filter(|name| name != package && !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Which of our own crates each may use. The compiler keeps a crate to its manifest; this keeps the
/// manifests to the picture in ARCHITECTURE.md.
#[test]
fn a_crate_uses_the_crates_below_it_and_no_other() {
    let allowed: [(&str, &[&str]); 11] = [
        ("services", &[]),
        ("event", &[]),
        ("domain", &["event"]),
        ("ops", &["event"]),
        ("postgres", &["event", "ops"]),
        ("queue", &["event", "ops"]),
        ("store", &["domain", "event", "ops", "postgres"]),
        (
            "settlement",
            &["domain", "event", "ops", "postgres", "store"],
        ),
        ("gateway", &["event", "ops", "postgres", "queue"]),
        (
            "console",
            &["domain", "event", "ops", "postgres", "settlement", "store"],
        ),
        (
            "worker",
            &[
                "domain",
                "event",
                "ops",
                "postgres",
                "queue",
                "settlement",
                "store",
            ],
        ),
    ];
    for (name, below) in allowed {
        let linked = linked_by(&format!("trueup-{name}"));
        let ours: Vec<&str> = linked
            .iter()
            .filter_map(|linked| linked.strip_prefix("trueup-"))
            .collect();
        assert_eq!(ours, below, "trueup-{name}");
    }
}

#[test]
fn the_domain_links_no_runtime_and_no_driver() {
    let outside = ["tokio", "tokio-postgres", "lapin", "redis", "hyper", "rand"];
    let linked = linked_by("trueup-domain");
    for name in outside {
        assert!(
            !linked.iter().any(|l| l == name),
            "trueup-domain links {name}"
        );
    }
}

/// It is built before everything else.
#[test]
fn xtask_links_no_runtime_and_no_driver() {
    let linked = linked_by("xtask");
    for name in ["tokio", "tokio-postgres", "lapin", "redis", "hyper"] {
        assert!(!linked.iter().any(|l| l == name), "xtask links {name}");
    }
}

/// What the public process does not link, nobody can reach through it.
#[test]
fn the_gateway_links_nothing_that_knows_money() {
    const MOST: usize = 255;
    let linked = linked_by("trueup-gateway");
    for name in [
        "phonenumber",
        "refinery",
        "axum",
        "askama",
        "argon2",
        "utoipa",
        "zstd-sys",
    ] {
        assert!(
            !linked.iter().any(|l| l == name),
            "trueup-gateway links {name}"
        );
    }
    assert!(
        linked.len() <= MOST,
        "trueup-gateway links {} crates",
        linked.len()
    );
}
