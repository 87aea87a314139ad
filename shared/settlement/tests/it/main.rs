//! The one integration-test binary of this crate; each module is a topic.

mod late_matching;
mod query_plans;
mod raw_requests;
