//! Small pictures of numbers, as SVG written by the server: no script, no library, readable in both
//! schemes through the style sheet's classes. Each says its content as text, too.

use std::fmt::Write as _;

use super::formatting::Markup;

const SPARK_WIDTH: i64 = 120;
const SPARK_HEIGHT: i64 = 26;

/// Bars of hours: what went well below, what did not on top of it.
pub fn spark_line(hours: &[(i64, i64)]) -> Markup {
    let most = hours
        .iter()
        .map(|(ok, no)| ok + no)
        .max()
        .unwrap_or(0)
        .max(1);
    let all: i64 = hours.iter().map(|(ok, no)| ok + no).sum();
    let bad: i64 = hours.iter().map(|(_, no)| no).sum();
    let step = SPARK_WIDTH / i64::try_from(hours.len()).unwrap_or(1).max(1);
    let mut svg = format!(
        "<svg class=\"spark\" width=\"{SPARK_WIDTH}\" height=\"{SPARK_HEIGHT}\" viewBox=\"0 0 {SPARK_WIDTH} {SPARK_HEIGHT}\" role=\"img\" \
         aria-label=\"{all} in the last 24 hours, {bad} of them not matched\"><rect class=\"base\" x=\"0\" y=\"{}\" width=\"{SPARK_WIDTH}\" height=\"1\"/>",
        SPARK_HEIGHT - 1
    );
    for (at, (ok, no)) in (0_i64..).zip(hours) {
        let high = |n: i64| {
            if n == 0 {
                0
            } else {
                (n * (SPARK_HEIGHT - 2) / most).max(1)
            }
        };
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
            let _ = write!(
                svg,
                "<rect class=\"no\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{on}\"/>"
            );
        }
    }
    svg.push_str("</svg>");
    Markup(svg)
}

const HOURS_WIDTH: i64 = 480;
const HOURS_HEIGHT: i64 = 64;
const HOURS_FOOT: i64 = 14;
/// Hours between two labels.
const HOURS_LABEL: i64 = 6;

/// The last 24 hours, larger: as [`spark_line`], with the hours named. `label` is told how many hours ago.
pub fn hours_chart(hours: &[(i64, i64)], label: impl Fn(i64) -> String) -> Markup {
    let most = hours
        .iter()
        .map(|(ok, no)| ok + no)
        .max()
        .unwrap_or(0)
        .max(1);
    let (all, bad) = hours
        .iter()
        .fold((0, 0), |(all, bad), (ok, no)| (all + ok + no, bad + no));
    let n = i64::try_from(hours.len()).unwrap_or(1).max(1);
    let foot = HOURS_HEIGHT - HOURS_FOOT;
    let mut svg = format!(
        "<svg class=\"chart spark\" viewBox=\"0 0 {HOURS_WIDTH} {HOURS_HEIGHT}\" role=\"img\" \
         aria-label=\"{all} in the last 24 hours, {bad} of them not matched\">\
         <rect class=\"base\" x=\"0\" y=\"{foot}\" width=\"{HOURS_WIDTH}\" height=\"1\"/>"
    );
    for (at, (ok, no)) in (0_i64..).zip(hours) {
        let high = |n: i64| {
            if n == 0 {
                0
            } else {
                (n * (foot - 2) / most).max(2)
            }
        };
        let (x, next) = (at * HOURS_WIDTH / n, (at + 1) * HOURS_WIDTH / n);
        let (up, on, wide) = (high(*ok), high(*no), next - x - 3);
        let when = label(n - 1 - at);
        let _ = write!(
            svg,
            "<g><title>{}: {ok} matched, {no} not</title><rect class=\"room\" x=\"{x}\" y=\"0\" width=\"{}\" height=\"{foot}\"/>",
            escape_text(&when),
            next - x
        );
        for (class, y, high) in [("ok", foot - up, up), ("no", (foot - up - on).max(0), on)] {
            if high > 0 {
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{}\" y=\"{y}\" width=\"{wide}\" height=\"{high}\" rx=\"1\"/>",
                    x + 1
                );
            }
        }
        svg.push_str("</g>");
        if (n - 1 - at) % HOURS_LABEL == 0 {
            let (x, anchor) = if at == n - 1 {
                (HOURS_WIDTH, "end")
            } else {
                ((x + next) / 2, "middle")
            };
            let _ = write!(
                svg,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                HOURS_HEIGHT - 2,
                escape_text(&when)
            );
        }
    }
    svg.push_str("</svg>");
    Markup(svg)
}

const NEAR_WIDTH: i64 = 104;
const NEAR_HEIGHT: i64 = 18;

/// How near a call was: its duration against the reported one, within what is allowed or outside of it.
pub fn near_chart(off: i64, tolerance: i64) -> Markup {
    let reach = (tolerance * 3 / 2).max(off.abs() * 11 / 10).max(10);
    let x_of = |seconds: i64| NEAR_WIDTH / 2 + seconds * (NEAR_WIDTH / 2 - 5) / reach;
    let (low, high, at) = (x_of(-tolerance), x_of(tolerance), x_of(off));
    let (middle, half) = (NEAR_WIDTH / 2, NEAR_HEIGHT / 2);
    let out = if off.abs() > tolerance { " out" } else { "" };
    Markup(format!(
        "<svg class=\"near\" viewBox=\"0 0 {NEAR_WIDTH} {NEAR_HEIGHT}\" role=\"img\" aria-label=\"{off:+} s, {tolerance} s allowed\">\
         <title>{off:+} s; up to {tolerance} s either way is allowed</title>\
         <rect class=\"within\" x=\"{low}\" y=\"4\" width=\"{}\" height=\"10\" rx=\"5\"/>\
         <line class=\"rule\" x1=\"0\" x2=\"{NEAR_WIDTH}\" y1=\"{half}\" y2=\"{half}\"/>\
         <line class=\"middle\" x1=\"{middle}\" x2=\"{middle}\" y1=\"4\" y2=\"14\"/>\
         <circle class=\"at{out}\" cx=\"{at}\" cy=\"{half}\" r=\"4\"/></svg>",
        high - low
    ))
}

/// One column or row of a chart: what it is of, and its amounts in cents.
pub struct Column {
    pub label: String,
    /// What a pointer that rests on it is told.
    pub title: String,
    pub real: i64,
    pub estimate: i64,
    pub credit: i64,
}

const WIDTH: i64 = 1040;
const HEIGHT: i64 = 270;
const LEFT: i64 = 60;
const TOP: i64 = 12;
const BOTTOM: i64 = 26;
/// Labels under the columns; more would touch.
const LABELS: i64 = 12;
/// Dots on the line of credits, as long as they do not touch.
const DOTS: i64 = 45;

/// The least round amount at or above: 1, 2, 4, 6 or 8 with noughts, so that its quarters are round, too.
fn round_up(cents: i64) -> i64 {
    let mut step = 100_i64;
    loop {
        for times in [1, 2, 4, 6, 8] {
            if step.saturating_mul(times) >= cents {
                return step.saturating_mul(times);
            }
        }
        step = step.saturating_mul(10);
    }
}

fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A bar that stands on its foot: rounded at its head alone.
fn standing_bar(class: &str, left: i64, top: i64, width: i64, foot: i64, round: bool) -> String {
    let high = foot - top;
    if high <= 0 {
        return String::new();
    }
    let r = if round { 3.min(high).min(width / 2) } else { 0 };
    format!(
        "<path class=\"{class}\" d=\"M{left} {foot}v-{}q0-{r} {r}-{r}h{}q{r} 0 {r} {r}v{}z\"/>",
        high - r,
        width - 2 * r,
        high - r
    )
}

/// Days as columns: the estimate standing on the real, credits as a line through them.
pub fn columns_chart(columns: &[Column], says: &str, whole: impl Fn(i64) -> String) -> Markup {
    let most = columns
        .iter()
        .map(|c| (c.real + c.estimate).max(c.credit))
        .max()
        .unwrap_or(0);
    let top = round_up(most.max(100));
    let high = HEIGHT - TOP - BOTTOM;
    let y_of = |cents: i64| TOP + high - cents.max(0) * high / top;
    let n = i64::try_from(columns.len()).unwrap_or(1).max(1);
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape_text(says)
    );
    for quarter in 0..=4 {
        let cents = top * quarter / 4;
        let (y, class) = (y_of(cents), if quarter == 0 { "base" } else { "rule" });
        let _ = write!(
            svg,
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 10,
            y + 4,
            escape_text(&whole(cents))
        );
    }
    let room = WIDTH - LEFT;
    let every = (n + LABELS - 1) / LABELS;
    let (mut line, mut dots) = (String::new(), String::new());
    for (at, column) in (0_i64..).zip(columns) {
        let (x, next) = (LEFT + at * room / n, LEFT + (at + 1) * room / n);
        let gap = ((next - x) / 4).clamp(1, 14);
        let (left, width) = (x + gap / 2, (next - x - gap).clamp(1, 64));
        let left = left + ((next - x - gap) - width).max(0) / 2;
        let (real, both, foot) = (
            y_of(column.real),
            y_of(column.real + column.estimate),
            y_of(0),
        );
        let _ = write!(
            svg,
            "<g><title>{}</title><rect class=\"room\" x=\"{x}\" y=\"{TOP}\" width=\"{}\" height=\"{high}\"/>{}{}</g>",
            escape_text(&column.title),
            next - x,
            standing_bar("estimate", left, both, width, real, true),
            standing_bar("real", left, real, width, foot, column.estimate == 0),
        );
        let (middle, y) = (left + width / 2, y_of(column.credit));
        let _ = write!(line, "{}{middle},{y}", if at == 0 { "" } else { " " });
        if n <= DOTS {
            let _ = write!(
                dots,
                "<circle class=\"dot\" cx=\"{middle}\" cy=\"{y}\" r=\"2.5\"/>"
            );
        }
        if at % every == 0 {
            let _ = write!(
                svg,
                "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 6,
                escape_text(&column.label)
            );
        }
    }
    let _ = write!(
        svg,
        "<polyline class=\"credit\" points=\"{line}\"/>{dots}</svg>"
    );
    Markup(svg)
}

const ROW: i64 = 34;
const NAMES: i64 = 190;
const AMOUNTS: i64 = 110;
/// Rows drawn; the table has all of them.
const MOST_ROWS: usize = 12;
/// Characters of a name.
const MOST_NAME: usize = 26;

/// Buyers, publishers or webhooks as lying bars, the largest first: real, then the estimate; a mark
/// where the credits end.
pub fn ranks_chart(rows: &[Column], says: &str, whole: impl Fn(i64) -> String) -> Markup {
    let mut rows: Vec<&Column> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.real + row.estimate));
    rows.truncate(MOST_ROWS);
    let most = rows
        .iter()
        .map(|row| (row.real + row.estimate).max(row.credit))
        .max()
        .unwrap_or(0)
        .max(1);
    let height = ROW * i64::try_from(rows.len()).unwrap_or(1) + 4;
    let room = WIDTH - NAMES - AMOUNTS;
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape_text(says)
    );
    for (at, row) in (0_i64..).zip(rows) {
        let y = at * ROW + 8;
        let long = |cents: i64| cents.max(0) * room / most;
        let (real, both, credit) = (
            long(row.real),
            long(row.real + row.estimate),
            NAMES + long(row.credit),
        );
        let name: String = match row.label.char_indices().nth(MOST_NAME) {
            Some((cut, _)) => format!("{}…", &row.label[..cut]),
            None => row.label.clone(),
        };
        let _ = write!(
            svg,
            "<g><title>{}</title><rect class=\"room\" x=\"0\" y=\"{}\" width=\"{WIDTH}\" height=\"{ROW}\" rx=\"6\"/>\
             <text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"track\" x=\"{NAMES}\" y=\"{y}\" width=\"{room}\" height=\"18\" rx=\"4\"/>\
             <rect class=\"estimate\" x=\"{NAMES}\" y=\"{y}\" width=\"{both}\" height=\"18\" rx=\"4\"/>\
             <rect class=\"real\" x=\"{NAMES}\" y=\"{y}\" width=\"{real}\" height=\"18\" rx=\"4\"/>\
             <line class=\"credit\" x1=\"{credit}\" x2=\"{credit}\" y1=\"{}\" y2=\"{}\"/>\
             <text class=\"name\" x=\"{}\" y=\"{}\">{}</text></g>",
            escape_text(&row.title),
            y - 8,
            NAMES - 12,
            y + 13,
            escape_text(&name),
            y - 3,
            y + 21,
            NAMES + both + 10,
            y + 13,
            escape_text(&whole(row.real + row.estimate)),
        );
    }
    svg.push_str("</svg>");
    Markup(svg)
}

const BAR_WIDTH: i64 = 220;

/// One row's bar beside its figures: real, then the estimate, against the longest of all.
pub fn split_bar(real: i64, estimate: i64, most: i64) -> Markup {
    let most = most.max(1);
    let (a, b) = (
        real.max(0) * BAR_WIDTH / most,
        estimate.max(0) * BAR_WIDTH / most,
    );
    Markup(format!(
        "<svg class=\"chart bar\" viewBox=\"0 0 {BAR_WIDTH} 12\" width=\"{BAR_WIDTH}\" height=\"12\" aria-hidden=\"true\">\
         <rect class=\"track\" x=\"0\" y=\"2\" width=\"{BAR_WIDTH}\" height=\"8\" rx=\"4\"/>\
         <rect class=\"estimate\" x=\"0\" y=\"2\" width=\"{}\" height=\"8\" rx=\"4\"/>\
         <rect class=\"real\" x=\"0\" y=\"2\" width=\"{a}\" height=\"8\" rx=\"4\"/></svg>",
        a + b
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_holds_no_text_of_others_as_markup() {
        let column = Column {
            label: "<b>".into(),
            title: "\"><script>".into(),
            real: 5_000,
            estimate: 0,
            credit: -10,
        };
        let svg = columns_chart(&[column], "a < b", |c| c.to_string()).0;
        assert!(
            !svg.contains("<b>") && !svg.contains("<script>") && svg.contains("&lt;b&gt;"),
            "{svg}"
        );
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        let svg = ranks_chart(
            &[Column {
                label: "<b>".into(),
                title: "<i>".into(),
                real: 1,
                estimate: 2,
                credit: 3,
            }],
            "x",
            |c| c.to_string(),
        )
        .0;
        assert!(!svg.contains("<b>") && !svg.contains("<i>"), "{svg}");
        assert_eq!(
            [
                round_up(1),
                round_up(101),
                round_up(201),
                round_up(501),
                round_up(801)
            ],
            [100, 200, 400, 600, 1_000]
        );
    }
}
