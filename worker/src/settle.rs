//! The only place that acknowledges or rejects a message.
//!
//! An envelope is acked once, after all its events are committed; and only when those before it on its
//! channel are, so that one ack may stand for many.

use std::collections::VecDeque;

use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use trueup_shared::ops::metrics;

/// The deliveries of one channel that are not acked yet, in the order of their tags.
#[derive(Default)]
pub struct Unacked {
    taken: VecDeque<Taken>,
    /// The number of the first of them.
    first: u64,
}

struct Taken {
    acker: Acker,
    /// Events that are not committed yet.
    left: usize,
}

impl Unacked {
    /// Notes a delivery with this many events; returns the number by which they are told settled.
    pub fn take(&mut self, delivery: &Delivery, events: usize) -> u64 {
        self.taken.push_back(Taken { acker: delivery.acker.clone(), left: events });
        self.first + self.taken.len() as u64 - 1
    }

    /// Some of a delivery's events are committed.
    pub fn settled(&mut self, number: u64, events: usize) {
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(taken) = at.and_then(|at| self.taken.get_mut(at)) {
            taken.left = taken.left.saturating_sub(events);
        }
    }

    /// Acknowledges the deliveries whose events, and those of all before them, are committed.
    pub async fn ack(&mut self) -> lapin::Result<()> {
        let mut last = None;
        let mut count = 0;
        while self.taken.front().is_some_and(|taken| taken.left == 0) {
            last = self.taken.pop_front();
            self.first += 1;
            count += 1;
        }
        if let Some(last) = last {
            last.acker.ack(BasicAckOptions { multiple: true }).await?;
            metrics::worker().envelopes.add(&["acked"], count);
        }
        Ok(())
    }
}
