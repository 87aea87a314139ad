//! `cargo xtask fuzz`: builds each committed fuzz target and runs it for a bounded time, from the
//! committed seeds and from what earlier runs found.
//!
//! No sanitizer: what is fuzzed has no unsafe code, so a breach is a panic, and without one the stable
//! compiler is enough. It refuses to change the seeds; the tests replay those without a fuzzer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use trueup_services::find_program;
use trueup_services::process::output;

use crate::child_process;
use crate::layout::Layout;
use crate::progress::{Note, step};

#[derive(Args, Clone)]
pub struct Options {
    /// Targets to run [default: all]
    targets: Vec<String>,
    /// Seconds of fuzzing for each target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// The crates of the targets; each is apart from the workspace.
const CRATES: [&str; 2] = ["shared/domain/fuzz", "gateway/fuzz"];

struct FuzzPaths {
    dir: PathBuf,
    /// What runs find grows here, outside the committed seeds.
    corpus: PathBuf,
    target: PathBuf,
    logs: PathBuf,
}

pub fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut known = Vec::new();
    for name in CRATES {
        let dir = layout.root.join(name);
        known.extend(
            targets(layout, &dir)?
                .into_iter()
                .map(|target| (dir.clone(), target)),
        );
    }
    if let Some(unknown) = options
        .targets
        .iter()
        .find(|t| !known.iter().any(|(_, name)| name == *t))
    {
        let names: Vec<_> = known.iter().map(|(_, name)| name.as_str()).collect();
        bail!(
            "there is no fuzz target {unknown}; there is {}",
            names.join(", ")
        );
    }
    check_tools(layout)?;
    let fuzz = layout.target.join("fuzz");
    let mut failed = Vec::new();
    for (dir, target) in &known {
        if !options.targets.is_empty() && !options.targets.contains(target) {
            continue;
        }
        let build = fuzz
            .join("build")
            .join(dir.parent().and_then(Path::file_name).unwrap_or_default());
        let place = FuzzPaths {
            dir: dir.clone(),
            corpus: fuzz.join("corpus"),
            target: build,
            logs: fuzz.join("logs"),
        };
        step(&format!("building {target}"), |note| {
            let mut build = cargo_fuzz(&place, "build");
            build.arg(target);
            child_process::run_logged(build, &fresh(&place, target, "build")?, note)
        })?;
        match step(
            &format!("fuzzing {target} for {} s", options.seconds),
            |note| fuzz_one(&place, target, options.seconds, note),
        ) {
            Ok(done) => println!("     {done}"),
            Err(error) => {
                println!("     {error:#}");
                failed.push(target.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} broke what must hold; the inputs are in the crate's `artifacts/` ({}). Repeat one by `cargo fuzz run --fuzz-dir \
         CRATE --sanitizer none TARGET FILE`, mend it, and keep the input under the crate's `seeds/TARGET/`",
        failed.join(", "),
        CRATES.join(", ")
    )
}

fn targets(layout: &Layout, dir: &Path) -> Result<Vec<String>> {
    let mut command = layout.cargo();
    command
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--manifest-path",
        ])
        .arg(dir.join("Cargo.toml"));
    let metadata: Value = serde_json::from_str(&output(command)?)?;
    let of_crate = metadata
        .pointer("/packages/0/targets")
        .and_then(Value::as_array)
        .context("cargo names targets")?;
    let is_binary =
        |target: &Value| target.pointer("/kind/0").and_then(Value::as_str) == Some("bin");
    Ok(of_crate
        .iter()
        .filter(|t| is_binary(t))
        .filter_map(|t| t.get("name")?.as_str().map(str::to_owned))
        .collect())
}

fn check_tools(layout: &Layout) -> Result<()> {
    let mut version = layout.cargo();
    version.args(["fuzz", "--version"]);
    if output(version).is_err() {
        bail!(
            "cargo-fuzz is not installed; install it by `cargo install --locked cargo-fuzz` and try again"
        );
    }
    if find_program("c++").is_none() && find_program("clang++").is_none() {
        bail!(
            "there is no C++ compiler, which libFuzzer is built with; `apt-get install g++` and try again"
        );
    }
    Ok(())
}

/// Cargo as a user calls it, so that rustup's choice of a toolchain holds for what it starts, too.
fn cargo_fuzz(place: &FuzzPaths, verb: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["fuzz", verb, "--sanitizer", "none", "--fuzz-dir"])
        .arg(&place.dir)
        .arg("--target-dir");
    command.arg(&place.target).current_dir(&place.dir);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_") && name != "CARGO_HOME" {
            command.env_remove(name);
        }
    }
    command
}

fn fuzz_one(place: &FuzzPaths, target: &str, seconds: u64, note: &Note) -> Result<String> {
    let corpus = place.corpus.join(target);
    std::fs::create_dir_all(&corpus)?;
    let log = fresh(place, target, "run")?;
    let mut command = cargo_fuzz(place, "run");
    // New finds go to the first folder; the seeds are only read.
    command
        .arg(target)
        .arg(&corpus)
        .arg(place.dir.join("seeds").join(target))
        .arg("--");
    command.args([
        &format!("-max_total_time={seconds}"),
        "-print_final_stats=1",
        "-rss_limit_mb=1024",
        "-timeout=10",
    ]);
    child_process::run_logged(command, &log, note)?;
    let text = std::fs::read_to_string(&log)?;
    let stat = |name: &str| {
        let line = text
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        line.map(|rest| rest.trim_start_matches(':').trim().to_owned())
            .unwrap_or_else(|| "?".into())
    };
    Ok(format!(
        "{} inputs, {} a second, nothing broke",
        stat("number_of_executed_units"),
        stat("average_exec_per_sec")
    ))
}

/// An empty log of this name.
fn fresh(place: &FuzzPaths, target: &str, what: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(&place.logs)?;
    let log = place.logs.join(format!("{target}.{what}.log"));
    std::fs::write(&log, "")?;
    Ok(log)
}
