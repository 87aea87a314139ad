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
mod ledger;
mod list;
mod openapi;
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
pub use crate::problem::Problem;
pub use body::{read_body, run_blocking};
pub use events::{
    ActionResponse, CandidateResponse, EventInFull, EventResponse, MatchedCallResponse,
    SlotResponse, load_event_in_full,
};
pub use ledger::PostingResponse;

pub fn build_router(app: &App) -> Router<App> {
    let for_admin = Router::new()
        .route(
            "/api/v1/accounts",
            post(accounts::create_account).get(accounts::list_accounts),
        )
        .route_layer(from_fn_with_state(
            app.clone(),
            api_key_auth::require_admin_key,
        ));
    let for_accounts = settings_routes().route_layer(from_fn_with_state(
        app.clone(),
        api_key_auth::require_account_key,
    ));
    Router::new()
        .merge(for_admin)
        .merge(for_accounts)
        .route("/api/v1/openapi.json", get(openapi::get_document))
}

fn settings_routes() -> Router<App> {
    Router::new()
        .route("/api/v1/account", get(accounts::get_own_account))
        .route(
            "/api/v1/api-keys",
            post(api_keys::create_api_key).get(api_keys::list_api_keys),
        )
        .route("/api/v1/api-keys/{id}", delete(api_keys::revoke_api_key))
        .route(
            "/api/v1/buyers",
            post(buyers::create_buyer).get(buyers::list_buyers),
        )
        .route(
            "/api/v1/buyers/{id}",
            get(buyers::get_buyer).patch(buyers::rename_buyer),
        )
        .route(
            "/api/v1/publishers",
            post(publishers::create_publisher).get(publishers::list_publishers),
        )
        .route(
            "/api/v1/publishers/{id}",
            get(publishers::get_publisher).patch(publishers::rename_publisher),
        )
        .route("/api/v1/publishers/{id}/ledger", get(ledger::of_publisher))
        .route(
            "/api/v1/campaigns",
            post(campaigns::create_campaign).get(campaigns::list_campaigns),
        )
        .route(
            "/api/v1/campaigns/{id}",
            get(campaigns::get_campaign).patch(campaigns::rename_campaign),
        )
        .route(
            "/api/v1/assignments",
            post(assignments::create_assignment).get(assignments::list_assignments),
        )
        .route(
            "/api/v1/assignments/{id}",
            get(assignments::get_assignment).patch(assignments::update_assignment),
        )
        .route(
            "/api/v1/webhooks",
            post(webhooks::create_webhook).get(webhooks::list_webhooks),
        )
        .route(
            "/api/v1/webhooks/{id}",
            get(webhooks::get_webhook)
                .patch(webhooks::update_webhook)
                .delete(webhooks::archive_webhook),
        )
        .route(
            "/api/v1/webhooks/{id}/secret",
            post(webhook_secrets::rotate_secret).delete(webhook_secrets::remove_secret),
        )
        .route(
            "/api/v1/webhooks/{id}/token",
            post(webhook_secrets::new_token),
        )
        .route(
            "/api/v1/calls",
            post(call_records::record).get(calls::list_calls),
        )
        .route("/api/v1/calls/{id}", get(calls::get_call))
        .route("/api/v1/webhooks/{id}/try", post(try_report::try_sample))
        .route("/api/v1/webhooks/{id}/events", get(events::of_webhook))
        .route("/api/v1/events/{id}", get(events::get_event))
        .route("/api/v1/events/{id}/replay", post(actions::replay_event))
        .route("/api/v1/events/{id}/assign", post(actions::assign_event))
        .route("/api/v1/events/{id}/apply", post(actions::apply_event))
        .route("/api/v1/events/{id}/ignore", post(actions::ignore_event))
        .route(
            "/api/v1/events/{id}/unignore",
            post(actions::unignore_event),
        )
        .route("/api/v1/events/{id}/undo", post(actions::undo_event))
        .route("/api/v1/reports/revenue", get(revenue::sum_revenue))
        .route("/api/v1/audit-log", get(audit_log::list_audit_log))
}

/// What the pages take out of a request.
pub mod handlers {
    pub use super::request::Id;
}
