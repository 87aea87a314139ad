//! Raw requests at rest: those of a settled batch lie together in blocks, each one compressed row of
//! `event_request_blocks`, and an event's row says in which block its request lies, and where in it (ADR 0036).
//!
//! Requests of one sender are nearly alike, so that together they take a tenth of what they take alone. A block
//! holds requests of one UTC day, so that a day's partition is dropped whole; it is bounded in rows and in
//! bytes, and what is unpacked is bounded whatever the bytes claim. A block that cannot be read is not guessed
//! at: its requests are `unreadable`, and nothing else is.

use jiff::Timestamp;
use uuid::Uuid;

use trueup_domain::batch_decision::BatchRow;
use trueup_domain::report::SlotReading;

/// Requests of one block at most: the low bits of a place count them.
pub const BLOCK_ROWS: usize = 1 << ROW_BITS;
const ROW_BITS: u32 = 9;
/// Bits of a block's number: what the row, and the sign, leave of a place.
pub const NUMBER_BITS: u32 = i64::BITS - 1 - ROW_BITS;
/// Text of one block, unpacked; a larger request has a block of its own. To show one event unpacks one block.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// Text of one request and its reading that is put into a block at all, and what is unpacked at most. The
/// largest body that there may be is written in 776 KiB, and each slot's text is a part of it.
const LARGEST_REQUEST: usize = 8 * 1024 * 1024;
const LARGEST_BLOCK: usize = LARGEST_REQUEST + BLOCK_BYTES;
/// The first of the ordinary levels: those above gain next to nothing for their time (ADR 0036).
const LEVEL: i32 = 1;
/// How a block's bytes begin. A reader refuses one that it does not know.
const FORMAT: u8 = 1;

const HAS_READING: u8 = 1;
const IN_BATCH: u8 = 2;

const MICROS_OF_A_DAY: i64 = 86_400_000_000;

/// One event's request as it is stored, whether alone or in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestText {
    /// JSON: [`RawRequest::to_stored`](trueup_event::raw_event::RawRequest::to_stored).
    pub request: String,
    /// JSON: how each slot was read.
    pub reading: Option<String>,
    /// The event with whose request what its batch has in common is stored (X3).
    pub batch_of: Option<Uuid>,
}

impl RequestText {
    pub fn of_row(row: &BatchRow) -> Option<RequestText> {
        let request = row.request.as_ref()?;
        Some(RequestText {
            request: request.to_stored()?,
            reading: slots_as_json(&row.reading.slots),
            batch_of: request.batch_of,
        })
    }

    fn len(&self) -> usize {
        self.request.len() + self.reading.as_ref().map_or(0, String::len)
    }

    fn write(&self, text: &mut Vec<u8>) {
        let reading = self.reading.as_deref().unwrap_or_default();
        let mut flags = 0;
        if self.reading.is_some() {
            flags |= HAS_READING;
        }
        if self.batch_of.is_some() {
            flags |= IN_BATCH;
        }
        text.push(flags);
        text.extend(self.batch_of.iter().flat_map(|id| *id.as_bytes()));
        for part in [self.request.as_str(), reading] {
            // Bounded by `LARGEST_REQUEST`.
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX);
            text.extend_from_slice(&len.to_le_bytes());
        }
        text.extend_from_slice(self.request.as_bytes());
        text.extend_from_slice(reading.as_bytes());
    }

    fn read(text: &mut &[u8]) -> Result<RequestText, UnreadableBlock> {
        let [flags] = take_array(text)?;
        let batch_of = if flags & IN_BATCH != 0 {
            Some(Uuid::from_bytes(take_array(text)?))
        } else {
            None
        };
        let mut take_len = || take_array(text).map(|len| u32::from_le_bytes(len) as usize);
        let (request, reading) = (take_len()?, take_len()?);
        let mut take_text = |len| {
            let bytes = split_prefix(text, len)?;
            String::from_utf8(bytes.to_vec()).map_err(|_| UnreadableBlock("it holds no text"))
        };
        let (request, reading) = (take_text(request)?, take_text(reading)?);
        Ok(RequestText {
            request,
            reading: (flags & HAS_READING != 0).then_some(reading),
            batch_of,
        })
    }
}

pub fn slots_as_json(slots: &[SlotReading]) -> Option<String> {
    let slots = (!slots.is_empty()).then_some(slots)?;
    serde_json::to_string(slots).ok()
}

/// Where an event's request lies: as `events.request_place` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestPlace {
    pub block: BlockKey,
    pub row: usize,
}

/// A block's number, and the UTC day of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockKey {
    pub day: i64,
    pub number: i64,
}

impl BlockKey {
    pub fn of(received_at: Timestamp, number: i64) -> BlockKey {
        BlockKey {
            day: received_at.as_microsecond().div_euclid(MICROS_OF_A_DAY),
            number,
        }
    }

    /// From its day's first moment to the next day's.
    pub fn span(self) -> (Timestamp, Timestamp) {
        let at = |day: i64| {
            Timestamp::from_microsecond(day.saturating_mul(MICROS_OF_A_DAY))
                .unwrap_or(Timestamp::MAX)
        };
        (at(self.day), at(self.day.saturating_add(1)))
    }
}

impl RequestPlace {
    pub fn of_column(received_at: Timestamp, column: i64) -> RequestPlace {
        let row = column & (BLOCK_ROWS as i64 - 1);
        RequestPlace {
            block: BlockKey::of(received_at, column >> ROW_BITS),
            row: usize::try_from(row).unwrap_or(usize::MAX),
        }
    }

    pub fn to_column(self) -> i64 {
        (self.block.number << ROW_BITS) | i64::try_from(self.row).unwrap_or(0)
    }
}

/// A row of `event_request_blocks`.
#[derive(Debug)]
pub struct RequestBlock {
    pub number: i64,
    /// When its last request was received.
    pub received_at: Timestamp,
    pub rows: i16,
    pub content: Vec<u8>,
}

/// Why a block's requests cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableBlock(pub &'static str);

/// The requests of new rows, packed.
#[derive(Debug, Default)]
pub struct PackedRequests {
    pub blocks: Vec<RequestBlock>,
    /// Where each row's request lies; none for rows that have none, or one that is written by itself.
    pub places: Vec<Option<i64>>,
}

/// Packs the requests of rows, given with their times, in the rows' order. `next_number` gives a number of
/// [`NUMBER_BITS`] for each block: one that no other block of the day has.
pub fn pack_requests<'a>(
    rows: impl Iterator<Item = (Timestamp, Option<&'a RequestText>)>,
    mut next_number: impl FnMut() -> i64,
) -> std::io::Result<PackedRequests> {
    let mut packed = PackedRequests::default();
    let mut open: Vec<OpenBlock> = Vec::new();
    for (received_at, text) in rows {
        let Some(text) = text.filter(|text| text.len() <= LARGEST_REQUEST) else {
            packed.places.push(None);
            continue;
        };
        let day = BlockKey::of(received_at, 0).day;
        let at = open.iter().position(|block| block.key.day == day);
        let fits = |at: &usize| open.get(*at).is_some_and(|block| block.has_room_for(text));
        let at = match at {
            Some(at) if fits(&at) => at,
            full => {
                if let Some(at) = full {
                    packed.blocks.push(open.swap_remove(at).close()?);
                }
                open.push(OpenBlock::begin(BlockKey::of(received_at, next_number())));
                open.len() - 1
            }
        };
        packed
            .places
            .push(open.get_mut(at).map(|block| block.add(received_at, text)));
    }
    for block in open {
        packed.blocks.push(block.close()?);
    }
    Ok(packed)
}

struct OpenBlock {
    key: BlockKey,
    rows: usize,
    last: Timestamp,
    text: Vec<u8>,
}

impl OpenBlock {
    fn begin(key: BlockKey) -> OpenBlock {
        OpenBlock {
            key,
            rows: 0,
            last: Timestamp::MIN,
            text: Vec::new(),
        }
    }

    fn has_room_for(&self, text: &RequestText) -> bool {
        self.rows < BLOCK_ROWS && self.text.len() + text.len() <= BLOCK_BYTES
    }

    fn add(&mut self, received_at: Timestamp, text: &RequestText) -> i64 {
        text.write(&mut self.text);
        self.last = self.last.max(received_at);
        let place = RequestPlace {
            block: self.key,
            row: self.rows,
        };
        self.rows += 1;
        place.to_column()
    }

    fn close(self) -> std::io::Result<RequestBlock> {
        let mut content = vec![FORMAT];
        // Bounded by `LARGEST_BLOCK`.
        let len = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        content.extend_from_slice(&len.to_le_bytes());
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        // So that a block that was damaged is not read as something else.
        compressor.include_checksum(true)?;
        content.extend(compressor.compress(&self.text)?);
        Ok(RequestBlock {
            number: self.key.number,
            received_at: self.last,
            rows: i16::try_from(self.rows).unwrap_or(i16::MAX),
            content,
        })
    }
}

/// The requests of a block, in their order.
pub fn unpack_requests(content: &[u8]) -> Result<Vec<RequestText>, UnreadableBlock> {
    let mut packed = content;
    if take_array(&mut packed)? != [FORMAT] {
        return Err(UnreadableBlock("its format is of another version"));
    }
    let len = u32::from_le_bytes(take_array(&mut packed)?) as usize;
    if len > LARGEST_BLOCK {
        return Err(UnreadableBlock("it is larger than a block can be"));
    }
    // No more room is made than this; what does not fit is an error.
    let text =
        zstd::bulk::decompress(packed, len).map_err(|_| UnreadableBlock("it does not unpack"))?;
    if text.len() != len {
        return Err(UnreadableBlock("it ends too early"));
    }
    let mut rest = text.as_slice();
    let mut rows = Vec::new();
    while !rest.is_empty() {
        if rows.len() == BLOCK_ROWS {
            return Err(UnreadableBlock("it has too many rows"));
        }
        rows.push(RequestText::read(&mut rest)?);
    }
    Ok(rows)
}

fn split_prefix<'a>(text: &mut &'a [u8], len: usize) -> Result<&'a [u8], UnreadableBlock> {
    let (taken, rest) = text
        .split_at_checked(len)
        .ok_or(UnreadableBlock("it ends too early"))?;
    *text = rest;
    Ok(taken)
}

fn take_array<const N: usize>(text: &mut &[u8]) -> Result<[u8; N], UnreadableBlock> {
    let taken = split_prefix(text, N)?;
    taken
        .try_into()
        .map_err(|_| UnreadableBlock("it ends too early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(micros).expect("a time")
    }

    fn text(n: usize, len: usize) -> RequestText {
        RequestText {
            request: format!("{n}{}", "x".repeat(len)),
            reading: n.is_multiple_of(2).then(|| format!("read {n}")),
            batch_of: n.is_multiple_of(3).then(|| Uuid::from_u128(n as u128)),
        }
    }

    fn pack(rows: &[(Timestamp, RequestText)]) -> PackedRequests {
        let mut number = 0;
        let next = || {
            number += 1;
            number
        };
        let rows = rows.iter().map(|(at, text)| (*at, Some(text)));
        pack_requests(rows, next).expect("packs")
    }

    /// What a reader finds at each place.
    fn found(
        rows: &[(Timestamp, RequestText)],
        packed: &PackedRequests,
    ) -> Vec<Option<RequestText>> {
        let look = |(at, place): (&Timestamp, &Option<i64>)| {
            let place = RequestPlace::of_column(*at, (*place)?);
            let (low, high) = place.block.span();
            let same = |b: &&RequestBlock| {
                b.number == place.block.number && (low..high).contains(&b.received_at)
            };
            let block = packed.blocks.iter().find(same)?;
            unpack_requests(&block.content)
                .expect("ours")
                .get(place.row)
                .cloned()
        };
        rows.iter()
            .map(|(at, _)| at)
            .zip(&packed.places)
            .map(look)
            .collect()
    }

    #[test]
    fn each_request_is_found_where_its_row_says() {
        let rows: Vec<_> = (0..1_300)
            .map(|n| (at(1_000 + n as i64), text(n, 100 * (n % 7))))
            .collect();
        let packed = pack(&rows);
        let expected: Vec<_> = rows.iter().map(|(_, text)| Some(text.clone())).collect();
        assert_eq!(found(&rows, &packed), expected);
        assert!(
            packed
                .blocks
                .iter()
                .all(|b| usize::try_from(b.rows).is_ok_and(|n| n <= BLOCK_ROWS))
        );
        assert!(packed.blocks.len() >= 3, "{}", packed.blocks.len());
    }

    #[test]
    fn a_block_holds_requests_of_one_day_and_a_large_request_has_its_own() {
        let day = MICROS_OF_A_DAY;
        let rows = vec![
            (at(20_000 * day - 1), text(1, 10)),
            (at(20_000 * day), text(2, 10)),
            (at(20_000 * day - 5), text(3, 10)),
            (at(20_000 * day + 7), text(4, 2 * BLOCK_BYTES)),
            (at(20_000 * day + 8), text(5, 10)),
        ];
        let packed = pack(&rows);
        let expected: Vec<_> = rows.iter().map(|(_, text)| Some(text.clone())).collect();
        assert_eq!(found(&rows, &packed), expected);
        assert_eq!(
            packed.blocks.len(),
            4,
            "the day before; then small, large, small"
        );
    }

    #[test]
    fn what_is_too_large_for_a_block_is_left_to_a_row_of_its_own() {
        let rows = vec![
            (at(1), text(1, LARGEST_REQUEST + 1)),
            (at(2), text(2, LARGEST_REQUEST - 100)),
        ];
        let packed = pack(&rows);
        assert_eq!(packed.places.first(), Some(&None));
        assert_eq!(found(&rows, &packed).get(1), Some(&Some(rows[1].1.clone())));
    }

    #[test]
    fn a_damaged_block_is_unreadable_and_a_bomb_is_not_unpacked() {
        let rows: Vec<_> = (0..50).map(|n| (at(n as i64), text(n, 50))).collect();
        let whole = &pack(&rows).blocks[0].content;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            // A bit that means nothing may have changed; a text never does.
            if let Ok(read) = unpack_requests(&damaged) {
                assert!(
                    read.iter().eq(rows.iter().map(|(_, text)| text)),
                    "byte {at}"
                );
            }
            assert!(unpack_requests(&whole[..at]).is_err(), "cut at {at}");
        }
        let claiming = |claimed: usize, text: &[u8]| {
            let mut content = vec![FORMAT];
            content.extend_from_slice(&u32::try_from(claimed).expect("small").to_le_bytes());
            content.extend(zstd::bulk::compress(text, LEVEL).expect("packs"));
            content
        };
        let zeros = vec![0; 4 * LARGEST_BLOCK];
        let bomb = claiming(100, &zeros);
        assert!(bomb.len() < 10_000, "{}", bomb.len());
        assert!(unpack_requests(&bomb).is_err());
        assert!(unpack_requests(&claiming(zeros.len(), &zeros)).is_err());
        let empty_rows = vec![0; 9 * (BLOCK_ROWS + 1)];
        assert_eq!(
            unpack_requests(&claiming(empty_rows.len(), &empty_rows)),
            Err(UnreadableBlock("it has too many rows"))
        );
    }
}
