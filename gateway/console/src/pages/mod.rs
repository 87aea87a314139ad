//! The pages: where people look when money is missing.
//!
//! Written by the server, whole without a script, livelier with ours. They show what the store says and
//! change settings by the API's own operations, so that a setting has one home; who may do what is
//! said here, once, by the group that a route is in.

mod archive;
mod assets;
mod assignments;
mod bulk_replay;
mod call_assignment;
mod calls;
mod chart;
mod event;
mod event_actions;
mod events;
mod export_file;
mod filter;
mod first_steps;
mod form;
mod formatting;
mod inbox;
mod keys;
mod layout;
mod named_records;
mod notices;
mod once;
mod publishers;
mod revenue;
mod search;
mod session;
mod sign_in;
mod try_report;
mod unknown_fields;
mod unmatched;
mod users;
mod viewer;
mod webhook_head;
mod webhook_secret;
mod webhook_settings;
mod webhook_templates;
mod webhooks;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use trueup_store::assignments::Assignment;
use trueup_store::buyers::Buyer;
use trueup_store::campaigns::Campaign;
use trueup_store::publishers::Publisher;
use trueup_store::users::UserRole;

use crate::app_state::App;
pub use layout::PageError;

/// Every page and every form of the console. The order of the layers is the order of the checks:
/// cookies, the form's token, the session, the role.
pub fn build_router(app: &App) -> Router<App> {
    let role = |role: UserRole| from_fn_with_state(role, session::require_role);
    let inside = viewer_routes()
        .merge(operator_routes().route_layer(role(UserRole::Operator)))
        .merge(owner_routes().route_layer(role(UserRole::Owner)))
        .route_layer(from_fn_with_state(app.clone(), session::require_session));
    Router::new()
        .route(
            "/sign-in",
            get(sign_in::sign_in_page).post(sign_in::sign_in),
        )
        .merge(inside)
        .route_layer(from_fn(form::check_form))
        .route_layer(from_fn(session::read_cookies))
        .route("/assets/{name}", get(assets::get_asset))
        .layer(from_fn(layout::add_security_headers))
}

/// For everybody of the account: looking, and leaving.
fn viewer_routes() -> Router<App> {
    Router::new()
        .route("/", get(sign_in::home_page))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/inbox", get(inbox::inbox_page))
        .route("/search", get(search::search_everything))
        .route("/webhooks", get(webhooks::webhooks_page))
        .route("/webhooks/{id}", get(events::of_webhook))
        .route("/webhooks/{id}/day", get(events::day_fragment))
        .route("/webhooks/{id}/setup", get(webhook_settings::setup_page))
        .route(
            "/webhooks/{id}/waiting",
            get(webhook_settings::waiting_fragment),
        )
        .route(
            "/webhooks/{id}/settings",
            get(webhook_settings::settings_page),
        )
        .route("/events", get(events::all))
        .route("/webhooks/{id}/why", get(unmatched::unmatched_page))
        .route("/events/{id}", get(event::event_page))
        .route("/events.csv", get(bulk_replay::export_events))
        .route("/events/replays/{id}", get(bulk_replay::progress_page))
        .route("/events/replays/{id}/part", get(bulk_replay::progress_part))
        .route("/calls", get(calls::calls_page))
        .route("/calls/{id}", get(calls::call_page))
        .route("/revenue", get(revenue::revenue_page))
        .route("/publishers", get(publishers::publishers_page))
        .route("/publishers/{id}", get(publishers::publisher_page))
        .route(
            "/publishers/{id}/ledger.csv",
            get(publishers::export_statement),
        )
        .route("/buyers", get(named_records::list_buyers))
        .route("/campaigns", get(named_records::list_campaigns))
        .route("/assignments", get(assignments::assignments_page))
        .route("/try", get(try_report::try_page).post(try_report::run))
        .route("/users", get(users::users_page))
        .route("/account", get(users::account))
        .route("/account/password", post(users::set_password))
        .route("/audit", get(users::audit_page))
}

/// For operators and owners: everything that changes a setting or moves money.
fn operator_routes() -> Router<App> {
    Router::new()
        .route("/inbox/replay", post(inbox::replay_selected))
        .route("/inbox/ignore", post(inbox::ignore_selected))
        .route("/inbox/assign", post(inbox::assign_selected))
        .route("/inbox/undo", post(inbox::undo_selected))
        .route("/webhooks", post(webhooks::create_webhook))
        .route("/webhooks/new", get(webhooks::new))
        .route(
            "/webhooks/{id}/settings",
            post(webhook_settings::save_settings),
        )
        .route(
            "/webhooks/{id}/switch",
            post(webhook_settings::switch_webhook),
        )
        .route(
            "/webhooks/{id}/field-name",
            post(webhook_settings::set_field_name),
        )
        .route(
            "/webhooks/{id}/secret",
            get(webhook_secret::secret_page).post(webhook_secret::rotate_secret),
        )
        .route(
            "/webhooks/{id}/secret/remove",
            post(webhook_secret::remove_secret),
        )
        .route("/webhooks/{id}/token", post(webhook_secret::new_url))
        .route(
            "/webhooks/{id}/archive",
            post(webhook_settings::archive_webhook),
        )
        .route(
            "/events/replay",
            get(bulk_replay::confirm_replay).post(bulk_replay::begin_replay),
        )
        .route("/events/replays/{id}/stop", post(bulk_replay::stop_replay))
        .route(
            "/webhooks/{id}/restore",
            post(webhook_settings::restore_webhook),
        )
        .route("/buyers/{id}/archive", post(archive::archive::<Buyer>))
        .route("/buyers/{id}/restore", post(archive::restore::<Buyer>))
        .route(
            "/campaigns/{id}/archive",
            post(archive::archive::<Campaign>),
        )
        .route(
            "/campaigns/{id}/restore",
            post(archive::restore::<Campaign>),
        )
        .route(
            "/publishers/{id}/archive",
            post(archive::archive::<Publisher>),
        )
        .route(
            "/publishers/{id}/restore",
            post(archive::restore::<Publisher>),
        )
        .route(
            "/assignments/{id}/archive",
            post(archive::archive::<Assignment>),
        )
        .route(
            "/assignments/{id}/restore",
            post(archive::restore::<Assignment>),
        )
        .route("/publishers", post(publishers::create_publisher))
        .route("/publishers/{id}", post(publishers::rename_publisher))
        .route("/buyers", post(named_records::create_buyer))
        .route("/buyers/{id}", post(named_records::rename_buyer))
        .route("/campaigns", post(named_records::create_campaign))
        .route("/campaigns/{id}", post(named_records::rename_campaign))
        .route(
            "/assignments/new",
            get(first_steps::terms_page).post(first_steps::create_terms),
        )
        .route(
            "/calls/new",
            get(first_steps::call_form_page).post(first_steps::record_test_call),
        )
        .route(
            "/calls/{id}/assignment",
            post(call_assignment::assign_call_page),
        )
        .route("/assignments", post(assignments::create_assignment))
        .route("/assignments/{id}", post(assignments::update_assignment))
        .route("/events/{id}/replay", post(event_actions::replay_event))
        .route("/events/{id}/assign", post(event_actions::assign_event))
        .route("/events/{id}/apply", post(event_actions::apply_event))
        .route("/events/{id}/ignore", post(event_actions::ignore_event))
        .route("/events/{id}/unignore", post(event_actions::unignore_event))
        .route("/events/{id}/undo", post(event_actions::undo_event))
}

/// For owners: keys and users.
fn owner_routes() -> Router<App> {
    Router::new()
        .route("/keys", get(keys::keys_page).post(keys::create_key))
        .route("/keys/{id}", get(keys::key_page))
        .route("/keys/{id}/revoke", post(keys::revoke_key))
        .route("/users", post(users::add_user))
        .route("/users/{id}", post(users::set_role_or_disabled))
        .route("/account", post(users::save_account))
}
