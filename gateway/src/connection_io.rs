//! One connection's socket under hyper, with a deadline on every phase of it.
//!
//! hyper has one time-out for the head and for idling between requests; a door needs two: a head that
//! dribbles is cut after 10 s, an idle connection of a load balancer lives for a minute and a half. And
//! when hyper gives up, the socket comes back, so that the sender can still be told why, and what it
//! is still writing can be read away: otherwise the kernel's reset would destroy the answer.
//!
//! hyper keeps some 12 KiB for each connection, also for one that says nothing. So it has a connection
//! only while a request is being read and answered; at any other time the connection rests here, with
//! the bytes of an unfinished head and nothing else.

use std::future::poll_fn;
use std::io::{self, BufRead};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use trueup_ops::connections::ConnectionActivity;
use trueup_ops::metrics::RequestPhase;

use crate::responses::{BUSY, IngestResponse};

/// From a head's first byte to its last (contract).
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// A connection that never says anything.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// Between requests: longer than a load balancer keeps an idle connection (60 to 75 s).
const IDLE: Duration = Duration::from_secs(90);
/// After its last answer a connection is hyper's for so long: a sender in full swing never waits for it to
/// be set up again, and one that rests costs little.
const REST_AFTER: Duration = Duration::from_secs(1);
/// A sender that does not read its answers.
const WRITE_STALLED: Duration = Duration::from_secs(20);
/// A head above this is refused (bytes); its URL may have 8 KiB of it.
const HEAD_BYTES: usize = 24 * 1024;
/// What is read of a head at once while hyper has not the connection: more than most requests have.
const PIECE_BYTES: usize = 4 * 1024;
/// By how much the memory of an unfinished head grows at least: a head that comes byte by byte is not
/// copied for each.
const HEAD_GROWS_BY: usize = 1024;
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
        self.state.lock()
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

    /// True if hyper has no part in the connection for now: nothing of a request is here, or only some of a
    /// head, and all answers are written.
    pub fn can_rest(&self) -> bool {
        if self.owed.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.lock_state();
        let rests = match state.phase {
            Phase::Idle => state.requests > 0 && state.since.elapsed() >= REST_AFTER,
            Phase::Head => true,
            Phase::Busy => false,
        };
        rests && !state.unread
    }

    /// Nothing of a next request is here.
    pub fn is_idle(&self) -> bool {
        self.lock_state().phase == Phase::Idle
    }

    /// The connection had to make room. A sender that has said half a request is told, in what the kernel
    /// takes at once: nobody waits for one that has no place any more. Answers the metric's phase.
    pub fn report_eviction(&self) -> RequestPhase {
        let (stream, phase) = {
            let mut state = self.lock_state();
            (state.returned.take(), state.phase)
        };
        let label = match phase {
            Phase::Idle => return RequestPhase::Idle,
            Phase::Head => RequestPhase::Head,
            Phase::Busy => RequestPhase::Body,
        };
        if let Some(mut stream) = stream {
            let mut cx = Context::from_waker(Waker::noop());
            let mut scrap = [MaybeUninit::uninit(); PIECE_BYTES];
            let mut stream = Pin::new(&mut stream);
            // What it has said is read first, else the kernel's reset would destroy the answer.
            let _ = stream
                .as_mut()
                .poll_read(&mut cx, &mut ReadBuf::uninit(&mut scrap));
            let answer = IngestResponse::Unavailable(BUSY).to_bytes();
            let _ = stream.as_mut().poll_write(&mut cx, &answer);
            let _ = stream.poll_shutdown(&mut cx);
        }
        label
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

/// Holds no memory while it waits: thousands may be told at the same time that their heads were too slow.
async fn read_away(stream: &mut (impl AsyncRead + Unpin)) {
    let mut left = LINGER_BYTES;
    while left > 0 {
        let read = poll_fn(|cx| {
            let mut room = [MaybeUninit::uninit(); PIECE_BYTES];
            let mut scrap = ReadBuf::uninit(&mut room);
            let outcome = ready!(Pin::new(&mut *stream).poll_read(cx, &mut scrap));
            Poll::Ready(outcome.map(|()| scrap.filled().len()))
        });
        match read.await {
            Ok(0) | Err(_) => return,
            Ok(n) => left = left.saturating_sub(n),
        }
    }
}

impl<S> ProtocolState<S> {
    fn next_deadline(&self, rests: bool) -> Option<Instant> {
        match self.phase {
            Phase::Idle if !rests => Some(self.since + REST_AFTER),
            Phase::Idle if self.requests == 0 => Some(self.since + FIRST_WITHIN),
            Phase::Idle => Some(self.since + IDLE),
            Phase::Head => Some(self.since + HEAD_WITHIN),
            Phase::Busy => None,
        }
    }

    fn record_bytes(&mut self, piece: &[u8]) {
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
    /// hyper has not the connection.
    rests: bool,
    /// The beginning of a head that hyper is still to read. While the rest of it is waited for, it is kept
    /// where it counts as unfinished.
    begun: Vec<u8>,
    is_held: bool,
}

/// Whether a head may end in these bytes: an empty line is in them.
fn may_end_head(mut bytes: &[u8]) -> bool {
    while let Ok(1..) = bytes.skip_until(b'\n') {
        if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
            return true;
        }
    }
    false
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
            rests: false,
            begun: Vec::new(),
            is_held: false,
        }
    }

    /// Rests until there is something that hyper should look at: the first piece of a head (most are in one
    /// piece), or the end of one of which it has seen the beginning. False if the connection has ended.
    pub async fn wait_for_head(&mut self, activity: &ConnectionActivity) -> io::Result<bool> {
        self.rests = true;
        let outcome = self.read_head(activity).await;
        self.rests = false;
        if std::mem::take(&mut self.is_held) {
            activity.release_unfinished();
        }
        outcome
    }

    async fn read_head(&mut self, activity: &ConnectionActivity) -> io::Result<bool> {
        // hyper may have paused between two requests that came together: it goes on at once.
        let blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let blank = self.begun.iter().take_while(blank).count();
        if may_end_head(self.begun.get(blank..).unwrap_or_default()) {
            return Ok(true);
        }
        loop {
            let before = self.begun.len();
            if before > 0 {
                self.is_held = true;
                activity.hold_unfinished(std::mem::take(&mut self.begun));
            }
            if poll_fn(|cx| self.poll_piece(cx, activity)).await? == 0 {
                return Ok(before > 0);
            }
            let unseen = before.saturating_sub(2);
            if before == 0 || may_end_head(self.begun.get(unseen..).unwrap_or_default()) {
                return Ok(true);
            }
        }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        activity: &ConnectionActivity,
    ) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); PIECE_BYTES];
        let mut piece = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *self).poll_read(cx, &mut piece))?;
        let piece = piece.filled();
        if self.is_held {
            self.begun = activity.take_unfinished();
        }
        if self.begun.capacity() - self.begun.len() < piece.len() {
            self.begun.reserve_exact(piece.len().max(HEAD_GROWS_BY));
        }
        self.begun.extend_from_slice(piece);
        Poll::Ready(Ok(piece.len()))
    }

    /// hyper gives the connection back, with what it has read of a next head.
    pub fn put_back(&mut self, read: &[u8]) {
        let mut state = self.talk.lock_state();
        if state.phase == Phase::Idle && !read.is_empty() {
            state.record_bytes(read);
        }
        drop(state);
        self.begun = read.to_vec();
    }

    /// Gives hyper what was read before it had the connection.
    fn read_begun(&mut self, buf: &mut ReadBuf<'_>) {
        let n = buf.remaining().min(self.begun.len());
        buf.put_slice(&self.begun[..n]);
        if n == self.begun.len() {
            self.begun = Vec::new();
        } else {
            self.begun.drain(..n);
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
            let (deadline, phase) = {
                let state = self.talk.lock_state();
                (state.next_deadline(self.rests), state.phase)
            };
            let Some(deadline) = deadline else {
                return Poll::Pending;
            };
            if Instant::now() >= deadline {
                if phase == Phase::Idle && !self.rests {
                    // Who polls hyper looks whether the connection can rest, and lets it.
                    return Poll::Pending;
                }
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
        if !this.rests && !this.begun.is_empty() {
            this.read_begun(buf);
            return Poll::Ready(Ok(()));
        }
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
                    this.talk.lock_state().record_bytes(piece);
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
        self.talk.state.lock().returned = stream;
    }
}
