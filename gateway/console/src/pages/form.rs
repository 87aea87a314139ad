//! Forms: read whole within a limit, and refused unless they carry the session's CSRF token.
//!
//! The check is laid around all pages at once, so that no handler can forget it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use utoipa::PartialSchema;

use super::layout::PageError;
use super::session::SignedInRequest;
use crate::api::read_body;
use crate::problem::Problem;
use crate::request_fields::{BadFields, RequestFields};

/// A form of ours, its longest texts escaped (bytes).
const FORM_LIMIT: usize = 64 * 1024;
/// The page whose form carries a pasted batch of the largest kind, escaped.
const PASTING_PAGE: &str = "/try";
/// What that page takes (bytes).
const PASTE_LIMIT: usize = 2 * 1024 * 1024;
/// No form of ours has as many.
const MAX_FIELDS: usize = 256;

/// The fields of a form, in order. A name that is missing is blank.
#[derive(Debug, Clone, Default)]
pub struct Form(Arc<[(String, String)]>);

impl Form {
    /// Reads the first `MAX_FIELDS` fields: each costs many times its bytes.
    pub fn parse(bytes: &[u8]) -> Form {
        Form(
            form_urlencoded::parse(bytes)
                .take(MAX_FIELDS)
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// Trimmed; blank if it was not given.
    pub fn text(&self, name: &str) -> &str {
        self.raw_text(name).trim()
    }

    /// As typed: a password's spaces count.
    pub fn raw_text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// Reads these fields of the form, which have the same names in a body.
    pub fn read_fields<T: DeserializeOwned + PartialSchema>(
        &self,
        names: &[&str],
    ) -> Result<T, BadFields> {
        RequestFields::of_texts(names.iter().map(|name| (*name, self.text(name)))).read()
    }

    /// Every value of a field that may be there several times.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.trim())
    }

    /// A character that Postgres keeps in no text, and no browser's field gives.
    fn holds_nul(&self) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name.contains('\0') || value.contains('\0'))
    }

    pub fn is_on(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        Ok(parts.extensions.get::<Form>().cloned().unwrap_or_default())
    }
}

fn nul_refused() -> Response {
    PageError::from(Problem::malformed("no field may hold the character U+0000")).into_response()
}

/// Lets nothing that changes anything through without the token that only our own pages know.
pub async fn check_form(request: Request, next: Next) -> Response {
    if Form::parse(request.uri().query().unwrap_or_default().as_bytes()).holds_nul() {
        return nul_refused();
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let signed = parts
        .extensions
        .get::<SignedInRequest>()
        .cloned()
        .unwrap_or_default();
    let limit = if signed.session.is_some() && parts.uri.path() == PASTING_PAGE {
        PASTE_LIMIT
    } else {
        FORM_LIMIT
    };
    let bytes = match read_body(body, limit).await {
        Ok(bytes) => bytes,
        Err(problem) => return PageError::from(problem).into_response(),
    };
    if form_urlencoded::parse(&bytes).nth(MAX_FIELDS).is_some() {
        let problem = Problem::too_large(format!("a form has at most {MAX_FIELDS} fields"));
        return PageError::from(problem).into_response();
    }
    let form = Form::parse(&bytes);
    drop(bytes);
    if form.holds_nul() {
        return nul_refused();
    }
    let given = form.raw_text("csrf");
    let known = !signed.csrf.is_empty();
    if !known || !bool::from(signed.csrf.as_bytes().ct_eq(given.as_bytes())) {
        return PageError::Expired.into_response();
    }
    parts.extensions.insert(form);
    next.run(Request::from_parts(parts, axum::body::Body::empty()))
        .await
}
