//! What each crate links: the picture of ARCHITECTURE.md, asked of cargo.

use std::fs;

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
    let mut crates: Vec<String> = String::from_utf8_lossy(&tree.stdout)
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|line| !line.is_empty() && line.split(' ').next() != Some(package))
        .collect();
    crates.sort();
    crates.dedup();
    crates
}

/// Their names alone: two versions of one crate are one.
fn names_linked_by(package: &str) -> Vec<String> {
    let crates = linked_by(package);
    let names = crates.iter().filter_map(|line| line.split(' ').next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.dedup();
    names
}

/// A crate's folder and what it uses of ours, by the table in ARCHITECTURE.md.
fn pictured_crates() -> Vec<(String, Vec<String>)> {
    let picture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the picture");
    let rows = picture.lines().filter(|row| row.starts_with("| trueup-"));
    let crates = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let folder = cells[1].trim_matches('`').to_owned();
        let uses = cells[cells.len() - 1]
            .split(", ")
            .filter(|uses| *uses != "–");
        (folder, uses.map(str::to_owned).collect())
    });
    crates.collect()
}

/// What a manifest names of ours, for the product itself.
fn named_by_manifest(folder: &str) -> Vec<String> {
    let manifest = root().join(folder).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("a manifest");
    let lines = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]");
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    let ours = lines.filter_map(|line| line.strip_prefix("trueup-"));
    let mut names: Vec<String> = ours
        .filter_map(|line| line.split([' ', '.']).next())
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// The compiler keeps a crate to its manifest; this keeps the manifests to the picture.
#[test]
fn a_crate_uses_what_the_picture_says_and_no_other() {
    let crates = pictured_crates();
    assert_eq!(crates.len(), 12, "{crates:?}");
    for (folder, uses) in crates {
        assert_eq!(named_by_manifest(&folder), uses, "{folder}");
    }
}

#[test]
fn the_domain_links_no_runtime_and_no_driver() {
    let outside = ["tokio", "tokio-postgres", "lapin", "redis", "hyper", "rand"];
    let linked = names_linked_by("trueup-domain");
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
    let linked = names_linked_by("xtask");
    for name in ["tokio", "tokio-postgres", "lapin", "redis", "hyper"] {
        assert!(!linked.iter().any(|l| l == name), "xtask links {name}");
    }
}

/// What the public process does not link, nobody can reach through it.
#[test]
fn the_gateway_links_nothing_that_knows_money() {
    const MOST: usize = 255;
    let linked = linked_by("trueup-gateway");
    let names = names_linked_by("trueup-gateway");
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
            !names.iter().any(|linked| linked == name),
            "trueup-gateway links {name}"
        );
    }
    assert!(
        linked.len() <= MOST,
        "trueup-gateway links {} crates",
        linked.len()
    );
}
