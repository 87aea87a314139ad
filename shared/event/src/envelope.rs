//! An [`Envelope`] as a message: JSON, persistent, readable with the broker's own tools.
//!
//! It refuses what it does not know: a version of tomorrow is parked by the worker, not guessed at.

use serde::Deserialize;

use crate::raw_event::{
    BATCH_ENVELOPE_VERSION, ENVELOPE_VERSION, Envelope, RawEvent, SecretUse, is_batch_part,
};

/// The message's AMQP type.
pub const MESSAGE_TYPE: &str = "trueup.envelope";
/// A message above this was not written by us (bytes): some 1 MiB of events and a batch of 512 KiB, escaped as
/// JSON, stay below it.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

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
/// [`encode_batch`](crate::raw_event::encode_batch).
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
