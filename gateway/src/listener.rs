//! Taking connections: bounded in all and for each address, patient when descriptors run out, and
//! ended in order when the process drains.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trueup_ops::metrics;
use trueup_ops::network::network_of;

use crate::app_state::GatewayState;
use crate::connection_io::{ConnectionState, TimeoutStream};
use crate::responses::{self, BUSY, IngestResponse, NO_HTTP};

/// Connections that the kernel holds for us; its own bound (somaxconn) applies, too.
const BACKLOG: u32 = 4096;
/// What the kernel holds for a sender that does not read its answers; by itself it would go to 4 MiB.
const SEND_BYTES: u32 = 64 * 1024;
/// And of what a sender writes before it is asked for: enough for half a batch on its way.
const RECEIVE_BYTES: u32 = 256 * 1024;
/// How long to wait when there are no descriptors left: some connection will end.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);
/// Descriptors that are no sender's: listeners, 64 probes, Postgres, Redis, the broker and its
/// client's own runtime, the spool, the log.
const OTHER_DESCRIPTORS: u64 = 128;
/// After the order to stop: what a sender may have under way already is still read and answered, and
/// told to be the last; the connection ends after that.
const LAST_WORD: Duration = Duration::from_millis(300);
/// hyper's buffer for a head; the line below it refuses earlier.
const BUFFER: usize = 64 * 1024;

pub fn bind_public(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait for the kernel to forget old connections.
    socket.set_reuseaddr(true)?;
    // Every connection that is let in has them from here.
    socket.set_send_buffer_size(SEND_BYTES)?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    tracing::info!(listener = "public", address = %listener.local_addr()?, "listening");
    Ok(listener)
}

/// Takes as many descriptors as the system lets us have, and answers how many of the connections that
/// are `wanted` they suffice for. Some stay free: a door full of strangers must still be able to reach
/// its neighbours and to answer a probe.
pub fn raise_file_limit(wanted: NonZeroU32) -> usize {
    let wanted = wanted.get() as usize;
    let descriptors = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(e) => {
                tracing::warn!(error = %e, soft, hard, "the limit of open files could not be raised");
                soft
            }
        },
        Err(e) => {
            tracing::warn!(error = %e, "the limit of open files could not be read");
            return wanted;
        }
    };
    let most = descriptors
        .saturating_sub(OTHER_DESCRIPTORS)
        .max(descriptors / 4);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if most < wanted {
        tracing::warn!(
            descriptors,
            connections = most,
            wanted,
            "the limit of open files allows fewer connections"
        );
    }
    wanted.min(most)
}

/// Who is connected: how many in all, and from each network (one IPv4 address, or an IPv6 /64).
#[derive(Default)]
struct ConnectionLimiter(Mutex<(usize, HashMap<IpAddr, u32>)>);

/// One connection's place; given back when it is dropped.
struct ConnectionPermit {
    crowd: Arc<ConnectionLimiter>,
    /// None for a trusted proxy, which brings everybody.
    network: Option<IpAddr>,
}

impl ConnectionLimiter {
    fn admit_connection(
        self: &Arc<Self>,
        network: Option<IpAddr>,
        door: &GatewayState,
    ) -> Result<ConnectionPermit, &'static str> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if crowd.0 >= door.max_connections {
            return Err("total");
        }
        if let Some(network) = network {
            let of = crowd.1.entry(network).or_default();
            if *of >= door.max_connections_per_address {
                return Err("address");
            }
            *of += 1;
        }
        crowd.0 += 1;
        metrics::gateway().connections.add(&[], 1);
        Ok(ConnectionPermit {
            crowd: Arc::clone(self),
            network,
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut crowd = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.0 = crowd.0.saturating_sub(1);
        if let Some(network) = self.network
            && let Some(of) = crowd.1.get_mut(&network)
        {
            *of = of.saturating_sub(1);
            if *of == 0 {
                crowd.1.remove(&network);
            }
        }
        metrics::gateway().connections.add(&[], -1);
    }
}

/// Serves until `stop`, then until what is in flight is answered. Drop the future to cut that short.
pub async fn accept_connections(
    listener: TcpListener,
    door: Arc<GatewayState>,
    stop: CancellationToken,
) {
    let crowd = Arc::new(ConnectionLimiter::default());
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                spawn_connection(stream, peer, &door, &crowd, &connections, &stop)
            }
            Err(e) => not_accepted(&e).await,
        }
    }
    // Who was already in the kernel's queue was let in; from here on the port is closed.
    while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await
    {
        spawn_connection(stream, peer, &door, &crowd, &connections, &stop);
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn not_accepted(error: &io::Error) {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    if matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
    ) {
        metrics::gateway().connections_refused.inc(&["descriptors"]);
        tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
    }
    // Anything else was that one connection's own end.
}

fn spawn_connection(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Arc<GatewayState>,
    crowd: &Arc<ConnectionLimiter>,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let address = peer.ip().to_canonical();
    let counted = (!door.proxies.trusts(address)).then(|| network_of(address));
    match crowd.admit_connection(counted, door) {
        Ok(place) => {
            let (door, stop) = (Arc::clone(door), stop.clone());
            connections.spawn(async move {
                // An answer is small and complete: nothing is gained by waiting for more of it.
                let _ = stream.set_nodelay(true);
                serve_connection(stream, address, door, stop).await;
                drop(place);
            });
        }
        Err(why) => {
            metrics::gateway().connections_refused.inc(&[why]);
            reject_connection(stream);
        }
    }
}

/// Nobody waits for one for whom there is no place: it is told what fits into the empty socket's buffer.
/// What it has said already is read first, else the kernel's reset would destroy the answer.
fn reject_connection(stream: TcpStream) {
    use std::io::{Read, Write};
    // As the kernel sees it: the runtime does not know yet whether this socket can be written to.
    let Ok(mut stream) = stream.into_std() else {
        return;
    };
    let _ = stream.read(&mut [0_u8; 8 * 1024]);
    let _ = stream.write(&IngestResponse::Unavailable(BUSY).to_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// One connection, from its first byte to its last. Any stream will do: a fuzzer has no socket.
pub async fn serve_connection<S>(
    stream: S,
    peer: IpAddr,
    door: Arc<GatewayState>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let talk = ConnectionState::new();
    let line = TimeoutStream::new(stream, Arc::clone(&talk));
    let ended = {
        let (talk, order) = (Arc::clone(&talk), stop.clone());
        let service = service_fn(move |request| {
            let (door, talk, stop) = (Arc::clone(&door), Arc::clone(&talk), stop.clone());
            async move {
                talk.request_began();
                let (mut response, unread) = door.handle(request, peer).await;
                if stop.is_cancelled() {
                    responses::close_connection(&mut response);
                }
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
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = order.cancelled() => match tokio::time::timeout(LAST_WORD, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            },
        }
    };
    if let Err(e) = ended {
        count_failure(&e, &talk);
    }
    if let Some(answer) = talk.final_answer().await {
        metrics::gateway().answers.inc(&[answer.metric_label()]);
    }
}

/// What hyper found wrong before there was a request.
fn count_failure<S: AsyncRead + AsyncWrite + Unpin>(
    error: &hyper::Error,
    talk: &ConnectionState<S>,
) {
    if error.is_parse_too_large() {
        talk.set_protocol_error(IngestResponse::HeadTooLarge);
    } else if error.is_parse() {
        talk.set_protocol_error(IngestResponse::Malformed(NO_HTTP));
    } else if error.is_incomplete_message() {
        metrics::gateway().answers.inc(&["aborted"]);
    }
}
