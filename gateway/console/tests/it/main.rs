//! The one integration-test binary of this crate; each module is a topic.

mod bounded_requests;
mod console;
mod console_calls;
mod console_events;
mod console_isolation;
mod console_openapi;
mod console_process;
mod console_settings;
mod fair_shares;
mod operator_ceilings;
mod pages;
mod pages_actions;
mod pages_amounts;
mod pages_browser;
mod pages_bulk_replay;
mod pages_clock;
mod pages_field_names;
mod pages_inbox;
mod pages_isolation;
mod pages_once;
mod pages_panel;
mod pages_search;
mod pages_session;
mod pages_width;
mod password_flood;
mod starts;
