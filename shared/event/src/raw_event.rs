//! What the gateway puts on the broker: the request as it came, not yet read.
//!
//! The door decides nothing about a report but that it may come in. It splits a batch (X3), mints
//! ids and times, and hands the bytes on; the worker reads them under the rules as they stand then.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::amount::Amount;
use crate::reason::Reason;

/// The version of an envelope of single events. A worker refuses one that it does not know, by parking it.
pub const ENVELOPE_VERSION: u8 = 1;
/// The version of an envelope in which a batch stands as one, what its elements share written once (X3).
pub const BATCH_ENVELOPE_VERSION: u8 = 2;

/// One message on the broker: whole events, each settled by itself, acknowledged together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "WireEnvelope")]
pub struct Envelope {
    pub v: u8,
    pub events: Vec<RawEvent>,
    /// Uses of secrets, bundled: the public process has no right to write them itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets_used: Vec<SecretUse>,
}

#[derive(Deserialize)]
struct WireEnvelope {
    v: u8,
    #[serde(default)]
    events: Vec<WireEvent>,
    #[serde(default)]
    secrets_used: Vec<SecretUse>,
}

impl From<WireEnvelope> for Envelope {
    fn from(wire: WireEnvelope) -> Self {
        let mut events = Vec::with_capacity(wire.events.len());
        for event in wire.events {
            event.expand_into(&mut events);
        }
        Envelope {
            v: wire.v,
            events,
            secrets_used: wire.secrets_used,
        }
    }
}

/// An event, or a batch: then `elements` holds what differs.
#[derive(Deserialize)]
struct WireEvent {
    #[serde(default)]
    elements: Vec<WireElement>,
    id: Uuid,
    received_at: Timestamp,
    account_id: Uuid,
    webhook_id: Uuid,
    #[serde(default)]
    position: u16,
    source_ip: IpAddr,
    #[serde(default)]
    request: Option<RawRequest>,
    #[serde(default)]
    refusal: Option<Refusal>,
}

#[derive(Deserialize)]
struct WireElement {
    id: Uuid,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_b64: Option<String>,
}

impl WireEvent {
    fn expand_into(self, events: &mut Vec<RawEvent>) {
        let first = RawEvent {
            id: self.id,
            received_at: self.received_at,
            account_id: self.account_id,
            webhook_id: self.webhook_id,
            position: self.position,
            source_ip: self.source_ip,
            request: self.request,
            refusal: self.refusal,
        };
        if self.elements.is_empty() {
            events.push(first);
            return;
        }
        let common = first.request.clone().unwrap_or_default();
        // A part of a batch begins at its first element's position, and names the batch's first event.
        let batch_of = common.batch_of.unwrap_or(first.id);
        let elements = self.elements.into_iter().zip(first.position..);
        events.extend(elements.map(|(element, position)| RawEvent {
            id: element.id,
            position,
            request: Some(RawRequest {
                body: body_of_wire(element.body, element.body_b64),
                element: true,
                batch_of: (position > 0).then_some(batch_of),
                ..common.clone()
            }),
            ..first.clone()
        }));
    }
}

/// One element of a batch, as it is written.
#[derive(Serialize)]
struct WireElementRef<'a> {
    id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_b64: Option<String>,
}

/// How a batch's part of an envelope begins; see [`encode_batch`].
const BATCH_BEGINS: &[u8] = b"{\"elements\":[";

/// True if this part of an envelope is a batch, or a part of one.
pub fn is_batch_part(part: &[u8]) -> bool {
    part.starts_with(BATCH_BEGINS)
}

/// A part of an envelope: an event, or elements of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPart {
    pub bytes: Vec<u8>,
    pub events: usize,
}

impl EventPart {
    pub fn amount(&self) -> Amount {
        Amount {
            events: self.events,
            bytes: self.bytes.len(),
        }
    }
}

/// The elements of one split batch as parts of an envelope: what they have in common stands in each part
/// once. No part is larger than `part_bytes` and what is common, unless a
/// single element is. `events` are those of one request, in order.
pub fn encode_batch(events: &[RawEvent], part_bytes: usize) -> Vec<EventPart> {
    let mut parts = Vec::new();
    let mut rest = events;
    while let Some(first) = rest.first() {
        let part = encode_batch_part(first, rest, part_bytes);
        rest = rest.get(part.events..).unwrap_or_default();
        parts.push(part);
    }
    parts
}

fn encode_batch_part(first: &RawEvent, events: &[RawEvent], part_bytes: usize) -> EventPart {
    const PLAIN: &str = "plain data with text keys always has a JSON form";
    let mut written = BATCH_BEGINS.to_vec();
    let mut count: usize = 0;
    for event in events {
        let end = written.len();
        if count > 0 {
            written.push(b',');
        }
        let body = event
            .request
            .as_ref()
            .map_or(&[][..], |request| &request.body);
        let (body, body_b64) = wire_body(body);
        let element = WireElementRef {
            id: event.id,
            body,
            body_b64,
        };
        serde_json::to_writer(&mut written, &element).expect(PLAIN);
        if count > 0 && written.len() > part_bytes {
            written.truncate(end);
            break;
        }
        count = count.saturating_add(1);
    }
    let common = RawEvent {
        request: first.request.as_ref().map(|request| RawRequest {
            body: Vec::new(),
            element: false,
            ..request.clone()
        }),
        ..first.clone()
    };
    let common = serde_json::to_vec(&common).expect(PLAIN);
    // Both are objects: the one's end and the other's beginning become a comma.
    written.extend_from_slice(b"],");
    written.extend_from_slice(common.get(1..).unwrap_or_default());
    EventPart {
        bytes: written,
        events: count,
    }
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
    /// The raw query, still percent-encoded, without the `?`. The elements of a batch share it.
    pub query: Arc<str>,
    pub content_type: Option<Arc<str>>,
    /// The request's `Content-Encoding`, if its body had one: `body` is what it stood for (X1b).
    pub content_encoding: Option<Arc<str>>,
    pub body: Vec<u8>,
    /// True if the body could not be decoded: it is here as it came.
    pub encoded: bool,
    /// True if `body` is one element of a batch that the gateway split (X3).
    pub element: bool,
    /// The event of the batch's first element, with which what they have in common is stored; none for that
    /// one itself.
    pub batch_of: Option<Uuid>,
}

impl RawRequest {
    /// As it is stored: what it has in common with its batch stands with the first element (X3).
    pub fn to_stored(&self) -> Option<String> {
        let (body, body_b64) = wire_body(&self.body);
        let is_first = self.batch_of.is_none();
        let stored = WireRequestRef {
            method: &self.method,
            query: if is_first { &self.query } else { "" },
            content_type: self.content_type.as_deref().filter(|_| is_first),
            content_encoding: self.content_encoding.as_deref().filter(|_| is_first),
            encoded: self.encoded,
            body,
            body_b64,
            element: self.element,
            batch_of: None,
        };
        // Plain data of our own: it always serialises.
        serde_json::to_string(&stored).ok()
    }

    /// As it was stored; `common` is the request of the batch's first element.
    pub fn from_stored(
        stored: &str,
        batch_of: Option<Uuid>,
        common: Option<&str>,
    ) -> serde_json::Result<RawRequest> {
        let request: RawRequest = serde_json::from_str(stored)?;
        let (Some(batch_of), Some(common)) = (batch_of, common) else {
            return Ok(RawRequest {
                batch_of,
                ..request
            });
        };
        let common: RawRequest = serde_json::from_str(common)?;
        Ok(RawRequest {
            query: common.query,
            content_type: common.content_type,
            content_encoding: common.content_encoding,
            batch_of: Some(batch_of),
            ..request
        })
    }
}

/// Readable text, or base64 where it is none, or where JSON would make it half as long again and more than a
/// line.
fn wire_body(body: &[u8]) -> (Option<&str>, Option<String>) {
    use base64::Engine;
    /// A short report stays readable, whatever its quotes.
    const LINE: usize = 512;
    let escapes: usize = body.iter().map(|byte| bytes_added_by_json(*byte)).sum();
    match std::str::from_utf8(body) {
        Ok("") => (None, None),
        Ok(text) if escapes <= LINE.max(body.len() / 2) => (Some(text), None),
        _ => (
            None,
            Some(base64::engine::general_purpose::STANDARD.encode(body)),
        ),
    }
}

/// What a byte takes in a JSON text beside itself.
const fn bytes_added_by_json(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 => 5,
        _ => 0,
    }
}

fn body_of_wire(body: Option<String>, body_b64: Option<String>) -> Vec<u8> {
    use base64::Engine;
    match (body, body_b64) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(b64)) => base64::engine::general_purpose::STANDARD
            .decode(b64)
            .unwrap_or_default(),
        (None, None) => Vec::new(),
    }
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
    content_encoding: Option<String>,
    #[serde(default)]
    encoded: bool,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_b64: Option<String>,
    #[serde(default)]
    element: bool,
    #[serde(default)]
    batch_of: Option<Uuid>,
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
    content_encoding: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    encoded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_b64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    element: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_of: Option<Uuid>,
}

impl From<WireRequest> for RawRequest {
    fn from(wire: WireRequest) -> Self {
        RawRequest {
            method: wire.method,
            query: wire.query.into(),
            content_type: wire.content_type.map(Into::into),
            content_encoding: wire.content_encoding.map(Into::into),
            encoded: wire.encoded,
            body: body_of_wire(wire.body, wire.body_b64),
            element: wire.element,
            batch_of: wire.batch_of,
        }
    }
}

impl Serialize for RawRequest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (body, body_b64) = wire_body(&self.body);
        WireRequestRef {
            method: &self.method,
            query: &self.query,
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            encoded: self.encoded,
            body,
            body_b64,
            element: self.element,
            batch_of: self.batch_of,
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
                    ..RawRequest::default()
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

    #[test]
    fn x3_what_a_batch_has_in_common_is_written_once() {
        let id = |n: usize| Uuid::from_u128(n as u128 + 1);
        let query: Arc<str> = "q=".to_owned().into();
        let query: Arc<str> = format!("{query}{}", "x".repeat(8_000)).into();
        let events: Vec<RawEvent> = (0..500)
            .map(|n| RawEvent {
                id: id(n),
                received_at: "2026-03-14T12:02:10.123456Z".parse().expect("a time"),
                account_id: Uuid::nil(),
                webhook_id: Uuid::nil(),
                position: u16::try_from(n).expect("small"),
                source_ip: "::1".parse().expect("an address"),
                request: Some(RawRequest {
                    method: "POST".into(),
                    query: Arc::clone(&query),
                    content_type: Some("application/json".into()),
                    body: if n == 7 {
                        vec![0xFF, 0]
                    } else {
                        b"{}".to_vec()
                    },
                    element: true,
                    batch_of: (n > 0).then(|| id(0)),
                    ..RawRequest::default()
                }),
                refusal: None,
            })
            .collect();
        let whole = encode_batch(&events, usize::MAX);
        let [
            EventPart {
                bytes: part,
                events: 500,
            },
        ] = whole.as_slice()
        else {
            panic!("one part of 500 events");
        };
        assert!(is_batch_part(part));
        let sent = query.len() + 3 * events.len();
        assert!(
            part.len() <= 4 * sent + 1_024 * events.len() && part.len() < 60_000,
            "{} bytes of a request of {sent}",
            part.len()
        );
        let envelope = [b"{\"v\":2,\"events\":[", part.as_slice(), b"]}"].concat();
        let read: Envelope = serde_json::from_slice(&envelope).expect("our own");
        assert_eq!(read.events, events);
        let shared = |n: usize| read.events.get(n).and_then(|e| e.request.as_ref());
        assert!(
            Arc::ptr_eq(
                &shared(0).expect("a request").query,
                &shared(499).expect("a request").query
            ),
            "in memory, too"
        );
        let stored: Vec<String> = events
            .iter()
            .filter_map(|e| e.request.as_ref()?.to_stored())
            .collect();
        assert!(stored[1].len() < 100, "{}", stored[1]);
        let again = RawRequest::from_stored(&stored[1], Some(id(0)), Some(&stored[0]));
        assert_eq!(again.ok().as_ref(), events[1].request.as_ref());
    }

    #[test]
    fn a_batch_in_parts_is_the_same_batch() {
        let id = |n: u16| Uuid::from_u128(u128::from(n) + 1);
        let events: Vec<RawEvent> = (0..9)
            .map(|n| RawEvent {
                id: id(n),
                received_at: Timestamp::UNIX_EPOCH,
                account_id: Uuid::nil(),
                webhook_id: Uuid::nil(),
                position: n,
                source_ip: IpAddr::from([192, 0, 2, 7]),
                request: Some(RawRequest {
                    method: "POST".into(),
                    query: "a=1".into(),
                    content_type: None,
                    // The fifth is larger than a part.
                    body: vec![b'x'; if n == 4 { 5_000 } else { 300 }],
                    element: true,
                    batch_of: (n > 0).then(|| id(0)),
                    ..RawRequest::default()
                }),
                refusal: None,
            })
            .collect();
        let parts = encode_batch(&events, 1_200);
        let counts: Vec<usize> = parts.iter().map(|part| part.events).collect();
        assert_eq!(counts, [3, 1, 1, 3, 1]);
        let mut read = Vec::new();
        for part in &parts {
            let envelope = [b"{\"v\":2,\"events\":[", part.bytes.as_slice(), b"]}"].concat();
            let envelope: Envelope = serde_json::from_slice(&envelope).expect("our own");
            read.extend(envelope.events);
        }
        assert_eq!(read, events);
    }

    #[test]
    fn no_body_takes_more_than_half_as_much_again() {
        let (text, b64) = wire_body(&[1; 3_000]);
        assert_eq!((text, b64.map(|b| b.len())), (None, Some(4_000)));
        let (text, b64) = wire_body(&[b'"'; 3_000]);
        assert_eq!((text, b64.map(|b| b.len())), (None, Some(4_000)));
        let (text, b64) = wire_body(b"{\n \"payout\": 50 }");
        assert!(text.is_some() && b64.is_none());
    }
}
