//! Taking connections: bounded in all and for each address, patient when descriptors run out, and
//! ended in order when the process drains.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trueup_shared::ops::metrics;

use super::Door;
use super::line::{Line, Talk};
use super::respond::{Answer, BUSY};

/// Connections that the kernel holds for us; its own bound (somaxconn) applies, too.
const BACKLOG: u32 = 4096;
/// How long to wait when there are no descriptors left: some connection will end.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);
/// hyper's buffer for a head; the line below it refuses earlier.
const BUFFER: usize = 64 * 1024;

pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the kernel to forget old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    tracing::info!(listener = "public", address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// As many descriptors as the system lets us have.
pub fn raise_descriptor_limit() {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => {
            if let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
                tracing::warn!(error = %e, soft, hard, "the limit of open files could not be raised");
            }
        }
        Ok(_) => {}
        Err(e) => tracing::warn!(error = %e, "the limit of open files could not be read"),
    }
}

/// Who is connected.
#[derive(Default)]
struct Crowd(Mutex<(usize, HashMap<IpAddr, u32>)>);

/// One connection's place; given back when it is dropped.
struct Place {
    crowd: Arc<Crowd>,
    /// None for a trusted proxy, which brings everybody.
    address: Option<IpAddr>,
}

impl Crowd {
    fn enter(self: &Arc<Self>, address: Option<IpAddr>, door: &Door) -> Result<Place, &'static str> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if crowd.0 >= door.max_connections {
            return Err("total");
        }
        if let Some(address) = address {
            let of = crowd.1.entry(address).or_default();
            if *of >= door.max_connections_per_address {
                return Err("address");
            }
            *of += 1;
        }
        crowd.0 += 1;
        metrics::gateway().connections.add(&[], 1);
        Ok(Place { crowd: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.0 = crowd.0.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(of) = crowd.1.get_mut(&address)
        {
            *of = of.saturating_sub(1);
            if *of == 0 {
                crowd.1.remove(&address);
            }
        }
        metrics::gateway().connections.add(&[], -1);
    }
}

/// Serves until `stop`, then until what is in flight is answered. Drop the future to cut that short.
pub async fn serve(listener: TcpListener, door: Arc<Door>, stop: CancellationToken) {
    let crowd = Arc::new(Crowd::default());
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => welcome(stream, peer, &door, &crowd, &connections, &stop),
            Err(e) => not_accepted(&e).await,
        }
    }
    // Who was already in the kernel's queue was let in; from here on the port is closed.
    while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await {
        welcome(stream, peer, &door, &crowd, &connections, &stop);
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn not_accepted(error: &io::Error) {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
        metrics::gateway().connections_refused.inc(&["descriptors"]);
        tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
    }
    // Anything else was that one connection's own end.
}

fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Arc<Door>,
    crowd: &Arc<Crowd>,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let address = peer.ip().to_canonical();
    let counted = (!door.proxies.trusts(address)).then_some(address);
    match crowd.enter(counted, door) {
        Ok(place) => {
            let (door, stop) = (Arc::clone(door), stop.clone());
            connections.spawn(async move {
                attend(stream, address, door, stop).await;
                drop(place);
            });
        }
        Err(why) => {
            metrics::gateway().connections_refused.inc(&[why]);
            // If it fits into the empty socket's buffer, it is told; nobody waits for it.
            let _ = stream.try_write(&Answer::Unavailable(BUSY).bytes());
        }
    }
}

async fn attend(stream: TcpStream, peer: IpAddr, door: Arc<Door>, stop: CancellationToken) {
    // An answer is small and complete: nothing is gained by waiting for more of it.
    let _ = stream.set_nodelay(true);
    let talk = Talk::new();
    let line = Line::new(stream, Arc::clone(&talk));
    {
        let talk = Arc::clone(&talk);
        let service = service_fn(move |request| {
            let (door, talk) = (Arc::clone(&door), Arc::clone(&talk));
            async move {
                talk.request_began();
                let (response, unread) = door.handle(request, peer).await;
                talk.request_ended(unread);
                Ok::<_, Infallible>(response)
            }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // The line keeps the time itself.
            .header_read_timeout(None)
            .half_close(true)
            // Fields of a head: hyper's own 100, which it keeps on the stack; another number costs an allocation.
            .max_buf_size(BUFFER);
        let connection = builder.serve_connection(TokioIo::new(line), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            note(&e);
        }
    }
    if let Some(answer) = talk.farewell().await {
        metrics::gateway().answers.inc(&[answer.label()]);
    }
}

/// What hyper answered by itself, before there was a request.
fn note(error: &hyper::Error) {
    let answers = &metrics::gateway().answers;
    if error.is_parse_too_large() {
        answers.inc(&["head_too_large"]);
    } else if error.is_parse() {
        answers.inc(&["malformed"]);
    } else if error.is_incomplete_message() {
        answers.inc(&["aborted"]);
    }
}
