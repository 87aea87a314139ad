//! The registry and the kinds of metrics: counter, gauge, histogram, and the macro that makes groups of
//! them from the table.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::sync::LazyLock;

pub(super) static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

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
pub trait Family: Sized {
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
                pub const ROWS: &'static [$crate::metrics::kinds::MetricDefinition] = &[ $( $crate::metrics::kinds::MetricDefinition {
                    name: $name,
                    kind: <$kind as $crate::metrics::kinds::Family>::KIND,
                    help: concat!($($help),+),
                    labels: &[ $( $( ($label, $values) ),+ )? ],
                    buckets: groups!(@buckets $($buckets)?),
                } ),+ ];

                fn register() -> Self {
                    let mut rows = Self::ROWS.iter();
                    $( let $field = <$kind as $crate::metrics::kinds::Family>::make_metric(rows.next().expect("a row for each field")); )+
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
        pub const GROUPS: &[(&str, &[$crate::metrics::kinds::MetricDefinition])] = &[ $( (stringify!($group), $group::ROWS) ),+ ];
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}
pub(super) use groups;
