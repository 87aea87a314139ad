//! How much of a request is looked at (X1, X3): every bound of the reader in one place.
//!
//! The door refuses what is over the sizes; the reader never reads beyond the counts. Nothing here
//! is a setting: a sender that needs more than this is sending something else than a report.

/// Bytes of a body that is one report. Real reports are under 2 KiB; the rest is room for token dumps.
pub const BODY_BYTES: usize = 64 * 1024;

/// Bytes of a body whose first significant byte is `[`: 500 reports of a kilobyte each.
pub const BATCH_BODY_BYTES: usize = 512 * 1024;

/// Bytes of a URL, query and all: what proxies on the way let through.
pub const URL_BYTES: usize = 8 * 1024;

/// Reports in one batch (X3); more is answered 413.
pub const BATCH_ELEMENTS: usize = 500;

/// Fields of a body, and of a query, that are read. The largest token dump seen has under 200.
pub const FIELDS: usize = 256;

/// Brackets inside one another in a JSON report; a deeper one does not parse.
pub const JSON_DEPTH: usize = 8;

/// Objects inside one another whose fields are read by their bare name (X2); a dotted path may go
/// as deep as [`JSON_DEPTH`].
pub const FLAT_DEPTH: usize = 3;

/// Characters of an id (X6); a longer one is unreadable.
pub const ID_CHARS: usize = 256;

/// Characters of a raw text that are kept beside a row. The request itself is kept whole elsewhere.
pub const RAW_CHARS: usize = 256;

/// Passed-over values of one slot that are kept beside a row: ten times what a person would read.
pub const PASSED_OVER: usize = 32;

/// Bytes of body that the door takes, by the body's first significant byte.
pub const fn body_bytes(first_significant: Option<u8>) -> usize {
    match first_significant {
        Some(b'[') => BATCH_BODY_BYTES,
        _ => BODY_BYTES,
    }
}
