//! How many messages are ready in the broker's queues, for the alerts on backlogs and dead letters.

use std::time::Duration;

use trueup_ops::metrics::{self, QueueName};
use trueup_queue::connection::BrokerConnection;
use trueup_queue::{QueueError, topology};

const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A broker that does not say how long a queue is, is asked again later.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

const QUEUES: [(QueueName, &str); 4] = [
    (QueueName::Events, topology::QUEUE),
    (QueueName::Overflow, topology::OVERFLOW_QUEUE),
    (QueueName::Parked, topology::PARKED_QUEUE),
    (QueueName::Dead, topology::DEAD_QUEUE),
];

/// Looks again and again, for ever. A look that fails leaves the figures as they were; who settles meets
/// the end of the connection by itself.
pub async fn watch_depths(session: &BrokerConnection) -> std::convert::Infallible {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        look.tick().await;
        match tokio::time::timeout(TOLD_WITHIN, publish_queue_depths(session)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the queues could not be looked at"),
            Err(_) => tracing::debug!("the broker did not say how long its queues are"),
        }
    }
}

async fn publish_queue_depths(session: &BrokerConnection) -> Result<(), QueueError> {
    for (name, queue) in QUEUES {
        // One whose node is down is as good as not there: nothing is known of it.
        if let Some(depth) = topology::queue_depth(session.connection(), queue).await? {
            metrics::worker().queue_messages.set(name, depth);
        }
    }
    Ok(())
}
