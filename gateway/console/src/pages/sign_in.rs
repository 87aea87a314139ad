//! Signing in and out.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use trueup_store::users;

use super::form::Form;
use super::layout::{PageError, PageLayout, PageResult, page, page_with};
use super::session::{self, SignedInRequest};
use super::viewer::Viewer;
use crate::app_state::App;
use crate::client_network::{client_network, over_tls};
use crate::operations::users::begin_session;
use crate::passwords::{self, SignInAttempt};
use crate::secrets;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    look: PageLayout,
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

fn blank_form(request: &Request) -> SignIn {
    let csrf = request
        .extensions()
        .get::<SignedInRequest>()
        .map(|s| s.csrf.clone())
        .unwrap_or_default();
    let look = PageLayout {
        csrf,
        ..PageLayout::signed_out("Sign in", session::read_theme(request.headers()))
    };
    SignIn {
        look,
        fault: None,
        email: String::new(),
        next: "/".to_owned(),
    }
}

pub async fn sign_in_page(State(app): State<App>, request: Request) -> PageResult {
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes());
    let next = safe_next(query.text("next"));
    let signed = request
        .extensions()
        .get::<SignedInRequest>()
        .cloned()
        .unwrap_or_default();
    if let Some(session) = &signed.session
        && users::find_session(&app.pool.get().await?, session)
            .await?
            .is_some()
    {
        return Ok(Redirect::to(&next).into_response());
    }
    page(&SignIn {
        next,
        ..blank_form(&request)
    })
}

pub async fn sign_in(State(app): State<App>, form: Form, request: Request) -> PageResult {
    let email = form.text("email").to_owned();
    let next = safe_next(form.text("next"));
    let network = client_network(&request);
    let browser = session::read_browser(request.headers()).map(str::to_owned);
    let client = app.pool.get().await?;
    let known = match &browser {
        Some(browser) => users::is_known_browser(&client, browser, &email).await?,
        None => false,
    };
    let attempt = match &browser {
        Some(browser) if known => SignInAttempt::Known { browser },
        _ => SignInAttempt::Stranger {
            network,
            email: &email,
        },
    };
    if !app.attempts.check_rate(&attempt) {
        return Err(PageError::TooMany);
    }
    let found = users::by_email(&client, &email).await?;
    // Argon2 takes its time: the connection must not wait with it.
    drop(client);
    let hash = found.as_ref().map(|(_, hash)| hash.clone());
    if !passwords::verify_password(form.raw_text("password").to_owned(), hash).await? {
        let fault = Some("This e-mail address and password do not go together.");
        return page_with(
            StatusCode::UNAUTHORIZED,
            &SignIn {
                fault,
                email,
                next,
                ..blank_form(&request)
            },
        );
    }
    let Some((user, _)) = found else {
        return Err(PageError::Expired);
    };
    let browser = browser
        .filter(|_| known)
        .unwrap_or_else(secrets::new_session_id);
    let id = begin_session(&app, user, &browser).await?;
    let mut response = Redirect::to(&next).into_response();
    let secure = over_tls(request.headers());
    session::set_session_cookie(&mut response, &id, secure);
    session::set_browser_cookie(&mut response, &browser, secure);
    Ok(response)
}

pub async fn sign_out(
    State(app): State<App>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, PageError> {
    let signed = request
        .extensions()
        .get::<SignedInRequest>()
        .cloned()
        .unwrap_or_default();
    if let Some(session) = &signed.session {
        users::end_session(&app.pool.get().await?, session).await?;
    }
    let mut response = Redirect::to("/sign-in").into_response();
    session::clear_session_cookie(&mut response, over_tls(&headers));
    Ok(response)
}

/// The first page: where people look when money is missing.
pub async fn home_page(_viewer: Viewer) -> Redirect {
    Redirect::to("/webhooks")
}
