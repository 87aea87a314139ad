//! Every answer of the door: status, headers, body. Status codes are written here and nowhere else.
//!
//! The texts are for the sender's developer: they say what to do, and nothing of our inside.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ALLOW, CONNECTION, CONTENT_TYPE,
    HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use trueup_ops::metrics::ResponseKind;
use uuid::Uuid;

use crate::content_encoding::KNOWN;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, HEAD, OPTIONS");
/// A page in a browser may report from anywhere: who may is decided by the token and the secret.
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
/// The star stands for all others but `Authorization`.
const ANY_HEADERS: HeaderValue =
    HeaderValue::from_static("X-Webhook-Secret, Content-Type, Content-Encoding, Authorization, *");
/// Seconds: a day, more than browsers remember a preflight.
const PREFLIGHT_HOLDS: HeaderValue = HeaderValue::from_static("86400");
/// When to come again after a 503: an outage of the broker is found out within a few seconds.
const RETRY_UNAVAILABLE: HeaderValue = HeaderValue::from_static("5");

/// What the door says.
#[derive(Debug, Clone, PartialEq)]
pub enum IngestResponse {
    /// Durably taken.
    Accepted(Uuid),
    AcceptedBatch(Vec<Uuid>),
    /// The seed's words, exactly.
    Paused,
    /// To a browser that asks whether it may send a report.
    Preflight,
    SecretMissing,
    SecretWrong,
    NotFound,
    MethodNotAllowed,
    Malformed(&'static str),
    HeadTooSlow,
    BodyTooSlow,
    BodyTooLarge,
    BatchTooLong {
        limit: usize,
    },
    DecodedTooLarge,
    UnknownEncoding,
    UriTooLong,
    HeadTooLarge,
    Limited {
        by: LimitedBy,
        limit: u32,
        retry_after: Duration,
    },
    Unavailable(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    Address,
    Token,
}

pub const BROKER_AWAY: &str = "the report could not be stored durably; send it again";
pub const BUSY: &str = "too many reports are being stored at this moment; send it again";
pub const LIMITS_UNKNOWN: &str = "limits cannot be checked at this moment; send it again";
pub const NO_HTTP: &str = "malformed HTTP: check the first line and the headers; in a URL, spaces, quotes and angle brackets must be percent-encoded";
pub const STARTING: &str = "the service is starting; send it again";

impl IngestResponse {
    pub fn status(&self) -> StatusCode {
        match self {
            IngestResponse::Accepted(_)
            | IngestResponse::AcceptedBatch(_)
            | IngestResponse::Paused => StatusCode::OK,
            IngestResponse::Preflight => StatusCode::NO_CONTENT,
            IngestResponse::SecretMissing | IngestResponse::SecretWrong => StatusCode::UNAUTHORIZED,
            IngestResponse::NotFound => StatusCode::NOT_FOUND,
            IngestResponse::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            IngestResponse::Malformed(_) => StatusCode::BAD_REQUEST,
            IngestResponse::HeadTooSlow | IngestResponse::BodyTooSlow => {
                StatusCode::REQUEST_TIMEOUT
            }
            IngestResponse::BodyTooLarge
            | IngestResponse::BatchTooLong { .. }
            | IngestResponse::DecodedTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            IngestResponse::UnknownEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            IngestResponse::UriTooLong => StatusCode::URI_TOO_LONG,
            IngestResponse::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            IngestResponse::Limited { .. } => StatusCode::TOO_MANY_REQUESTS,
            IngestResponse::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// As the metrics count it.
    pub fn kind(&self) -> ResponseKind {
        match self {
            IngestResponse::Accepted(_) | IngestResponse::AcceptedBatch(_) => {
                ResponseKind::Accepted
            }
            IngestResponse::Paused => ResponseKind::Paused,
            IngestResponse::Preflight => ResponseKind::Preflight,
            IngestResponse::SecretMissing | IngestResponse::SecretWrong => {
                ResponseKind::Unauthorized
            }
            IngestResponse::NotFound => ResponseKind::NotFound,
            IngestResponse::MethodNotAllowed => ResponseKind::MethodNotAllowed,
            IngestResponse::Malformed(_) => ResponseKind::Malformed,
            IngestResponse::HeadTooSlow | IngestResponse::BodyTooSlow => ResponseKind::TooSlow,
            IngestResponse::BodyTooLarge
            | IngestResponse::BatchTooLong { .. }
            | IngestResponse::DecodedTooLarge => ResponseKind::BodyTooLarge,
            IngestResponse::UnknownEncoding => ResponseKind::UnknownEncoding,
            IngestResponse::UriTooLong => ResponseKind::UriTooLong,
            IngestResponse::HeadTooLarge => ResponseKind::HeadTooLarge,
            IngestResponse::Limited {
                by: LimitedBy::Address,
                ..
            } => ResponseKind::LimitedAddress,
            IngestResponse::Limited {
                by: LimitedBy::Token,
                ..
            } => ResponseKind::LimitedToken,
            IngestResponse::Unavailable(_) => ResponseKind::Unavailable,
        }
    }

    fn json_body(&self) -> String {
        match self {
            // The most frequent one, without the formatter's detours.
            IngestResponse::Accepted(id) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                [
                    "{\"ok\":true,\"event_id\":\"",
                    id.hyphenated().encode_lower(&mut text),
                    "\"}",
                ]
                .concat()
            }
            IngestResponse::AcceptedBatch(ids) => {
                let ids: Vec<String> = ids.iter().map(|id| format!("\"{id}\"")).collect();
                format!("{{\"ok\":true,\"event_ids\":[{}]}}", ids.join(","))
            }
            IngestResponse::Paused => refusal_body("endpoint disabled"),
            IngestResponse::Preflight => String::new(),
            IngestResponse::SecretMissing => {
                refusal_body("secret missing: send it in the header X-Webhook-Secret")
            }
            IngestResponse::SecretWrong => {
                refusal_body("secret mismatch: it may have been rotated")
            }
            IngestResponse::NotFound => refusal_body("not found: check the webhook's URL"),
            IngestResponse::MethodNotAllowed => {
                refusal_body("method not allowed: use GET, POST, PUT, PATCH or HEAD")
            }
            IngestResponse::Malformed(what) => refusal_body(what),
            IngestResponse::HeadTooSlow => {
                refusal_body("the request's head did not arrive in time")
            }
            IngestResponse::BodyTooSlow => {
                refusal_body("the request's body did not arrive in time")
            }
            IngestResponse::BodyTooLarge => {
                refusal_body("body too large: the limit is 64 KiB, and 512 KiB for a batch")
            }
            IngestResponse::BatchTooLong { limit } => refusal_body(&format!(
                "batch too long: the limit is {limit} reports in one request"
            )),
            IngestResponse::DecodedTooLarge => refusal_body(
                "body too large: decoded, the limit is 64 KiB, 512 KiB for a batch, and 100 times its encoded size",
            ),
            IngestResponse::UnknownEncoding => {
                refusal_body(&format!("content encoding not known: use {KNOWN}, or none"))
            }
            IngestResponse::UriTooLong => {
                refusal_body("URL too long: the limit is 8 KiB; send the fields in the body")
            }
            IngestResponse::HeadTooLarge => {
                refusal_body("the request's head is too large: the limit is 100 headers and 24 KiB")
            }
            IngestResponse::Limited {
                by: LimitedBy::Address,
                limit,
                ..
            } => {
                format!(
                    "{{\"ok\":false,\"reason\":\"rate limit: {limit} requests a minute from one address\"}}"
                )
            }
            IngestResponse::Limited {
                by: LimitedBy::Token,
                limit,
                ..
            } => {
                format!(
                    "{{\"ok\":false,\"reason\":\"rate limit: {limit} requests a minute to this webhook\"}}"
                )
            }
            IngestResponse::Unavailable(why) => refusal_body(why),
        }
    }

    /// True if what the sender still has to say of this request will not be read.
    pub fn ends_connection(&self) -> bool {
        matches!(
            self,
            IngestResponse::BodyTooLarge
                | IngestResponse::BodyTooSlow
                | IngestResponse::HeadTooSlow
                | IngestResponse::HeadTooLarge
                | IngestResponse::UriTooLong
                | IngestResponse::Malformed(_)
        )
    }

    pub fn to_response(&self, unread_body: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.json_body())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
        if *self == IngestResponse::Preflight {
            headers.insert(ALLOW, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ANY_HEADERS);
            headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_HOLDS);
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match self {
            IngestResponse::UnknownEncoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(KNOWN));
            }
            IngestResponse::MethodNotAllowed => drop(headers.insert(ALLOW, METHODS)),
            IngestResponse::Unavailable(_) => drop(headers.insert(RETRY_AFTER, RETRY_UNAVAILABLE)),
            IngestResponse::Limited {
                by,
                limit,
                retry_after,
            } => rate_limit(headers, *by, *limit, *retry_after),
            _ => {}
        }
        if unread_body || self.ends_connection() {
            close_connection(&mut response);
        }
        response
    }

    /// The whole answer as bytes, for a connection that never became a request that can be answered
    /// in the ordinary way. It ends the connection.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.json_body();
        let retry = match self {
            IngestResponse::Unavailable(_) => "retry-after: 5\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\naccess-control-allow-origin: *\r\nconnection: close\r\n{retry}content-length: {}\r\n\r\n",
            self.status(),
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }
}

/// After this answer the connection ends.
pub fn close_connection(response: &mut Response<Full<Bytes>>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

fn refusal_body(reason: &str) -> String {
    ["{\"ok\":false,\"reason\":\"", reason, "\"}"].concat()
}

/// `RateLimit` and `RateLimit-Policy` as in the IETF's draft (ratelimit-headers), `Retry-After` for
/// everybody else. Rounded up: who comes at that second is let in.
fn rate_limit(headers: &mut HeaderMap, by: LimitedBy, limit: u32, retry_after: Duration) {
    let seconds = retry_after.as_millis().div_ceil(1000).max(1);
    let name = match by {
        LimitedBy::Address => "address",
        LimitedBy::Token => "webhook",
    };
    headers.insert(
        RETRY_AFTER,
        HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)),
    );
    let texts = [
        (RATE_LIMIT_POLICY, format!("\"{name}\";q={limit};w=60")),
        (RATE_LIMIT, format!("\"{name}\";r=0;t={seconds}")),
    ];
    for (header, text) in texts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paused_answer_is_the_seeds_to_the_letter() {
        assert_eq!(
            IngestResponse::Paused.json_body(),
            r#"{"ok":false,"reason":"endpoint disabled"}"#
        );
        assert_eq!(IngestResponse::Paused.status(), StatusCode::OK);
    }

    #[test]
    fn every_body_is_json() {
        let some = [
            IngestResponse::AcceptedBatch(vec![Uuid::nil(), Uuid::nil()]),
            IngestResponse::Limited {
                by: LimitedBy::Token,
                limit: 200,
                retry_after: Duration::from_millis(1),
            },
            IngestResponse::BodyTooLarge,
            IngestResponse::Unavailable(BROKER_AWAY),
        ];
        for answer in some {
            serde_json::from_str::<serde_json::Value>(&answer.json_body()).expect("JSON");
        }
    }
}
