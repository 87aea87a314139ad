//! Taking connections: bounded in all and for each address, patient when descriptors run out, and
//! ended in order when the process drains. When all places are taken, who has many connections that ask
//! nothing makes room for who has few.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trueup_ops::connections::{
    AdmissionError, ConnectionActivity, ConnectionLimits, ConnectionPlace, ConnectionTable,
};
use trueup_ops::metrics::{self, AdmissionRefusal, ResponseKind};
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
/// hyper's buffer for a head; the line below it refuses earlier, and knows what is too long.
const BUFFER: usize = 64 * 1024;
/// What all heads that are not complete may hold (bytes): a thousand of the largest, and some hundred
/// thousand of the usual size, which come in one piece anyway.
const ALL_HEADS_BYTES: usize = 32 * 1024 * 1024;

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

/// One that is connected, for as long as it has a place.
struct OpenConnection(ConnectionPlace);

impl OpenConnection {
    fn new(place: ConnectionPlace) -> OpenConnection {
        metrics::gateway().connections.add(1);
        OpenConnection(place)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gateway().connections.sub(1);
    }
}

/// Serves until `stop`, then until what is in flight is answered. Drop the future to cut that short.
pub async fn accept_connections(
    listener: TcpListener,
    gateway: Arc<GatewayState>,
    stop: CancellationToken,
) {
    let table = ConnectionTable::new(ConnectionLimits {
        connections: gateway.max_connections,
        connections_of_network: gateway.max_connections_per_address,
        buffered_bytes: ALL_HEADS_BYTES,
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                spawn_connection(stream, peer, &gateway, &table, &connections, &stop).await;
            }
            Err(e) => not_accepted(&e).await,
        }
    }
    // Who was already in the kernel's queue was let in; from here on the port is closed.
    while let Ok(Ok((stream, peer))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await
    {
        spawn_connection(stream, peer, &gateway, &table, &connections, &stop).await;
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
        metrics::gateway()
            .connections_refused
            .inc(AdmissionRefusal::Descriptors);
        tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
    }
    // Anything else was that one connection's own end.
}

async fn spawn_connection(
    stream: TcpStream,
    peer: SocketAddr,
    gateway: &Arc<GatewayState>,
    table: &Arc<ConnectionTable>,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    let address = peer.ip().to_canonical();
    let counted = (!gateway.proxies.trusts(address)).then(|| network_of(address));
    match table.admit_connection(counted).await {
        Ok(place) => {
            let (gateway, stop) = (Arc::clone(gateway), stop.clone());
            let open = OpenConnection::new(place);
            connections.spawn(async move {
                // An answer is small and complete: nothing is gained by waiting for more of it.
                let _ = stream.set_nodelay(true);
                serve_until_evicted(stream, address, gateway, open.0.activity(), stop).await;
            });
        }
        Err(error) => {
            let why = match error {
                AdmissionError::Total => AdmissionRefusal::Total,
                AdmissionError::Network => AdmissionRefusal::Address,
            };
            metrics::gateway().connections_refused.inc(why);
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

/// One connection, from its first byte to its last, alone in the world. Any stream will do: a fuzzer has
/// no socket.
pub async fn serve_connection<S>(
    stream: S,
    peer: IpAddr,
    gateway: Arc<GatewayState>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let table = ConnectionTable::new(ConnectionLimits {
        connections: 1,
        connections_of_network: 1,
        buffered_bytes: ALL_HEADS_BYTES,
    });
    if let Ok(place) = table.admit_connection(None).await {
        serve_until_evicted(stream, peer, gateway, place.activity(), stop).await;
    }
}

/// One connection that has a place, until its end or until it has to make room.
async fn serve_until_evicted<S>(
    stream: S,
    peer: IpAddr,
    gateway: Arc<GatewayState>,
    activity: &ConnectionActivity,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let talk = ConnectionState::new();
    let evicted = {
        let connection = OneConnection {
            talk: Arc::clone(&talk),
            peer,
            gateway,
            activity: activity.clone(),
            stop,
        };
        tokio::select! {
            biased;
            () = activity.wait_evicted() => true,
            () = connection.serve(stream) => false,
        }
    };
    if evicted {
        let phase = talk.report_eviction();
        metrics::gateway().connections_evicted.inc(phase);
    }
}

/// What a connection keeps from its first request to its last.
struct OneConnection<S> {
    talk: Arc<ConnectionState<S>>,
    peer: IpAddr,
    gateway: Arc<GatewayState>,
    activity: ConnectionActivity,
    stop: CancellationToken,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> OneConnection<S> {
    async fn serve(self, stream: S) {
        let mut line = TimeoutStream::new(stream, Arc::clone(&self.talk));
        // An error has its answer in the line's state; the line's end gives it the socket.
        while let Ok(true) = self.wait_for_head(&mut line).await {
            // In a box, so that a connection that rests does not hold the room for it.
            match Box::pin(self.serve_requests(line)).await {
                Some(rests) => line = rests,
                None => return self.end().await,
            }
        }
        drop(line);
        self.end().await;
    }

    async fn wait_for_head(&self, line: &mut TimeoutStream<S>) -> io::Result<bool> {
        let mut head = pin!(line.wait_for_head(&self.activity));
        tokio::select! {
            head = head.as_mut() => head,
            () = self.stop.cancelled() => match tokio::time::timeout(LAST_WORD, head.as_mut()).await {
                Ok(head) => head,
                Err(_) if self.talk.is_idle() => Ok(false),
                Err(_) => head.await,
            },
        }
    }

    /// Requests that follow each other closely; then the connection again, if it is to rest.
    async fn serve_requests(&self, line: TimeoutStream<S>) -> Option<TimeoutStream<S>> {
        let service = service_fn(|request| self.serve_request(request));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // The line keeps the time itself.
            .header_read_timeout(None)
            .half_close(true)
            // Fields of a head: hyper's own 100, which it keeps on the stack; another number costs an allocation.
            .max_buf_size(BUFFER);
        let mut connection = builder.serve_connection(TokioIo::new(line), service);
        let until_rest = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if self.talk.can_rest() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let ended = tokio::select! {
            ended = until_rest => ended,
            () = self.stop.cancelled() => Some(match tokio::time::timeout(LAST_WORD, &mut connection).await {
                Ok(ended) => ended,
                Err(_) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            }),
        };
        let Some(ended) = ended else {
            let parts = connection.into_parts();
            let mut line = parts.io.into_inner();
            line.put_back(&parts.read_buf);
            return Some(line);
        };
        if let Err(e) = ended {
            count_failure(&e, &self.talk);
        }
        None
    }

    async fn serve_request(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        self.talk.request_began();
        if !self.activity.begin_work() {
            // It has to make room: whoever sent this must send it again.
            self.talk.request_ended(true);
            return Ok(IngestResponse::Unavailable(BUSY).to_response(true));
        }
        let (mut response, unread) = self
            .gateway
            .handle(request, self.peer, &self.activity)
            .await;
        if self.stop.is_cancelled() {
            responses::close_connection(&mut response);
        }
        self.talk.request_ended(unread);
        self.activity.begin_waiting();
        Ok(response)
    }

    async fn end(&self) {
        // Whoever is still told something has no complete request.
        self.activity.begin_waiting();
        if let Some(answer) = self.talk.final_answer().await {
            metrics::gateway().answers.inc(answer.kind());
        }
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
        metrics::gateway().answers.inc(ResponseKind::Aborted);
    }
}
