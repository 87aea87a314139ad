//! The console's listener: plain HTTP/1.1 with a limit on everything, drained on SIGTERM.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use trueup_ops::connections::{ConnectionActivity, ConnectionLimits, ConnectionTable};
use trueup_ops::network::network_of;
use trueup_ops::private_listener;
use trueup_ops::shutdown::{ExitReason, Shutdown};

use crate::client_network::Peer;

/// Users' browsers and some programs; more is a mistake or worse. Half of the descriptors that a process
/// usually may have.
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 512,
    // A proxy may bring everybody.
    connections_of_network: u32::MAX,
    // Hyper holds what is not complete, and bounds it.
    buffered_bytes: 0,
};
/// The head of a request arrives within this; it is also how long an idle connection is kept, so it
/// is longer than a load balancer keeps its own. With no place left nobody is kept so long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A client that does not read its answer: an export holds a connection to Postgres meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
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
    let table = ConnectionTable::new(LIMITS);
    let stop = shutdown.stop();
    while let Some((stream, peer)) = accept_next(&listener, shutdown).await {
        let admitting = table.admit_connection(Some(network_of(peer.ip())));
        let place = match stop.run_until_cancelled(admitting).await {
            None => break,
            Some(Ok(place)) => place,
            // Nobody who has more connections can make room: this one is closed at once.
            Some(Err(_)) => continue,
        };
        // Small answers to users: waiting to fill a packet only costs them time.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                track_requests(&router, place.activity(), peer.ip()),
            );
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                // A connection that breaks is the client's affair.
                _ = connection => {}
                () = place.activity().wait_evicted() => {}
            }
        });
    }
    drop(listener);
    shutdown.drain(connections.shutdown()).await
}

/// `None` once the process stops.
async fn accept_next(
    listener: &TcpListener,
    shutdown: &Shutdown,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        tokio::select! {
            () = shutdown.stop().cancelled() => return None,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, "the console's listener could not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn track_requests(
    router: &Router,
    activity: &ConnectionActivity,
    peer: IpAddr,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>
+ Send
+ 'static {
    let (router, activity) = (TowerToHyperService::new(router.clone()), activity.clone());
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        // One whose connection has to make room already is not begun: it ends with the connection.
        let answering = activity.begin_work().then(|| router.call(request));
        let activity = activity.clone();
        async move {
            let Some(answering) = answering else {
                return std::future::pending().await;
            };
            let answer = answering.await;
            activity.begin_waiting();
            answer
        }
    })
}
