//! The search box of every page: an id of ours leads to what it is of, anything else to the events that speak
//! of it, and from there to the calls.

use axum::extract::State;
use axum::http::Uri;
use trueup_store::{calls, events};
use uuid::Uuid;

use super::form::Form;
use super::layout::{PageResult, redirect_to};
use super::viewer::Viewer;
use crate::app_state::App;

pub async fn search_everything(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let text = form.text("q");
    if let Ok(id) = Uuid::try_parse(text) {
        let client = app.pool.get().await?;
        let account = viewer.account.id;
        if events::get_event(&client, account, id).await?.is_some() {
            return redirect_to(&format!("/events/{id}"));
        }
        if calls::get_call(&client, account, id, 0).await?.is_some() {
            return redirect_to(&format!("/calls/{id}"));
        }
    }
    let query: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    redirect_to(&format!("/events?q={query}"))
}
