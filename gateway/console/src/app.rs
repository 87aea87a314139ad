//! The console: the operator API and, beside it, the pages. It sets and shows; it never settles a
//! report by itself, and nothing of it is in the public binary.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use trueup_ops::health::{Dependency, Readiness};
use trueup_ops::metrics::DependencyName;
use trueup_ops::private_listener;
use trueup_ops::settings::{PostgresArgs, print_good};
use trueup_ops::shutdown::{ExitReason, Failure, Shutdown, spawn_vital};
use trueup_store::{Pool, PoolProfile, PoolSettings};

use crate::app_state::{App, Console};
use crate::ceilings::Ceilings;
use crate::middleware::metrics::measure_request;
use crate::middleware::timeout::limit_time;
use crate::passwords::Attempts;
use crate::problem::Problem;
use crate::settings::{ConsoleCommand, ConsoleSettings};
use crate::work_shares::WorkShares;
use crate::{api, pages, server, user_command};

/// The console waits for the database, it does not compute: more connections would only take them
/// from the workers.
const QUICK_CONNECTIONS: usize = 12;
/// A page that takes longer is of no use to a person (milliseconds).
const QUICK_STATEMENT_MS: u32 = 10_000;
/// Reports, exports and searches have connections of their own: they never take a page's.
const LONG_CONNECTIONS: usize = 6;
/// A year's report of ten million calls; well below the time of a request (milliseconds).
const LONG_STATEMENT_MS: u32 = 20_000;
/// How often Postgres is asked whether it is there, for `/ready`.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT; Postgres may be away, now and later.
pub async fn run(args: ConsoleSettings) -> Result<ExitReason, Failure> {
    let pool = open_pool(&args.postgres, QUICK_CONNECTIONS, QUICK_STATEMENT_MS)?;
    let long_pool = open_pool(&args.postgres, LONG_CONNECTIONS, LONG_STATEMENT_MS)?;
    match args.command {
        Some(ConsoleCommand::User(command)) => return user_command::run(command, pool).await,
        Some(ConsoleCommand::CheckConfig) => {
            print_good();
            return Ok(ExitReason::Drained);
        }
        None => {}
    }
    let shutdown = Shutdown::install_signals(args.grace.grace)
        .map_err(|e| Failure::new(ExitReason::Bug, e))?;
    let (ops, listener) = (args.console.ops_listen, args.console.listen);
    let ops = private_listener::bind_private(ops)
        .await
        .map_err(|e| Failure::unbound_address("TRUEUP_CONSOLE_OPS_LISTEN", ops, &e))?;
    let listener = server::bind_console(listener)
        .await
        .map_err(|e| Failure::unbound_address("TRUEUP_CONSOLE_LISTEN", listener, &e))?;

    let readiness = Readiness::new("trueup-console");
    let postgres = readiness.add_dependency(DependencyName::Postgres);
    let over = CancellationToken::new();
    let ops = spawn_vital(
        "private listener",
        private_listener::serve_private(ops, readiness.clone(), over.clone()),
    );
    spawn_vital(
        "Postgres watch",
        watch_postgres(pool.clone(), postgres, over.clone()),
    );

    let app = Arc::new(Console {
        shares: WorkShares::new(pool.clone(), long_pool.clone()),
        pool,
        long_pool,
        public_url: args.console.public_url.trim_end_matches('/').to_owned(),
        admin_key: args.console.admin_key,
        attempts: Attempts::default(),
        ceilings: Ceilings::new(args.console.ceilings),
    });
    let draining = readiness.clone();
    let stop = shutdown.stop().clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        draining.start_draining();
    });
    let exit = server::serve_console(listener, build_router(&app), &shutdown).await;
    over.cancel();
    let _ = ops.await;
    Ok(exit)
}

fn open_pool(
    postgres: &PostgresArgs,
    connections: usize,
    statement_ms: u32,
) -> Result<Pool, Failure> {
    let settings = PoolSettings {
        tls: postgres.tls(),
        profile: PoolProfile::Console,
        statement_timeout_ms: statement_ms,
        ..PoolSettings::for_application("trueup-console", connections)
    };
    Pool::new(postgres.postgres_url.expose_secret(), &settings)
        .map_err(|e| Failure::bad_setting("TRUEUP_POSTGRES_URL", e))
}

/// Keeps `/ready` told of Postgres. Without it the console still answers honestly (503), so it is
/// degraded, not down.
async fn watch_postgres(pool: Pool, postgres: Dependency, over: CancellationToken) {
    loop {
        match pool.ping().await {
            Ok(()) => postgres.ok(),
            Err(e) => postgres.set_degraded(e.to_string()),
        }
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
    }
}

fn build_router(app: &App) -> Router {
    api::build_router(app)
        .merge(pages::build_router(app))
        .fallback(no_route)
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn(limit_time))
        .layer(from_fn(measure_request))
        .with_state(app.clone())
}

async fn no_route(request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        return Problem::no_route().into_response();
    }
    pages::PageError::NotFound("page").into_response()
}
