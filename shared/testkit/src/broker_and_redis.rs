//! A vhost of the broker and a numbered database of Redis, empty, and nobody else's until the guard
//! is dropped. The lease is an advisory lock of a Postgres session, so that it ends with its owner
//! however that ends.

use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::{Connection, ConnectionProperties};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::database;
use trueup_queue::connection::BrokerConnection;
use trueup_queue::topology;

/// Redis has 16 databases unless told otherwise; 0 is left to whoever uses the machine.
const SLOTS: std::ops::RangeInclusive<i32> = 1..=15;
/// First key of the two-part advisory locks: ours.
const ADVISORY_CLASS: i32 = 1_797_823;
/// Other tests' leases end within this.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Lease {
    pub amqp_url: String,
    pub redis_url: String,
    pub vhost: String,
    amqp_server: String,
    redis_server: String,
    /// Holds the lock, where services are shared.
    _session: Option<Client>,
}

impl Lease {
    pub async fn acquire() -> Lease {
        let session = database::connect(&database::admin_url()).await;
        let slot = super::eventually("a free vhost and Redis database", PATIENCE, || {
            free_slot(&session)
        })
        .await;
        let amqp = super::service("TRUEUP_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672");
        let redis = super::service("TRUEUP_TEST_REDIS_URL", "redis://127.0.0.1:6379");
        let vhost = format!("trueup_test_{slot}");
        let lease = Lease {
            amqp_url: with_path(&amqp, &vhost),
            redis_url: with_path(&redis, &slot.to_string()),
            amqp_server: server_of(&amqp, 5672),
            redis_server: server_of(&redis, 6379),
            vhost,
            _session: Some(session),
        };
        lease.empty().await;
        lease
    }

    /// Services of one's own: the default vhost and Redis database, emptied, and no lock.
    pub async fn on(amqp_url: &str, redis_url: &str) -> Lease {
        let lease = Lease {
            amqp_url: with_path(amqp_url, "%2f"),
            redis_url: with_path(redis_url, "0"),
            amqp_server: server_of(amqp_url, 5672),
            redis_server: server_of(redis_url, 6379),
            vhost: "/".to_owned(),
            _session: None,
        };
        lease.empty().await;
        lease
    }

    async fn empty(&self) {
        self.empty_broker().await;
        self.redis(&["FLUSHDB"]).await;
    }

    /// A connection of the test's own to its vhost.
    pub async fn broker(&self) -> BrokerConnection {
        BrokerConnection::connect_to(&SecretString::from(self.amqp_url.as_str()), "test")
            .await
            .expect("the broker is there")
    }

    pub fn amqp_server(&self) -> &str {
        &self.amqp_server
    }

    pub fn redis_server(&self) -> &str {
        &self.redis_server
    }

    pub fn amqp_through(&self, address: std::net::SocketAddr) -> String {
        self.amqp_url
            .replace(&self.amqp_server, &address.to_string())
    }

    pub fn redis_through(&self, address: std::net::SocketAddr) -> String {
        self.redis_url
            .replace(&self.redis_server, &address.to_string())
    }

    /// One command to this lease's Redis database; the raw answer.
    pub async fn redis(&self, command: &[&str]) -> String {
        let mut stream = TcpStream::connect(&self.redis_server)
            .await
            .expect("tests need Redis");
        let slot = self.redis_url.rsplit('/').next().unwrap_or("0").to_owned();
        let mut request = format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{slot}\r\n", slot.len());
        request.push_str(&format!("*{}\r\n", command.len()));
        for word in command {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        request.push_str("*1\r\n$4\r\nQUIT\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("Redis reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("Redis answers");
        let answer = answer.strip_prefix("+OK\r\n").unwrap_or(&answer);
        answer.strip_suffix("+OK\r\n").unwrap_or(answer).to_owned()
    }

    async fn empty_broker(&self) {
        let connection =
            match Connection::connect(&self.amqp_url, ConnectionProperties::default()).await {
                Ok(connection) => connection,
                Err(_) => {
                    self.make_vhost();
                    Connection::connect(&self.amqp_url, ConnectionProperties::default())
                        .await
                        .expect("tests need RabbitMQ (TRUEUP_TEST_AMQP_URL)")
                }
            };
        let channel = connection.create_channel().await.expect("a channel");
        for queue in [
            topology::QUEUE,
            topology::PARKED_QUEUE,
            topology::OVERFLOW_QUEUE,
            topology::DEAD_QUEUE,
        ] {
            let _ = channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await;
        }
        for exchange in [
            topology::EXCHANGE,
            topology::UNROUTABLE_EXCHANGE,
            topology::DEAD_EXCHANGE,
        ] {
            let _ = channel
                .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
                .await;
        }
        let _ = connection.close(200, "".into()).await;
    }

    fn make_vhost(&self) {
        let user = self
            .amqp_url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split([':', '@']).next())
            .unwrap_or("guest");
        rabbitmqctl(&["add_vhost", &self.vhost]);
        rabbitmqctl(&["set_permissions", "-p", &self.vhost, user, ".*", ".*", ".*"]);
    }
}

/// Runs `rabbitmqctl`, or what `TRUEUP_TEST_RABBITMQCTL` names instead.
pub fn rabbitmqctl(arguments: &[&str]) -> String {
    let program = super::service("TRUEUP_TEST_RABBITMQCTL", "rabbitmqctl");
    let mut words = program.split_whitespace();
    let output = std::process::Command::new(words.next().expect("a program"))
        .args(words)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("tests need {program} (TRUEUP_TEST_RABBITMQCTL): {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn free_slot(session: &Client) -> Option<i32> {
    for slot in SLOTS {
        let row = session
            .query_one(
                "SELECT pg_try_advisory_lock($1, $2)",
                &[&ADVISORY_CLASS, &slot],
            )
            .await
            .expect("asks for a lock");
        if row.get(0) {
            return Some(slot);
        }
    }
    None
}

fn with_path(url: &str, path: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    format!("{}/{path}", &url[..end])
}

fn server_of(url: &str, port: u16) -> String {
    let rest = url.split("://").nth(1).unwrap_or(url);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let server = authority.rsplit('@').next().unwrap_or(authority);
    if server.contains(':') {
        server.to_owned()
    } else {
        format!("{server}:{port}")
    }
}
