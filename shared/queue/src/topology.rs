//! Exchanges, queues and dead letters: their names and arguments, here and nowhere else.
//!
//! ```text
//! trueup.events (exchange) ──event──▶ trueup.events ──50 deliveries, or given up──▶ trueup.dead ──▶ trueup.events.dead
//!        ├─overflow─▶ trueup.events.overflow
//!        └─ no queue bound ─▶ trueup.unroutable ──▶ trueup.events.parked
//! ```
//!
//! The worker consumes `trueup.events` *and* `trueup.events.parked`: what came while the queue was
//! missing is as good as the rest. What one account sends beyond its part of a worker's room the worker moves
//! to `trueup.events.overflow`, so that nobody's reports wait behind it, and takes it from there. Everything is
//! declared explicitly and so that RabbitMQ 3.10 and 4 both accept it: since 4.0 the default delivery limit is
//! 20, and without a dead-letter exchange the message is dropped.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Confirmation, Connection, ExchangeKind};

use crate::{QueueError, code_of};
use trueup_event::envelope::MESSAGE_TYPE;
use uuid::Uuid;

/// Where the gateway publishes.
pub const EXCHANGE: &str = "trueup.events";
pub const ROUTING_KEY: &str = "event";
/// The raw events.
pub const QUEUE: &str = "trueup.events";
/// What waits because its account sends more than its part.
pub const OVERFLOW_QUEUE: &str = "trueup.events.overflow";
const OVERFLOW_KEY: &str = "overflow";
/// The alternate exchange of [`EXCHANGE`], and the queue of what found none.
pub const UNROUTABLE_EXCHANGE: &str = "trueup.unroutable";
pub const PARKED_QUEUE: &str = "trueup.events.parked";
pub const DEAD_EXCHANGE: &str = "trueup.dead";
/// What the worker gave up on; `trueup-worker redrive` brings it back.
pub const DEAD_QUEUE: &str = "trueup.events.dead";

/// Deliveries of one envelope before the broker dead-letters it. The worker parks a poisonous event
/// after 5 by itself (V12); this is the net under it.
const DELIVERY_LIMIT: i64 = 50;
/// For the queues that only people and `redrive` read: as good as none, in a form that 3.10 accepts
/// too (it knows no -1).
const NO_DELIVERY_LIMIT: i64 = 1_000_000;

/// A broker that is just starting lets clients in and may then say nothing to a declaration, for ever.
const DECLARE_WITHIN: Duration = Duration::from_secs(10);
/// A broker that blocks its publishers (an alarm) says nothing at all.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

const PRECONDITION_FAILED: u16 = 406;
const ACCESS_REFUSED: u16 = 403;

/// AMQP's persistent delivery mode.
const PERSISTENT: u8 = 2;

/// What a queue of reports may hold; more is refused, and the door answers 503.
#[derive(Debug, Clone, Copy)]
pub struct QueueBounds {
    /// Envelopes.
    pub messages: NonZeroU32,
    /// Bytes of all of them.
    pub bytes: NonZeroU64,
}

impl QueueBounds {
    /// As good as none.
    pub const UNBOUNDED: QueueBounds = QueueBounds {
        messages: NonZeroU32::MAX,
        bytes: NonZeroU64::MAX,
    };
}

/// The header that says whose events a message holds, if they are all of one account.
const ACCOUNT_HEADER: &str = "trueup-account";

/// The properties of every message that we publish; `account` if all of its events are of that one.
pub fn message_properties(account: Option<Uuid>) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_type(MESSAGE_TYPE.into());
    let Some(account) = account else {
        return properties;
    };
    let mut headers = FieldTable::default();
    headers.insert(ACCOUNT_HEADER.into(), text_value(&account.to_string()));
    properties.with_headers(headers)
}

/// Whose events a message holds, if it says so.
pub fn account_of(properties: &BasicProperties) -> Option<Uuid> {
    let value = properties.headers().as_ref()?.inner().get(ACCOUNT_HEADER)?;
    let AMQPValue::LongString(text) = value else {
        return None;
    };
    std::str::from_utf8(text.as_bytes()).ok()?.parse().ok()
}

/// Makes what is missing. What exists with other arguments is left as it is (a bound that was
/// changed by setting needs a policy or a new queue), and so is everything if this user may not
/// declare: then `migrate` has done it. Harmless to repeat.
pub async fn declare_topology(
    connection: &Connection,
    bounds: QueueBounds,
) -> Result<(), QueueError> {
    let declaring = declare_all(connection, bounds);
    tokio::time::timeout(DECLARE_WITHIN, declaring)
        .await
        .map_err(|_| QueueError::TimedOut(DECLARE_WITHIN))?
}

async fn declare_all(connection: &Connection, bounds: QueueBounds) -> Result<(), QueueError> {
    declare_exchange(
        connection,
        DEAD_EXCHANGE,
        ExchangeKind::Fanout,
        FieldTable::default(),
    )
    .await?;
    declare_queue(
        connection,
        DEAD_QUEUE,
        queue_arguments(NO_DELIVERY_LIMIT, None),
    )
    .await?;
    bind_queue(connection, DEAD_QUEUE, DEAD_EXCHANGE, "").await?;

    declare_exchange(
        connection,
        UNROUTABLE_EXCHANGE,
        ExchangeKind::Fanout,
        FieldTable::default(),
    )
    .await?;
    let mut parked = queue_arguments(DELIVERY_LIMIT, Some(bounds));
    dead_letters(&mut parked);
    declare_queue(connection, PARKED_QUEUE, parked).await?;
    bind_queue(connection, PARKED_QUEUE, UNROUTABLE_EXCHANGE, "").await?;

    let mut alternate = FieldTable::default();
    alternate.insert("alternate-exchange".into(), text_value(UNROUTABLE_EXCHANGE));
    declare_exchange(connection, EXCHANGE, ExchangeKind::Direct, alternate).await?;
    let mut events = queue_arguments(DELIVERY_LIMIT, Some(bounds));
    dead_letters(&mut events);
    declare_queue(connection, QUEUE, events.clone()).await?;
    bind_queue(connection, QUEUE, EXCHANGE, ROUTING_KEY).await?;
    declare_queue(connection, OVERFLOW_QUEUE, events).await?;
    bind_queue(connection, OVERFLOW_QUEUE, EXCHANGE, OVERFLOW_KEY).await
}

/// Puts an envelope among the dead letters, confirmed: only after `Ok` may its source be acked. The
/// channel must be in confirm mode.
pub async fn publish_dead(channel: &Channel, message: &[u8]) -> Result<(), QueueError> {
    publish_to(channel, DEAD_EXCHANGE, "", None, message).await
}

/// Publishes an envelope to the events' queue and waits for the broker's word: `redrive`'s way, and
/// the tests'. The gateway has a pipeline of its own. `account` if all of its events are of that one.
pub async fn publish_event(
    channel: &Channel,
    account: Option<Uuid>,
    message: &[u8],
) -> Result<(), QueueError> {
    publish_to(channel, EXCHANGE, ROUTING_KEY, account, message).await
}

/// Moves an envelope out of the others' way, confirmed: only after `Ok` may its source be acked.
/// It says whose events it holds.
pub async fn publish_overflow(
    channel: &Channel,
    account: Uuid,
    message: &[u8],
) -> Result<(), QueueError> {
    publish_to(channel, EXCHANGE, OVERFLOW_KEY, Some(account), message).await
}

async fn publish_to(
    channel: &Channel,
    exchange: &str,
    key: &str,
    account: Option<Uuid>,
    message: &[u8],
) -> Result<(), QueueError> {
    let what = || format!("take a message for {exchange}");
    let publishing = publish_and_confirm(channel, exchange, key, account, message);
    let confirm = tokio::time::timeout(CONFIRM_WITHIN, publishing)
        .await
        .map_err(|_| QueueError::TimedOut(CONFIRM_WITHIN))?
        .map_err(QueueError::while_doing(what()))?;
    match confirm {
        Confirmation::Ack(None) => Ok(()),
        // A returned message arrives as an ack that carries it: nobody has it.
        Confirmation::Ack(Some(_)) => Err(QueueError::Unreachable(format!(
            "no queue takes messages for {exchange}"
        ))),
        Confirmation::Nack(_) => Err(QueueError::Unreachable(format!(
            "the broker would not {}",
            what()
        ))),
        Confirmation::NotRequested => Err(QueueError::Unreachable(
            "the channel asks for no confirms".into(),
        )),
    }
}

async fn publish_and_confirm(
    channel: &Channel,
    exchange: &str,
    key: &str,
    account: Option<Uuid>,
    message: &[u8],
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..Default::default()
    };
    channel
        .basic_publish(
            exchange.into(),
            key.into(),
            options,
            message,
            message_properties(account),
        )
        .await?
        .await
}

/// Messages that are ready in a queue; `None` if there is no such queue.
pub async fn queue_depth(connection: &Connection, queue: &str) -> Result<Option<u32>, QueueError> {
    let what = || format!("look at the queue {queue}");
    let channel = connection
        .create_channel()
        .await
        .map_err(QueueError::while_doing(what()))?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    match channel
        .queue_declare(queue.into(), passive, FieldTable::default())
        .await
    {
        Ok(found) => {
            let _ = channel.close(200, "".into()).await;
            Ok(Some(found.message_count()))
        }
        Err(e) if code_of(&e) == Some(404) => Ok(None),
        Err(e) => Err(QueueError::while_doing(what())(e)),
    }
}

fn text_value(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn queue_arguments(delivery_limit: i64, bounds: Option<QueueBounds>) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text_value("quorum"));
    table.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(delivery_limit),
    );
    if let Some(bounds) = bounds {
        // Full means "no" to the publisher (a nack, so a 503), never an old report thrown away.
        table.insert("x-overflow".into(), text_value("reject-publish"));
        table.insert(
            "x-max-length".into(),
            AMQPValue::LongLongInt(bounds.messages.get().into()),
        );
        table.insert(
            "x-max-length-bytes".into(),
            AMQPValue::LongLongInt(i64::try_from(bounds.bytes.get()).unwrap_or(i64::MAX)),
        );
    }
    table
}

/// At-least-once needs reject-publish, which the bounded queues have.
fn dead_letters(table: &mut FieldTable) {
    table.insert("x-dead-letter-exchange".into(), text_value(DEAD_EXCHANGE));
    table.insert("x-dead-letter-strategy".into(), text_value("at-least-once"));
}

async fn declare_exchange(
    connection: &Connection,
    name: &'static str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), QueueError> {
    let what = format!("declare the exchange {name}");
    let channel = connection
        .create_channel()
        .await
        .map_err(QueueError::while_doing(what.clone()))?;
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel
        .exchange_declare(ShortString::from(name), kind, options, arguments)
        .await;
    ignore_expected_refusal(&channel, declared, what).await
}

async fn declare_queue(
    connection: &Connection,
    name: &'static str,
    arguments: FieldTable,
) -> Result<(), QueueError> {
    let what = format!("declare the queue {name}");
    let channel = connection
        .create_channel()
        .await
        .map_err(QueueError::while_doing(what.clone()))?;
    let declared = channel
        .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .map(|_| ());
    ignore_expected_refusal(&channel, declared, what).await
}

async fn bind_queue(
    connection: &Connection,
    queue: &'static str,
    exchange: &'static str,
    key: &'static str,
) -> Result<(), QueueError> {
    let what = format!("bind the queue {queue} to {exchange}");
    let channel = connection
        .create_channel()
        .await
        .map_err(QueueError::while_doing(what.clone()))?;
    let bound = channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await;
    ignore_expected_refusal(&channel, bound, what).await
}

/// A refusal closes the channel, so each declaration has one of its own.
async fn ignore_expected_refusal(
    channel: &Channel,
    outcome: lapin::Result<()>,
    what: String,
) -> Result<(), QueueError> {
    let Err(error) = outcome else {
        let _ = channel.close(200, "".into()).await;
        return Ok(());
    };
    match code_of(&error) {
        Some(PRECONDITION_FAILED) => {
            tracing::warn!(
                what,
                "it exists with other arguments and is used as it is; change it by a broker policy"
            );
            Ok(())
        }
        Some(ACCESS_REFUSED) => {
            tracing::debug!(
                what,
                "this user may not declare; `trueup-worker migrate` does it"
            );
            Ok(())
        }
        _ => Err(QueueError::Refused {
            what,
            source: error,
        }),
    }
}
