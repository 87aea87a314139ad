//! The one integration-test binary of this crate; each module is a topic.

mod dice;
mod fold_properties;
mod fuzz_seeds;
mod invariants;
mod model;
mod reading;
mod simulation;
