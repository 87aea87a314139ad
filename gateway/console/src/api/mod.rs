//! The operator API, in JSON: everything that a person or a program may set or see.
//!
//! An account's key sees that account alone: every statement below is given the key's account, and
//! another account's object is as good as none (404).

mod accounts;
mod actions;
mod api_key_auth;
mod api_keys;
mod assignments;
mod audit_log;
mod body;
mod buyers;
mod call_records;
mod calls;
mod campaigns;
mod events;
mod field_reader;
mod ledger;
mod list;
mod openapi;
mod problem;
mod publishers;
mod request;
mod revenue;
mod try_report;
mod webhook_secrets;
mod webhooks;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};

use crate::app_state::App;
pub use problem::Problem;

/// A name of anything (characters).
const MAX_NAME: usize = 200;
/// Just under 10^12 cents; an amount at or above it is a mistake (X7).
const MAX_CENTS: i64 = 999_999_999_999;

pub fn router(app: &App) -> Router<App> {
    let for_admin = Router::new()
        .route(
            "/api/v1/accounts",
            post(accounts::create).get(accounts::list),
        )
        .route_layer(from_fn_with_state(
            app.clone(),
            api_key_auth::require_admin_key,
        ));
    let for_accounts = settings().route_layer(from_fn_with_state(
        app.clone(),
        api_key_auth::require_account_key,
    ));
    Router::new()
        .merge(for_admin)
        .merge(for_accounts)
        .route("/api/v1/openapi.json", get(openapi::document))
}

fn settings() -> Router<App> {
    Router::new()
        .route("/api/v1/account", get(accounts::own))
        .route(
            "/api/v1/api-keys",
            post(api_keys::create).get(api_keys::list),
        )
        .route("/api/v1/api-keys/{id}", delete(api_keys::revoke))
        .route("/api/v1/buyers", post(buyers::create).get(buyers::list))
        .route(
            "/api/v1/buyers/{id}",
            get(buyers::get).patch(buyers::rename),
        )
        .route(
            "/api/v1/publishers",
            post(publishers::create).get(publishers::list),
        )
        .route(
            "/api/v1/publishers/{id}",
            get(publishers::get).patch(publishers::rename),
        )
        .route("/api/v1/publishers/{id}/ledger", get(ledger::of_publisher))
        .route(
            "/api/v1/campaigns",
            post(campaigns::create).get(campaigns::list),
        )
        .route(
            "/api/v1/campaigns/{id}",
            get(campaigns::get).patch(campaigns::rename),
        )
        .route(
            "/api/v1/assignments",
            post(assignments::create).get(assignments::list),
        )
        .route(
            "/api/v1/assignments/{id}",
            get(assignments::get).patch(assignments::update),
        )
        .route(
            "/api/v1/webhooks",
            post(webhooks::create).get(webhooks::list),
        )
        .route(
            "/api/v1/webhooks/{id}",
            get(webhooks::get)
                .patch(webhooks::update)
                .delete(webhooks::archive),
        )
        .route(
            "/api/v1/webhooks/{id}/secret",
            post(webhook_secrets::rotate).delete(webhook_secrets::remove),
        )
        .route(
            "/api/v1/webhooks/{id}/token",
            post(webhook_secrets::new_token),
        )
        .route("/api/v1/calls", post(call_records::record).get(calls::list))
        .route("/api/v1/calls/{id}", get(calls::get))
        .route("/api/v1/webhooks/{id}/try", post(try_report::sample))
        .route("/api/v1/webhooks/{id}/events", get(events::of_webhook))
        .route("/api/v1/events/{id}", get(events::get))
        .route("/api/v1/events/{id}/replay", post(actions::replay))
        .route("/api/v1/events/{id}/assign", post(actions::assign))
        .route("/api/v1/events/{id}/apply", post(actions::apply))
        .route("/api/v1/events/{id}/ignore", post(actions::ignore))
        .route("/api/v1/reports/revenue", get(revenue::report))
        .route("/api/v1/audit-log", get(audit_log::list))
}

/// What the pages call: the same handlers, so that a setting has one home for what it may be, and its
/// change one place in the audit log.
pub mod handlers {
    pub use super::actions::{apply, assign, ignore, replay};
    pub use super::api_key_auth::Operator;
    pub use super::api_keys::{create as create_key, revoke as revoke_key};
    pub use super::assignments::{create as create_assignment, update as update_assignment};
    pub use super::body::read as read_body;
    pub use super::buyers::{create as create_buyer, rename as rename_buyer};
    pub use super::campaigns::{create as create_campaign, rename as rename_campaign};
    pub use super::events::{
        Action, Candidate, Event, EventInFull, Slot, in_full as event_in_full,
    };
    pub use super::field_reader::Fields;
    pub use super::ledger::Posting;
    pub use super::problem::Problem;
    pub use super::publishers::{create as create_publisher, rename as rename_publisher};
    pub use super::request::{Id, Query, Setting};
    pub use super::revenue::{Revenue, report as revenue_report};
    pub use super::try_report::{TriedReport, sample as try_sample};
    pub use super::webhook_secrets::{new_token, remove as remove_secret, rotate as rotate_secret};
    pub use super::webhooks::{
        Webhook, archive as archive_webhook, create as create_webhook, show as show_webhook,
        update as update_webhook,
    };
}
