//! The only place that acknowledges or rejects a message.
//!
//! An envelope is acked once, after all its events are committed; and only when those before it on its
//! channel are, so that one ack may stand for many. Behind one whose event has stepped aside (V12), each is
//! acked by itself: nobody waits for it.
//!
//! What is not settled goes back by `nack`, which says "I am leaving", never by `reject`, which says
//! "this message failed": from RabbitMQ 4.3 on the first does not count towards the delivery limit. On
//! 3.10 both count, so that a message which came back often is put on the queue anew instead.

use std::collections::VecDeque;

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, Channel};
use trueup_ops::crash_points::{self, Point};
use trueup_ops::metrics::{self, EnvelopeOutcome};
use trueup_queue::topology;

/// A worker without Postgres gives its messages back; after so many deliveries each goes back as a
/// new message. Far below the limit of 50, so that deaths of workers have room, too.
const RENEW_AT: i64 = 10;

/// The deliveries of one channel that are not acked yet, in the order of their tags.
#[derive(Default)]
pub struct UnackedDeliveries {
    taken: VecDeque<PendingDelivery>,
    /// The number of the first of them.
    first: u64,
}

struct PendingDelivery {
    acker: Acker,
    /// Events that are not committed yet.
    left: usize,
    /// One of them has stepped aside: somebody holds its call.
    is_aside: bool,
    /// It was acked by itself, before those ahead of it.
    is_acked: bool,
    /// The message, if it has come so often that it is renewed rather than given back.
    renew: Option<Vec<u8>>,
}

impl UnackedDeliveries {
    /// Notes a delivery with this many events; returns the number by which they are told settled.
    pub fn add_delivery(&mut self, delivery: &Delivery, events: usize) -> u64 {
        let renew = (deliveries_before(delivery) >= RENEW_AT).then(|| delivery.data.clone());
        self.taken.push_back(PendingDelivery {
            acker: delivery.acker.clone(),
            left: events,
            is_aside: false,
            is_acked: false,
            renew,
        });
        self.first + self.taken.len() as u64 - 1
    }

    /// No delivery is in hand.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// A delivery that was taken as one piece is settled by its events after all.
    pub fn set_events(&mut self, number: u64, events: usize) {
        if let Some(taken) = self.find_delivery(number) {
            taken.left = events;
        }
    }

    /// Some of a delivery's events are committed.
    pub fn mark_settled(&mut self, number: u64, events: usize) {
        if let Some(taken) = self.find_delivery(number) {
            taken.left = taken.left.saturating_sub(events);
        }
    }

    /// An event of that delivery has stepped aside: those behind it do not wait for it.
    pub fn mark_aside(&mut self, number: u64) {
        if let Some(taken) = self.find_delivery(number) {
            taken.is_aside = true;
        }
    }

    fn find_delivery(&mut self, number: u64) -> Option<&mut PendingDelivery> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.taken.get_mut(at)
    }

    /// Acknowledges the deliveries whose events, and those of all before them, are committed.
    pub async fn ack_settled(&mut self) -> lapin::Result<()> {
        let mut last = None;
        let mut count = 0;
        while self.taken.front().is_some_and(|taken| taken.left == 0) {
            let taken = self.taken.pop_front();
            self.first += 1;
            if let Some(taken) = taken.filter(|taken| !taken.is_acked) {
                last = Some(taken);
                count += 1;
            }
        }
        self.ack_behind_one_aside().await?;
        if let Some(last) = last {
            last.acker.ack(BasicAckOptions { multiple: true }).await?;
            metrics::worker()
                .envelopes
                .add(EnvelopeOutcome::Acked, count);
            crash_points::point(Point::BetweenAcks);
        }
        Ok(())
    }

    async fn ack_behind_one_aside(&mut self) -> lapin::Result<()> {
        if !self.taken.front().is_some_and(|taken| taken.is_aside) {
            return Ok(());
        }
        let settled = |taken: &&mut PendingDelivery| taken.left == 0 && !taken.is_acked;
        for taken in self.taken.iter_mut().filter(settled) {
            taken.acker.ack(BasicAckOptions::default()).await?;
            taken.is_acked = true;
            metrics::worker().envelopes.inc(EnvelopeOutcome::Acked);
        }
        Ok(())
    }

    /// Gives back all that the channel holds. `renewing` is a channel with confirms. Whatever fails
    /// here ends with the connection: then the broker has it all.
    pub async fn nack_all(&mut self, channel: &Channel, renewing: &Channel) {
        for taken in self.taken.drain(..) {
            if let Some(message) = taken.renew.as_ref().filter(|_| !taken.is_acked) {
                republish_and_ack(&taken.acker, message, renewing).await;
            }
        }
        // Tag 0 with `multiple`: everything that is not acked yet.
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        if let Err(error) = channel.basic_nack(0, all).await {
            tracing::debug!(%error, "messages go back with the connection");
        }
    }
}

/// First the copy, confirmed, then the ack: a death in between leaves two, and ids are settled once.
async fn republish_and_ack(acker: &Acker, message: &[u8], renewing: &Channel) {
    match topology::publish_event(renewing, None, message).await {
        Ok(()) => {
            if let Err(error) = acker.ack(BasicAckOptions::default()).await {
                tracing::debug!(%error, "a message that was put on the queue anew stays there twice");
            }
        }
        Err(error) => tracing::debug!(%error, "a message goes back with its count of deliveries"),
    }
}

/// How often the broker has delivered a message before, by its own count.
fn deliveries_before(delivery: &Delivery) -> i64 {
    let headers = delivery.properties.headers().as_ref();
    headers
        .and_then(|table| table.inner().get("x-delivery-count"))
        .and_then(|n| n.as_long_long_int())
        .unwrap_or(0)
}
