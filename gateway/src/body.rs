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
pub enum Failed {
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
pub struct Held {
    pub bytes: Bytes,
    share: Share,
}

impl Held {
    /// For as long as the body is still needed in another form.
    pub fn into_parts(self) -> (Bytes, Share) {
        (self.bytes, self.share)
    }
}

#[derive(Default)]
pub struct Share(usize);

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), Failed> {
        if HELD.fetch_add(bytes, Ordering::Relaxed) + bytes > ALL_BYTES {
            HELD.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Failed::Full);
        }
        self.0 += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// True if the body, by the length that its head gives, is too large whatever is in it: nothing of it
/// need be read.
pub fn is_hopeless(body: &Incoming) -> bool {
    body.size_hint().lower() > BATCH_BYTES as u64
}

/// Reads a small body away, if it is here already: true if nothing of it is left, so that the
/// connection may be used again. A sender that `waits` for a 100 has not sent it.
pub async fn discard(mut body: Incoming, waits: bool) -> bool {
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

pub async fn read(body: Incoming) -> Result<Held, Failed> {
    if body.is_end_stream() {
        return Ok(Held {
            bytes: Bytes::new(),
            share: Share::default(),
        });
    }
    if is_hopeless(&body) {
        return Err(Failed::TooLarge {
            limit: REPORT_BYTES,
        });
    }
    tokio::time::timeout(WITHIN, collect(body))
        .await
        .unwrap_or(Err(Failed::TooSlow))
}

async fn collect(mut body: Incoming) -> Result<Held, Failed> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut share = Share::default();
    let mut whole: Option<Bytes> = None;
    let mut pieces = BytesMut::new();
    let mut limit = None;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Failed::Broken);
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        share.grow(data.len())?;
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
            limit = first_significant(so_far).map(|first| {
                if first == b'[' {
                    BATCH_BYTES
                } else {
                    REPORT_BYTES
                }
            });
        }
        let limit = limit.unwrap_or(REPORT_BYTES);
        if so_far.len().max(announced) > limit {
            return Err(Failed::TooLarge { limit });
        }
    }
    Ok(Held {
        bytes: whole.unwrap_or_else(|| pieces.freeze()),
        share,
    })
}
