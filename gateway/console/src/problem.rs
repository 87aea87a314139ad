//! Every error of the operator API: RFC 9457 `application/problem+json`, naming the field.
//!
//! Public text is not internal text: what Postgres said is logged here, once, and never sent.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use trueup_store::StoreError;
use utoipa::ToSchema;

use crate::passwords::HashError;

/// What a client waits before it asks again while Postgres is away (seconds).
const UNAVAILABLE_RETRY_SECONDS: &str = "1";
/// What a client waits before it asks again while its own account is busy (seconds).
const BUSY_RETRY_SECONDS: &str = "5";

/// When to ask again, where it is worth it.
pub fn retry_after(status: StatusCode) -> Option<HeaderValue> {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Some(UNAVAILABLE_RETRY_SECONDS),
        StatusCode::TOO_MANY_REQUESTS => Some(BUSY_RETRY_SECONDS),
        _ => None,
    }
    .map(HeaderValue::from_static)
}

/// One field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct FieldError {
    /// The field's name; dotted where it is inside an object, empty if the whole is meant.
    pub field: String,
    /// What is wrong with it, and what it must be.
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        FieldError {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// The body of every error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// A URN that names the kind of error; it does not change between versions.
    #[schema(example = "urn:trueup:problem:invalid_field")]
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do.
    pub detail: String,
    /// The first field at fault, where it is about a field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
    /// Every field at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
    /// The fields that are known here, where an unknown one was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub known_fields: Vec<&'static str>,
}

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    known_fields: Vec<&'static str>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Problem {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            known_fields: Vec::new(),
        }
    }

    /// The request's fields are not as they must be; `faults` must not be empty.
    pub fn invalid_fields(faults: Vec<FieldError>, known_fields: Vec<&'static str>) -> Self {
        let detail = faults
            .iter()
            .map(|f| {
                if f.field.is_empty() {
                    f.message.clone()
                } else {
                    format!("{}: {}", f.field, f.message)
                }
            })
            .collect::<Vec<_>>()
            .join("; ");
        let code = if known_fields.is_empty() {
            "invalid_field"
        } else {
            "unknown_field"
        };
        Problem {
            errors: faults,
            known_fields,
            ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
        }
    }

    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::invalid_fields(
            vec![FieldError {
                field: field.into(),
                message: message.into(),
            }],
            Vec::new(),
        )
    }

    pub fn malformed(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "malformed_body", detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub fn too_slow(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail)
    }

    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The same for an object that is not there and for one of another account.
    pub fn not_found(what: &str) -> Self {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("this account has no such {what}"),
        )
    }

    pub fn no_route() -> Self {
        let detail = "no such address; every one is in /api/v1/openapi.json";
        Problem::new(StatusCode::NOT_FOUND, "no_route", detail)
    }

    pub fn method_not_allowed() -> Self {
        let detail = "this address does not take that method; the Allow header says which it takes";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, code, detail)
    }

    pub fn unavailable(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// The account has as much under way as it may.
    pub fn busy(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail)
    }

    pub fn internal() -> Self {
        let detail =
            "something went wrong here; nothing of this request was kept, and the log says more";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The fields at fault, where it is about fields.
    pub fn faults(&self) -> &[FieldError] {
        &self.errors
    }

    /// The same problem with more said.
    pub fn with_detail(mut self, more: &str) -> Self {
        self.detail.push_str("; ");
        self.detail.push_str(more);
        self
    }
}

/// SQLSTATE of a statement that Postgres ended at its time-out.
const STATEMENT_TIMEOUT: &str = "57014";

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.sqlstate() == Some(STATEMENT_TIMEOUT) {
            tracing::warn!(%error, "a statement took too long");
            return Problem::unavailable(
                "the database took too long; ask for less, or again later",
            );
        }
        if error.is_unreachable() || error.is_transient() {
            tracing::warn!(%error, "the database did not answer");
            return Problem::unavailable(
                "the database is out of reach just now; nothing was lost, ask again",
            );
        }
        tracing::error!(%error, "the database refused a statement");
        Problem::internal()
    }
}

impl From<HashError> for Problem {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Problem::unavailable(error.to_string()),
            HashError::Failed(why) => {
                tracing::error!(%why, "a password could not be hashed");
                Problem::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            r#type: format!("urn:trueup:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            field: self.errors.first().map(|f| f.field.clone()),
            errors: self.errors,
            known_fields: self.known_fields,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after(self.status) {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
