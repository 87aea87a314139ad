//! Dying on demand: `CRASH_AT=before_commit` at the first time, `CRASH_AT=before_commit:3` at the
//! third; `CRASH_ON_EVENT=<id>` whenever that event is to be settled.
//!
//! Death is an abort: no destructor runs, no buffer is flushed, no connection says goodbye.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;

use super::point_name::Point;
use trueup_event::raw_event::RawEvent;

#[allow(
    clippy::disallowed_methods,
    reason = "the tests' own variables, not the product's"
)]
fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The point's name, and at which time.
fn wanted_point() -> Option<&'static (String, u32)> {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    let read = || {
        let text = read_variable("CRASH_AT")?;
        let (name, time) = text.split_once(':').unwrap_or((&text, "1"));
        assert!(
            Point::ALL.iter().any(|point| point.name() == name),
            "CRASH_AT: there is no point {name:?}"
        );
        Some((
            name.to_owned(),
            time.parse().expect("CRASH_AT: a number after the colon"),
        ))
    };
    WANTED.get_or_init(read).as_ref()
}

pub fn point(point: Point) {
    static TIMES: AtomicU32 = AtomicU32::new(0);
    if let Some((name, time)) = wanted_point()
        && name == point.name()
        && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *time
    {
        std::process::abort();
    }
}

pub fn event(events: &[RawEvent]) {
    static POISON: OnceLock<Option<Uuid>> = OnceLock::new();
    let poison = POISON.get_or_init(|| read_variable("CRASH_ON_EVENT")?.parse().ok());
    if poison.is_some_and(|id| events.iter().any(|event| event.id == id)) {
        std::process::abort();
    }
}
