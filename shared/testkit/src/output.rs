//! What a long run prints for those who watch it.

/// A line on standard output, at once.
pub fn print_line(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    // A closed pipe is no failure of the run.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
