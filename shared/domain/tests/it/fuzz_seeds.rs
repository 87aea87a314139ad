//! Replays the committed seeds of every fuzz target, without a fuzzer: what once broke stays mended.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/checks.rs"]
mod checks;
#[path = "../../fuzz/matching.rs"]
mod matching;
#[path = "../../fuzz/wrappings.rs"]
mod wrappings;

/// What a target does with one input. A new target is named here, too.
fn check(target: &str) -> fn(&[u8]) {
    match target {
        "read_request" => checks::any_request,
        "batch_split" => checks::any_batch,
        "wrapped_text" => wrappings::any_wrapped_text,
        "mended_body" => wrappings::any_mended_body,
        "xml_body" => wrappings::any_xml_body,
        "charset" => wrappings::any_charset,
        "matching" => matching::any_matching,
        "money" => |data| checks::any_money(&text(data)),
        "phone" => |data| checks::any_phone(&text(data)),
        "duration" => |data| checks::any_duration(&text(data)),
        other => panic!("the fuzz target {other} has no check here that replays its seeds"),
    }
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(folder);
    let listed = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut found: Vec<PathBuf> = listed
        .map(|entry| entry.expect("is listed").path())
        .collect();
    found.sort();
    found
}

#[test]
fn the_seeds_of_every_target_break_nothing() {
    let targets = entries("fuzz_targets");
    assert!(targets.len() >= 10, "the targets were not found");
    for target in targets {
        let name = target
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned();
        let check = check(&name);
        let seeds = entries(&format!("seeds/{name}"));
        assert!(!seeds.is_empty(), "{name} starts from nothing");
        for seed in seeds {
            // Shown only if the check panics.
            println!("{}", seed.display());
            check(&fs::read(&seed).expect("a seed can be read"));
        }
    }
}
