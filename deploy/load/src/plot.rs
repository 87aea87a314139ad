//! The report's pictures, as SVG: plain bars and lines, readable on a light and a dark page.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::goals::{Better, Goal, GoalOutcome, Memory};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 330.0;
const BAR: f64 = 20.0;
const STEP: f64 = 30.0;
const COLOURS: [&str; 8] = [
    "#2f6fb0", "#c8553d", "#4a8f5c", "#8c5fb3", "#c49a2c", "#4aa3a3", "#b0487f", "#7a7a7a",
];

fn frame(height: f64, title: &str, inside: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\n{inside}</svg>\n",
        escaped(title)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(words)
    );
}

fn bar(out: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
        width.max(0.5)
    );
}

/// Each goal's figure in parts of what was asked for; the line is what passes, the dashes the stretch.
pub fn goals(goals: &[Goal]) -> Option<String> {
    const FULL: f64 = 2.5;
    if goals.is_empty() {
        return None;
    }
    let mut out = String::new();
    let scale = (WIDTH - LEFT - 120.0) / FULL;
    for (n, goal) in (0_u32..).zip(goals) {
        let y = 40.0 + f64::from(n) * STEP;
        // So that further right is better for all of them.
        let part = |value: f64| match goal.better {
            Better::More => value / goal.pass,
            Better::Less => goal.pass / value.max(1e-9),
        };
        let colour = match goal.judged() {
            GoalOutcome::Stretch => COLOURS[2],
            GoalOutcome::Met => COLOURS[0],
            GoalOutcome::NotMet => COLOURS[1],
        };
        text(
            &mut out,
            LEFT - 8.0,
            y + 14.0,
            "end",
            &format!("{} · {}", goal.number, goal.what),
        );
        let width = part(goal.measured).min(FULL) * scale;
        bar(&mut out, (LEFT, y), (width, BAR), colour);
        text(
            &mut out,
            LEFT + width + 6.0,
            y + 14.0,
            "start",
            &format!("{:.1} {}", goal.measured, goal.unit),
        );
        if let Some(stretch) = goal.stretch {
            let x = LEFT + part(stretch).min(FULL) * scale;
            let end = y + BAR + 3.0;
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {:.1}V{end:.1}\" stroke=\"#333\" stroke-dasharray=\"3 2\"/>",
                y - 3.0
            );
        }
    }
    let bottom = 40.0 + goals.len() as f64 * STEP;
    let _ = writeln!(
        out,
        "<path d=\"M{0:.1} 34V{bottom:.1}\" stroke=\"#333\" stroke-width=\"1.5\"/>",
        LEFT + scale
    );
    let title = "Goals: further right is better; the line is what passes, the dashes the stretch";
    Some(frame(bottom + 10.0, title, &out))
}

/// Milliseconds over percentiles, both by powers of ten.
pub fn latency(curves: &[(String, Histogram<u64>)]) -> Option<String> {
    if curves.is_empty() {
        return None;
    }
    const HEIGHT: f64 = 360.0;
    let (left, right, top, bottom) = (60.0, WIDTH - 20.0, 40.0, HEIGHT - 60.0);
    let highest = curves
        .iter()
        .map(|(_, h)| h.max())
        .max()
        .unwrap_or(1)
        .max(1000) as f64;
    let decades = (highest / 100.0).log10().ceil();
    let y = |micros: f64| bottom - ((micros.max(100.0) / 100.0).log10() / decades) * (bottom - top);
    // 0 %, 90 %, 99 %, 99.9 %, 99.99 % at equal distances.
    let x = |percentile: f64| {
        left + (-(1.0 - percentile / 100.0).max(1e-4).log10() / 4.0) * (right - left)
    };
    let mut out = String::new();
    for power in 0..=(decades as i32) {
        let micros = 100.0 * 10_f64.powi(power);
        let at = y(micros);
        let _ = writeln!(out, "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>");
        text(
            &mut out,
            left - 6.0,
            at + 4.0,
            "end",
            &format!("{} ms", micros / 1000.0),
        );
    }
    for percentile in [0.0, 90.0, 99.0, 99.9, 99.99] {
        text(
            &mut out,
            x(percentile),
            bottom + 18.0,
            "middle",
            &format!("{percentile} %"),
        );
    }
    for ((n, (name, times)), colour) in (0_u32..).zip(curves).zip(COLOURS.iter().cycle()) {
        let mut path = String::new();
        for step in 0..=160 {
            let percentile = 100.0 * (1.0 - 10_f64.powf(-f64::from(step) / 40.0));
            let micros = times.value_at_percentile(percentile) as f64;
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if step == 0 { 'M' } else { 'L' },
                x(percentile),
                y(micros)
            );
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let at = left + 10.0 + f64::from(n % 3) * 265.0;
        let row = bottom + 32.0 + f64::from(n / 3) * 15.0;
        bar(&mut out, (at, row), (12.0, 8.0), colour);
        text(&mut out, at + 16.0, row + 9.0, "start", name);
    }
    let rows = (curves.len() as f64 / 3.0).ceil();
    Some(frame(
        HEIGHT + (rows - 1.0).max(0.0) * 15.0,
        "Time of an answer, by percentile",
        &out,
    ))
}

/// Cores by process, one bar for each measurement.
pub fn cpu(during: &[(String, Vec<(&'static str, f64)>)]) -> Option<String> {
    if during.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = during
        .iter()
        .flat_map(|(_, cores)| cores.iter().map(|(name, _)| *name))
        .collect();
    names.sort_unstable();
    names.dedup();
    let most = during
        .iter()
        .map(|(_, cores)| cores.iter().map(|c| c.1).sum::<f64>())
        .fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - 60.0) / most;
    let mut out = String::new();
    for (n, (what, cores)) in (0_u32..).zip(during) {
        let y = 40.0 + f64::from(n) * STEP;
        text(&mut out, LEFT - 8.0, y + 14.0, "end", what);
        let mut x = LEFT;
        for (name, used) in cores {
            let colour = names
                .iter()
                .position(|n| n == name)
                .map_or("#999", |at| COLOURS[at % COLOURS.len()]);
            bar(&mut out, (x, y), (used * scale, BAR), colour);
            x += used * scale;
        }
        text(
            &mut out,
            x + 6.0,
            y + 14.0,
            "start",
            &format!("{:.2}", cores.iter().map(|c| c.1).sum::<f64>()),
        );
    }
    let legend = 50.0 + during.len() as f64 * STEP;
    for (n, name) in (0_u32..).zip(&names) {
        let x = 10.0 + f64::from(n) * 120.0;
        bar(
            &mut out,
            (x, legend),
            (12.0, 8.0),
            COLOURS[n as usize % COLOURS.len()],
        );
        text(&mut out, x + 16.0, legend + 9.0, "start", name);
    }
    Some(frame(legend + 24.0, "CPU in cores, by process", &out))
}

/// Resident memory over time.
pub fn memory(memory: &Memory) -> Option<String> {
    const HEIGHT: f64 = 320.0;
    let (left, right, top, bottom) = (70.0, WIDTH - 20.0, 40.0, HEIGHT - 60.0);
    let points = || memory.lines.iter().flat_map(|(_, points)| points);
    let until = points().map(|p| p.0).fold(1.0, f64::max);
    let most = points().map(|p| p.1).fold(1.0, f64::max);
    let x = |seconds: f64| left + seconds / until * (right - left);
    let y = |bytes: f64| bottom - bytes / most * (bottom - top);
    let mut out = String::new();
    for quarter in 0..=4 {
        let bytes = most * f64::from(quarter) / 4.0;
        let _ = writeln!(
            out,
            "<path d=\"M{left} {0:.1}H{right}\" stroke=\"#ddd\"/>",
            y(bytes)
        );
        text(
            &mut out,
            left - 6.0,
            y(bytes) + 4.0,
            "end",
            &format!("{:.0} MiB", bytes / f64::from(1 << 20)),
        );
        let seconds = until * f64::from(quarter) / 4.0;
        text(
            &mut out,
            x(seconds),
            bottom + 18.0,
            "middle",
            &format!("{seconds:.0} s"),
        );
    }
    for ((n, (name, points)), colour) in (0_u32..).zip(&memory.lines).zip(COLOURS.iter().cycle()) {
        let path: String =
            points
                .iter()
                .enumerate()
                .fold(String::new(), |mut path, (at, (seconds, bytes))| {
                    let _ = write!(
                        path,
                        "{}{:.1} {:.1}",
                        if at == 0 { 'M' } else { 'L' },
                        x(*seconds),
                        y(*bytes)
                    );
                    path
                });
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let at = left + f64::from(n) * 150.0;
        bar(&mut out, (at, bottom + 34.0), (12.0, 8.0), colour);
        text(&mut out, at + 16.0, bottom + 43.0, "start", name);
    }
    (points().count() > 1).then(|| frame(HEIGHT, &memory.title, &out))
}
