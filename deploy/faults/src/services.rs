//! What a scene stands on: the machine's services (a database, a vhost, a Redis database of them), or
//! private ones that may be killed.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::Mutex;
use trueup_testkit::broker_and_redis::Lease;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::services::postgres::Postgres;
use trueup_testkit::services::rabbitmq::RabbitMq;
use trueup_testkit::services::redis::Redis;

/// Private services. They outlive a run, and end with the program.
pub struct Private {
    pub redis: Redis,
    /// One, or the primary and its replica.
    pub postgres: Vec<Postgres>,
    pub broker: RabbitMq,
}

impl Private {
    pub fn start(nodes: usize, replica: bool) -> Result<Private> {
        let postgres = if replica {
            let (primary, replica) = Postgres::start_pair()?;
            vec![primary, replica]
        } else {
            vec![Postgres::start()?]
        };
        Ok(Private {
            redis: Redis::start()?,
            postgres,
            broker: RabbitMq::start(nodes)?,
        })
    }

    fn postgres_url(&self) -> String {
        let hosts: Vec<String> = self.postgres.iter().map(Postgres::server).collect();
        let primary = match hosts.len() {
            1 => "",
            _ => "?target_session_attrs=read-write",
        };
        format!("postgres://postgres@{}/postgres{primary}", hosts.join(","))
    }
}

/// Shared by the runs, one after the other.
pub type Services = Option<Arc<Mutex<Private>>>;

/// A run's own corner of the services.
pub struct TestEnv {
    pub database: TestDatabase,
    pub lease: Lease,
    pub services: Services,
    pub brokers: Vec<String>,
    /// The URL names several hosts and follows the primary; no cutter stands between.
    pub follows_primary: bool,
}

impl TestEnv {
    pub async fn prepare(services: Services) -> TestEnv {
        let Some(shared) = &services else {
            let (database, lease) = (TestDatabase::fresh().await, Lease::acquire().await);
            let brokers = vec![lease.amqp_server().to_owned()];
            return TestEnv {
                database,
                lease,
                services,
                brokers,
                follows_primary: false,
            };
        };
        let private = shared.lock().await;
        let database = TestDatabase::on(&private.postgres_url()).await;
        let lease = Lease::on(&private.broker.url(), &private.redis.url()).await;
        let (brokers, follows_primary) = (private.broker.servers(), private.postgres.len() > 1);
        drop(private);
        TestEnv {
            database,
            lease,
            services,
            brokers,
            follows_primary,
        }
    }
}
