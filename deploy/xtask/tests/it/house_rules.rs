//! The rules of the house that a compiler does not know, checked over the files of the workspace.
//!
//! Each test names what breaks a rule and what to do about it. A rule that turns out wrong is
//! changed here, openly; there is no way to switch one off for a single place but those named below.

use std::fs;
use std::path::{Path, PathBuf};

/// A file that a person can hold, in rustfmt's own form (which has a quarter more lines than the 120
/// columns that the earlier bound of 600 was made for); the wish is 450.
const MAX_LINES: usize = 750;
/// How far above a pause its loop may begin (a poll is a short thing).
const POLL_LOOP_LINES: usize = 20;

struct File {
    /// From the workspace's root, with `/`.
    path: String,
    text: String,
}

impl File {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line))
    }

    /// Test code: a test binary, the test kit, or what follows `#[cfg(test)]`.
    fn is_test_line(&self, number: usize) -> bool {
        if self.path.contains("/tests/")
            || self.path.contains("/testkit/")
            || self.path.contains("/fuzz/")
            || self.path.contains("/benches/")
        {
            return true;
        }
        let begins = self
            .lines()
            .find(|(_, line)| line.trim() == "#[cfg(test)]")
            .map(|(n, _)| n);
        begins.is_some_and(|n| number > n)
    }
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("deploy/xtask lies in the workspace")
        .to_path_buf()
}

/// Every text file of the project (not what is built, fetched or found by fuzzing).
fn files() -> Vec<File> {
    let mut found = Vec::new();
    walk(&root(), &root(), &mut found);
    assert!(
        found.len() > 20,
        "the walk lost its way: {} files",
        found.len()
    );
    found
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<File>) {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .expect("a folder of ours")
        .flatten()
        .collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("a file has a type");
        if kind.is_dir() {
            if !["target", ".git", "corpus", "artifacts", "node_modules"].contains(&name.as_str()) {
                walk(root, &path, found);
            }
        } else if kind.is_file() && name != "Cargo.lock" && name != ".git" {
            // What is no text (a picture, a fuzz seed) has no rule here.
            if let Ok(text) = fs::read_to_string(&path) {
                let path = path
                    .strip_prefix(root)
                    .expect("below the root")
                    .to_string_lossy()
                    .into_owned();
                found.push(File { path, text });
            }
        }
    }
}

fn rust_files() -> Vec<File> {
    files()
        .into_iter()
        .filter(|f| f.path.ends_with(".rs"))
        .collect()
}

fn nothing_breaks(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn a_person_can_hold_every_file() {
    let mut broken = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines >= MAX_LINES {
            broken.push(format!("{} has {lines} lines", file.path));
        }
    }
    nothing_breaks(
        "files stay under 750 lines; split by what the parts are for:",
        &broken,
    );
}

#[test]
fn names_say_what_a_thing_is_for() {
    let mut broken = Vec::new();
    for file in rust_files() {
        for part in file.path.trim_end_matches(".rs").split('/') {
            if [
                "utils", "util", "common", "helpers", "helper", "manager", "misc",
            ]
            .contains(&part)
            {
                broken.push(file.path.clone());
            }
        }
        for (number, line) in file.lines() {
            let declares = ["struct ", "enum ", "trait ", "mod "].iter().any(|word| {
                line.trim_start()
                    .trim_start_matches("pub ")
                    .starts_with(word)
            });
            if declares
                && (line.contains("Manager")
                    || line.contains("Helper")
                    || line.contains("mod utils"))
            {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks(
        "no utils, common, helpers, manager: name it after its purpose:",
        &broken,
    );
}

#[test]
fn every_module_opens_with_what_it_is_for() {
    let broken: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| !file.text.trim_start().starts_with("//!"))
        .map(|file| file.path)
        .collect();
    nothing_breaks(
        "a module's first line is a //! that says what it is for and what it refuses to do:",
        &broken,
    );
}

#[test]
fn no_green_by_luck() {
    // Put together so that this file does not break its own rule.
    let ignored = format!("#[{}", "ignore");
    let markers = [
        format!("TO{}", "DO"),
        format!("FIX{}", "ME"),
        format!("XX{}", "X:"),
    ];
    let mut broken = Vec::new();
    for file in rust_files() {
        for (number, line) in file.lines() {
            if line.trim_start().starts_with(&ignored) || markers.iter().any(|m| line.contains(m)) {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks("no ignored test and no note to do it later:", &broken);
}

/// A test waits for a condition with a deadline. Where the passing of time is itself what is tested,
/// the line (or the one above) says so: `// time passes: …`.
#[test]
fn tests_poll_and_do_not_sleep() {
    let mut broken = Vec::new();
    for file in rust_files() {
        if file.path == "deploy/xtask/tests/it/house_rules.rs" {
            continue;
        }
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.lines() {
            if !line.contains("sleep(") || !file.is_test_line(number) {
                continue;
            }
            let from = number.saturating_sub(POLL_LOOP_LINES);
            let above = lines.get(from..number).unwrap_or_default();
            let polls = above.iter().any(|l| {
                let l = l.trim_start();
                l.starts_with("loop") || l.starts_with("while ") || l.contains(" loop {")
            });
            let said = above
                .iter()
                .rev()
                .take(2)
                .any(|l| l.contains("// time passes"));
            if !polls && !said {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks(
        "poll a condition with a deadline instead of sleeping until it may hold:",
        &broken,
    );
}

/// Dying on demand is for the tests: no product crate switches it on, and a release build has it not
/// even then.
#[test]
fn only_tests_can_be_told_to_die() {
    let feature = format!("crash-{}", "points");
    let guard = format!("cfg(all(feature = \"{feature}\", debug_assertions))");
    let may_switch_it_on = [
        "shared/ops/Cargo.toml",
        "worker/Cargo.toml",
        "deploy/faults/Cargo.toml",
    ];
    let mut broken = Vec::new();
    for file in files().iter().filter(|f| f.text.contains(&feature)) {
        let about_builds = [".toml", ".yml", ".yaml", "Dockerfile", "run"]
            .iter()
            .any(|end| file.path.ends_with(end));
        if about_builds && !may_switch_it_on.contains(&file.path.as_str()) {
            broken.push(format!("{} names {feature}", file.path));
        }
        for (number, line) in file.lines() {
            if file.path.ends_with(".rs")
                && line.contains("cfg(")
                && line.contains(&feature)
                && !line.contains("format!")
            {
                let not = guard.replace("cfg(all", "cfg(not(all") + ")";
                if !line.contains(&guard) && !line.contains(&not) {
                    broken.push(format!("{}:{number}: {}", file.path, line.trim()));
                }
            }
        }
    }
    let worker =
        fs::read_to_string(root().join("worker/Cargo.toml")).expect("the worker's manifest");
    let product = worker
        .split("[dev-dependencies]")
        .next()
        .unwrap_or_default();
    if product.contains(&feature) {
        broken.push("worker/Cargo.toml switches it on outside of [dev-dependencies]".to_owned());
    }
    nothing_breaks("crash points are for debug builds of tests alone:", &broken);
}

/// What the gateway asks of Postgres: one statement each.
const GATEWAY_STATEMENTS: [&str; 2] = [
    "gateway/src/unsettled_reports/query.rs",
    "gateway/src/webhook_cache/query.rs",
];

#[test]
fn sql_lives_in_the_store() {
    let verbs = [
        "SELECT ",
        "INSERT INTO ",
        "UPDATE ",
        "DELETE FROM ",
        "WITH ",
        "TRUNCATE ",
        "COPY ",
    ];
    let mut broken = Vec::new();
    for file in rust_files() {
        let home = file.path.starts_with("shared/store/src/")
            || file.path.starts_with("shared/postgres/src/")
            || GATEWAY_STATEMENTS.contains(&file.path.as_str())
            || file.path.starts_with("shared/services/")
            || file.path.starts_with("deploy/");
        for (number, line) in file.lines() {
            if home || file.is_test_line(number) {
                continue;
            }
            let opens = line.split('"').skip(1).any(|text| {
                // Ours open with their name: /* settle_lock_calls */ SELECT …
                let text = text.trim_start();
                let text = text
                    .strip_prefix("/*")
                    .and_then(|t| t.split_once("*/"))
                    .map_or(text, |(_, t)| t.trim_start());
                verbs.iter().any(|verb| text.starts_with(verb)) && !text.ends_with('.')
            });
            if opens {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks(
        "SQL of the product stands in shared/store, and in the one file of the gateway that reads its one view:",
        &broken,
    );
}

#[test]
fn migrations_are_only_added() {
    let mut names: Vec<String> = fs::read_dir(root().join("shared/store/migrations"))
        .expect("the migrations")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    for (i, name) in names.iter().enumerate() {
        let expected = format!("V{:04}__", i + 1);
        assert!(
            name.starts_with(&expected) && name.ends_with(".sql"),
            "{name}: migrations are numbered without a gap, the next being {expected}what_it_does.sql; one that was released is never edited",
        );
    }
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    let places = ["work", "root", "home"].map(|dir| format!("/{dir}/"));
    let mut broken = Vec::new();
    for file in files() {
        for (number, line) in file.lines() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks("no absolute path of a machine:", &broken);
}

#[test]
fn nothing_tells_how_the_work_was_organised() {
    // In two parts each, so that this file does not break its own rule.
    let words = [
        ("sub", "agent"),
        ("sub-", "agent"),
        ("AI ", "agent"),
        ("language ", "model"),
        ("issues ", "show"),
        ("this ", "session"),
        ("wip", "-"),
        ("worktree", " of"),
        ("Claude", ""),
        ("ChatGPT", ""),
    ]
    .map(|(a, b)| format!("{a}{b}"));
    let mut broken = Vec::new();
    for file in files() {
        if file.path == "deploy/xtask/tests/it/house_rules.rs" || file.path == ".gitignore" {
            continue;
        }
        for (number, line) in file.lines() {
            let numbered = line.match_indices("issue ").any(|(at, word)| {
                let rest = line.get(at + word.len()..).unwrap_or_default();
                rest.starts_with(|c: char| c.is_ascii_digit() || c == '#')
            });
            if numbered || words.iter().any(|word| line.contains(word.as_str())) {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks(
        "the project speaks of the product, not of how or by whom it is worked on:",
        &broken,
    );
}

#[test]
fn every_decision_is_in_the_index() {
    let dir = root().join("deploy/docs/adr");
    let index = fs::read_to_string(dir.join("README.md")).expect("the index of decisions");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(&dir).expect("the decisions").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        assert!(
            index.contains(&format!("({name})")),
            "{name} is missing in deploy/docs/adr/README.md"
        );
        let number: usize = name
            .get(..4)
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{name}: NNNN-what.md"));
        numbers.push(number);
    }
    numbers.sort_unstable();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(
        numbers, expected,
        "decisions are numbered from 1 without a gap"
    );
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one variable of this test, not of the product"
)]
fn asked_to_update() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

/// Compares a generated text with its file; `UPDATE_DOCS=1 cargo test -p xtask --test it house_rules` writes it.
fn is_documented(path: &str, expected: &str) {
    let file = root().join(path);
    if asked_to_update() {
        fs::write(&file, expected).expect("the documentation can be written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} does not say what the code says; run `UPDATE_DOCS=1 cargo test -p xtask --test it house_rules`"
    );
}

#[test]
fn metrics_md_is_the_table_of_metrics() {
    let intro = "# Metrics\n\nServed by each process on its ops listener at `/metrics`, in Prometheus's text form. Every label value \
                 is written in the code and starts at 0; none is typed by a user or a sender. This file is made from \
                 `shared/ops/src/metrics/table.rs`, and a test compares the two. Alerts on them: \
                 [`trueup.rules.yml`](../prometheus/trueup.rules.yml), explained in [RUNBOOK.md](RUNBOOK.md).\n\n";
    let text = format!("{intro}{}", trueup_ops::metrics::render_markdown());
    is_documented("deploy/docs/METRICS.md", &format!("{}\n", text.trim_end()));
}

#[test]
fn settings_md_is_the_list_of_settings() {
    let mut text = String::from(
        "# Settings\n\nEach is an environment variable, or the same as a flag. Any of them may also be given as a file: `NAME_FILE` \
         names a file that holds the value (for secrets). A variable that another Trueup process reads is no error; an \
         unknown `TRUEUP_…` variable is, and names the nearest known one. Bad settings are refused before a port is \
         bound, with exit code 64. This file is made from the code, and a test compares the two.\n\n\
         | variable | flag | default | what it is |\n|---|---|---|---|\n",
    );
    for setting in trueup_ops::settings::all_settings() {
        let default = setting
            .default
            .filter(|d| !d.is_empty())
            .map(|d| format!("`{d}`"))
            .unwrap_or_default();
        let help = setting.help.replace('|', "\\|");
        text.push_str(&format!(
            "| `{}` | `{}` | {default} | {help} |\n",
            setting.variable, setting.flag
        ));
    }
    is_documented("deploy/docs/SETTINGS.md", &text);
}

/// The samples name every setting, and none that does not exist; where one is commented out, what
/// stands there is the default.
#[test]
fn the_samples_of_settings_are_true() {
    let settings = trueup_ops::settings::all_settings();
    let mut named = Vec::new();
    for file in files()
        .into_iter()
        .filter(|f| f.path.starts_with("deploy/env/"))
    {
        for (number, line) in file.lines() {
            let assigned = line.trim_start_matches('#').trim();
            let Some((name, value)) = assigned
                .split_once('=')
                .filter(|(name, _)| name.starts_with("TRUEUP_"))
            else {
                continue;
            };
            let find = |name: &str| settings.iter().find(|s| s.variable == name);
            let setting = find(name)
                .or_else(|| find(name.strip_suffix("_FILE")?))
                .unwrap_or_else(|| panic!("{}:{number}: {name} is no setting", file.path));
            let by_file = setting.variable != name;
            if let (true, Some(default)) = (line.starts_with('#') && !by_file, &setting.default) {
                assert_eq!(
                    value, default,
                    "{}:{number}: {name} is commented out, so it shows the default",
                    file.path
                );
            }
            named.push(setting.variable.clone());
        }
    }
    let missing: Vec<_> = settings
        .iter()
        .filter(|s| !named.contains(&s.variable))
        .map(|s| &s.variable)
        .collect();
    assert!(missing.is_empty(), "deploy/env/ shows no {missing:?}");
}

/// An alert on a metric that does not exist never fires, and a panel on one is empty for ever.
#[test]
fn alerts_and_dashboards_ask_for_metrics_that_exist() {
    let names: Vec<&str> = trueup_ops::metrics::GROUPS
        .iter()
        .flat_map(|(_, rows)| *rows)
        .map(|row| row.name)
        .collect();
    let mut broken = Vec::new();
    for file in files() {
        if !file.path.starts_with("deploy/prometheus/") && !file.path.starts_with("deploy/grafana/")
        {
            continue;
        }
        for (number, line) in file.lines() {
            for (at, _) in line.match_indices("trueup_") {
                let word: String = line[at..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                let base = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| word.strip_suffix(end))
                    .unwrap_or(&word);
                if !names.contains(&word.as_str()) && !names.contains(&base) {
                    broken.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    nothing_breaks(
        "alerts and dashboards name metrics of shared/ops/src/metrics/table.rs:",
        &broken,
    );
}

/// Each alert is explained where the person who is woken looks.
#[test]
fn the_runbook_knows_every_alert() {
    let rules =
        fs::read_to_string(root().join("deploy/prometheus/trueup.rules.yml")).expect("the alerts");
    let runbook = fs::read_to_string(root().join("deploy/docs/RUNBOOK.md")).expect("the runbook");
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 5, "the alerts were not found");
    let missing: Vec<_> = alerts
        .iter()
        .filter(|alert| !runbook.contains(&format!("### {alert}")))
        .collect();
    assert!(
        missing.is_empty(),
        "RUNBOOK.md has no section for {missing:?}"
    );
}

/// A clock, a file or chance in a pure crate would make one input give two results. No crate boundary
/// keeps the standard library out.
#[test]
fn the_pure_crates_read_no_clock_no_file_and_no_chance() {
    let outside = [
        "std::fs",
        "std::env",
        "TcpStream",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "now_v7",
        "new_v4",
        "println!",
    ];
    let mut broken = Vec::new();
    for file in rust_files().iter().filter(|f| {
        f.path.starts_with("shared/domain/src/") || f.path.starts_with("shared/event/src/")
    }) {
        for (number, line) in file.lines() {
            let code = line.split("//").next().unwrap_or_default();
            if !file.is_test_line(number) && outside.iter().any(|word| code.contains(word)) {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    nothing_breaks("times and random bits are arguments:", &broken);
}

/// A path in a document is where a reader goes next.
#[test]
fn every_path_in_a_document_exists() {
    let tops = ["shared/", "gateway/", "worker/", "deploy/"];
    let mut broken = Vec::new();
    for file in files().iter().filter(|f| f.path.ends_with(".md")) {
        for (number, line) in file.lines() {
            for quoted in line.split('`').skip(1).step_by(2) {
                let path = quoted.trim_end_matches('/');
                let is_path = tops.iter().any(|top| quoted.starts_with(top))
                    && !path.contains(|c: char| c.is_whitespace() || "*{<…NX".contains(c));
                if is_path && !root().join(path).exists() {
                    broken.push(format!("{}:{number}: {quoted}", file.path));
                }
            }
        }
    }
    nothing_breaks("documents name paths that exist:", &broken);
}

/// A query that groups by a label which no metric has gives one nameless line.
#[test]
fn alerts_and_dashboards_group_by_labels_that_exist() {
    // Prometheus' own.
    let mut known = vec!["le", "instance", "job"];
    for (_, rows) in trueup_ops::metrics::GROUPS {
        for row in *rows {
            known.extend(row.labels.iter().map(|(label, _)| *label));
        }
    }
    let mut broken = Vec::new();
    for file in files() {
        if !file.path.starts_with("deploy/prometheus/") && !file.path.starts_with("deploy/grafana/")
        {
            continue;
        }
        for (number, line) in file.lines() {
            let grouped = line
                .split("by (")
                .skip(1)
                .filter_map(|rest| rest.split(')').next());
            let shown = line
                .split("{{")
                .skip(1)
                .filter_map(|rest| rest.split("}}").next());
            let labels = grouped.flat_map(|list| list.split(',')).chain(shown);
            for label in labels.map(|l| l.trim().trim_start_matches("$labels.")) {
                let is_label = label.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                if is_label && !known.contains(&label) {
                    broken.push(format!("{}:{number}: {label}", file.path));
                }
            }
        }
    }
    nothing_breaks("alerts and dashboards name labels of the metrics:", &broken);
}
