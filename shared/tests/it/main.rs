//! The one integration-test binary of this crate; each module is a topic.

mod books_properties;
mod dice;
mod fuzz_seeds;
mod house_rules;
mod late;
mod model;
mod partitions;
mod plans;
mod reading;
mod references;
mod simulation;
mod topology;
