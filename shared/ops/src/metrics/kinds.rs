//! The registry and the kinds of metrics: counter, gauge, histogram, and the macro that makes groups of
//! them from the table.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::time::Instant;

use super::labels::{Label, LabelSet};
use crate::build;

pub(super) static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// The values of a label.
pub type LabelCodes = fn() -> &'static [&'static str];

/// One metric as the outside sees it.
#[derive(Debug, Clone, Copy)]
pub struct MetricDefinition {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    pub labels: &'static [(&'static str, LabelCodes)],
    pub buckets: &'static [f64],
}

/// The figures of one metric, one for each combination of its labels' values. They are found by their
/// place, without hashing: the door asks for some ten of them in each request.
#[derive(Debug)]
struct Figures<L, T> {
    by_place: Box<[T]>,
    labels: PhantomData<fn(L)>,
}

impl<L, T> Figures<L, T> {
    fn of(row: &MetricDefinition, make: impl Fn(&[&str]) -> T) -> Self {
        let mut figures = Vec::new();
        each_combination(row, |values| figures.push(make(values)));
        Figures {
            by_place: figures.into_boxed_slice(),
            labels: PhantomData,
        }
    }
}

impl<L: LabelSet, T> Figures<L, T> {
    fn find(&self, labels: L) -> &T {
        &self.by_place[labels.place()]
    }
}

impl<T> Figures<(), T> {
    fn only(&self) -> &T {
        &self.by_place[0]
    }
}

/// What is above a figure's range counts as its most.
fn saturate_gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// What is below 0 counts as nothing: a counter only grows.
fn saturate_counter(n: impl TryInto<u64>) -> u64 {
    n.try_into().unwrap_or(0)
}

/// A number that only grows; `L` is its label, a pair of labels, or none.
#[derive(Debug)]
pub struct Counter<L = ()>(Figures<L, prometheus::IntCounter>);

impl<L: LabelSet> Counter<L> {
    pub fn inc(&self, labels: L) {
        self.0.find(labels).inc();
    }

    pub fn add(&self, labels: L, n: impl TryInto<u64>) {
        self.0.find(labels).inc_by(saturate_counter(n));
    }
}

impl Counter {
    pub fn inc(&self) {
        self.0.only().inc();
    }

    pub fn add(&self, n: impl TryInto<u64>) {
        self.0.only().inc_by(saturate_counter(n));
    }
}

/// A number that goes up and down; `L` is its label, a pair of labels, or none.
#[derive(Debug)]
pub struct Gauge<L = ()>(Figures<L, prometheus::IntGauge>);

impl<L: LabelSet> Gauge<L> {
    pub fn set(&self, labels: L, value: impl TryInto<i64>) {
        self.0.find(labels).set(saturate_gauge(value));
    }
}

impl Gauge {
    pub fn set(&self, value: impl TryInto<i64>) {
        self.0.only().set(saturate_gauge(value));
    }

    pub fn add(&self, value: impl TryInto<i64>) {
        self.0.only().add(saturate_gauge(value));
    }

    pub fn sub(&self, value: impl TryInto<i64>) {
        self.0.only().sub(saturate_gauge(value));
    }
}

/// 1 for what this process is, with what never changes while it runs as labels beside `L`. The values that
/// it is not are not shown: an alert asks who is absent.
#[derive(Debug)]
pub struct Info<L = ()> {
    vec: IntGaugeVec,
    labels: PhantomData<fn(L)>,
}

impl<L: Label> Info<L> {
    pub fn show(&self, label: L) {
        self.vec
            .with_label_values(&[L::codes()[label.index()]])
            .set(1);
    }
}

/// How something is spread (times, sizes); `L` is its label, a pair of labels, or none.
#[derive(Debug)]
pub struct Histogram<L = ()>(Figures<L, prometheus::Histogram>);

impl<L: LabelSet> Histogram<L> {
    pub fn since(&self, labels: L, start: Instant) {
        self.0.find(labels).observe(start.elapsed().as_secs_f64());
    }
}

impl Histogram {
    pub fn observe_value(&self, value: f64) {
        self.0.only().observe(value);
    }

    pub fn observe_count(&self, n: usize) {
        self.observe_value(n as f64);
    }

    pub fn since(&self, start: Instant) {
        self.observe_value(start.elapsed().as_secs_f64());
    }
}

/// Something that a row of the table can be made into.
pub trait Family: Sized {
    const KIND: &'static str;
    fn make_metric(row: &MetricDefinition) -> Self;
}

impl<L> Family for Counter<L> {
    const KIND: &'static str = "counter";
    fn make_metric(row: &MetricDefinition) -> Self {
        let vec = IntCounterVec::new(Opts::new(row.name, row.help.trim()), &label_names(row));
        let vec = register_metric(row, vec);
        Counter(Figures::of(row, |values| vec.with_label_values(values)))
    }
}

impl<L> Family for Gauge<L> {
    const KIND: &'static str = "gauge";
    fn make_metric(row: &MetricDefinition) -> Self {
        let vec = IntGaugeVec::new(Opts::new(row.name, row.help.trim()), &label_names(row));
        let vec = register_metric(row, vec);
        Gauge(Figures::of(row, |values| vec.with_label_values(values)))
    }
}

impl<L> Family for Info<L> {
    const KIND: &'static str = "gauge";
    fn make_metric(row: &MetricDefinition) -> Self {
        let opts = Opts::new(row.name, row.help.trim())
            .const_label("version", build::VERSION)
            .const_label("commit", build::COMMIT);
        Info {
            vec: register_metric(row, IntGaugeVec::new(opts, &label_names(row))),
            labels: PhantomData,
        }
    }
}

impl<L> Family for Histogram<L> {
    const KIND: &'static str = "histogram";
    fn make_metric(row: &MetricDefinition) -> Self {
        let opts = HistogramOpts::new(row.name, row.help.trim()).buckets(row.buckets.to_vec());
        let vec = register_metric(row, HistogramVec::new(opts, &label_names(row)));
        Histogram(Figures::of(row, |values| vec.with_label_values(values)))
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

/// Row by row: the last label's values follow each other ([`LabelSet::place`] counts so).
fn each_combination(row: &MetricDefinition, mut make: impl FnMut(&[&'static str])) {
    let mut combinations: Vec<Vec<&'static str>> = vec![Vec::new()];
    for (_, codes) in row.labels {
        combinations = combinations
            .iter()
            .flat_map(|so_far| {
                codes().iter().map(move |value| {
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
           $([ $($label:literal: $values:ident),+ ])? $(in $buckets:expr)?; )+
    } )+) => {
        $(
            $(#[$gdoc])*
            #[derive(Debug)]
            pub struct $group { $( $(#[doc = $help])+ pub $field: $kind<groups!(@labels $($($values),+)?)>, )+ }

            impl $group {
                pub const ROWS: &'static [$crate::metrics::kinds::MetricDefinition] = &[ $( $crate::metrics::kinds::MetricDefinition {
                    name: $name,
                    kind: <$kind as $crate::metrics::kinds::Family>::KIND,
                    help: concat!($($help),+),
                    labels: &[ $( $( ($label, <$values as $crate::metrics::labels::Label>::codes as $crate::metrics::kinds::LabelCodes) ),+ )? ],
                    buckets: groups!(@buckets $($buckets)?),
                } ),+ ];

                fn register() -> Self {
                    let mut rows = Self::ROWS.iter();
                    $( let $field = $crate::metrics::kinds::Family::make_metric(rows.next().expect("a row for each field")); )+
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
    (@labels) => { () };
    (@labels $label:ident) => { $label };
    (@labels $first:ident, $second:ident) => { ($first, $second) };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}
pub(super) use groups;
