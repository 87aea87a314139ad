//! Small pictures of numbers, as SVG written by the server: no script, no library, readable in both
//! schemes through the style sheet's classes. Each says its content as text, too.

use std::fmt::Write as _;

use super::words::Markup;

const SPARK_WIDTH: i64 = 120;
const SPARK_HEIGHT: i64 = 26;

/// Bars of hours: what went well below, what did not on top of it.
pub fn spark(hours: &[(i64, i64)]) -> Markup {
    let most = hours.iter().map(|(ok, no)| ok + no).max().unwrap_or(0).max(1);
    let all: i64 = hours.iter().map(|(ok, no)| ok + no).sum();
    let bad: i64 = hours.iter().map(|(_, no)| no).sum();
    let step = SPARK_WIDTH / i64::try_from(hours.len()).unwrap_or(1).max(1);
    let mut svg = format!(
        "<svg class=\"spark\" width=\"{SPARK_WIDTH}\" height=\"{SPARK_HEIGHT}\" viewBox=\"0 0 {SPARK_WIDTH} {SPARK_HEIGHT}\" role=\"img\" \
         aria-label=\"{all} in the last 24 hours, {bad} of them not matched\"><rect class=\"base\" x=\"0\" y=\"{}\" width=\"{SPARK_WIDTH}\" height=\"1\"/>",
        SPARK_HEIGHT - 1
    );
    for (at, (ok, no)) in (0_i64..).zip(hours) {
        let high = |n: i64| if n == 0 { 0 } else { (n * (SPARK_HEIGHT - 2) / most).max(1) };
        let (x, up, on) = (at * step, high(*ok), high(*no));
        let width = (step - 1).max(1);
        if up > 0 {
            let _ = write!(
                svg,
                "<rect class=\"ok\" x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{up}\"/>",
                SPARK_HEIGHT - 1 - up
            );
        }
        if on > 0 {
            let y = (SPARK_HEIGHT - 1 - up - on).max(0);
            let _ = write!(svg, "<rect class=\"no\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{on}\"/>");
        }
    }
    svg.push_str("</svg>");
    Markup(svg)
}
