//! The console's listener: plain HTTP/1.1 with a limit on everything, drained on SIGTERM.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use trueup_ops::private_listener;
use trueup_ops::shutdown::{ExitReason, Shutdown};

/// People's browsers and some programs; more is a mistake or worse.
const CONNECTIONS: usize = 1_024;
/// The head of a request arrives within this; it is also how long an idle connection is kept, so it
/// is longer than a load balancer keeps its own.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Before the next attempt after `accept` failed (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub async fn bind_console(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener =
        private_listener::bind_when_free(|| private_listener::listen_on(address)).await?;
    tracing::info!(listener = "console", address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// Serves until draining begins, then finishes what is in flight within the grace.
pub async fn serve_console(
    listener: TcpListener,
    router: Router,
    shutdown: &Shutdown,
) -> ExitReason {
    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            () = shutdown.stop().cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the console's listener could not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Small answers to people: waiting to fill a packet only costs them time.
        let _ = stream.set_nodelay(true);
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(router.clone()),
            );
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A connection that breaks is the client's affair.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    shutdown.drain(connections.shutdown()).await
}
