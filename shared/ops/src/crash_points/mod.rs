//! Places at which the worker's death is proven harmless.
//!
//! A place does nothing in the product. Only a debug build with the feature `crash-points`, which the
//! worker's tests and the fault runs alone switch on, can die there: see [`armed`].

#[cfg(all(feature = "crash-points", debug_assertions))]
mod armed;
mod point_name;

pub use point_name::Point;

#[cfg(all(feature = "crash-points", debug_assertions))]
pub use armed::{event, point};

/// Nothing.
#[cfg(not(all(feature = "crash-points", debug_assertions)))]
#[inline(always)]
pub fn point(_: Point) {}

/// Nothing.
#[cfg(not(all(feature = "crash-points", debug_assertions)))]
#[inline(always)]
pub fn event(_: &[trueup_event::raw_event::RawEvent]) {}
