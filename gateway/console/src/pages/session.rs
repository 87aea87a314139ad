//! Who is looking: the session's cookie, the roles, and the CSRF token that follows from the cookie.
//!
//! A session is a random id that only the browser has. The token is a digest of it, so it needs no
//! place of its own and ends with it.

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use trueup_store::users::{self, UserRole};
use trueup_store::{StoreError, open_events};
use uuid::Uuid;

use super::formatting::{PageClock, count_text};
use super::layout::PageError;
use super::notices;
use super::viewer::Viewer;
use crate::app_state::App;
use crate::client_network::over_tls;
use crate::secrets;
use crate::work_shares::answer_in_share;

const SESSION_COOKIE: &str = "trueup_session";
/// Before signing in there is no session, but the form that signs in is checked like any other.
const VISITOR_COOKIE: &str = "trueup_visitor";
/// Kept when a session ends: who signed in here before is not kept out by strangers' attempts.
const BROWSER_COOKIE: &str = "trueup_browser";
/// A browser in which nobody has signed in for as long is a stranger's (a year, in seconds).
const KNOWN_SECONDS: u32 = 31_536_000;
const THEME_COOKIE: &str = "trueup_theme";
/// The zone that a user has chosen in this browser; without it the account's.
const ZONE_COOKIE: &str = "trueup_zone";
/// Open rows that the menu's count looks at, on every page.
const COUNTED_FOR_MENU: i64 = 200;
/// No id of ours is longer (bytes); nothing longer is looked up.
const MAX_COOKIE_BYTES: usize = 100;

/// What a request's cookies say, before anybody asks the database.
#[derive(Debug, Clone, Default)]
pub struct SignedInRequest {
    pub session: Option<String>,
    pub csrf: String,
}

pub fn read_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, value)| *n == name && !value.is_empty() && value.len() <= MAX_COOKIE_BYTES)
        .map(|(_, value)| value)
}

fn csrf_of(id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"trueup csrf ");
    hash.update(id.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Reads the cookies once, for everything behind it; gives a visitor an id for the form to sign in.
pub async fn read_cookies(mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let secure = over_tls(headers);
    let session = read_cookie(headers, &host_cookie(SESSION_COOKIE, secure)).map(str::to_owned);
    let mut fresh_visitor = None;
    let visitor = read_cookie(headers, &host_cookie(VISITOR_COOKIE, secure));
    let csrf = match (&session, visitor) {
        (Some(session), _) => csrf_of(session),
        (None, Some(visitor)) => csrf_of(visitor),
        (None, None) => {
            let visitor = secrets::new_session_id();
            let csrf = csrf_of(&visitor);
            fresh_visitor = Some(visitor);
            csrf
        }
    };
    let signed = SignedInRequest { session, csrf };
    let shows_a_form = request.uri().path() == "/sign-in";
    request.extensions_mut().insert(signed);
    let mut response = next.run(request).await;
    if let Some(visitor) = fresh_visitor.filter(|_| shows_a_form) {
        append_cookie(
            &mut response,
            &format!("{}={visitor}", host_cookie(VISITOR_COOKIE, secure)),
            secure,
        );
    }
    response
}

/// By TLS a cookie is one that only this very host can have set, and a browser sees to it.
fn host_cookie(name: &str, secure: bool) -> String {
    if secure {
        format!("__Host-{name}")
    } else {
        name.to_owned()
    }
}

fn append_cookie(response: &mut Response, pair: &str, secure: bool) {
    append_cookie_of(response, pair, "/", secure);
}

/// One that the browser sends to this path and what is below it.
pub fn append_cookie_of(response: &mut Response, pair: &str, path: &str, secure: bool) {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{pair}; Path={path}; HttpOnly; SameSite=Lax{secure}");
    let value = HeaderValue::from_str(&text).expect("cookies are made of base64 and our own words");
    response.headers_mut().append(SET_COOKIE, value);
}

/// Gives the browser its session. The visitor's id is dropped: what was known before is worth nothing now.
pub fn set_session_cookie(response: &mut Response, session: &str, secure: bool) {
    let (session_cookie, visitor_cookie) = (
        host_cookie(SESSION_COOKIE, secure),
        host_cookie(VISITOR_COOKIE, secure),
    );
    append_cookie(response, &format!("{session_cookie}={session}"), secure);
    append_cookie(response, &format!("{visitor_cookie}=; Max-Age=0"), secure);
}

pub fn clear_session_cookie(response: &mut Response, secure: bool) {
    let pair = format!("{}=; Max-Age=0", host_cookie(SESSION_COOKIE, secure));
    append_cookie(response, &pair, secure);
}

/// The id by which a browser is known in which somebody has signed in before.
pub fn read_browser(headers: &HeaderMap) -> Option<&str> {
    read_cookie(headers, &host_cookie(BROWSER_COOKIE, over_tls(headers)))
}

pub fn set_browser_cookie(response: &mut Response, browser: &str, secure: bool) {
    let name = host_cookie(BROWSER_COOKIE, secure);
    append_cookie(
        response,
        &format!("{name}={browser}; Max-Age={KNOWN_SECONDS}"),
        secure,
    );
}

pub fn read_theme(headers: &HeaderMap) -> &'static str {
    match read_cookie(headers, THEME_COOKIE) {
        Some("dark") => "dark",
        Some("light") => "light",
        _ => "",
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Viewer {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        // Only a route outside of `require` gets here without; it must not answer.
        parts.extensions.get::<Viewer>().cloned().ok_or_else(|| {
            tracing::error!("a page is not behind the check of sessions");
            PageError::Forbidden("Sign in first.")
        })
    }
}

/// Lets only users of the account in.
pub async fn require_session(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let signed = request
        .extensions()
        .get::<SignedInRequest>()
        .cloned()
        .unwrap_or_default();
    let Some(session) = &signed.session else {
        return to_sign_in(&request);
    };
    let found = match app.pool.get().await {
        Ok(client) => users::find_session(&client, session).await,
        Err(error) => Err(error),
    };
    let (user, account) = match found {
        Ok(Some(found)) => found,
        Ok(None) => return to_sign_in(&request),
        Err(error) => return PageError::from(error).into_response(),
    };
    // A form's answer and a part of a page have no menu.
    let has_menu =
        *request.method() == Method::GET && !request.headers().contains_key("x-fragment");
    let open_rows = match count_open_rows(&app, has_menu, account.id).await {
        Ok(text) => text,
        Err(error) => return PageError::from(error).into_response(),
    };
    let chosen = read_cookie(request.headers(), ZONE_COOKIE);
    let viewer = Viewer {
        clock: PageClock::choose(chosen, &account.time_zone),
        open_rows,
        user,
        account,
        csrf: signed.csrf,
        theme: read_theme(request.headers()),
        notice: notices::from_query(request.uri()),
    };
    let account_id = viewer.account.id;
    request.extensions_mut().insert(viewer);
    answer_in_share(&app.shares, account_id, request, next)
        .await
        .unwrap_or_else(|problem| PageError::from(problem).into_response())
}

/// What the menu says of the inbox.
async fn count_open_rows(
    app: &App,
    has_menu: bool,
    account_id: Uuid,
) -> Result<String, StoreError> {
    if !has_menu {
        return Ok(String::new());
    }
    let client = app.pool.get().await?;
    let (count, more) = open_events::count_all(&client, account_id, COUNTED_FOR_MENU).await?;
    Ok(match count {
        0 if !more => String::new(),
        _ => count_text(count, more),
    })
}

fn to_sign_in(request: &Request) -> Response {
    // A part of a page that refreshes itself must not swallow the form to sign in.
    if request.headers().contains_key("x-fragment") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let target = match *request.method() {
        Method::GET => {
            let here: String =
                form_urlencoded::byte_serialize(path_and_query(request.uri()).as_bytes()).collect();
            format!("/sign-in?next={here}")
        }
        _ => "/sign-in".to_owned(),
    };
    Redirect::to(&target).into_response()
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |p| p.as_str())
}

/// Laid around the routes that change something: nobody below the role gets through.
pub async fn require_role(
    State(role): State<UserRole>,
    viewer: Viewer,
    request: Request,
    next: Next,
) -> Response {
    if viewer.user.role < role {
        let text = match role {
            UserRole::Owner => "Only an owner of the account may do this. Ask one of them.",
            _ => {
                "Your role is viewer: you may look at everything and change nothing. Ask an owner of the account for the role of operator."
            }
        };
        return PageError::Forbidden(text).into_response();
    }
    next.run(request).await
}
