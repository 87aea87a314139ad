//! No files of a crate use each other in a circle. A `mod.rs` counts as a file of its own: a child that
//! takes what its parent holds, beside a parent that calls the child, is a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::house_rules::root;

const CRATES: [&str; 16] = [
    "shared/event",
    "shared/domain",
    "shared/ops",
    "shared/postgres",
    "shared/store",
    "shared/settlement",
    "shared/queue",
    "shared/services",
    "shared/testkit",
    "gateway",
    "gateway/console",
    "worker",
    "deploy/xtask",
    "deploy/load",
    "deploy/faults",
    "deploy/console-samples",
];

/// A module's place in its crate, such as `["pages", "event"]`.
type ModulePath = Vec<String>;

/// A crate's files by their modules. Where there are a library and a program, the root is the library.
fn modules_of(folder: &Path) -> BTreeMap<ModulePath, PathBuf> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let inside = path
                    .strip_prefix(folder)
                    .expect("it is inside")
                    .with_extension("");
                let mut module: ModulePath = inside
                    .iter()
                    .map(|part| part.to_string_lossy().into_owned())
                    .collect();
                let is_library = folder.join("lib.rs").exists();
                match module.last().map(String::as_str) {
                    Some("main") if is_library => continue,
                    Some("tests") => continue,
                    Some("mod" | "lib" | "main") => drop(module.pop()),
                    _ => {}
                }
                modules.insert(module, path);
            }
        }
    }
    modules
}

/// Identifiers and the signs that a path is made of; no comments, no texts, no inline tests.
fn tokens_of(source: &str) -> Vec<String> {
    let source = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let mut tokens: Vec<String> = Vec::new();
    for line in source.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let mut in_text = false;
        let mut word = String::new();
        for sign in code.chars() {
            in_text ^= sign == '"';
            if !in_text && (sign.is_alphanumeric() || sign == '_') {
                word.push(sign);
                continue;
            }
            if !word.is_empty() {
                tokens.push(std::mem::take(&mut word));
            }
            if !in_text && !sign.is_whitespace() {
                tokens.push(sign.to_string());
            }
        }
        if !word.is_empty() {
            tokens.push(word);
        }
    }
    tokens
}

/// Every path that begins at `at`, which may branch in braces; and where it ends.
fn read_paths(
    tokens: &[String],
    mut at: usize,
    before: &[String],
    paths: &mut Vec<ModulePath>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = if tokens[at] == "," {
                        at + 1
                    } else {
                        read_paths(tokens, at, &path, paths).max(at + 1)
                    };
                }
                return at + 1;
            }
            Some(word) if word.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                path.push(word.to_owned());
                at += 1;
            }
            _ => break,
        }
        let is_longer = tokens.get(at).is_some_and(|token| token == ":")
            && tokens.get(at + 1).is_some_and(|token| token == ":");
        if !is_longer {
            break;
        }
        at += 2;
    }
    paths.push(path);
    at
}

/// The modules that this one's file uses.
fn uses_of(
    own: &ModulePath,
    file: &Path,
    modules: &BTreeMap<ModulePath, PathBuf>,
) -> BTreeSet<ModulePath> {
    let tokens = tokens_of(&fs::read_to_string(file).expect("a source"));
    let is_child =
        |word: &str| modules.contains_key(&[own.as_slice(), &[word.to_owned()]].concat());
    let mut uses = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || tokens[at - 1] != ":";
        let leads_on = tokens.get(at + 1).is_some_and(|next| next == ":");
        let is_root = matches!(token.as_str(), "crate" | "self" | "super") || is_child(token);
        if !(begins && leads_on && is_root) {
            continue;
        }
        let mut paths = Vec::new();
        read_paths(&tokens, at, &[], &mut paths);
        for path in paths {
            let (mut full, mut rest) = (own.clone(), path.as_slice());
            while let Some((first, more)) = rest.split_first() {
                match first.as_str() {
                    "crate" => full.clear(),
                    "super" => drop(full.pop()),
                    "self" => {}
                    _ => break,
                }
                rest = more;
            }
            full.extend_from_slice(rest);
            while !modules.contains_key(&full) && !full.is_empty() {
                full.pop();
            }
            if modules.contains_key(&full) && full != *own {
                uses.insert(full);
            }
        }
    }
    uses
}

/// The modules from which this one is reached again, if any.
fn circle_through(
    start: &ModulePath,
    uses: &BTreeMap<ModulePath, BTreeSet<ModulePath>>,
) -> Option<Vec<ModulePath>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start.clone()]];
    while let Some(way) = ways.pop() {
        for next in way
            .last()
            .and_then(|last| uses.get(last))
            .into_iter()
            .flatten()
        {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push([way.as_slice(), std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[test]
fn no_files_of_a_crate_use_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for name in CRATES {
        let modules = modules_of(&root().join(name).join("src"));
        assert!(modules.len() > 1, "{name} has sources");
        let uses = modules
            .iter()
            .map(|(own, file)| (own.clone(), uses_of(own, file, &modules)));
        let uses: BTreeMap<_, _> = uses.collect();
        assert!(
            uses.values().any(|used| !used.is_empty()),
            "{name}'s files use each other"
        );
        for module in modules.keys() {
            if let Some(circle) = circle_through(module, &uses) {
                let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
                circles.push(format!("{name}: {}", names.join(" → ")));
            }
        }
    }
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}
