//! Requests on many kept connections, from one thread: as fast as they are answered, or at a pace
//! that does not wait for answers.
//!
//! At a pace, a request's time begins when it was *due*, not when a connection was free for it: a
//! server that stalls cannot hide the requests that it kept from being sent. Bounded in connections,
//! time and what may be due at once.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// An answer that takes longer is counted as none.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Requests that may be due without a connection; more means that the pace is a multiple of what is possible.
const DUE: usize = 2_000_000;
/// The longest time that is told apart (microseconds).
const LONGEST: u64 = 60_000_000;
/// Answers of ours are a few hundred bytes.
const PIECE: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoadModel {
    /// Each connection asks again as soon as it is answered.
    Flat,
    /// So many a second, whatever becomes of them.
    PerSecond(f64),
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub doors: Vec<SocketAddr>,
    pub connections: usize,
    pub pace: LoadModel,
    /// Sent and answered, but not measured.
    pub warm_up: Duration,
    pub span: Duration,
    /// Ends the sending before its time.
    pub stop: Arc<AtomicBool>,
}

/// What came back, of the requests of the measured span.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub per_second: f64,
    /// Answers by status.
    pub statuses: Vec<(u16, u64)>,
    /// Requests that got no answer.
    pub unanswered: u64,
    /// Microseconds.
    pub times: Histogram<u64>,
}

impl Outcome {
    pub fn millis(&self, percentile: f64) -> f64 {
        self.times.value_at_percentile(percentile) as f64 / 1000.0
    }

    /// Every answer had this status, and none is missing.
    pub fn expect_all(&self, status: u16) -> anyhow::Result<()> {
        ensure!(
            self.unanswered == 0 && self.statuses.iter().all(|(s, _)| *s == status),
            "expected only {status}: {:?}, unanswered {}",
            self.statuses,
            self.unanswered
        );
        Ok(())
    }
}

struct Line {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    got: Vec<u8>,
    /// When the request that is out was due.
    due: Option<Instant>,
}

struct LoadGenerator<'a> {
    plan: &'a Plan,
    make: &'a mut dyn FnMut(&mut Vec<u8>),
    lines: Vec<Line>,
    measure_from: Instant,
    until: Instant,
    statuses: Vec<u64>,
    done: u64,
    times: Histogram<u64>,
    out: usize,
}

/// Sends what `make` writes (a whole request each time) and waits for all answers.
pub fn drive(plan: &Plan, make: &mut dyn FnMut(&mut Vec<u8>)) -> anyhow::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut lines = Vec::with_capacity(plan.connections);
    for n in 0..plan.connections {
        let door = plan.doors[n % plan.doors.len()];
        let stream = std::net::TcpStream::connect(door)
            .with_context(|| format!("no connection to {door}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(
            &mut stream,
            Token(n),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        lines.push(Line {
            stream,
            out: Vec::new(),
            written: 0,
            got: Vec::new(),
            due: None,
        });
    }
    let started = Instant::now();
    let measure_from = started + plan.warm_up;
    let mut drive = LoadGenerator {
        plan,
        make,
        lines,
        measure_from,
        until: measure_from + plan.span,
        statuses: vec![0; 1000],
        done: 0,
        times: Histogram::new_with_max(LONGEST, 3)?,
        out: 0,
    };
    match plan.pace {
        LoadModel::Flat => drive.flat(&mut poll)?,
        LoadModel::PerSecond(rate) => drive.paced(&mut poll, rate)?,
    }
    let statuses = (0_u16..)
        .zip(&drive.statuses)
        .filter(|(_, n)| **n > 0)
        .map(|(s, n)| (s, *n))
        .collect();
    let unanswered = drive
        .lines
        .iter()
        .filter(|l| l.due.is_some_and(|due| due >= measure_from))
        .count() as u64;
    Ok(Outcome {
        per_second: drive.done as f64 / plan.span.as_secs_f64(),
        statuses,
        unanswered,
        times: drive.times,
    })
}

impl LoadGenerator<'_> {
    fn flat(&mut self, poll: &mut Poll) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut piece = vec![0; PIECE];
        for n in 0..self.lines.len() {
            self.send(n, Instant::now())?;
        }
        while self.out > 0 {
            wait(poll, &mut events, Duration::from_millis(100))?;
            let mut now = Instant::now();
            if now > self.until + ANSWER_WITHIN {
                return Ok(());
            }
            for event in &events {
                let n = event.token().0;
                if self.advance(n, event.is_writable(), &mut piece)? {
                    now = Instant::now();
                    self.record_response(n, now);
                    if now < self.until {
                        self.send(n, now)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn paced(&mut self, poll: &mut Poll, rate: f64) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut piece = vec![0; PIECE];
        let gap = Duration::from_secs_f64(1.0 / rate);
        let mut next = Instant::now();
        let mut due: VecDeque<Instant> = VecDeque::new();
        let mut idle: VecDeque<usize> = (0..self.lines.len()).collect();
        loop {
            let now = Instant::now();
            while next <= now && next < self.until {
                due.push_back(next);
                next += gap;
            }
            if due.len() > DUE {
                bail!(
                    "{} requests are due and {} out: the pace is far above what is possible",
                    due.len(),
                    self.out
                );
            }
            while let (Some(at), Some(n)) = (due.front().copied(), idle.front().copied()) {
                due.pop_front();
                idle.pop_front();
                self.send(n, at)?;
            }
            let over = next >= self.until && due.is_empty() && self.out == 0;
            if over || now > self.until + ANSWER_WITHIN || self.plan.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            // The kernel's timer counts in milliseconds; what is due meanwhile goes out together.
            wait(poll, &mut events, Duration::from_millis(1))?;
            for event in &events {
                let n = event.token().0;
                if self.advance(n, event.is_writable(), &mut piece)? {
                    self.record_response(n, Instant::now());
                    idle.push_back(n);
                }
            }
        }
    }

    fn send(&mut self, n: usize, due: Instant) -> anyhow::Result<()> {
        let line = &mut self.lines[n];
        line.out.clear();
        line.written = 0;
        line.due = Some(due);
        self.out += 1;
        (self.make)(&mut line.out);
        write_on(line)
    }

    /// True if the answer is whole; its status is noted by then.
    fn advance(&mut self, n: usize, writable: bool, piece: &mut [u8]) -> anyhow::Result<bool> {
        let line = &mut self.lines[n];
        if writable && line.written < line.out.len() {
            write_on(line)?;
        }
        if line.due.is_none() {
            return Ok(false);
        }
        loop {
            match line.stream.read(piece) {
                Ok(0) => bail!("the server ended a connection in the middle of the run"),
                Ok(len) => {
                    let status = if line.got.is_empty() {
                        let whole = answer(&piece[..len])?;
                        if whole.is_none() {
                            line.got.extend_from_slice(&piece[..len]);
                        }
                        whole
                    } else {
                        line.got.extend_from_slice(&piece[..len]);
                        answer(&line.got)?
                    };
                    if let Some(status) = status {
                        line.got.clear();
                        if line.due.is_some_and(|due| due >= self.measure_from) {
                            self.statuses[usize::from(status).min(999)] += 1;
                        }
                        return Ok(true);
                    }
                    if len < piece.len() {
                        return Ok(false);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("a connection broke in the middle of the run"),
            }
        }
    }

    fn record_response(&mut self, n: usize, now: Instant) {
        let Some(due) = self.lines[n].due.take() else {
            return;
        };
        self.out -= 1;
        if now >= self.measure_from && now < self.until {
            self.done += 1;
        }
        if due >= self.measure_from {
            let micros = u64::try_from(now.duration_since(due).as_micros()).unwrap_or(LONGEST);
            self.times.saturating_record(micros.max(1));
        }
    }
}

fn wait(poll: &mut Poll, events: &mut Events, at_most: Duration) -> anyhow::Result<()> {
    match poll.poll(events, Some(at_most)) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other.context("epoll"),
    }
}

fn write_on(line: &mut Line) -> anyhow::Result<()> {
    while line.written < line.out.len() {
        match line.stream.write(&line.out[line.written..]) {
            Ok(n) => line.written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("a request could not be written"),
        }
    }
    Ok(())
}

/// The status, if this is a whole answer with a `content-length`.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<u16>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = bytes
        .get(9..12)
        .and_then(|s| std::str::from_utf8(s).ok()?.parse().ok())
        .context("no status line")?;
    let at = bytes[..head]
        .windows(LENGTH.len())
        .position(|w| w.eq_ignore_ascii_case(LENGTH));
    let digits = at.map_or(&b""[..], |at| &bytes[at + LENGTH.len()..head]);
    let body = digits
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0, |n, b| n * 10 + usize::from(b - b'0'));
    Ok((bytes.len() >= head + 4 + body).then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let text = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(answer(text).expect("an answer"), Some(429));
        for end in 0..text.len() {
            assert_eq!(answer(&text[..end]).expect("a part"), None, "{end}");
        }
        assert_eq!(
            answer(b"HTTP/1.1 204 No Content\r\n\r\n").expect("an answer"),
            Some(204)
        );
    }
}
