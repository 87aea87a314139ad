//! One queue's consumer, what of it is in hand, and giving back what was not settled.

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use trueup_queue::QueueError;
use trueup_queue::connection::BrokerConnection;

use crate::acknowledgement::UnackedDeliveries;

/// A consumer on a channel of its own, so that acking many at once is safe.
pub struct QueueConsumer {
    channel: Channel,
    consumer: Consumer,
    pub unacked: UnackedDeliveries,
}

impl QueueConsumer {
    pub async fn open_consumer(
        session: &BrokerConnection,
        queue: &'static str,
        prefetch: u16,
    ) -> Result<QueueConsumer, QueueError> {
        let channel = session.open_channel().await?;
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .map_err(QueueError::while_doing("set the prefetch"))?;
        let consumer = channel
            .basic_consume(
                queue.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(QueueError::while_doing(format!("consume {queue}")))?;
        Ok(QueueConsumer {
            channel,
            consumer,
            unacked: UnackedDeliveries::default(),
        })
    }

    /// The next delivery; `None` when the consumer is over: its queue is gone, or it held messages for
    /// too long. Nothing is lost if the future is dropped while it waits.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.consumer.next().await?.ok()
    }

    pub async fn acknowledge(&mut self) -> lapin::Result<()> {
        self.unacked.ack_settled().await
    }

    /// Takes no more. An error means that the connection is lost, and takes nothing either.
    pub async fn cancel(&self) -> lapin::Result<()> {
        self.channel
            .basic_cancel(self.consumer.tag(), BasicCancelOptions::default())
            .await
    }

    /// Gives back what is in hand: this worker is leaving, nothing failed.
    pub async fn cancel_and_requeue(&mut self, renewing: &Channel) {
        self.record_arrival();
        if let Err(error) = self.cancel().await {
            tracing::debug!(%error, "a consumer could not be cancelled");
            return;
        }
        self.record_arrival();
        self.unacked.nack_all(&self.channel, renewing).await;
    }

    /// What is here and was not looked at yet.
    fn record_arrival(&mut self) {
        while let Some(Some(Ok(delivery))) = self.consumer.next().now_or_never() {
            self.unacked.add_delivery(&delivery, 1);
        }
    }
}
