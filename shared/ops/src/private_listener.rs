//! The ops listener: `/live`, `/ready`, `/metrics`. Nothing of it is on a public port.
//!
//! It has a thread and a runtime of its own: a probe and a scrape are answered however busy the process's
//! work is. Only work that has stood still for [`STUCK_AFTER`] makes `/live` say so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
/// How often the process's own runtime shows that it still turns.
const PULSE_EVERY: Duration = Duration::from_secs(1);
/// Without a pulse for so long the process does no work any more, and should be started again. No bounded
/// piece of work takes a tenth of it.
const STUCK_AFTER: Duration = Duration::from_secs(60);

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

/// When the runtime that does the process's work was last seen turning.
#[derive(Clone)]
struct Pulse {
    began: Instant,
    last_millis: Arc<AtomicU64>,
}

impl Pulse {
    fn new() -> Pulse {
        Pulse {
            began: Instant::now(),
            last_millis: Arc::default(),
        }
    }

    fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(now, Ordering::Relaxed);
    }

    fn is_alive(&self) -> bool {
        let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last) < STUCK_AFTER
    }
}

/// Serves until `stop` is cancelled; give it the end of the process, not the beginning of the
/// draining: while it drains a balancer must read that it is not ready. A panic of the serving thread is
/// this task's.
pub async fn serve_private(listener: TcpListener, readiness: Readiness, stop: CancellationToken) {
    let pulse = Pulse::new();
    let (over, mut is_over) = tokio::sync::oneshot::channel::<()>();
    let listener = listener.into_std().expect("a listener of this runtime");
    let (of_work, until) = (pulse.clone(), stop.clone());
    std::thread::Builder::new()
        .name("ops listener".to_owned())
        .spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for the ops listener")
                .block_on(accept_probes(listener, readiness, of_work, until));
            let _ = over.send(());
        })
        .expect("a thread for the ops listener");
    loop {
        pulse.beat();
        tokio::select! {
            ended = &mut is_over => {
                ended.expect("the ops listener's thread panicked");
                return;
            }
            () = tokio::time::sleep(PULSE_EVERY) => {}
        }
    }
}

async fn accept_probes(
    listener: std::net::TcpListener,
    readiness: Readiness,
    pulse: Pulse,
    stop: CancellationToken,
) {
    let listener = TcpListener::from_std(listener).expect("a listener that does not block");
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
        let (readiness, pulse) = (readiness.clone(), pulse.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer_request(&readiness, &pulse, &request);
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

fn answer_request(
    readiness: &Readiness,
    pulse: &Pulse,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    const JSON: &str = "application/json";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/live") if pulse.is_alive() => {
            (StatusCode::OK, JSON, "{\"live\":true}".into())
        }
        (&Method::GET | &Method::HEAD, "/live") => (
            StatusCode::SERVICE_UNAVAILABLE,
            JSON,
            "{\"live\":false}".into(),
        ),
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).expect("connects");
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).expect("a timeout");
        let request = format!("GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The runtime has one thread, and that thread asks: whoever answers is not on it.
    #[tokio::test]
    async fn a_probe_is_answered_while_the_work_has_every_thread() {
        let listener = bind_private(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_private(
            listener,
            Readiness::new("test"),
            stop.clone(),
        ));
        tokio::task::yield_now().await;
        for path in ["/live", "/ready", "/metrics"] {
            let answer = ask(address, path);
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
        stop.cancel();
        serving.await.expect("ends with the process");
    }

    #[test]
    fn work_that_has_stood_still_too_long_is_not_alive() {
        let pulse = Pulse::new();
        assert!(pulse.is_alive());
        let long_ago = Pulse {
            began: Instant::now()
                .checked_sub(STUCK_AFTER * 2)
                .expect("after the machine's start"),
            ..pulse
        };
        assert!(!long_ago.is_alive());
        long_ago.beat();
        assert!(long_ago.is_alive());
    }
}
