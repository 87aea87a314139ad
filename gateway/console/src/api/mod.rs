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
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use trueup_ops::metrics;
use utoipa_axum::router::OpenApiRouter;

use crate::app_state::App;
pub use body::{read_body, run_blocking};
pub use request::Id;

/// Where the document of all routes is.
const DOCUMENT: &str = "/api/v1/openapi.json";

/// What is answered is one account's, secrets among it: no cache may keep it, and no browser guess what it is.
async fn keep_private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The routes, and the document that is made from them. A route is stated at its handler, and with its
/// noun's others in `routes`; the figures count it under that name.
pub fn build_router(app: &App) -> Router<App> {
    let for_admin = accounts::admin_routes().route_layer(from_fn_with_state(
        app.clone(),
        api_key_auth::require_admin_key,
    ));
    let for_accounts = [
        accounts::routes(),
        api_keys::routes(),
        buyers::routes(),
        publishers::routes(),
        ledger::routes(),
        campaigns::routes(),
        assignments::routes(),
        webhooks::routes(),
        webhook_secrets::routes(),
        calls::routes(),
        events::routes(),
        actions::routes(),
        try_report::routes(),
        revenue::routes(),
        audit_log::routes(),
    ]
    .into_iter()
    .fold(OpenApiRouter::new(), OpenApiRouter::merge)
    .route_layer(from_fn_with_state(
        app.clone(),
        api_key_auth::require_account_key,
    ));
    let (router, document) = OpenApiRouter::with_openapi(openapi::describe_api())
        .merge(for_admin)
        .merge(for_accounts)
        .split_for_parts();
    let documented = document.paths.paths.keys().cloned();
    metrics::close_console_routes(documented.chain([DOCUMENT.to_owned()]));
    let text = openapi::write_document(document);
    router
        .route(
            DOCUMENT,
            get(async || ([(CONTENT_TYPE, "application/json")], text)),
        )
        .layer(map_response(keep_private))
}
