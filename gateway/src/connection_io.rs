//! One connection's socket under hyper, with a deadline on every phase of it.
//!
//! hyper has one time-out for the head and for idling between requests; a door needs two: a head that
//! dribbles is cut after 10 s, an idle connection of a load balancer lives for a minute and a half. And
//! when hyper gives up, the socket comes back, so that the sender can still be told why, and what it
//! is still writing can be read away: otherwise the kernel's reset would destroy the answer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::responses::IngestResponse;

/// From a head's first byte to its last (contract).
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A connection that never says anything.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// Between requests: longer than a load balancer keeps an idle connection (60 to 75 s).
const IDLE: Duration = Duration::from_secs(90);
/// A sender that does not read its answers.
const WRITE_STALLED: Duration = Duration::from_secs(20);
/// A head above this is refused (bytes); its URL may have 8 KiB of it.
const HEAD_BYTES: usize = 24 * 1024;
/// A first line that has not ended by here is too long a URL (bytes).
const LINE_BYTES: usize = trueup_event::limits::URL_BYTES + 64;
/// What is read away after an answer that did not wait for the whole request.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of a next request is here.
    Idle,
    /// Some of its head is.
    Head,
    /// It is being answered: the handler has its own deadlines.
    Busy,
}

/// What is known of a connection, for the socket below hyper and the service above it.
pub struct ConnectionState<S> {
    state: Mutex<ProtocolState<S>>,
    /// A request is in the handler's hands, or its answer not wholly written: what is written now is
    /// ours. At any other time it is hyper's own.
    owed: AtomicBool,
}

struct ProtocolState<S> {
    phase: Phase,
    since: Instant,
    requests: u64,
    head_bytes: usize,
    line_ended: bool,
    /// Why the connection was ended by us.
    fault: Option<IngestResponse>,
    /// The sender may still be writing what nobody will read.
    unread: bool,
    returned: Option<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionState<S> {
    pub fn new() -> Arc<ConnectionState<S>> {
        let state = ProtocolState {
            phase: Phase::Idle,
            since: Instant::now(),
            requests: 0,
            head_bytes: 0,
            line_ended: false,
            fault: None,
            unread: false,
            returned: None,
        };
        Arc::new(ConnectionState {
            state: Mutex::new(state),
            owed: AtomicBool::new(false),
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, ProtocolState<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn request_began(&self) {
        self.owed.store(true, Ordering::Relaxed);
        let mut state = self.lock_state();
        state.phase = Phase::Busy;
        state.requests += 1;
    }

    pub fn request_ended(&self, unread: bool) {
        let mut state = self.lock_state();
        state.phase = Phase::Idle;
        state.since = Instant::now();
        state.head_bytes = 0;
        state.line_ended = false;
        state.unread |= unread;
    }

    /// What hyper found wrong with a head; a reason of the line's own comes first.
    pub fn set_protocol_error(&self, answer: IngestResponse) {
        self.lock_state().fault.get_or_insert(answer);
    }

    /// Everything buffered is written: after an answer, that is the answer.
    fn mark_flushed(&self) {
        if self.owed.load(Ordering::Relaxed) && self.lock_state().phase != Phase::Busy {
            self.owed.store(false, Ordering::Relaxed);
        }
    }

    /// After hyper is done: tells the sender what hyper could not, and lets it finish writing.
    /// Answers what was told.
    pub async fn final_answer(&self) -> Option<IngestResponse> {
        let (stream, fault, unread) = {
            let mut state = self.lock_state();
            (state.returned.take(), state.fault.take(), state.unread)
        };
        let mut stream = stream?;
        if let Some(answer) = &fault {
            let bytes = answer.to_bytes();
            let _ = tokio::time::timeout(LINGER, stream.write_all(&bytes)).await;
        }
        if fault.is_some() || unread {
            let _ = stream.shutdown().await;
            let _ = tokio::time::timeout(LINGER, read_away(&mut stream)).await;
        }
        fault
    }
}

async fn read_away(stream: &mut (impl AsyncRead + Unpin)) {
    let mut left = LINGER_BYTES;
    let mut scrap = vec![0_u8; 16 * 1024];
    while left > 0 {
        match stream.read(&mut scrap).await {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n),
        }
    }
}

impl<S> ProtocolState<S> {
    fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle if self.requests == 0 => Some(self.since + FIRST_WITHIN),
            Phase::Idle => Some(self.since + IDLE),
            Phase::Head => Some(self.since + HEAD_WITHIN),
            Phase::Busy => None,
        }
    }

    fn note_bytes(&mut self, piece: &[u8]) {
        match self.phase {
            Phase::Busy => return,
            Phase::Idle => {
                self.phase = Phase::Head;
                self.since = Instant::now();
            }
            Phase::Head => {}
        }
        if self.head_bytes < LINE_BYTES && piece.contains(&b'\n') {
            self.line_ended = true;
        }
        self.head_bytes += piece.len();
    }
}

pub struct TimeoutStream<S> {
    /// Always there until the line is dropped.
    stream: Option<S>,
    talk: Arc<ConnectionState<S>>,
    timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// hyper thinks that it has answered and ends the connection: the real answer is still to come.
    held_back: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TimeoutStream<S> {
    pub fn new(stream: S, talk: Arc<ConnectionState<S>>) -> TimeoutStream<S> {
        let timer = Box::pin(tokio::time::sleep(FIRST_WITHIN));
        TimeoutStream {
            stream: Some(stream),
            talk,
            timer,
            write_timer: None,
            held_back: false,
        }
    }

    fn stream_mut(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Nothing came: is it too late for it?
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(deadline) = self.talk.lock_state().next_deadline() else {
                return Poll::Pending;
            };
            if Instant::now() >= deadline {
                return Poll::Ready(self.too_late());
            }
            // A timer that is early only looks again; so most requests never touch it.
            if self.timer.deadline() > deadline || self.timer.is_elapsed() {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    /// An idle connection just ends; a head that never ended is an error, and is told.
    fn too_late(&self) -> io::Result<()> {
        let mut state = self.talk.lock_state();
        if state.phase == Phase::Idle {
            return Ok(());
        }
        state.fault = Some(IngestResponse::HeadTooSlow);
        Err(io::ErrorKind::TimedOut.into())
    }

    /// An answer that nobody here gave: it is not written, [`ConnectionState::final_answer`] tells instead.
    fn is_hypers_own(&mut self, bytes: &[u8]) -> bool {
        self.held_back |= !self.talk.owed.load(Ordering::Relaxed) && bytes.starts_with(b"HTTP/1.");
        self.held_back
    }

    fn check_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_timer = None;
            return outcome;
        }
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_STALLED)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        {
            let mut state = this.talk.lock_state();
            if state.phase == Phase::Head && state.head_bytes > HEAD_BYTES {
                let answer = if state.line_ended {
                    IngestResponse::HeadTooLarge
                } else {
                    IngestResponse::UriTooLong
                };
                state.fault = Some(answer);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        let before = buf.filled().len();
        match this.stream_mut()?.poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let piece = &buf.filled()[before..];
                if !piece.is_empty() {
                    this.talk.lock_state().note_bytes(piece);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => this.poll_deadline(cx),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hypers_own(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        let outcome = this.stream_mut()?.poll_write(cx, buf);
        this.check_write(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = this.stream_mut()?.poll_flush(cx);
        if outcome.is_ready() {
            this.talk.mark_flushed();
        }
        this.check_write(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held_back {
            return Poll::Ready(Ok(()));
        }
        this.stream_mut()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if first.is_some_and(|buf| this.is_hypers_own(buf)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let outcome = this.stream_mut()?.poll_write_vectored(cx, bufs);
        this.check_write(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl<S> Drop for TimeoutStream<S> {
    fn drop(&mut self) {
        let stream = self.stream.take();
        self.talk
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .returned = stream;
    }
}
