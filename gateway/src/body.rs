//! Reading a body, bounded in size, in time, and in what all bodies together may hold.
//!
//! Whether it may be a batch decides its limit (X1), so the first byte that says anything is looked at as
//! soon as it is there, and whether a second line begins as an object does; nothing else of a body is
//! looked at here.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::Instant;
use trueup_event::batch::{begins_with_two_objects, first_significant};
use trueup_event::limits::{BATCH_BODY_BYTES, BODY_BYTES, body_bytes};
use trueup_ops::connections::ConnectionActivity;

use crate::body_shares::{BodyOwner, BodyPermit, ShareUsedUp};

/// From the head to the body's last byte.
const WITHIN: Duration = Duration::from_secs(20);
/// A body larger than this (bytes) comes at a least rate on the whole; a smaller one holds little, and has
/// all the time.
const SMALL_BYTES: usize = 16 * 1024;
/// Bytes a second: a modem's rate. A batch of the largest size needs more to end in time anyway.
const LEAST_RATE: usize = 4 * 1024;
/// Before this nobody's rate is looked at: a lost packet may be sent again a few times.
const RATE_AFTER: Duration = Duration::from_secs(5);
/// How long a refused request's body may still come before the connection is given up instead.
const DISCARD_WITHIN: Duration = Duration::from_millis(100);

/// A body with one object in it may say so late; its first line has ended by here, if it is one of many.
const FIRST_LINE_BYTES: usize = 4 * 1024;

/// How much of a body is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// As much as what it begins with may have (X1).
    ByContent,
    /// As much as a batch: its head says that it is one, or it is compressed and is looked at later.
    Batch,
}

#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    TooSlow,
    /// As much is held of bodies as its webhook, its network or all together may; or its connection had to
    /// make room.
    Full,
    /// The sender went away, or what it sent is no body.
    Broken,
}

/// True if the body, by the length that its head gives, is too large whatever is in it: nothing of it
/// need be read.
pub fn exceeds_maximum_by_its_length(body: &Incoming) -> bool {
    body.size_hint().lower() > BATCH_BODY_BYTES as u64
}

/// Reads a small body away, if it is here already: true if nothing of it is left, so that the
/// connection may be used again. A sender that `waits` for a 100 has not sent it.
pub async fn discard_body(mut body: Incoming, waits: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if waits || body.size_hint().lower() > BODY_BYTES as u64 {
        return false;
    }
    let away = async {
        let mut left = BODY_BYTES;
        while let Some(frame) = body.frame().await {
            let Some(data) = frame.ok().and_then(|frame| frame.into_data().ok()) else {
                return false;
            };
            match left.checked_sub(data.len()) {
                Some(less) => left = less,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(DISCARD_WITHIN, away)
        .await
        .unwrap_or(false)
}

impl From<ShareUsedUp> for BodyError {
    fn from(ShareUsedUp: ShareUsedUp) -> BodyError {
        BodyError::Full
    }
}

/// Reads a whole body. Until it is complete, its connection may have to make room for another.
pub async fn read_body(
    mut body: Incoming,
    owner: BodyOwner,
    limit: BodyLimit,
    activity: &ConnectionActivity,
) -> Result<Bytes, BodyError> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if exceeds_maximum_by_its_length(&body) {
        return Err(BodyError::TooLarge);
    }
    let mut pieces = BodyPieces::new(&body, limit);
    if let Some(whole) = pieces.read_ready(&mut body)? {
        return Ok(whole);
    }
    activity.begin_waiting();
    let outcome = read_pieces(body, pieces, owner).await;
    if !activity.begin_work() {
        return Err(BodyError::Full);
    }
    outcome
}

async fn read_pieces(
    mut body: Incoming,
    mut pieces: BodyPieces,
    owner: BodyOwner,
) -> Result<Bytes, BodyError> {
    let began = Instant::now();
    let mut permit = BodyPermit::acquire(owner)?;
    permit.grow(pieces.bytes.capacity())?;
    loop {
        let frame = tokio::time::timeout_at(began + pieces.patience(), body.frame())
            .await
            .map_err(|_| BodyError::TooSlow)?;
        let Some(data) = data_of(frame)? else {
            return Ok(Bytes::from(pieces.bytes));
        };
        permit.grow(pieces.capacity_for(data.len()))?;
        pieces.append(&data)?;
    }
}

/// The bytes of a frame; none at the body's end.
fn data_of(frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Result<Option<Bytes>, BodyError> {
    match frame {
        None => Ok(None),
        // What follows the last chunk says nothing of a report.
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => Err(BodyError::Broken),
    }
}

/// A body as far as it has come.
struct BodyPieces {
    bytes: Vec<u8>,
    /// By its head; 0 if that does not say.
    announced: usize,
    /// Known when a byte has come that says something.
    limit: Option<usize>,
    /// It begins as an object does, and its limit is that of one so far.
    may_be_lines: bool,
    /// Bytes at the beginning that are known to say nothing: each is looked at once, in however many pieces
    /// they come.
    blank: usize,
}

impl BodyPieces {
    fn new(body: &Incoming, limit: BodyLimit) -> BodyPieces {
        BodyPieces {
            bytes: Vec::new(),
            announced: usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX),
            limit: (limit == BodyLimit::Batch).then_some(BATCH_BODY_BYTES),
            may_be_lines: false,
            blank: 0,
        }
    }

    /// The whole body, if it is here with its head already, as most are. In one piece it is not copied.
    fn read_ready(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
        let mut first: Option<Bytes> = None;
        while let Some(frame) = body.frame().now_or_never() {
            let data = data_of(frame)?;
            let ended = data.is_none() || body.is_end_stream();
            match (first.take(), data) {
                (None, Some(data)) if self.bytes.is_empty() => {
                    self.check_limit(&data)?;
                    first = Some(data);
                }
                (before, None) => first = before,
                (before, Some(data)) => {
                    self.append(&before.unwrap_or_default())?;
                    self.append(&data)?;
                }
            }
            if ended {
                let copied = || Bytes::from(std::mem::take(&mut self.bytes));
                return Ok(Some(first.unwrap_or_else(copied)));
            }
        }
        self.append(&first.unwrap_or_default())?;
        Ok(None)
    }

    /// How long after its head what has come so far is enough.
    fn patience(&self) -> Duration {
        if self.bytes.len().max(self.announced) <= SMALL_BYTES {
            return WITHIN;
        }
        let seconds = u64::try_from(self.bytes.len() / LEAST_RATE).unwrap_or(u64::MAX);
        Duration::from_secs(seconds).clamp(RATE_AFTER, WITHIN)
    }

    /// The memory for so many bytes more: doubled when it is used up, and never more than a batch needs.
    fn capacity_for(&self, more: usize) -> usize {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return self.bytes.capacity();
        }
        needed
            .next_power_of_two()
            .clamp(SMALL_BYTES, BATCH_BODY_BYTES)
            .max(needed)
    }

    fn append(&mut self, data: &[u8]) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        let capacity = self.capacity_for(data.len());
        self.bytes.reserve_exact(capacity - self.bytes.len());
        self.bytes.extend_from_slice(data);
        let bytes = std::mem::take(&mut self.bytes);
        let checked = self.check_limit(&bytes);
        self.bytes = bytes;
        checked
    }

    fn check_limit(&mut self, so_far: &[u8]) -> Result<(), BodyError> {
        if self.limit.is_none() {
            let unseen = so_far.get(self.blank..).unwrap_or_default();
            let first = first_significant(unseen);
            self.limit = first.map(|_| body_bytes(first));
            self.may_be_lines = first == Some(b'{');
            self.blank = so_far.len();
        }
        let limit = self.limit.unwrap_or(BODY_BYTES);
        if so_far.len().max(self.announced) <= limit {
            return Ok(());
        }
        if self.may_be_lines {
            return self.check_lines(so_far);
        }
        Err(BodyError::TooLarge)
    }

    /// More than one report may have: a batch of lines, or too much.
    fn check_lines(&mut self, so_far: &[u8]) -> Result<(), BodyError> {
        if begins_with_two_objects(so_far) {
            self.limit = Some(BATCH_BODY_BYTES);
            self.may_be_lines = false;
            return self.check_limit(so_far);
        }
        if so_far.len() < FIRST_LINE_BYTES {
            return Ok(());
        }
        Err(BodyError::TooLarge)
    }
}
