//! The ops listener: `/live`, `/ready`, `/metrics`. Nothing of it is on a public port.
//!
//! Ready means: this process can do its job *or answer honestly*. So what is degraded is told, but
//! only a dependency without which there is no honest answer makes `/ready` a 503.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::metrics;

/// A scraper and a few probes; more is a mistake or worse.
const CONNECTIONS: usize = 64;
/// The kernel closes what a killed process had within moments.
const PORT_FREED_WITHIN: Duration = Duration::from_secs(3);
/// A probe writes its request at once.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// The job is done, but not as well; the detail says how.
    Degraded,
    /// Without it there is no honest answer: not ready.
    Down,
}

#[derive(Debug, Clone, Serialize)]
struct Known {
    state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    since: Timestamp,
}

/// What this process depends on and how each of them is.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    process: &'static str,
    draining: AtomicBool,
    dependencies: Mutex<BTreeMap<&'static str, Known>>,
}

impl Readiness {
    pub fn new(process: &'static str) -> Self {
        Readiness(Arc::new(Inner {
            process,
            draining: AtomicBool::new(false),
            dependencies: Mutex::default(),
        }))
    }

    /// Names a dependency; it is down until it says otherwise. The name must stand in the label
    /// `dependency` of the metrics' table.
    pub fn dependency(&self, name: &'static str) -> Dependency {
        let dependency = Dependency {
            of: self.clone(),
            name,
        };
        dependency.set(State::Down, "starting");
        dependency
    }

    /// From now on not ready: a balancer should send nothing more.
    pub fn draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        let dependencies = self
            .0
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        !self.0.draining.load(Ordering::Relaxed)
            && dependencies.values().all(|d| d.state != State::Down)
    }

    /// Each dependency that is down, and why, for a log.
    pub fn what_is_down(&self) -> String {
        let dependencies = self
            .0
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let down = dependencies
            .iter()
            .filter(|(_, known)| known.state == State::Down);
        down.map(|(name, known)| format!("{name} ({})", known.detail))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Answer<'a> {
            ready: bool,
            draining: bool,
            process: &'a str,
            version: &'a str,
            dependencies: &'a BTreeMap<&'static str, Known>,
        }
        let ready = self.is_ready();
        let dependencies = self
            .0
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let answer = Answer {
            ready,
            draining: self.0.draining.load(Ordering::Relaxed),
            process: self.0.process,
            version: env!("CARGO_PKG_VERSION"),
            dependencies: &dependencies,
        };
        serde_json::to_string(&answer).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
    }
}

/// One named dependency; cheap to copy and to set again.
#[derive(Debug, Clone)]
pub struct Dependency {
    of: Readiness,
    name: &'static str,
}

impl Dependency {
    pub fn ok(&self) {
        self.set(State::Ok, "");
    }

    pub fn degraded(&self, detail: impl Into<String>) {
        self.set(State::Degraded, detail);
    }

    pub fn down(&self, detail: impl Into<String>) {
        self.set(State::Down, detail);
    }

    /// Logs a change of state, once.
    pub fn set(&self, state: State, detail: impl Into<String>) {
        let detail = detail.into();
        let value = match state {
            State::Ok => 2,
            State::Degraded => 1,
            State::Down => 0,
        };
        metrics::process().dependency.set(&[self.name], value);
        let mut all = self
            .of
            .0
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = all.get(self.name).map(|known| (known.state, known.since));
        let since = match before {
            Some((was, since)) if was == state => since,
            _ => Timestamp::now(),
        };
        let changed = before.is_some_and(|(was, _)| was != state);
        if changed {
            match state {
                State::Ok => tracing::info!(dependency = self.name, "as it should be"),
                _ => tracing::warn!(
                    dependency = self.name,
                    ?state,
                    detail,
                    "not as it should be"
                ),
            }
        }
        all.insert(
            self.name,
            Known {
                state,
                detail,
                since,
            },
        );
    }
}

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
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Binds the listener and says where (port 0 in tests).
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = bind_when_free(|| listen(address)).await?;
    tracing::info!(listener = "ops", address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// Serves until `stop` is cancelled; give it the end of the process, not the beginning of the
/// draining: while it drains a balancer must read that it is not ready.
pub async fn serve(listener: TcpListener, readiness: Readiness, stop: CancellationToken) {
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
                let answer = answer(&readiness, &request);
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

fn answer(readiness: &Readiness, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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
            Bytes::from(metrics::scrape()),
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
    use super::*;

    #[test]
    fn only_what_is_down_or_draining_is_not_ready() {
        let readiness = Readiness::new("trueup-test");
        let broker = readiness.dependency("broker");
        assert!(!readiness.is_ready(), "starting");
        broker.degraded("not connected");
        assert!(readiness.is_ready());
        let json = readiness.json();
        assert!(
            json.contains("\"broker\":{\"state\":\"degraded\",\"detail\":\"not connected\""),
            "{json}"
        );
        broker.ok();
        readiness.draining();
        assert!(!readiness.is_ready());
    }
}
