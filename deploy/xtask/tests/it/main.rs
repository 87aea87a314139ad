//! The one integration-test binary of this crate; each module is a topic.

mod file_circles;
mod house_rules;
mod operations;
mod walls;
