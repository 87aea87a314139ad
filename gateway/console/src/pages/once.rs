//! Secrets that are shown once, on a page of their own that the form which made them leads to: to load that
//! page again repeats nothing.
//!
//! A secret is kept nowhere here. It rides to its page in a cookie of that page's address, for a minute, and
//! the page takes the cookie away.

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};

use super::layout::PageResult;
use super::session::{append_cookie_of, read_cookie};
use crate::client_network::over_tls;

const ONCE_COOKIE: &str = "trueup_once";
/// From the form's answer to its page (seconds).
const KEPT_SECONDS: u32 = 60;

/// Leads to the page that shows the secret, with the secret.
pub fn redirect_to_secret(path: &str, secret: &str, headers: &HeaderMap) -> PageResult {
    let mut response = Redirect::to(path).into_response();
    let pair = format!("{ONCE_COOKIE}={secret}; Max-Age={KEPT_SECONDS}");
    append_cookie_of(&mut response, &pair, path, over_tls(headers));
    Ok(response)
}

/// The secret, if it has not been shown yet.
pub fn read_secret(headers: &HeaderMap) -> Option<&str> {
    read_cookie(headers, ONCE_COOKIE)
}

/// It was shown: from now on there is none.
pub fn forget_secret(response: &mut Response, path: &str, headers: &HeaderMap) {
    let pair = format!("{ONCE_COOKIE}=; Max-Age=0");
    append_cookie_of(response, &pair, path, over_tls(headers));
}
