//! The vocabulary that the gateway, the console and the worker share.
//!
//! [`domain`] is pure: it knows no runtime, no database, no clock, and compiles with
//! `--no-default-features`. The other modules are doors to the outside, one for each neighbour.

pub mod crash;
pub mod domain;
#[cfg(feature = "ops")]
pub mod ops;
#[cfg(feature = "queue")]
pub mod queue;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
