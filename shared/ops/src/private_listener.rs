//! The ops listener: `/live`, `/ready`, `/metrics`. Nothing of it is on a public port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::health::Readiness;
use crate::metrics;

/// A scraper and a few probes; more is a mistake or worse.
const CONNECTIONS: usize = 64;
/// The kernel closes what a killed process had within moments.
const PORT_FREED_WITHIN: Duration = Duration::from_secs(3);
/// A probe writes its request at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Binds as soon as the port is free: a process that was killed a moment ago may still be leaving it,
/// and whoever restarts us at once should not be told that a setting is bad.
pub async fn bind_when_free(
    mut bind: impl FnMut() -> std::io::Result<TcpListener>,
) -> std::io::Result<TcpListener> {
    let deadline = tokio::time::Instant::now() + PORT_FREED_WITHIN;
    loop {
        match bind() {
            Err(e)
                if e.kind() == std::io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

/// A plain listener on an address.
pub fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Binds the listener and says where (port 0 in tests).
pub async fn bind_private(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = bind_when_free(|| listen_on(address)).await?;
    tracing::info!(listener = "ops", address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// Serves until `stop` is cancelled; give it the end of the process, not the beginning of the
/// draining: while it drains a balancer must read that it is not ready.
pub async fn serve_private(listener: TcpListener, readiness: Readiness, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::debug!(error = %e, "the ops listener could not accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let readiness = readiness.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer_request(&readiness, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

fn answer_request(readiness: &Readiness, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/live") => (StatusCode::OK, JSON, "{\"live\":true}".into()),
        (&Method::GET | &Method::HEAD, "/ready") => {
            let status = if readiness.is_ready() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            (status, JSON, Bytes::from(readiness.json()))
        }
        (&Method::GET | &Method::HEAD, "/metrics") => (
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            Bytes::from(metrics::render_metrics()),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            JSON,
            "{\"error\":\"there is /live, /ready and /metrics\"}".into(),
        ),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
