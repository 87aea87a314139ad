//! TLS to Postgres, the broker and Redis with a CA of one's own: real servers, the real binaries.

use std::error::Error;
use std::path::Path;

use trueup_testkit::eventually;
use trueup_testkit::process::{Process, Start, built};
use trueup_testkit::services::certificates::{CertificateAuthority, KeyPair};
use trueup_testkit::services::postgres::Postgres;
use trueup_testkit::services::rabbitmq::RabbitMq;
use trueup_testkit::services::redis::Redis;
use trueup_testkit::services::spare_port;

use crate::harness::{PATIENCE, WORKER};

/// The name that stands in every server's certificate.
const NAME: &str = "localhost";

struct Servers {
    ca: CertificateAuthority,
    of_somebody_else: CertificateAuthority,
    client: KeyPair,
    postgres: Postgres,
    redis: Redis,
    _broker: RabbitMq,
    amqps_port: u16,
}

impl Servers {
    async fn start_all() -> Box<Servers> {
        let starting = tokio::task::spawn_blocking(
            || -> Result<Box<Servers>, Box<dyn Error + Send + Sync>> {
                let ca = CertificateAuthority::make()?;
                let (server, client) = (ca.sign(NAME)?, ca.sign("trueup")?);
                let amqps_port = spare_port()?;
                Ok(Box::new(Servers {
                    postgres: Postgres::start_over_tls(&server, ca.certificate())?,
                    redis: Redis::start_over_tls(&server, ca.certificate())?,
                    _broker: RabbitMq::start_over_tls(amqps_port, &server, ca.certificate())?,
                    of_somebody_else: CertificateAuthority::make()?,
                    amqps_port,
                    client,
                    ca,
                }))
            },
        );
        let started = starting.await.expect("no panic");
        started.unwrap_or_else(|e| panic!("the servers start: {e}"))
    }

    fn postgres_url(&self, host: &str, query: &str) -> String {
        format!(
            "postgres://postgres@{host}:{}/postgres{query}",
            self.postgres.port
        )
    }

    /// A process that speaks TLS with all three of them, at `host`, and believes that CA.
    fn start(&self, binary: &str, host: &str, ca: &Path) -> Start {
        let redis = self.redis.tls_port().expect("it was started over TLS");
        let mut start = Start::new(binary)
            .env(
                "TRUEUP_POSTGRES_URL",
                self.postgres_url(host, "?sslmode=verify-full"),
            )
            .env(
                "TRUEUP_AMQP_URL",
                format!("amqps://guest:guest@{host}:{}/%2f", self.amqps_port),
            )
            .env("TRUEUP_REDIS_URL", format!("rediss://{host}:{redis}/0"));
        let client = self.client.joined().expect("a file");
        for service in ["POSTGRES", "AMQP", "REDIS"] {
            start = start
                .env(&format!("TRUEUP_{service}_CA_FILE"), ca.display())
                .env(
                    &format!("TRUEUP_{service}_CLIENT_CERT_FILE"),
                    client.display(),
                );
        }
        start
    }

    fn start_well(&self, binary: &str) -> Start {
        self.start(binary, NAME, self.ca.certificate())
    }
}

/// Until each of these dependencies says this.
async fn wait_details(process: &mut Process, dependencies: &[&str], says: &str) {
    for dependency in dependencies {
        eventually(says, PATIENCE, async || {
            let known = process.readiness().await["dependencies"][dependency].clone();
            let detail = known["detail"].as_str().unwrap_or_default().to_owned();
            detail.contains(says).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_works_over_tls_with_a_ca_of_ones_own_and_nobody_else_is_believed() {
    let servers = Servers::start_all().await;
    let mut migrate = servers.start_well(WORKER).arg("migrate").spawn();
    assert_eq!(migrate.exit_code(PATIENCE).await, 0, "{}", migrate.log());

    let [gateway, console] = ["trueup-gateway", "trueup-console"].map(built);
    for binary in [WORKER, &gateway, &console] {
        let mut process = servers.start_well(binary).ready().await;
        let readiness = process.readiness().await;
        let dependencies = readiness["dependencies"].as_object().expect("an object");
        for (name, known) in dependencies {
            assert_eq!(known["state"], "ok", "{name}: {readiness}");
        }
    }

    // The CA is somebody else's, and each service says where to name the right one.
    let wrong_ca = servers.of_somebody_else.certificate();
    let mut refused = servers.start(&gateway, NAME, wrong_ca).spawn();
    for (dependency, setting) in [
        ("postgres", "TRUEUP_POSTGRES_CA_FILE"),
        ("broker", "TRUEUP_AMQP_CA_FILE"),
        ("redis", "TRUEUP_REDIS_CA_FILE"),
    ] {
        wait_details(&mut refused, &[dependency], setting).await;
    }

    // The chain is right and the name is not: the certificate is no address's.
    let mut misnamed = servers
        .start(&gateway, "127.0.0.1", servers.ca.certificate())
        .spawn();
    let all = ["postgres", "broker", "redis"];
    wait_details(&mut misnamed, &all, "for another name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_asks_for_what_it_says() {
    let servers = Servers::start_all().await;
    let reconcile = |url: String, ca: Option<&Path>| {
        let client = servers.client.joined().expect("a file");
        let mut start = Start::new(WORKER)
            .env("TRUEUP_POSTGRES_URL", url)
            .env("TRUEUP_POSTGRES_CLIENT_CERT_FILE", client.display())
            .arg("reconcile");
        if let Some(ca) = ca {
            start = start.env("TRUEUP_POSTGRES_CA_FILE", ca.display());
        }
        start.spawn()
    };
    let (ours, others) = (
        servers.ca.certificate(),
        servers.of_somebody_else.certificate(),
    );
    let address = "127.0.0.1";
    // The books are not there: who gets as far as hearing that is connected.
    const CONNECTED: &str = "42P01";
    let system = format!("?sslmode=verify-ca&sslrootcert={}", ours.display());
    for (host, query, ca, says) in [
        (address, "?sslmode=disable", None, CONNECTED),
        (address, "?sslmode=prefer", None, CONNECTED),
        (address, "?sslmode=require", None, CONNECTED),
        (address, "?sslmode=require", Some(ours), CONNECTED),
        (
            address,
            "?sslmode=require",
            Some(others),
            "TRUEUP_POSTGRES_CA_FILE",
        ),
        (address, "?sslmode=verify-ca", Some(ours), CONNECTED),
        (
            address,
            "?sslmode=verify-ca",
            None,
            "TRUEUP_POSTGRES_CA_FILE",
        ),
        (
            address,
            "?sslmode=verify-ca",
            Some(others),
            "TRUEUP_POSTGRES_CA_FILE",
        ),
        (
            address,
            "?sslmode=verify-full",
            Some(ours),
            "for another name",
        ),
        (NAME, "?sslmode=verify-full", Some(ours), CONNECTED),
        (
            NAME,
            "?sslmode=verify-full",
            None,
            "TRUEUP_POSTGRES_CA_FILE",
        ),
        (address, &system, None, CONNECTED),
        // Who names a CA wants it asked, and the name as well.
        (address, "", Some(ours), "for another name"),
        (NAME, "", Some(ours), CONNECTED),
        (address, "", None, CONNECTED),
    ] {
        let mut process = reconcile(servers.postgres_url(host, query), ca);
        assert_eq!(process.exit_code(PATIENCE).await, 69, "{}", process.log());
        let log = process.log();
        assert!(log.contains(says), "{host} {query} {ca:?}, {says}: {log}");
    }
    // A server without TLS is not taken for one that has proven itself.
    let plain = tokio::task::spawn_blocking(Postgres::start).await;
    let plain = plain.expect("no panic").expect("it starts");
    let url = format!(
        "postgres://postgres@{}/postgres?sslmode=verify-full",
        plain.server()
    );
    let mut process = reconcile(url, Some(ours));
    assert_eq!(process.exit_code(PATIENCE).await, 69, "{}", process.log());
    assert!(
        process.log().contains("sslmode=disable"),
        "{}",
        process.log()
    );
}
