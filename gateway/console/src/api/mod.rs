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
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app_state::App;
pub use crate::problem::Problem;
pub use body::{read_body, run_blocking};
pub use events::{
    ActionResponse, CandidateResponse, EventInFull, EventResponse, MatchedCallResponse,
    SlotResponse, load_event_in_full,
};
pub use ledger::PostingResponse;

/// The routes, and the document that is made from them. A route is stated here and at its handler.
pub fn build_router(app: &App) -> Router<App> {
    let for_admin = OpenApiRouter::new()
        .routes(routes!(accounts::create_account, accounts::list_accounts))
        .route_layer(from_fn_with_state(
            app.clone(),
            api_key_auth::require_admin_key,
        ));
    let for_accounts = settings_routes()
        .merge(report_routes())
        .route_layer(from_fn_with_state(
            app.clone(),
            api_key_auth::require_account_key,
        ));
    let (router, document) = OpenApiRouter::with_openapi(openapi::describe_api())
        .merge(for_admin)
        .merge(for_accounts)
        .split_for_parts();
    let text = openapi::write_document(document);
    router.route(
        "/api/v1/openapi.json",
        get(async || ([(CONTENT_TYPE, "application/json")], text)),
    )
}

fn settings_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(accounts::get_own_account))
        .routes(routes!(api_keys::create_api_key, api_keys::list_api_keys))
        .routes(routes!(api_keys::revoke_api_key))
        .routes(routes!(buyers::create_buyer, buyers::list_buyers))
        .routes(routes!(buyers::get_buyer, buyers::rename_buyer))
        .routes(routes!(
            publishers::create_publisher,
            publishers::list_publishers
        ))
        .routes(routes!(
            publishers::get_publisher,
            publishers::rename_publisher
        ))
        .routes(routes!(
            campaigns::create_campaign,
            campaigns::list_campaigns
        ))
        .routes(routes!(campaigns::get_campaign, campaigns::rename_campaign))
        .routes(routes!(
            assignments::create_assignment,
            assignments::list_assignments
        ))
        .routes(routes!(
            assignments::get_assignment,
            assignments::update_assignment
        ))
        .routes(routes!(webhooks::create_webhook, webhooks::list_webhooks))
        .routes(routes!(
            webhooks::get_webhook,
            webhooks::update_webhook,
            webhooks::archive_webhook
        ))
        .routes(routes!(
            webhook_secrets::rotate_secret,
            webhook_secrets::remove_secret
        ))
        .routes(routes!(webhook_secrets::new_token))
}

fn report_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(ledger::of_publisher))
        .routes(routes!(call_records::record, calls::list_calls))
        .routes(routes!(calls::get_call))
        .routes(routes!(try_report::try_sample))
        .routes(routes!(events::of_webhook))
        .routes(routes!(events::get_event))
        .routes(routes!(actions::replay_event))
        .routes(routes!(actions::assign_event))
        .routes(routes!(actions::apply_event))
        .routes(routes!(actions::ignore_event))
        .routes(routes!(actions::unignore_event))
        .routes(routes!(actions::undo_event))
        .routes(routes!(revenue::sum_revenue))
        .routes(routes!(audit_log::list_audit_log))
}

/// What the pages take out of a request.
pub mod handlers {
    pub use super::request::Id;
}
