//! The broker's topology and a connection's life, on a real RabbitMQ.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicRejectOptions, QueueDeleteOptions};
use secrecy::SecretString;
use trueup_event::envelope;
use trueup_event::raw_event::Envelope;
use trueup_queue::connection::BrokerConnection;
use trueup_queue::topology::{self, QueueBounds};
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::eventually;
use trueup_testkit::tcp_proxy::FaultProxy;

const BOUNDS: QueueBounds = QueueBounds {
    messages: NonZeroU32::new(1000).expect("not zero"),
    bytes: NonZeroU64::MAX,
};
const ONE_MESSAGE: QueueBounds = QueueBounds {
    messages: NonZeroU32::MIN,
    ..BOUNDS
};
const ONE_BYTE: QueueBounds = QueueBounds {
    bytes: NonZeroU64::MIN,
    ..BOUNDS
};

#[tokio::test]
async fn declaring_is_repeatable_also_with_another_bound() {
    let lease = Lease::acquire().await;
    let broker = lease.broker().await;
    topology::declare_topology(broker.connection(), BOUNDS)
        .await
        .expect("declares");
    topology::declare_topology(broker.connection(), BOUNDS)
        .await
        .expect("again");
    topology::declare_topology(broker.connection(), ONE_MESSAGE)
        .await
        .expect("what exists is used as it is");
    assert_eq!(
        topology::queue_depth(broker.connection(), topology::QUEUE)
            .await
            .expect("looks"),
        Some(0)
    );
    assert_eq!(
        topology::queue_depth(broker.connection(), "no.such.queue")
            .await
            .expect("looks"),
        None
    );
    assert!(
        broker.is_open(),
        "a refusal costs a channel, not the connection"
    );
}

#[tokio::test]
async fn an_event_without_a_queue_is_parked_and_nothing_is_acked_into_the_void() {
    let lease = Lease::acquire().await;
    let broker = lease.broker().await;
    topology::declare_topology(broker.connection(), BOUNDS)
        .await
        .expect("declares");
    let channel = broker.confirm_channel().await.expect("a channel");
    let message = envelope::encode_envelope(&Envelope::from_events(Vec::new()));
    topology::publish_event(&channel, None, &message)
        .await
        .expect("taken");
    channel
        .queue_delete(topology::QUEUE.into(), QueueDeleteOptions::default())
        .await
        .expect("deletes");
    topology::publish_event(&channel, None, &message)
        .await
        .expect("parked");
    assert_eq!(
        topology::queue_depth(broker.connection(), topology::PARKED_QUEUE)
            .await
            .expect("looks"),
        Some(1)
    );
    channel
        .queue_delete(topology::PARKED_QUEUE.into(), QueueDeleteOptions::default())
        .await
        .expect("deletes");
    topology::publish_event(&channel, None, &message)
        .await
        .expect_err("nobody has it");
    topology::declare_topology(broker.connection(), BOUNDS)
        .await
        .expect("declares what is missing");
    topology::publish_event(&channel, None, &message)
        .await
        .expect("taken again");
}

#[tokio::test]
async fn a_rejected_event_becomes_a_dead_letter() {
    let lease = Lease::acquire().await;
    let broker = lease.broker().await;
    topology::declare_topology(broker.connection(), BOUNDS)
        .await
        .expect("declares");
    let channel = broker.confirm_channel().await.expect("a channel");
    topology::publish_event(&channel, None, b"{\"v\":9}")
        .await
        .expect("taken");
    let got = eventually("the message", Duration::from_secs(5), || async {
        channel
            .basic_get(topology::QUEUE.into(), BasicGetOptions::default())
            .await
            .expect("gets")
    })
    .await;
    got.reject(BasicRejectOptions { requeue: false })
        .await
        .expect("rejects");
    let dead = eventually("the dead letter", Duration::from_secs(10), || async {
        channel
            .basic_get(topology::DEAD_QUEUE.into(), BasicGetOptions::default())
            .await
            .expect("gets")
    })
    .await;
    assert_eq!(dead.data, b"{\"v\":9}");
    dead.ack(BasicAckOptions::default()).await.expect("acks");
}

#[tokio::test]
async fn a_queue_with_as_many_messages_as_it_may_hold_says_no() {
    refuse_when_full(ONE_MESSAGE).await;
}

#[tokio::test]
async fn a_queue_with_as_many_bytes_as_it_may_hold_says_no() {
    refuse_when_full(ONE_BYTE).await;
}

async fn refuse_when_full(bounds: QueueBounds) {
    let lease = Lease::acquire().await;
    let broker = lease.broker().await;
    topology::declare_topology(broker.connection(), bounds)
        .await
        .expect("declares");
    let channel = broker.confirm_channel().await.expect("a channel");
    eventually("a nack", Duration::from_secs(10), || async {
        topology::publish_event(&channel, None, b"{}")
            .await
            .err()
            .map(|e| assert!(e.to_string().contains("would not"), "{e}"))
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_noticed_and_a_channels_error_is_not_taken_for_one() {
    let lease = Lease::acquire().await;
    let cutter = FaultProxy::to(lease.amqp_server()).await;
    let url = SecretString::from(lease.amqp_through(cutter.address));
    let session = BrokerConnection::connect_to(&url, "test")
        .await
        .expect("connects");
    assert_eq!(
        topology::queue_depth(session.connection(), "no.such.queue")
            .await
            .expect("looks"),
        None
    );
    let closed = tokio::time::timeout(Duration::from_millis(600), session.wait_closed()).await;
    assert!(closed.is_err() && session.is_open());
    cutter.cut();
    tokio::time::timeout(Duration::from_secs(2), session.wait_closed())
        .await
        .expect("noticed");
    assert!(!session.is_open());
    assert!(BrokerConnection::connect_to(&url, "test").await.is_err());
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, other) = tokio::join!(TestDatabase::fresh(), TestDatabase::fresh());
    assert_ne!(one.name, other.name);
    let client = one.client().await;
    trueup_testkit::builders::account(&client).await;
    let rows = other
        .client()
        .await
        .query("SELECT id FROM accounts", &[])
        .await
        .expect("reads");
    assert!(rows.is_empty());
}
