//! The only place that acknowledges or rejects a message.
//!
//! An envelope is acked once, after all its events are committed. `multiple` is safe because a round
//! is settled as a whole before its last delivery is acked, and rounds follow one another.

use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use trueup_shared::ops::metrics;

/// Acknowledges every delivery of a round; `deliveries` is in the order of their tags, of one channel.
pub async fn ack_round(deliveries: &[Delivery]) -> lapin::Result<()> {
    let Some(last) = deliveries.last() else { return Ok(()) };
    last.ack(BasicAckOptions { multiple: true }).await?;
    metrics::worker().envelopes.add(&["acked"], deliveries.len() as u64);
    Ok(())
}
