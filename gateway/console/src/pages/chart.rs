//! Small pictures of numbers, as SVG written by the server: no script, no library, readable in both
//! schemes through the style sheet's classes. Each says its content as text, too. Here is the arithmetic;
//! what is drawn stands in `templates/charts/`.

use askama::Template;

use super::formatting::Markup;

fn draw(chart: &impl Template) -> Markup {
    Markup(chart.render().unwrap_or_else(|error| {
        tracing::error!(%error, "a chart could not be written");
        String::new()
    }))
}

struct Bar {
    class: &'static str,
    x: i64,
    y: i64,
    width: i64,
    height: i64,
}

/// What went well standing on the foot, what did not on top of it; what is nothing has no bar. The
/// heights are those of the two.
fn stacked_bars(x: i64, width: i64, foot: i64, (up, on): (i64, i64)) -> Vec<Bar> {
    let bars = [("ok", foot - up, up), ("no", (foot - up - on).max(0), on)];
    bars.into_iter()
        .filter(|(_, _, height)| *height > 0)
        .map(|(class, y, height)| Bar {
            class,
            x,
            y,
            width,
            height,
        })
        .collect()
}

/// The busiest hour's reports (at least 1), all of them, and those that did not go well.
fn sums_of(hours: &[(i64, i64)]) -> (i64, i64, i64) {
    let most = hours.iter().map(|(ok, no)| ok + no).max().unwrap_or(0);
    let all = hours.iter().map(|(ok, no)| ok + no).sum();
    let bad = hours.iter().map(|(_, no)| no).sum();
    (most.max(1), all, bad)
}

/// A count's height, where `most` is `room` high; at least `least` if there is anything.
fn height_of(count: i64, most: i64, room: i64, least: i64) -> i64 {
    if count == 0 {
        0
    } else {
        (count * room / most).max(least)
    }
}

const SPARK_WIDTH: i64 = 120;
const SPARK_HEIGHT: i64 = 26;

#[derive(Template)]
#[template(path = "charts/spark.svg")]
struct Spark {
    width: i64,
    height: i64,
    all: i64,
    bad: i64,
    bars: Vec<Bar>,
}

/// Bars of hours: what went well below, what did not on top of it.
pub fn spark_line(hours: &[(i64, i64)]) -> Markup {
    let (most, all, bad) = sums_of(hours);
    let step = SPARK_WIDTH / i64::try_from(hours.len()).unwrap_or(1).max(1);
    let high = |n| height_of(n, most, SPARK_HEIGHT - 2, 1);
    let bars = (0_i64..).zip(hours).flat_map(|(at, (ok, no))| {
        let width = (step - 1).max(1);
        stacked_bars(at * step, width, SPARK_HEIGHT - 1, (high(*ok), high(*no)))
    });
    draw(&Spark {
        width: SPARK_WIDTH,
        height: SPARK_HEIGHT,
        all,
        bad,
        bars: bars.collect(),
    })
}

const HOURS_WIDTH: i64 = 480;
const HOURS_HEIGHT: i64 = 64;
const HOURS_FOOT: i64 = 14;
/// Hours between two labels.
const HOURS_LABEL: i64 = 6;

struct Hour {
    when: String,
    ok: i64,
    no: i64,
    x: i64,
    width: i64,
    bars: Vec<Bar>,
    /// Where its label stands, and which end of it, if it has one.
    label: Option<(i64, &'static str)>,
}

#[derive(Template)]
#[template(path = "charts/hours.svg")]
struct Hours {
    width: i64,
    height: i64,
    foot: i64,
    all: i64,
    bad: i64,
    hours: Vec<Hour>,
}

/// The last 24 hours, larger: as [`spark_line`], with the hours named. `label` is told how many hours ago.
pub fn hours_chart(hours: &[(i64, i64)], label: impl Fn(i64) -> String) -> Markup {
    let (most, all, bad) = sums_of(hours);
    let n = i64::try_from(hours.len()).unwrap_or(1).max(1);
    let foot = HOURS_HEIGHT - HOURS_FOOT;
    let high = |n| height_of(n, most, foot - 2, 2);
    let hours = (0_i64..).zip(hours).map(|(at, (ok, no))| {
        let (x, next) = (at * HOURS_WIDTH / n, (at + 1) * HOURS_WIDTH / n);
        let ago = n - 1 - at;
        let place = if ago == 0 {
            (HOURS_WIDTH, "end")
        } else {
            (i64::midpoint(x, next), "middle")
        };
        Hour {
            when: label(ago),
            ok: *ok,
            no: *no,
            x,
            width: next - x,
            bars: stacked_bars(x + 1, next - x - 3, foot, (high(*ok), high(*no))),
            label: (ago % HOURS_LABEL == 0).then_some(place),
        }
    });
    draw(&Hours {
        width: HOURS_WIDTH,
        height: HOURS_HEIGHT,
        foot,
        all,
        bad,
        hours: hours.collect(),
    })
}

const NEAR_WIDTH: i64 = 104;
const NEAR_HEIGHT: i64 = 18;

#[derive(Template)]
#[template(path = "charts/near.svg")]
struct Near {
    width: i64,
    height: i64,
    /// With its sign (seconds).
    off: String,
    tolerance: i64,
    low: i64,
    high: i64,
    at: i64,
    is_out: bool,
}

/// How near a call was: its duration against the reported one, within what is allowed or outside of it.
pub fn near_chart(off: i64, tolerance: i64) -> Markup {
    let reach = (tolerance * 3 / 2).max(off.abs() * 11 / 10).max(10);
    let x_of = |seconds: i64| NEAR_WIDTH / 2 + seconds * (NEAR_WIDTH / 2 - 5) / reach;
    draw(&Near {
        width: NEAR_WIDTH,
        height: NEAR_HEIGHT,
        off: format!("{off:+}"),
        tolerance,
        low: x_of(-tolerance),
        high: x_of(tolerance),
        at: x_of(off),
        is_out: off.abs() > tolerance,
    })
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

/// The highest of what is drawn of them (cents).
fn highest<'a>(columns: impl IntoIterator<Item = &'a Column>) -> i64 {
    let high = |c: &Column| (c.real + c.estimate).max(c.credit);
    columns.into_iter().map(high).max().unwrap_or(0)
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

struct Rule {
    class: &'static str,
    y: i64,
    label: String,
}

/// A bar that stands on its foot: rounded at its head alone.
struct StandingBar {
    class: &'static str,
    left: i64,
    foot: i64,
    /// How high its straight sides are, how far its corners are round, how wide its head is.
    straight: i64,
    round: i64,
    head: i64,
}

impl StandingBar {
    /// From `top` down to `foot`; none if that is nothing.
    fn between(top: i64, foot: i64, (left, width): (i64, i64), is_round: bool) -> Option<Self> {
        let high = foot - top;
        let round = if is_round {
            3.min(high).min(width / 2)
        } else {
            0
        };
        (high > 0).then_some(StandingBar {
            class: "",
            left,
            foot,
            straight: high - round,
            round,
            head: width - 2 * round,
        })
    }
}

struct DrawnColumn<'a> {
    title: &'a str,
    x: i64,
    width: i64,
    bars: Vec<StandingBar>,
    /// Where the line of credits passes.
    middle: i64,
    credit: i64,
    label: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "charts/columns.svg")]
struct Columns<'a> {
    width: i64,
    height: i64,
    left: i64,
    top: i64,
    bottom: i64,
    says: &'a str,
    rules: Vec<Rule>,
    columns: Vec<DrawnColumn<'a>>,
    has_dots: bool,
}

/// Days as columns: the estimate standing on the real, credits as a line through them.
pub fn columns_chart(columns: &[Column], says: &str, whole: impl Fn(i64) -> String) -> Markup {
    let top = round_up(highest(columns).max(100));
    let high = HEIGHT - TOP - BOTTOM;
    let y_of = |cents: i64| TOP + high - cents.max(0) * high / top;
    let rules = (0..=4).map(|quarter| Rule {
        class: if quarter == 0 { "base" } else { "rule" },
        y: y_of(top * quarter / 4),
        label: whole(top * quarter / 4),
    });
    let n = i64::try_from(columns.len()).unwrap_or(1).max(1);
    let (room, every) = (WIDTH - LEFT, (n + LABELS - 1) / LABELS);
    let drawn = (0_i64..).zip(columns).map(|(at, column)| {
        let (x, next) = (LEFT + at * room / n, LEFT + (at + 1) * room / n);
        let gap = ((next - x) / 4).clamp(1, 14);
        let width = (next - x - gap).clamp(1, 64);
        let left = x + gap / 2 + ((next - x - gap) - width).max(0) / 2;
        let (real, both) = (y_of(column.real), y_of(column.real + column.estimate));
        let is_alone = column.estimate == 0;
        let bars = [
            (
                "estimate",
                StandingBar::between(both, real, (left, width), true),
            ),
            (
                "real",
                StandingBar::between(real, y_of(0), (left, width), is_alone),
            ),
        ];
        DrawnColumn {
            title: &column.title,
            x,
            width: next - x,
            bars: bars
                .into_iter()
                .filter_map(|(class, bar)| Some(StandingBar { class, ..bar? }))
                .collect(),
            middle: left + width / 2,
            credit: y_of(column.credit),
            label: (at % every == 0).then_some(column.label.as_str()),
        }
    });
    draw(&Columns {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        top: TOP,
        bottom: BOTTOM,
        says,
        rules: rules.collect(),
        columns: drawn.collect(),
        has_dots: n <= DOTS,
    })
}

const ROW: i64 = 34;
const NAMES: i64 = 190;
const AMOUNTS: i64 = 110;
/// Rows drawn; the table has all of them.
const MOST_ROWS: usize = 12;
/// Characters of a name.
const MOST_NAME: usize = 26;

struct Rank<'a> {
    title: &'a str,
    name: String,
    amount: String,
    y: i64,
    real: i64,
    both: i64,
    credit: i64,
}

#[derive(Template)]
#[template(path = "charts/ranks.svg")]
struct Ranks<'a> {
    width: i64,
    height: i64,
    row_height: i64,
    names: i64,
    room: i64,
    says: &'a str,
    rows: Vec<Rank<'a>>,
}

/// Buyers, publishers or webhooks as lying bars, the largest first: real, then the estimate; a mark
/// where the credits end.
pub fn ranks_chart(rows: &[Column], says: &str, whole: impl Fn(i64) -> String) -> Markup {
    let mut rows: Vec<&Column> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.real + row.estimate));
    rows.truncate(MOST_ROWS);
    let most = highest(rows.iter().copied()).max(1);
    let height = ROW * i64::try_from(rows.len()).unwrap_or(1) + 4;
    let room = WIDTH - NAMES - AMOUNTS;
    let long = |cents: i64| cents.max(0) * room / most;
    let ranks = (0_i64..).zip(rows).map(|(at, row)| Rank {
        title: &row.title,
        name: match row.label.char_indices().nth(MOST_NAME) {
            Some((cut, _)) => format!("{}…", &row.label[..cut]),
            None => row.label.clone(),
        },
        amount: whole(row.real + row.estimate),
        y: at * ROW + 8,
        real: long(row.real),
        both: long(row.real + row.estimate),
        credit: NAMES + long(row.credit),
    });
    draw(&Ranks {
        width: WIDTH,
        height,
        row_height: ROW,
        names: NAMES,
        room,
        says,
        rows: ranks.collect(),
    })
}

const BAR_WIDTH: i64 = 220;

#[derive(Template)]
#[template(path = "charts/split_bar.svg")]
struct SplitBar {
    width: i64,
    real: i64,
    both: i64,
}

/// One row's bar beside its figures: real, then the estimate, against the longest of all.
pub fn split_bar(real: i64, estimate: i64, most: i64) -> Markup {
    let long = |cents: i64| cents.max(0) * BAR_WIDTH / most.max(1);
    draw(&SplitBar {
        width: BAR_WIDTH,
        real: long(real),
        both: long(real) + long(estimate),
    })
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
            !svg.contains("<b>") && !svg.contains("<script>") && svg.contains("&#60;b&#62;"),
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
