//! Bodies that were compressed for their way (X1b): which encodings are known, and decoding them.
//!
//! The gateway decodes because it must see a batch to split it (X3). What a few bytes can become is
//! bounded here; what the decoded bytes say is not looked at.

use std::borrow::Cow;
use std::io::Read;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use ruzstd::decoding::StreamingDecoder;
use trueup_event::limits::BATCH_BODY_BYTES;

/// The encodings that [`parse_header`] knows, for those who send another one.
pub const KNOWN: &str = "gzip, deflate, br, zstd";
/// Encodings of one body over one another. Proxies that compress what is compressed already make two.
const MAX_LAYERS: usize = 2;
/// Decoded bytes for each byte as it came (X1b): reports compress to a tenth, batches of like ones to a
/// fiftieth.
const MAX_RATIO: usize = 100;
/// Memory that a zstd frame may ask for (RFC 8878 asks decoders for this much).
const ZSTD_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Members of a gzip body, frames of a zstd one: whoever appends to a file makes several, and nobody many.
const MAX_MEMBERS: usize = 32;
/// What brotli decodes at once.
const BROTLI_PIECE_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    /// With zlib's header, as it should be, or without, as many send it.
    Deflate,
    Brotli,
    Zstd,
}

/// An encoding that is not known, or too many of them.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownEncoding;

#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Over the size or the ratio.
    TooLarge,
    /// No data of that encoding, or cut off.
    Damaged,
}

/// In the order in which they were applied; none for a body that is as it came.
pub fn parse_header(headers: &HeaderMap) -> Result<Vec<Encoding>, UnknownEncoding> {
    let mut layers = Vec::new();
    for line in headers.get_all(CONTENT_ENCODING) {
        let line = line.to_str().map_err(|_| UnknownEncoding)?;
        for name in line.split(',').map(str::trim) {
            let encoding = match name.to_ascii_lowercase().as_str() {
                "" | "identity" | "none" => continue,
                "gzip" | "x-gzip" => Encoding::Gzip,
                "deflate" => Encoding::Deflate,
                "br" => Encoding::Brotli,
                "zstd" => Encoding::Zstd,
                _ => return Err(UnknownEncoding),
            };
            if layers.len() == MAX_LAYERS {
                return Err(UnknownEncoding);
            }
            layers.push(encoding);
        }
    }
    Ok(layers)
}

/// The body as it was before it was encoded. A body that is text was not encoded, or a proxy has decoded it
/// and left the header: it stays as it is.
pub fn decode_body<'a>(body: &'a [u8], layers: &[Encoding]) -> Result<Cow<'a, [u8]>, DecodeError> {
    let mut decoded = Cow::Borrowed(body);
    let most = BATCH_BODY_BYTES.min(body.len().saturating_mul(MAX_RATIO));
    for layer in layers.iter().rev() {
        if is_text(&decoded) {
            break;
        }
        decoded = Cow::Owned(decode_layer(&decoded, *layer, most)?);
    }
    Ok(decoded)
}

/// Compressed data of any length holds bytes that no text has.
fn is_text(body: &[u8]) -> bool {
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127);
    !body.iter().any(is_control) && std::str::from_utf8(body).is_ok()
}

fn decode_layer(body: &[u8], encoding: Encoding, most: usize) -> Result<Vec<u8>, DecodeError> {
    match encoding {
        Encoding::Gzip => decode_members(body, most, MAX_MEMBERS, |rest, room, decoded| {
            read_member(GzDecoder::new(rest), room, decoded)
        }),
        Encoding::Deflate if has_zlib_header(body) => {
            decode_members(body, most, 1, |rest, room, decoded| {
                read_member(ZlibDecoder::new(rest), room, decoded)
            })
        }
        Encoding::Deflate => decode_members(body, most, 1, |rest, room, decoded| {
            read_member(DeflateDecoder::new(rest), room, decoded)
        }),
        Encoding::Brotli => decode_brotli(body, most),
        Encoding::Zstd => decode_members(body, most, MAX_MEMBERS, |rest, room, decoded| {
            StreamingDecoder::new_with_max_window_size(rest, ZSTD_WINDOW_BYTES)
                .map_err(|_| DecodeError::Damaged)
                .and_then(|decoder| read_member(decoder, room, decoded))
        }),
    }
}

/// RFC 1950: deflate, and a check over both bytes.
fn has_zlib_header(body: &[u8]) -> bool {
    let &[method, flags, ..] = body else {
        return false;
    };
    method & 0x0F == 8 && u16::from_be_bytes([method, flags]) % 31 == 0
}

/// One member after the other. What is left over belongs to none: half a body is never taken for a whole one.
fn decode_members(
    body: &[u8],
    most: usize,
    members: usize,
    decode: impl Fn(&mut &[u8], usize, &mut Vec<u8>) -> Result<(), DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    let mut rest = body;
    let mut decoded = Vec::new();
    for _ in 0..members {
        let room = most.saturating_sub(decoded.len());
        decode(&mut rest, room, &mut decoded)?;
        if decoded.len() > most {
            return Err(DecodeError::TooLarge);
        }
        if rest.is_empty() {
            return Ok(decoded);
        }
    }
    Err(DecodeError::Damaged)
}

/// A byte more than there is room for shows that there is too much.
fn read_member(decoder: impl Read, room: usize, decoded: &mut Vec<u8>) -> Result<(), DecodeError> {
    let one_more = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(1);
    decoder
        .take(one_more)
        .read_to_end(decoded)
        .map(|_| ())
        .map_err(|_| DecodeError::Damaged)
}

/// Not by the crate's reader: that one takes windows of up to a gigabyte.
fn decode_brotli(body: &[u8], most: usize) -> Result<Vec<u8>, DecodeError> {
    let allocate = StandardAlloc::default;
    let mut state = BrotliState::new_strict(allocate(), allocate(), allocate());
    let mut decoded = Vec::new();
    let mut piece = vec![0; BROTLI_PIECE_BYTES];
    let (mut unread, mut read, mut total) = (body.len(), 0, 0);
    loop {
        let (mut free, mut written) = (piece.len(), 0);
        let result = BrotliDecompressStream(
            &mut unread,
            &mut read,
            body,
            &mut free,
            &mut written,
            &mut piece,
            &mut total,
            &mut state,
        );
        decoded.extend_from_slice(piece.get(..written).unwrap_or_default());
        if decoded.len() > most {
            return Err(DecodeError::TooLarge);
        }
        match result {
            BrotliResult::ResultSuccess if unread == 0 => return Ok(decoded),
            BrotliResult::ResultSuccess => return Err(DecodeError::Damaged),
            BrotliResult::NeedsMoreOutput => {}
            // All of the body was given to it.
            BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => {
                return Err(DecodeError::Damaged);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn parsed(lines: &[&'static str]) -> Result<Vec<Encoding>, UnknownEncoding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(line));
        }
        parse_header(&headers)
    }

    #[test]
    fn x1b_known_encodings_are_read_and_others_refused() {
        assert_eq!(parsed(&[]), Ok(vec![]));
        assert_eq!(parsed(&["identity", " "]), Ok(vec![]));
        assert_eq!(parsed(&["X-GZip"]), Ok(vec![Encoding::Gzip]));
        assert_eq!(
            parsed(&["deflate, br"]),
            Ok(vec![Encoding::Deflate, Encoding::Brotli])
        );
        for unknown in ["compress", "gzip;q=1", "gzip, gzip, gzip", "zip", "\u{e9}"] {
            let value = HeaderValue::from_bytes(unknown.as_bytes()).expect("a value");
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, value)]);
            assert_eq!(parse_header(&headers), Err(UnknownEncoding), "{unknown}");
        }
    }

    #[test]
    fn x1b_text_is_taken_as_it_came() {
        let text = b"{\"ref_id\":\"x\",\"payout\":\"12\"}\r\n";
        for encoding in [
            Encoding::Gzip,
            Encoding::Deflate,
            Encoding::Brotli,
            Encoding::Zstd,
        ] {
            let decoded = decode_body(text, &[encoding]).expect("text");
            assert_eq!(decoded, &text[..], "{encoding:?}");
            let damaged = decode_body(b"\x01\x02nonsense\xFF", &[encoding]);
            assert_eq!(damaged, Err(DecodeError::Damaged), "{encoding:?}");
        }
    }

    #[test]
    fn a_zstd_frame_with_a_huge_window_is_refused() {
        // Magic number; a window of 128 MiB; one empty raw block, the last.
        let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x88, 0x01, 0x00, 0x00];
        assert_eq!(
            decode_body(&frame, &[Encoding::Zstd]),
            Err(DecodeError::Damaged)
        );
    }
}
