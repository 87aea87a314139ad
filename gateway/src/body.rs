//! Reading a body, bounded in size, in time, and in what all bodies together may hold.
//!
//! Whether it is a batch decides its limit (X1), so the first byte that says anything is looked at as
//! soon as it is there; nothing else of a body is looked at here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use trueup_event::batch::first_significant;

/// One report (X1).
pub const REPORT_BYTES: usize = 64 * 1024;
/// A batch of reports (X1).
pub const BATCH_BYTES: usize = 512 * 1024;
/// From the head to the body's last byte.
const WITHIN: Duration = Duration::from_secs(20);
/// How long a refused request's body may still come before the connection is given up instead.
const DISCARD_WITHIN: Duration = Duration::from_millis(100);
/// All bodies that are being read or stored at once: above it new ones are answered 503.
const ALL_BYTES: usize = 128 * 1024 * 1024;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge {
        limit: usize,
    },
    TooSlow,
    /// This process holds as much as it may.
    Full,
    /// The sender went away, or what it sent is no body.
    Broken,
}

/// A body, and its share of what all of them may hold.
pub struct BudgetedBody {
    pub bytes: Bytes,
    share: BodyMemoryPermit,
}

impl BudgetedBody {
    /// For as long as the body is still needed in another form.
    pub fn into_parts(self) -> (Bytes, BodyMemoryPermit) {
        (self.bytes, self.share)
    }
}

#[derive(Default)]
pub struct BodyMemoryPermit(usize);

impl BodyMemoryPermit {
    fn grow_share(&mut self, bytes: usize) -> Result<(), BodyError> {
        if HELD.fetch_add(bytes, Ordering::Relaxed) + bytes > ALL_BYTES {
            HELD.fetch_sub(bytes, Ordering::Relaxed);
            return Err(BodyError::Full);
        }
        self.0 += bytes;
        Ok(())
    }
}

impl Drop for BodyMemoryPermit {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// True if the body, by the length that its head gives, is too large whatever is in it: nothing of it
/// need be read.
pub fn exceeds_maximum_by_its_length(body: &Incoming) -> bool {
    body.size_hint().lower() > BATCH_BYTES as u64
}

/// Reads a small body away, if it is here already: true if nothing of it is left, so that the
/// connection may be used again. A sender that `waits` for a 100 has not sent it.
pub async fn discard_body(mut body: Incoming, waits: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if waits || body.size_hint().lower() > REPORT_BYTES as u64 {
        return false;
    }
    let away = async {
        let mut left = REPORT_BYTES;
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

pub async fn read_body(body: Incoming) -> Result<BudgetedBody, BodyError> {
    if body.is_end_stream() {
        return Ok(BudgetedBody {
            bytes: Bytes::new(),
            share: BodyMemoryPermit::default(),
        });
    }
    if exceeds_maximum_by_its_length(&body) {
        return Err(BodyError::TooLarge {
            limit: REPORT_BYTES,
        });
    }
    tokio::time::timeout(WITHIN, collect_body(body))
        .await
        .unwrap_or(Err(BodyError::TooSlow))
}

async fn collect_body(mut body: Incoming) -> Result<BudgetedBody, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut share = BodyMemoryPermit::default();
    let mut whole: Option<Bytes> = None;
    let mut pieces = BytesMut::new();
    let mut limit = None;
    // Bytes at the beginning that are known to say nothing: each is looked at once, in however many pieces
    // they come.
    let mut blank = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(BodyError::Broken);
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        share.grow_share(data.len())?;
        // Most bodies come in one piece: then nothing is copied.
        let so_far: &[u8] = match (whole.take(), pieces.is_empty()) {
            (None, true) => &*whole.insert(data),
            (first, _) => {
                pieces.extend_from_slice(&first.unwrap_or_default());
                pieces.extend_from_slice(&data);
                &pieces
            }
        };
        if limit.is_none() {
            let unseen = so_far.get(blank..).unwrap_or_default();
            limit = first_significant(unseen).map(|first| {
                if first == b'[' {
                    BATCH_BYTES
                } else {
                    REPORT_BYTES
                }
            });
            blank = so_far.len();
        }
        let limit = limit.unwrap_or(REPORT_BYTES);
        if so_far.len().max(announced) > limit {
            return Err(BodyError::TooLarge { limit });
        }
    }
    Ok(BudgetedBody {
        bytes: whole.unwrap_or_else(|| pieces.freeze()),
        share,
    })
}
