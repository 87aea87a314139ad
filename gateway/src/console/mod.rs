//! The console: the operator API and, beside it, the pages. It sets and shows; it never settles a
//! report by itself, and nothing of it is in the public binary.

mod api;
mod pages;
mod secrets;
mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use trueup_shared::ops::config::{ConsoleArgs, GraceArgs, LogArgs, PostgresArgs};
use trueup_shared::ops::http::{Dependency, Readiness};
use trueup_shared::ops::shutdown::{Exit, Failure, Shutdown};
use trueup_shared::ops::{http, metrics};
use trueup_shared::store::{Pool, PoolSettings};

/// The console waits for the database, it does not compute: more connections would only take them
/// from the workers.
const CONNECTIONS: usize = 16;
/// A request to a person ends before the person gives up; recording many calls is the longest.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How often Postgres is asked whether it is there, for `/ready`.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Settings and pages of Trueup, for its operators.
#[derive(Debug, Parser)]
#[command(name = "trueup-console", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub postgres: PostgresArgs,
    #[command(flatten)]
    pub console: ConsoleArgs,
    #[command(flatten)]
    pub grace: GraceArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// People who may sign in
    #[command(subcommand)]
    User(pages::user_command::UserCommand),
}

/// What every handler may use.
pub struct Console {
    pub pool: Pool,
    /// Without a slash at its end.
    pub public_url: String,
    pub admin_key: Option<SecretString>,
    pub attempts: pages::Attempts,
}

pub type App = Arc<Console>;

/// Runs until SIGTERM or SIGINT; Postgres may be away, now and later.
pub async fn run(args: Args) -> Result<Exit, Failure> {
    let settings = PoolSettings {
        looking: true,
        ..PoolSettings::of("trueup-console", CONNECTIONS)
    };
    let pool = Pool::new(args.postgres.postgres_url.expose_secret(), &settings)
        .map_err(|e| Failure::setting("TRUEUP_POSTGRES_URL", e))?;
    if let Some(Command::User(command)) = args.command {
        return pages::user_command::run(command, pool).await;
    }
    let shutdown = Shutdown::install(args.grace.grace).map_err(|e| Failure::new(Exit::Bug, e))?;
    let (ops, listener) = (args.console.ops_listen, args.console.listen);
    let ops = http::bind(ops)
        .await
        .map_err(|e| Failure::unbound("TRUEUP_CONSOLE_OPS_LISTEN", ops, &e))?;
    let listener = server::bind(listener)
        .await
        .map_err(|e| Failure::unbound("TRUEUP_CONSOLE_LISTEN", listener, &e))?;

    let readiness = Readiness::new("trueup-console");
    let postgres = readiness.dependency("postgres");
    let over = CancellationToken::new();
    let ops = tokio::spawn(http::serve(ops, readiness.clone(), over.clone()));
    tokio::spawn(watch(pool.clone(), postgres, over.clone()));

    let app = Arc::new(Console {
        pool,
        public_url: args.console.public_url.trim_end_matches('/').to_owned(),
        admin_key: args.console.admin_key,
        attempts: pages::Attempts::default(),
    });
    let draining = readiness.clone();
    let stop = shutdown.stop().clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        draining.draining();
    });
    let exit = server::serve(listener, router(&app), &shutdown).await;
    over.cancel();
    let _ = ops.await;
    Ok(exit)
}

/// Keeps `/ready` told of Postgres. Without it the console still answers honestly (503), so it is
/// degraded, not down.
async fn watch(pool: Pool, postgres: Dependency, over: CancellationToken) {
    loop {
        match pool.ping().await {
            Ok(()) => postgres.ok(),
            Err(e) => postgres.degraded(e.to_string()),
        }
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
    }
}

fn router(app: &App) -> Router {
    api::router(app)
        .merge(pages::router(app))
        .fallback(no_route)
        .method_not_allowed_fallback(async || api::Problem::method_not_allowed())
        .layer(from_fn(limit_time))
        .layer(from_fn(measure))
        .with_state(app.clone())
}

async fn no_route(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        return api::Problem::no_route().into_response();
    }
    pages::Fault::NotFound("page").into_response()
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            api::Problem::unavailable("this took too long and was given up; ask again, or for less")
                .into_response()
        }
    }
}

/// Counts requests by the route's template, never by its path.
async fn measure(request: Request, next: Next) -> Response {
    let start = std::time::Instant::now();
    let matched = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let route = metrics::console_route(matched.as_deref().unwrap_or_default());
    let response = next.run(request).await;
    let class = match response.status().as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    metrics::console().requests.inc(&[route, class]);
    metrics::console().request_seconds.since(&[class], start);
    response
}
