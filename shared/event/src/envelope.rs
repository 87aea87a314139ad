//! An [`Envelope`] as a message: JSON, persistent, readable with the broker's own tools.
//!
//! It refuses what it does not know: a version of tomorrow is parked by the worker, not guessed at.

use serde::Deserialize;

use crate::amount::Amount;
use crate::raw_event::{
    BATCH_ENVELOPE_VERSION, ENVELOPE_VERSION, Envelope, EventPart, RawEvent, SecretUse,
    encode_batch, is_batch_part,
};

/// The message's AMQP type.
pub const MESSAGE_TYPE: &str = "trueup.envelope";
/// A message above this was not written by us (bytes): some 1 MiB of events and a batch of 512 KiB, escaped as
/// JSON, stay below it.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a message (256 KiB), unless a single event is larger: the largest body (512 KiB, half of it again
/// where it is escaped) makes it 776 KiB. What a worker has fetched and not yet looked at is bounded by that
/// and by its prefetch.
pub const USUAL_BYTES: usize = 256 * 1024;
/// Events in one message at most; a batch request alone may hold as many.
pub const USUAL_EVENTS: usize = 500;
/// Both.
pub const USUAL_AMOUNT: Amount = Amount {
    events: USUAL_EVENTS,
    bytes: USUAL_BYTES,
};

#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the message has {0} bytes, above the limit of {MAX_BYTES}")]
    TooLarge(usize),
    #[error("the message is no envelope: {0}")]
    Malformed(serde_json::Error),
    #[error(
        "the envelope's version is {0}; this program knows {ENVELOPE_VERSION} and {BATCH_ENVELOPE_VERSION}"
    )]
    UnknownVersion(u64),
}

pub fn encode_envelope(envelope: &Envelope) -> Vec<u8> {
    serde_json::to_vec(envelope).expect("plain data with text keys always has a JSON form")
}

/// Events as parts of envelopes: successive elements of one batch together, in parts of at most `part_bytes`
/// (see [`encode_batch`]), any other event by itself.
pub fn encode_in_parts(events: &[RawEvent], part_bytes: usize) -> Vec<EventPart> {
    let runs = events.chunk_by(is_next_element);
    let mut parts = Vec::new();
    for run in runs {
        match run {
            [one] => parts.push(EventPart {
                bytes: encode_event(one),
                events: 1,
            }),
            elements => parts.extend(encode_batch(elements, part_bytes)),
        }
    }
    parts
}

/// The parts of each message, of which none holds more than [`USUAL_AMOUNT`], unless a single part does.
pub fn split_for_messages(parts: &[EventPart]) -> Vec<&[EventPart]> {
    let mut messages = Vec::new();
    let mut rest = parts;
    while !rest.is_empty() {
        let mut amount = Amount::default();
        let fits = rest.iter().take_while(|part| {
            let is_first = amount == Amount::default();
            amount.add(part.amount());
            is_first || amount.is_within(USUAL_AMOUNT)
        });
        let (message, others) = rest.split_at(fits.count());
        messages.push(message);
        rest = others;
    }
    messages
}

/// The next element of the same batch.
fn is_next_element(one: &RawEvent, next: &RawEvent) -> bool {
    let head = |event: &RawEvent| {
        let request = event.request.as_ref().filter(|request| request.element);
        request.map(|request| request.batch_of.unwrap_or(event.id))
    };
    head(one).is_some()
        && head(one) == head(next)
        && one.position.checked_add(1) == Some(next.position)
}

/// One event's part of an envelope, for [`assemble_envelope`]: a gateway writes each event once, whatever way
/// it then goes.
#[allow(
    clippy::arithmetic_side_effects,
    reason = "capacities: what is added up is in memory already"
)]
pub fn encode_event(event: &RawEvent) -> Vec<u8> {
    /// Ids, times and names; a body's quotes are escaped.
    const BESIDE_THE_BODY: usize = 512;
    let body = event
        .request
        .as_ref()
        .map_or(0, |request| request.body.len() + request.query.len());
    let mut written = Vec::with_capacity(body + body / 4 + BESIDE_THE_BODY);
    serde_json::to_writer(&mut written, event)
        .expect("plain data with text keys always has a JSON form");
    written
}

/// The message that holds these parts: events of [`encode_event`], batches of
/// [`encode_batch`].
#[allow(
    clippy::arithmetic_side_effects,
    reason = "capacities: what is added up is in memory already"
)]
pub fn assemble_envelope<'a>(
    events: impl Iterator<Item = &'a [u8]> + Clone,
    bytes: usize,
    uses: &[SecretUse],
) -> Vec<u8> {
    // With a comma for each event and the frame around them.
    let mut message = Vec::with_capacity(bytes + 1024);
    let version = if events.clone().any(is_batch_part) {
        BATCH_ENVELOPE_VERSION
    } else {
        ENVELOPE_VERSION
    };
    message.extend_from_slice(format!("{{\"v\":{version},\"events\":[").as_bytes());
    for (at, event) in events.enumerate() {
        if at > 0 {
            message.push(b',');
        }
        message.extend_from_slice(event);
    }
    message.push(b']');
    if !uses.is_empty() {
        let uses = serde_json::to_vec(uses).expect("plain data always has a JSON form");
        message.extend_from_slice(b",\"secrets_used\":");
        message.extend_from_slice(&uses);
    }
    message.push(b'}');
    message
}

pub fn decode_envelope(message: &[u8]) -> Result<Envelope, EnvelopeError> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    if message.len() > MAX_BYTES {
        return Err(EnvelopeError::TooLarge(message.len()));
    }
    match serde_json::from_slice::<Envelope>(message) {
        Ok(envelope) if is_known(envelope.v.into()) => Ok(envelope),
        Ok(envelope) => Err(EnvelopeError::UnknownVersion(envelope.v.into())),
        // A later version may differ in form as well: say the version if there is one.
        Err(error) => match serde_json::from_slice::<Version>(message) {
            Ok(Version { v }) if !is_known(v) => Err(EnvelopeError::UnknownVersion(v)),
            _ => Err(EnvelopeError::Malformed(error)),
        },
    }
}

fn is_known(version: u64) -> bool {
    [ENVELOPE_VERSION, BATCH_ENVELOPE_VERSION]
        .map(u64::from)
        .contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_put_together_is_the_envelope() {
        let event = RawEvent {
            id: uuid::Uuid::nil(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            account_id: uuid::Uuid::nil(),
            webhook_id: uuid::Uuid::nil(),
            position: 0,
            source_ip: std::net::IpAddr::from([192, 0, 2, 7]),
            request: None,
            refusal: None,
        };
        for n in [0, 1, 3] {
            let parts: Vec<Vec<u8>> = std::iter::repeat_n(encode_event(&event), n).collect();
            let message = assemble_envelope(parts.iter().map(Vec::as_slice), 0, &[]);
            let mut envelope = Envelope::from_events(vec![event.clone(); n]);
            assert_eq!(message, encode_envelope(&envelope));
            let used = SecretUse {
                secret_id: uuid::Uuid::nil(),
                at: jiff::Timestamp::UNIX_EPOCH,
            };
            let message = assemble_envelope(
                parts.iter().map(Vec::as_slice),
                0,
                std::slice::from_ref(&used),
            );
            envelope.secrets_used.push(used);
            assert_eq!(message, encode_envelope(&envelope));
        }
    }

    #[test]
    fn events_in_parts_are_the_same_events_and_a_batch_stays_together() {
        let id = |n: u128| uuid::Uuid::from_u128(n);
        let element = |n: u16, head: u128| RawEvent {
            id: id(head + u128::from(n)),
            received_at: jiff::Timestamp::UNIX_EPOCH,
            account_id: uuid::Uuid::nil(),
            webhook_id: uuid::Uuid::nil(),
            position: n,
            source_ip: std::net::IpAddr::from([192, 0, 2, 7]),
            request: Some(crate::raw_event::RawRequest {
                method: "POST".into(),
                query: "q=1".into(),
                element: true,
                batch_of: (n > 0).then(|| id(head)),
                ..Default::default()
            }),
            refusal: None,
        };
        let single = RawEvent {
            request: None,
            ..element(0, 900)
        };
        // A batch, a report alone, another batch of which one element is missing.
        let mut events: Vec<RawEvent> = (0..3).map(|n| element(n, 100)).collect();
        events.push(single);
        events.extend([0, 1, 3].map(|n| element(n, 200)));
        let parts = encode_in_parts(&events, 10_000);
        let counts: Vec<usize> = parts.iter().map(|part| part.events).collect();
        assert_eq!(counts, [3, 1, 2, 1]);
        let message = assemble_envelope(parts.iter().map(|part| part.bytes.as_slice()), 0, &[]);
        assert_eq!(decode_envelope(&message).expect("our own").events, events);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let good = encode_envelope(&Envelope::from_events(Vec::new()));
        assert_eq!(
            decode_envelope(&good).expect("its own"),
            Envelope::from_events(Vec::new())
        );
        assert!(matches!(
            decode_envelope(b"{\"v\":3,\"rows\":[1]}"),
            Err(EnvelopeError::UnknownVersion(3))
        ));
        assert!(matches!(
            decode_envelope(b"{\"v\":1,\"events\":7}"),
            Err(EnvelopeError::Malformed(_))
        ));
        assert!(matches!(
            decode_envelope(b"hello"),
            Err(EnvelopeError::Malformed(_))
        ));
    }
}
