//! API keys: made, shown once, revoked, last used. For owners alone.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use trueup_store::{IdPage, api_keys};
use uuid::Uuid;

use super::form::Form;
use super::formatting::LocalTime;
use super::layout::{PageError, PageLayout, PageResult, page, redirect_to};
use super::once::{forget_secret, read_secret, redirect_to_secret};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::api_keys::{create_api_key, revoke_api_key};

const MOST: i64 = 500;

struct KeyRow {
    id: Uuid,
    name: String,
    prefix: String,
    made: LocalTime,
    used: Option<LocalTime>,
    revoked: Option<LocalTime>,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeyList {
    look: PageLayout,
    rows: Vec<KeyRow>,
    new: Option<NewKey>,
}

/// A key that was made just now.
struct NewKey {
    name: String,
    /// Nothing once it was shown.
    text: Option<String>,
}

async fn build_page(app: &App, viewer: &Viewer, new: Option<Uuid>) -> Result<KeyList, PageError> {
    let page_of = IdPage {
        below: None,
        limit: MOST,
    };
    let found = api_keys::list_api_keys(&app.pool.get().await?, viewer.account.id, page_of).await?;
    let when = |at| viewer.clock.local_time(at);
    let new = found
        .iter()
        .find(|key| Some(key.id) == new)
        .map(|key| NewKey {
            name: key.name.clone(),
            text: None,
        });
    let rows = found
        .into_iter()
        .map(|key| KeyRow {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            made: when(key.created_at),
            used: key.last_used_at.map(when),
            revoked: key.revoked_at.map(when),
        })
        .collect();
    Ok(KeyList {
        look: PageLayout::signed_in(viewer, "API keys", "/keys"),
        rows,
        new,
    })
}

pub async fn keys_page(State(app): State<App>, viewer: Viewer) -> PageResult {
    page(&build_page(&app, &viewer, None).await?)
}

pub async fn create_key(
    State(app): State<App>,
    viewer: Viewer,
    form: Form,
    headers: HeaderMap,
) -> PageResult {
    let body = form.read_fields(&["name"])?;
    let (made, text) = create_api_key(&app, &viewer.auth_context(), body).await?;
    redirect_to_secret(&format!("/keys/{}", made.id), &text, &headers)
}

/// The list, with the text of a key that was made just now: this once.
pub async fn key_page(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    headers: HeaderMap,
) -> PageResult {
    let mut list = build_page(&app, &viewer, Some(id)).await?;
    let new = list.new.as_mut().ok_or(PageError::NotFound("key"))?;
    new.text = read_secret(&headers).map(str::to_owned);
    let mut response = page(&list)?;
    forget_secret(&mut response, &format!("/keys/{id}"), &headers);
    Ok(response)
}

pub async fn revoke_key(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    revoke_api_key(&app, &viewer.auth_context(), id).await?;
    redirect_to("/keys?done=revoked")
}
