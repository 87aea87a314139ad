//! One connection to the broker, and whether it lives.
//!
//! The client's own recovery is off: it gives up for good after 16 attempts, and a publish on a
//! *blocked* connection waits forever in it. Whoever holds a [`BrokerConnection`] watches [`BrokerConnection::wait_closed`],
//! and builds everything anew, forever, in the rhythm of a `trueup_ops::backoff::Backoff`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, Event};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;

use crate::QueueError;
use trueup_ops::tls::{self, TlsFiles};

/// The whole handshake, TLS and login included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead peer is noticed after two of them; shorter ones call a busy machine dead (seconds).
const HEARTBEAT: u16 = 10;
/// How often the client's own view of the connection is compared with what its events said.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A live connection. Dropping it closes the connection.
pub struct BrokerConnection {
    connection: Arc<Connection>,
    state: watch::Receiver<ConnectionHealth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionHealth {
    Flowing,
    /// The broker takes nothing from publishers (a memory or disk alarm): a publish now would hang.
    Blocked,
    Closed,
}

impl BrokerConnection {
    /// Connects as `name` (shown by the broker's tools). The URL may carry `heartbeat=` and the like.
    pub async fn connect_to(
        url: &SecretString,
        name: &str,
    ) -> Result<BrokerConnection, QueueError> {
        BrokerConnection::connect_over(url, &TlsFiles::default(), name).await
    }

    /// The same, with a CA and a certificate of our own for `amqps://`.
    pub async fn connect_over(
        url: &SecretString,
        tls: &TlsFiles,
        name: &str,
    ) -> Result<BrokerConnection, QueueError> {
        let mut uri: AMQPUri = url.expose_secret().parse().map_err(|e| {
            QueueError::Unreachable(format!("the broker's URL cannot be read: {e}"))
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = open_connection(uri, properties, tls);
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| QueueError::TimedOut(CONNECT_TIMEOUT))?
            .map_err(unreachable_broker)?;
        let connection = Arc::new(connection);
        let (sender, state) = watch::channel(ConnectionHealth::Flowing);
        tokio::spawn(watch_connection(
            Arc::downgrade(&connection),
            connection.events_listener(),
            sender,
        ));
        Ok(BrokerConnection { connection, state })
    }

    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub async fn open_channel(&self) -> Result<Channel, QueueError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.connection.create_channel());
        opened
            .await
            .map_err(|_| QueueError::TimedOut(CONNECT_TIMEOUT))?
            .map_err(QueueError::while_doing("open a channel"))
    }

    /// A channel on which every publish is answered.
    pub async fn confirm_channel(&self) -> Result<Channel, QueueError> {
        let channel = self.open_channel().await?;
        let asked = tokio::time::timeout(
            CONNECT_TIMEOUT,
            channel.confirm_select(ConfirmSelectOptions::default()),
        );
        asked
            .await
            .map_err(|_| QueueError::TimedOut(CONNECT_TIMEOUT))?
            .map_err(QueueError::while_doing("confirm publishes"))?;
        Ok(channel)
    }

    pub fn health(&self) -> ConnectionHealth {
        *self.state.borrow()
    }

    pub fn is_open(&self) -> bool {
        self.health() != ConnectionHealth::Closed && self.connection.status().connected()
    }

    /// Ready when the connection is gone, for whatever reason.
    pub async fn wait_closed(&self) {
        let mut state = self.state.clone();
        // An error means that the watcher itself is gone: so is the connection.
        let _ = state
            .wait_for(|condition| *condition == ConnectionHealth::Closed)
            .await;
    }

    /// Ready as soon as [`BrokerConnection::health`] is another than this.
    pub async fn wait_health_changed(&self, was: ConnectionHealth) {
        let mut state = self.state.clone();
        let _ = state.wait_for(|now| *now != was).await;
    }

    /// Says goodbye, so that the broker does not log a lost client.
    pub async fn close(&self) {
        let goodbye = self.connection.close(200, "done".into());
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }
}

/// The client's own way to TLS adds a CA's certificate to the machine's roots; here it stands in their place.
async fn open_connection(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: &TlsFiles,
) -> lapin::Result<Connection> {
    let runtime = lapin::runtime::default_runtime()?;
    let connector = match uri.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => {
            let config = tls.client_config().map_err(std::io::Error::other)?;
            Some(RustlsConnector::from(config))
        }
    };
    Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let address = (uri.authority.host.clone(), uri.authority.port);
            let plain = AsyncTcpStream::connect(&runtime, runtime.to_socket_addrs(address)).await?;
            Ok(match &connector {
                None => plain,
                Some(connector) => plain.into_rustls(connector, &uri.authority.host).await?,
            })
        },
        properties,
    )
    .await
}

fn unreachable_broker(error: lapin::Error) -> QueueError {
    let text = error.to_string();
    QueueError::Unreachable(match tls::advise(&text, "TRUEUP_AMQP_CA_FILE") {
        Some(advice) => format!("{text}; {advice}"),
        None => text,
    })
}

async fn watch_connection(
    connection: std::sync::Weak<Connection>,
    events: impl futures_util::Stream<Item = Event>,
    state: watch::Sender<ConnectionHealth>,
) {
    let mut events = std::pin::pin!(events);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = look.tick() => {
                // Gone with its last user, or dead without an event that said so.
                match connection.upgrade() {
                    Some(connection) if connection.status().connected() => continue,
                    _ => None,
                }
            }
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "the broker has blocked this connection");
                state.send_replace(ConnectionHealth::Blocked);
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("the broker takes messages again");
                state.send_replace(ConnectionHealth::Flowing);
            }
            // A channel's errors come here too; only the connection's own end counts.
            Some(Event::Error(_))
                if connection.upgrade().is_some_and(|c| c.status().connected()) => {}
            Some(Event::Error(_)) | None => {
                state.send_replace(ConnectionHealth::Closed);
                return;
            }
            Some(_) => {}
        }
    }
}
