//! The pages: where people look when money is missing.
//!
//! Written by the server, whole without a script, livelier with ours. They show what the store says and
//! change settings through the API's own handlers, so that a setting has one home; who may do what is
//! said here, once, by the group that a route is in.

mod assets;
mod assignments;
mod bulk;
mod calls;
mod chart;
mod event;
mod events;
mod filter;
mod form;
mod formatting;
mod keys;
mod layout;
mod named_records;
mod notices;
mod publishers;
mod revenue;
mod session;
mod sign_in;
mod try_report;
mod unmatched;
mod users;
mod webhook_secret;
mod webhook_settings;
mod webhook_templates;
mod webhooks;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::{get, post};
use trueup_store::users::Role;

use crate::app_state::App;
pub use layout::Fault;

/// Every page and every form of the console. The order of the layers is the order of the checks:
/// cookies, the form's token, the session, the role.
pub fn router(app: &App) -> Router<App> {
    let role = |role: Role| from_fn_with_state(role, session::require_role);
    let inside = viewing()
        .merge(operating().route_layer(role(Role::Operator)))
        .merge(owning().route_layer(role(Role::Owner)))
        .route_layer(from_fn_with_state(app.clone(), session::require));
    Router::new()
        .route("/sign-in", get(sign_in::show).post(sign_in::enter))
        .merge(inside)
        .route_layer(from_fn(form::check))
        .route_layer(from_fn(session::read_cookies))
        .route("/assets/{name}", get(assets::get))
        .layer(map_response(layout::headers))
}

/// For everybody of the account: looking, and leaving.
fn viewing() -> Router<App> {
    Router::new()
        .route("/", get(sign_in::home))
        .route("/sign-out", post(sign_in::leave))
        .route("/webhooks", get(webhooks::list))
        .route("/webhooks/{id}", get(events::of_webhook))
        .route("/webhooks/{id}/setup", get(webhook_settings::setup))
        .route("/webhooks/{id}/waiting", get(webhook_settings::waiting))
        .route("/webhooks/{id}/settings", get(webhook_settings::show))
        .route("/events", get(events::all))
        .route("/webhooks/{id}/why", get(unmatched::show))
        .route("/events/{id}", get(event::show))
        .route("/events.csv", get(bulk::export))
        .route("/events/replays/{id}", get(bulk::progress))
        .route("/events/replays/{id}/part", get(bulk::progress_part))
        .route("/calls", get(calls::list))
        .route("/calls/{id}", get(calls::show))
        .route("/revenue", get(revenue::show))
        .route("/publishers", get(publishers::list))
        .route("/publishers/{id}", get(publishers::show))
        .route("/publishers/{id}/ledger.csv", get(publishers::export))
        .route("/buyers", get(named_records::list_buyers))
        .route("/campaigns", get(named_records::list_campaigns))
        .route("/assignments", get(assignments::list))
        .route("/try", get(try_report::show).post(try_report::run))
        .route("/people", get(users::list))
        .route("/account", get(users::account))
        .route("/account/password", post(users::set_password))
        .route("/audit", get(users::log))
}

/// For operators and owners: everything that changes a setting or moves money.
fn operating() -> Router<App> {
    Router::new()
        .route("/webhooks", post(webhooks::create))
        .route("/webhooks/new", get(webhooks::new))
        .route("/webhooks/{id}/settings", post(webhook_settings::save))
        .route("/webhooks/{id}/switch", post(webhook_settings::switch))
        .route(
            "/webhooks/{id}/field-name",
            post(webhook_settings::set_field_name),
        )
        .route("/webhooks/{id}/secret", post(webhook_secret::rotate))
        .route("/webhooks/{id}/secret/remove", post(webhook_secret::remove))
        .route("/webhooks/{id}/token", post(webhook_secret::new_url))
        .route("/webhooks/{id}/archive", post(webhook_settings::archive))
        .route("/events/replay", get(bulk::ask).post(bulk::begin))
        .route("/publishers", post(publishers::create))
        .route("/publishers/{id}", post(publishers::rename))
        .route("/buyers", post(named_records::create_buyer))
        .route("/buyers/{id}", post(named_records::rename_buyer))
        .route("/campaigns", post(named_records::create_campaign))
        .route("/campaigns/{id}", post(named_records::rename_campaign))
        .route("/assignments", post(assignments::create))
        .route("/assignments/{id}", post(assignments::update))
        .route("/events/{id}/replay", post(event::replay))
        .route("/events/{id}/assign", post(event::assign))
        .route("/events/{id}/apply", post(event::apply))
        .route("/events/{id}/ignore", post(event::ignore))
}

/// For owners: keys and people.
fn owning() -> Router<App> {
    Router::new()
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}/revoke", post(keys::revoke))
        .route("/people", post(users::add))
        .route("/people/{id}", post(users::set_standing))
        .route("/account", post(users::save_account))
}
