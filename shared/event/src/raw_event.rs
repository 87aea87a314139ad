//! What the gateway puts on the broker: the request as it came, not yet read.
//!
//! The door decides nothing about a report but that it may come in. It splits a batch (X3), mints
//! ids and times, and hands the bytes on; the worker reads them under the rules as they stand then.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reason::Reason;

/// The version of the envelope's form. A worker refuses one that it does not know, by parking it.
pub const ENVELOPE_VERSION: u8 = 1;

/// One message on the broker: whole events, each settled by itself, acknowledged together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    pub v: u8,
    #[serde(default)]
    pub events: Vec<RawEvent>,
    /// Uses of secrets, bundled: the public process has no right to write them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets_used: Vec<SecretUse>,
}

impl Envelope {
    pub fn from_events(events: Vec<RawEvent>) -> Self {
        Envelope {
            v: ENVELOPE_VERSION,
            events,
            secrets_used: Vec::new(),
        }
    }
}

/// A secret that was accepted, and when last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretUse {
    pub secret_id: Uuid,
    pub at: Timestamp,
}

/// One accepted report, or a bundle of refused requests; either becomes exactly one row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawEvent {
    /// UUID v7, minted at the door from the same reading of the clock as `received_at`.
    pub id: Uuid,
    /// The gateway's clock, cut to microseconds.
    pub received_at: Timestamp,
    pub account_id: Uuid,
    pub webhook_id: Uuid,
    /// The place in its batch (0 to 499); 0 for a report that came alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub position: u16,
    pub source_ip: IpAddr,
    /// Absent on refused requests of which nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RawRequest>,
    /// Present if this is no report but a refusal (or a bundle of them).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: Reason,
    /// How many requests the row stands for (1 for a request to a paused webhook that is kept whole).
    pub count: u32,
}

/// The request's parts that a report can be read from. A secret in the query is already redacted.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(from = "WireRequest")]
pub struct RawRequest {
    pub method: String,
    /// The raw query, still percent-encoded, without the `?`.
    pub query: String,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
    /// True if `body` is one element of a batch that the gateway split (X3).
    pub element: bool,
}

/// On the wire a body that is UTF-8 stays readable text (an operator peeks at dead letters with the
/// broker's own tools); any other is base64.
#[derive(Deserialize)]
struct WireRequest {
    method: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_b64: Option<String>,
    #[serde(default)]
    element: bool,
}

/// [`WireRequest`] without a copy: each request is written twice on its way, to the broker and into its row.
#[derive(Serialize)]
struct WireRequestRef<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_b64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    element: bool,
}

impl From<WireRequest> for RawRequest {
    fn from(wire: WireRequest) -> Self {
        use base64::Engine;
        let body = match (wire.body, wire.body_b64) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(b64)) => base64::engine::general_purpose::STANDARD
                .decode(b64)
                .unwrap_or_default(),
            (None, None) => Vec::new(),
        };
        RawRequest {
            method: wire.method,
            query: wire.query,
            content_type: wire.content_type,
            body,
            element: wire.element,
        }
    }
}

impl Serialize for RawRequest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        let text = std::str::from_utf8(&self.body);
        WireRequestRef {
            method: &self.method,
            query: &self.query,
            content_type: self.content_type.as_deref(),
            body: text.ok().filter(|text| !text.is_empty()),
            body_b64: text
                .is_err()
                .then(|| base64::engine::general_purpose::STANDARD.encode(&self.body)),
            element: self.element,
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_survives_the_wire_whatever_the_bytes() {
        for body in [
            b"{\"payout\": 50}".to_vec(),
            vec![0xFF, 0x00, 0x80],
            Vec::new(),
        ] {
            let event = RawEvent {
                id: Uuid::nil(),
                received_at: "2026-03-14T12:02:10.123456Z".parse().expect("a time"),
                account_id: Uuid::nil(),
                webhook_id: Uuid::nil(),
                position: 3,
                source_ip: "::1".parse().expect("an address"),
                request: Some(RawRequest {
                    method: "POST".into(),
                    query: "a=%2B1".into(),
                    content_type: None,
                    body,
                    element: true,
                }),
                refusal: Some(Refusal {
                    reason: Reason::EndpointDisabled,
                    count: 1,
                }),
            };
            let envelope = Envelope::from_events(vec![event]);
            let text = serde_json::to_vec(&envelope).expect("plain data");
            assert_eq!(
                serde_json::from_slice::<Envelope>(&text).expect("our own"),
                envelope
            );
        }
    }
}
