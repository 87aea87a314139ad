//! Which build this is: the version, and the commit where whoever builds it says so (`TRUEUP_COMMIT` in the
//! compiler's environment; asking git would compile everything anew with each commit).

use std::sync::LazyLock;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const COMMIT: &str = match option_env!("TRUEUP_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What `--version` says after the process's name.
pub fn describe_build() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {COMMIT})"));
    &TEXT
}
