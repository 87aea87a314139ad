//! A database for each test: cloned from a template that is migrated once for each state of the
//! migrations. Dropped with its guard; those of tests that were killed go when the next test starts.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::{Client, Config, NoTls};

use trueup_store::migrate;

const VARIABLE: &str = "TRUEUP_TEST_POSTGRES_URL";
const DEFAULT: &str = "postgres://postgres@127.0.0.1:5432/postgres";
/// Whoever makes the template or tidies up holds it.
const ADVISORY_LOCK: i64 = 1_797_823_322;
const PREFIX: &str = "trueup_test_";

pub struct TestDatabase {
    pub name: String,
    /// As superuser.
    pub url: String,
    admin_url: String,
}

impl TestDatabase {
    /// Empty, with today's schema.
    pub async fn fresh() -> TestDatabase {
        TestDatabase::on(&admin_url()).await
    }

    /// Without a schema: what a backup is restored into.
    pub async fn empty() -> TestDatabase {
        TestDatabase::made(&admin_url(), "TEMPLATE template0").await
    }

    /// The same, of a role that exists.
    pub async fn empty_of(owner: &str) -> TestDatabase {
        TestDatabase::made(&admin_url(), &format!("OWNER {owner} TEMPLATE template0")).await
    }

    /// The same as [`TestDatabase::fresh`] on a server of one's own.
    pub async fn on(admin_url: &str) -> TestDatabase {
        let template = template(&connect(admin_url).await, admin_url).await;
        TestDatabase::made(admin_url, &format!("TEMPLATE {template}")).await
    }

    async fn made(admin_url: &str, how: &str) -> TestDatabase {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let admin = connect(admin_url).await;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}_{number}", std::process::id());
        run(
            &admin,
            &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        )
        .await;
        run(&admin, &format!("CREATE DATABASE {name} {how}")).await;
        TestDatabase {
            url: url_of(admin_url, &name),
            name,
            admin_url: admin_url.to_owned(),
        }
    }

    /// A plain connection, for arranging and for looking.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// The same database as another user.
    pub fn url_as(&self, user: &str) -> String {
        let config: Config = self.url.parse().expect("made by us");
        let (host, port) = host_and_port(&config);
        format!("postgres://{user}@{host}:{port}/{}", self.name)
    }

    /// `host:port` of the server, for a cutter.
    pub fn server(&self) -> String {
        let config: Config = self.url.parse().expect("made by us");
        let (host, port) = host_and_port(&config);
        format!("{host}:{port}")
    }

    /// The same database through another `host:port`.
    pub fn url_through(&self, address: std::net::SocketAddr) -> String {
        self.url.replace(&self.server(), &address.to_string())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (name, admin_url) = (self.name.clone(), self.admin_url.clone());
        super::run_apart(async move {
            let admin = connect(&admin_url).await;
            let _ = admin
                .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                .await;
        });
    }
}

pub(super) fn admin_url() -> String {
    super::service(VARIABLE, DEFAULT)
}

fn host_and_port(config: &Config) -> (String, u16) {
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => "127.0.0.1".into(),
    };
    (host, config.get_ports().first().copied().unwrap_or(5432))
}

/// The admin's URL with another database's name.
fn url_of(admin: &str, name: &str) -> String {
    let after_host = admin.find("://").map_or(0, |at| at + 3);
    match admin[after_host..].find('/') {
        Some(slash) => {
            let path = after_host + slash + 1;
            let query = admin[path..].find('?').map_or("", |at| &admin[path + at..]);
            format!("{}{name}{query}", &admin[..path])
        }
        None => format!("{admin}/{name}"),
    }
}

pub(super) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|e| panic!("tests need Postgres ({VARIABLE}): {e:?}"));
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

async fn run(client: &Client, statement: &str) {
    client
        .batch_execute(statement)
        .await
        .unwrap_or_else(|e| panic!("{statement}: {e}"));
}

/// Makes the template if this state of the migrations has none of this month yet (it has partitions, made ahead
/// from the month of its making), and drops what was left behind.
async fn template(admin: &Client, admin_url: &str) -> String {
    let month = jiff::Timestamp::now().strftime("%Y%m");
    let name = format!(
        "{PREFIX}template_{:016x}_{month}",
        migrate::schema_fingerprint()
    );
    admin
        .execute("SELECT pg_advisory_lock($1)", &[&ADVISORY_LOCK])
        .await
        .expect("locks");
    let exists = admin
        .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
        .await
        .expect("looks");
    if exists.is_none() {
        let making = format!("{name}_making");
        run(
            admin,
            &format!("DROP DATABASE IF EXISTS {making} WITH (FORCE)"),
        )
        .await;
        run(admin, &format!("CREATE DATABASE {making}")).await;
        migrate::run(&url_of(admin_url, &making), &Default::default())
            .await
            .expect("the migrations run");
        run(admin, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{making}'; "))
            .await;
        rename(admin, &making, &name).await;
        tidy(admin, &name).await;
    }
    admin
        .execute("SELECT pg_advisory_unlock($1)", &[&ADVISORY_LOCK])
        .await
        .expect("unlocks");
    name
}

/// The migration's connection may take a moment to be gone.
async fn rename(admin: &Client, from: &str, to: &str) {
    super::eventually(
        "the template is free",
        std::time::Duration::from_secs(10),
        || async {
            admin
                .batch_execute(&format!("ALTER DATABASE {from} RENAME TO {to}"))
                .await
                .ok()
        },
    )
    .await;
}

/// Drops databases of processes that are gone. A number that was given to another process since
/// then keeps its database until that one ends, too.
async fn tidy(admin: &Client, keep: &str) {
    let rows = admin
        .query(
            "SELECT datname FROM pg_database WHERE datname LIKE 'trueup\\_test\\_%'",
            &[],
        )
        .await
        .expect("lists databases");
    for row in rows {
        let name: String = row.get(0);
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('_').next()?.parse::<u32>().ok());
        let gone = pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists());
        if gone && name != keep {
            let _ = admin
                .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                .await;
        }
    }
}
