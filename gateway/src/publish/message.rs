//! One message to the broker: many requests' events, published and confirmed.

use std::time::{Duration, Instant};

use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation};
use trueup_event::envelope;
use trueup_event::raw_event::SecretUse;
use trueup_ops::metrics::{self, BrokerReply};
use trueup_queue::topology;
use uuid::Uuid;

use super::encoded_events::EncodedEvents;

/// From handing a message over to the broker's word; senders give up after 2 s.
const CONFIRM_WITHIN: Duration = Duration::from_millis(1500);

pub struct Message {
    bytes: Vec<u8>,
    /// Whose events they are, if they are all of one account.
    account: Option<Uuid>,
}

impl Message {
    pub fn assemble<'a>(group: impl Iterator<Item = &'a EncodedEvents> + Clone) -> Message {
        let parts = group.clone().flat_map(|events| events.parts.iter());
        let size = group
            .clone()
            .map(|events| events.amount.bytes + events.event_count())
            .sum();
        let uses: Vec<SecretUse> = group
            .clone()
            .flat_map(|events| events.uses.iter().cloned())
            .collect();
        let bytes =
            envelope::assemble_envelope(parts.map(|part| part.bytes.as_slice()), size, &uses);
        let mut accounts = group.clone().map(|events| events.account);
        let account = accounts.next().flatten();
        let is_of_one = uses.is_empty() && accounts.all(|of| of == account);
        let count = group.map(EncodedEvents::event_count).sum();
        metrics::gateway().envelope_events.observe_count(count);
        Message {
            bytes,
            account: account.filter(|_| is_of_one),
        }
    }

    pub async fn publish_on(&self, channel: &Channel) -> ConfirmOutcome {
        let figures = metrics::gateway();
        let began = Instant::now();
        let publishing = async {
            let options = BasicPublishOptions {
                mandatory: true,
                ..Default::default()
            };
            let (exchange, key) = (topology::EXCHANGE.into(), topology::ROUTING_KEY.into());
            let properties = topology::message_properties(self.account);
            channel
                .basic_publish(exchange, key, options, &self.bytes, properties)
                .await?
                .await
        };
        let (said, label) = match tokio::time::timeout(CONFIRM_WITHIN, publishing).await {
            Ok(Ok(confirmation)) => {
                figures.confirm_seconds.since(began);
                read_confirmation(&confirmation)
            }
            Ok(Err(_)) => (ConfirmOutcome::Nothing, BrokerReply::Error),
            Err(_) => (ConfirmOutcome::Nothing, BrokerReply::NoConfirm),
        };
        figures.publishes.inc(label);
        said
    }
}

/// What the broker said to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmOutcome {
    Taken,
    No,
    Returned,
    Nothing,
}

/// Only an ack that brings nothing back is success: an unroutable message is acked, too.
fn read_confirmation(confirmation: &Confirmation) -> (ConfirmOutcome, BrokerReply) {
    match confirmation {
        Confirmation::Ack(None) => (ConfirmOutcome::Taken, BrokerReply::Confirmed),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
            (ConfirmOutcome::Returned, BrokerReply::Returned)
        }
        Confirmation::Nack(None) => (ConfirmOutcome::No, BrokerReply::Nacked),
        // A channel without confirms would be a bug of ours.
        Confirmation::NotRequested => (ConfirmOutcome::Nothing, BrokerReply::Error),
    }
}
