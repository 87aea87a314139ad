//! Where a text that was decoded comes from: for a fault in it, the place in the bytes that were sent.
//!
//! A place is kept as a slice and a byte in it. A text that stands in the request as it is needs no more; of one
//! that was made, [`TextStore`](super::text_store::TextStore) knows the origin, which may be a made text itself.

use crate::reading::charset::Charset;
use crate::reading::form_escapes::place_in_form_text;
use crate::reading::mending::place_in_unmended;
use trueup_event::json_scanner::{JsonError, place_in_escaped, place_in_unreadable};

/// What was undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    Charset(Charset),
    /// Bytes that are no UTF-8, and U+0000.
    #[default]
    Unreadable,
    FormEscapes(Charset),
    JsonEscapes,
    Unmended,
}

/// The bytes that a text was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Origin<'a> {
    pub bytes: &'a [u8],
    pub encoding: Encoding,
}

impl<'a> Origin<'a> {
    pub fn new(bytes: &'a [u8], encoding: Encoding) -> Self {
        Origin { bytes, encoding }
    }

    /// The place of what became the `byte`th of `text`.
    pub fn place_before(self, text: &str, byte: usize) -> Place<'a> {
        let bytes = self.bytes;
        let byte = match self.encoding {
            Encoding::Charset(charset) => charset.place_in_bytes(bytes, text, byte),
            Encoding::Unreadable => place_in_unreadable(bytes, byte),
            Encoding::FormEscapes(charset) => place_in_form_text(bytes, charset, byte),
            Encoding::JsonEscapes => place_in_escaped(bytes, byte),
            Encoding::Unmended => place_in_unmended(bytes, byte),
        };
        Place { bytes, byte }
    }
}

/// The `byte`th of `bytes`, which stand in the request or in a text that was made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub bytes: &'a [u8],
    pub byte: usize,
}

impl<'a> Place<'a> {
    pub fn of_fault(bytes: &'a [u8], fault: JsonError) -> Self {
        Place {
            bytes,
            byte: fault.byte,
        }
    }

    /// Which of `whole` it is, if its bytes are a part of that.
    pub fn within(self, whole: &[u8]) -> Option<usize> {
        let begin = self.bytes.as_ptr().addr();
        let start = begin.checked_sub(whole.as_ptr().addr())?;
        let place = start.saturating_add(self.byte.min(self.bytes.len()));
        (start < whole.len()).then_some(place.min(whole.len()))
    }
}
