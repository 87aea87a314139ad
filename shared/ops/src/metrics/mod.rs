//! Figures for Prometheus: the registry, the kinds of figures, and [`table`] with every name.
//!
//! A label is a type with a closed set of values ([`labels`]), and each starts at 0, so that a graph of
//! "503s" shows a zero rather than nothing. Never a label that a user or a sender typed.

mod kinds;
mod labels;
mod table;

use std::sync::LazyLock;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, TextEncoder};

use kinds::REGISTRY;
pub use kinds::{Counter, Gauge, Histogram, Info, MetricDefinition};
pub use labels::*;
pub use table::*;

/// Of a dependency that this process does not have.
const NOT_USED: i64 = -1;

/// CPU, memory, descriptors, threads and start of this process, under the names that every Prometheus client
/// gives them (`process_…`).
static PROCESS_COLLECTOR: LazyLock<()> = LazyLock::new(|| {
    let collector = Box::new(ProcessCollector::for_self());
    if let Err(e) = REGISTRY.register(collector) {
        tracing::error!(error = %e, "the process's own figures cannot be told");
    }
});

/// What this process is, told once at its start.
pub fn describe_process(name: ProcessName) {
    process().build_info.show(name);
    for dependency in DependencyName::ALL {
        process().dependency.set(*dependency, NOT_USED);
    }
}

/// Everything registered so far, in Prometheus's text form.
pub fn render_metrics() -> Vec<u8> {
    LazyLock::force(&PROCESS_COLLECTOR);
    let mut text = Vec::with_capacity(16 * 1024);
    if let Err(e) = TextEncoder::new().encode(&REGISTRY.gather(), &mut text) {
        tracing::error!(error = %e, "metrics cannot be written");
    }
    text
}

/// The table of METRICS.md, as Markdown; a test compares the two.
pub fn render_markdown() -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for (group, rows) in GROUPS {
        let _ = write!(
            out,
            "## {group}\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n"
        );
        for row in *rows {
            let labels: Vec<String> = row
                .labels
                .iter()
                .map(|(name, codes)| format!("`{name}`: {}", codes().join(", ")))
                .collect();
            let help = row.help.trim().replace('|', "\\|");
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {help} |",
                row.name,
                row.kind,
                labels.join("; ")
            );
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One for all tests: the set is the process's.
    fn close_routes() {
        close_console_routes(["/api/v1/calls".to_owned()]);
    }

    #[test]
    fn the_table_keeps_its_own_rules() {
        close_routes();
        let mut names = std::collections::BTreeSet::new();
        for row in GROUPS.iter().flat_map(|(_, rows)| *rows) {
            assert!(names.insert(row.name), "{} stands twice", row.name);
            assert!(row.name.starts_with("trueup_"), "{}", row.name);
            assert_eq!(
                row.kind == "counter",
                row.name.ends_with("_total"),
                "{}",
                row.name
            );
            assert_eq!(
                row.kind == "histogram",
                !row.buckets.is_empty(),
                "{}",
                row.name
            );
            assert!(row.buckets.is_sorted(), "{}", row.name);
            assert!(row.help.trim().len() > 10, "{}", row.name);
            assert!(
                row.labels.iter().all(|(_, codes)| !codes().is_empty()),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn every_label_value_starts_at_zero() {
        let _ = gateway();
        let text = String::from_utf8(render_metrics()).expect("text");
        for row in Gateway::ROWS {
            assert!(
                text.contains(&format!("# HELP {}", row.name)),
                "{}",
                row.name
            );
        }
        assert!(
            text.contains("trueup_gateway_responses_total{result=\"limited_token\"} 0"),
            "{text}"
        );
    }

    #[test]
    fn each_figure_is_told_under_its_own_labels() {
        use trueup_event::reason::{Reason, Status};

        close_routes();
        close_console_routes(["/typed/by/somebody".to_owned()]);
        let route = console_route("/api/v1/calls");
        console().requests.inc((route, StatusClass::ClientError));
        let other = console_route("/typed/by/somebody");
        console().requests.add((other, StatusClass::ServerError), 2);
        worker().settled.inc(Status::Refused);
        worker().reasons.add(None, 3);
        worker().reasons.add(Some(Reason::BodyTooLarge), 4);
        let text = String::from_utf8(render_metrics()).expect("text");
        for line in [
            "trueup_console_requests_total{class=\"4xx\",route=\"/api/v1/calls\"} 1",
            "trueup_console_requests_total{class=\"5xx\",route=\"other\"} 2",
            "trueup_worker_settled_total{status=\"refused\"} 1",
            "trueup_worker_reasons_total{reason=\"none\"} 3",
            "trueup_worker_reasons_total{reason=\"body_too_large\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }
}
