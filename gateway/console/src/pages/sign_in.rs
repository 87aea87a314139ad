//! Signing in and out.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::json;
use trueup_store::{audit_log, run_tx, users};

use super::form::Form;
use super::layout::{Fault, Look, Shown, page, page_with};
use super::session::{self, Signed, Viewer};
use crate::app_state::App;
use crate::passwords;
use crate::secrets;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    look: Look,
    fault: Option<&'static str>,
    email: String,
    next: String,
}

/// Only a path of ours: an address of another server must not be where signing in leads.
fn safe_next(next: &str) -> String {
    let ours = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(['\\', '\r', '\n', '\t']);
    if ours {
        next.to_owned()
    } else {
        "/".to_owned()
    }
}

fn blank(request: &Request) -> SignIn {
    let csrf = request
        .extensions()
        .get::<Signed>()
        .map(|s| s.csrf.clone())
        .unwrap_or_default();
    let look = Look {
        csrf,
        ..Look::bare("Sign in", session::theme(request.headers()))
    };
    SignIn {
        look,
        fault: None,
        email: String::new(),
        next: "/".to_owned(),
    }
}

pub async fn show(State(app): State<App>, request: Request) -> Shown {
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let next = safe_next(query.text("next"));
    let signed = request
        .extensions()
        .get::<Signed>()
        .cloned()
        .unwrap_or_default();
    if let Some(session) = &signed.session
        && users::holder(&app.pool.get().await?, session)
            .await?
            .is_some()
    {
        return Ok(Redirect::to(&next).into_response());
    }
    page(&SignIn {
        next,
        ..blank(&request)
    })
}

pub async fn enter(State(app): State<App>, form: Form, request: Request) -> Shown {
    let email = form.text("email").to_owned();
    let next = safe_next(form.text("next"));
    if !app.attempts.one_more(&email) {
        return Err(Fault::TooMany);
    }
    let client = app.pool.get().await?;
    let found = users::by_email(&client, &email).await?;
    // Argon2 takes its time: the connection must not wait with it.
    drop(client);
    let hash = found.as_ref().map(|(_, hash)| hash.clone());
    if !passwords::fits(form.raw("password").to_owned(), hash).await {
        let fault = Some("This e-mail address and password do not go together.");
        return page_with(
            StatusCode::UNAUTHORIZED,
            &SignIn {
                fault,
                email,
                next,
                ..blank(&request)
            },
        );
    }
    let Some((user, _)) = found else {
        return Err(Fault::Expired);
    };
    let id = secrets::session();
    let given = id.clone();
    run_tx(&app.pool, "people.sign_in", move |tx| {
        let (user, id) = (user.clone(), given.clone());
        Box::pin(async move {
            users::begin_session(tx, user.id, &id).await?;
            let change = audit_log::Change {
                account_id: user.account_id,
                actor: &user.email,
                action: "sign_in",
                object_kind: "user",
                object_id: user.id,
                detail: json!({}),
            };
            audit_log::record(tx, change).await
        })
    })
    .await?;
    let mut response = Redirect::to(&next).into_response();
    session::begin(&mut response, &id, session::over_tls(request.headers()));
    Ok(response)
}

pub async fn leave(
    State(app): State<App>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Fault> {
    let signed = request
        .extensions()
        .get::<Signed>()
        .cloned()
        .unwrap_or_default();
    if let Some(session) = &signed.session {
        users::end_session(&app.pool.get().await?, session).await?;
    }
    let mut response = Redirect::to("/sign-in").into_response();
    session::end(&mut response, session::over_tls(&headers));
    Ok(response)
}

/// The first page: where people look when money is missing.
pub async fn home(_viewer: Viewer) -> Redirect {
    Redirect::to("/webhooks")
}
