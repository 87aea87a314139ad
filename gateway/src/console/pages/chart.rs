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

/// One column of a chart: what it is of, and its amounts in cents.
pub struct Column {
    pub label: String,
    /// What a pointer that rests on it is told.
    pub title: String,
    pub real: i64,
    pub estimate: i64,
    pub credit: i64,
}

const WIDTH: i64 = 960;
const HEIGHT: i64 = 240;
const LEFT: i64 = 64;
const TOP: i64 = 10;
const BOTTOM: i64 = 24;
/// Labels under the columns; more would touch.
const LABELS: i64 = 10;

/// The least round amount at or above: 1, 2 or 5 with noughts.
fn round_up(cents: i64) -> i64 {
    let mut step = 100_i64;
    loop {
        for times in [1, 2, 5] {
            if step.saturating_mul(times) >= cents {
                return step.saturating_mul(times);
            }
        }
        step = step.saturating_mul(10);
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Days as columns: the estimate standing on the real, credits as a line through them.
pub fn columns(columns: &[Column], says: &str, whole: impl Fn(i64) -> String) -> Markup {
    let most = columns.iter().map(|c| (c.real + c.estimate).max(c.credit)).max().unwrap_or(0);
    let top = round_up(most.max(100));
    let high = HEIGHT - TOP - BOTTOM;
    let y_of = |cents: i64| TOP + high - cents.max(0) * high / top;
    let n = i64::try_from(columns.len()).unwrap_or(1).max(1);
    let mut svg =
        format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(says));
    for quarter in 0..=4 {
        let cents = top * quarter / 4;
        let y = y_of(cents);
        let _ = write!(
            svg,
            "<line class=\"rule\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8,
            y + 4,
            escape(&whole(cents))
        );
    }
    let room = WIDTH - LEFT;
    let every = (n + LABELS - 1) / LABELS;
    let mut line = String::new();
    for (at, column) in (0_i64..).zip(columns) {
        let (x, next) = (LEFT + at * room / n, LEFT + (at + 1) * room / n);
        let gap = ((next - x) / 5).min(8);
        let (left, width) = (x + gap / 2, (next - x - gap).max(1));
        let (real, both) = (y_of(column.real), y_of(column.real + column.estimate));
        let _ = write!(
            svg,
            "<g><title>{}</title><rect class=\"estimate\" x=\"{left}\" y=\"{both}\" width=\"{width}\" height=\"{}\"/>\
             <rect class=\"real\" x=\"{left}\" y=\"{real}\" width=\"{width}\" height=\"{}\"/></g>",
            escape(&column.title),
            real - both,
            y_of(0) - real
        );
        let middle = (x + next) / 2;
        let _ = write!(line, "{}{middle},{}", if at == 0 { "" } else { " " }, y_of(column.credit));
        if at % every == 0 {
            let _ = write!(
                svg,
                "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 6,
                escape(&column.label)
            );
        }
    }
    let _ = write!(svg, "<polyline class=\"credit\" points=\"{line}\"/></svg>");
    Markup(svg)
}

const BAR_WIDTH: i64 = 260;

/// One row's bar beside its figures: real, then the estimate, against the longest of all.
pub fn bar(real: i64, estimate: i64, most: i64) -> Markup {
    let most = most.max(1);
    let (a, b) = (real.max(0) * BAR_WIDTH / most, estimate.max(0) * BAR_WIDTH / most);
    Markup(format!(
        "<svg class=\"chart bar\" viewBox=\"0 0 {BAR_WIDTH} 12\" width=\"{BAR_WIDTH}\" height=\"12\" aria-hidden=\"true\">\
         <rect class=\"real\" x=\"0\" y=\"0\" width=\"{a}\" height=\"12\" rx=\"2\"/>\
         <rect class=\"estimate\" x=\"{a}\" y=\"0\" width=\"{b}\" height=\"12\" rx=\"2\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_holds_no_text_of_others_as_markup() {
        let column = Column { label: "<b>".into(), title: "\"><script>".into(), real: 5_000, estimate: 0, credit: -10 };
        let svg = columns(&[column], "a < b", |c| c.to_string()).0;
        assert!(!svg.contains("<b>") && !svg.contains("<script>") && svg.contains("&lt;b&gt;"), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        assert_eq!([round_up(1), round_up(101), round_up(201), round_up(501)], [100, 200, 500, 1_000]);
    }
}
