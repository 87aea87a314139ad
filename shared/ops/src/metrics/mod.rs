//! Figures for Prometheus: the registry, the kinds of figures, and [`table`] with every name.
//!
//! A label's values are a closed set written in the table, and each starts at 0, so that a graph of
//! "503s" shows a zero rather than nothing. Never a label that a user or a sender typed.

mod table;

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::LazyLock;

pub use table::*;

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// One metric as the outside sees it.
#[derive(Debug, Clone, Copy)]
pub struct MetricDefinition {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    pub labels: &'static [(&'static str, &'static [&'static str])],
    pub buckets: &'static [f64],
}

/// The figures of a family by their labels, found without hashing: the sets are closed, and most are
/// small. The door asks for some ten of them in each request.
#[derive(Debug, Clone)]
struct HandleCache<T>(Vec<(Vec<&'static str>, T)>);

impl<T: Clone> HandleCache<T> {
    /// A family with more combinations is looked up in its own table.
    const FEW: usize = 16;

    fn of(row: &MetricDefinition, make: impl Fn(&[&str]) -> T) -> Self {
        let mut kept = Vec::new();
        each_combination(row, |values| kept.push((values.to_vec(), make(values))));
        if kept.len() > Self::FEW {
            kept.clear();
        }
        HandleCache(kept)
    }

    fn find(&self, labels: &[&str]) -> Option<&T> {
        self.0
            .iter()
            .find(|(values, _)| values == labels)
            .map(|(_, figure)| figure)
    }
}

/// A number that only grows.
#[derive(Debug, Clone)]
pub struct Counter(IntCounterVec, HandleCache<prometheus::IntCounter>);

impl Counter {
    /// `labels` in the table's order; none for a metric without labels.
    pub fn inc(&self, labels: &[&str]) {
        self.add(labels, 1);
    }

    pub fn add(&self, labels: &[&str], n: u64) {
        match self.1.find(labels) {
            Some(counter) => counter.inc_by(n),
            None => self.0.with_label_values(labels).inc_by(n),
        }
    }

    pub fn get(&self, labels: &[&str]) -> u64 {
        self.0.with_label_values(labels).get()
    }

    /// For a hot path: the one counter, looked up once.
    pub fn of(&self, labels: &[&str]) -> prometheus::IntCounter {
        self.0.with_label_values(labels)
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge(IntGaugeVec, HandleCache<prometheus::IntGauge>);

impl Gauge {
    pub fn set(&self, labels: &[&str], value: i64) {
        match self.1.find(labels) {
            Some(gauge) => gauge.set(value),
            None => self.0.with_label_values(labels).set(value),
        }
    }

    pub fn add(&self, labels: &[&str], value: i64) {
        match self.1.find(labels) {
            Some(gauge) => gauge.add(value),
            None => self.0.with_label_values(labels).add(value),
        }
    }

    pub fn get(&self, labels: &[&str]) -> i64 {
        self.0.with_label_values(labels).get()
    }
}

/// How something is spread (times, sizes).
#[derive(Debug, Clone)]
pub struct Histogram(HistogramVec, HandleCache<prometheus::Histogram>);

impl Histogram {
    pub fn observe_value(&self, labels: &[&str], value: f64) {
        match self.1.find(labels) {
            Some(histogram) => histogram.observe(value),
            None => self.0.with_label_values(labels).observe(value),
        }
    }

    pub fn since(&self, labels: &[&str], start: std::time::Instant) {
        self.observe_value(labels, start.elapsed().as_secs_f64());
    }

    pub fn of(&self, labels: &[&str]) -> prometheus::Histogram {
        self.0.with_label_values(labels)
    }
}

/// Something that a row of the table can be made into.
trait Family: Sized {
    const KIND: &'static str;
    fn make_metric(row: &MetricDefinition) -> Self;
}

impl Family for Counter {
    const KIND: &'static str = "counter";
    fn make_metric(row: &MetricDefinition) -> Self {
        let vec = IntCounterVec::new(Opts::new(row.name, row.help.trim()), &label_names(row));
        let vec = register_metric(row, vec);
        let kept = HandleCache::of(row, |values| vec.with_label_values(values));
        Counter(vec, kept)
    }
}

impl Family for Gauge {
    const KIND: &'static str = "gauge";
    fn make_metric(row: &MetricDefinition) -> Self {
        let vec = IntGaugeVec::new(Opts::new(row.name, row.help.trim()), &label_names(row));
        let vec = register_metric(row, vec);
        let kept = HandleCache::of(row, |values| vec.with_label_values(values));
        Gauge(vec, kept)
    }
}

impl Family for Histogram {
    const KIND: &'static str = "histogram";
    fn make_metric(row: &MetricDefinition) -> Self {
        let opts = HistogramOpts::new(row.name, row.help.trim()).buckets(row.buckets.to_vec());
        let vec = register_metric(row, HistogramVec::new(opts, &label_names(row)));
        let kept = HandleCache::of(row, |values| vec.with_label_values(values));
        Histogram(vec, kept)
    }
}

fn label_names(row: &MetricDefinition) -> Vec<&'static str> {
    row.labels.iter().map(|(name, _)| *name).collect()
}

fn register_metric<C: Collector + Clone + 'static>(
    row: &MetricDefinition,
    vec: prometheus::Result<C>,
) -> C {
    let made = vec.and_then(|vec| REGISTRY.register(Box::new(vec.clone())).map(|()| vec));
    match made {
        Ok(vec) => vec,
        // The table is constant, and a test registers all of it: a bad row never ships.
        Err(e) => panic!("the metric {} cannot be registered: {e}", row.name),
    }
}

fn each_combination(row: &MetricDefinition, mut make: impl FnMut(&[&'static str])) {
    let mut combinations: Vec<Vec<&'static str>> = vec![Vec::new()];
    for (_, values) in row.labels {
        combinations = combinations
            .iter()
            .flat_map(|so_far| {
                values.iter().map(move |value| {
                    let mut next = so_far.clone();
                    next.push(*value);
                    next
                })
            })
            .collect();
    }
    for combination in &combinations {
        make(combination);
    }
}

/// Declares groups of metrics: a struct of handles, its rows, and `group()` that registers it once.
macro_rules! groups {
    ($( $(#[$gdoc:meta])* $group:ident $access:ident {
        $( $(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal
           $([ $($label:literal: $values:expr),+ ])? $(in $buckets:expr)?; )+
    } )+) => {
        $(
            $(#[$gdoc])*
            #[derive(Debug)]
            pub struct $group { $( $(#[doc = $help])+ pub $field: $kind, )+ }

            impl $group {
                pub const ROWS: &'static [$crate::metrics::MetricDefinition] = &[ $( $crate::metrics::MetricDefinition {
                    name: $name,
                    kind: <$kind as $crate::metrics::Family>::KIND,
                    help: concat!($($help),+),
                    labels: &[ $( $( ($label, $values) ),+ )? ],
                    buckets: groups!(@buckets $($buckets)?),
                } ),+ ];

                fn register() -> Self {
                    let mut rows = Self::ROWS.iter();
                    $( let $field = <$kind as $crate::metrics::Family>::make_metric(rows.next().expect("a row for each field")); )+
                    $group { $($field),+ }
                }
            }

            #[doc = concat!("The handles of [`", stringify!($group), "`]; the first call registers them.")]
            pub fn $access() -> &'static $group {
                static GROUP: std::sync::LazyLock<$group> = std::sync::LazyLock::new($group::register);
                &GROUP
            }
        )+

        /// Every group of the table with its rows.
        pub const GROUPS: &[(&str, &[$crate::metrics::MetricDefinition])] = &[ $( (stringify!($group), $group::ROWS) ),+ ];
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}
use groups;

/// Everything registered so far, in Prometheus's text form.
pub fn render_metrics() -> Vec<u8> {
    process().observe_value();
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
                .map(|(name, values)| format!("`{name}`: {}", values.join(", ")))
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

impl Process {
    /// Reads what is only known at the moment of the scrape.
    fn observe_value(&self) {
        /// Linux's page on every machine that we build for (bytes).
        const PAGE: i64 = 4096;
        let resident = std::fs::read_to_string("/proc/self/statm")
            .ok()
            .and_then(|text| text.split_whitespace().nth(1)?.parse::<i64>().ok());
        if let Some(pages) = resident {
            self.resident_bytes.set(&[], pages.saturating_mul(PAGE));
        }
        let open = std::fs::read_dir("/proc/self/fd")
            .map(Iterator::count)
            .unwrap_or(0);
        self.open_files
            .set(&[], i64::try_from(open).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_keeps_its_own_rules() {
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
                row.labels.iter().all(|(_, values)| !values.is_empty()),
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
}
