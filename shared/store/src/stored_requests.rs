//! Finds the raw requests of events, in whichever of the two forms they are kept: in a block with others of
//! their batch, or in a row of their own (`event_requests`), which outranks the block. A row of its own has what
//! a version before blocks wrote, what was read anew since it was settled, what was parked, and what is too
//! large for a block.
//!
//! What cannot be read costs nothing but itself: it is `Unreadable`, and said once in the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use trueup_domain::report::SlotReading;
use trueup_event::raw_event::RawRequest;
use trueup_postgres::statement::{self, Result};
use uuid::Uuid;

use crate::request_blocks::{BlockKey, RequestPlace, RequestText, unpack_requests};

/// The request as it came, and how it was read; kept for a shorter time than the row.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRequest {
    pub request: RawRequest,
    pub slots: Vec<SlotReading>,
}

/// What became of an event's request; of one past its retention nothing is known.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptRequest {
    Whole(StoredRequest),
    /// It is there, and damaged; or it is an element of a batch whose first one is not there.
    Unreadable,
}

impl KeptRequest {
    pub fn whole(self) -> Option<StoredRequest> {
        match self {
            KeptRequest::Whole(stored) => Some(stored),
            KeptRequest::Unreadable => None,
        }
    }
}

/// An event's own request or its place. Each look-up is a subquery of its own, as those of a batch are.
pub const REQUESTS: &str = "/* stored_requests.find */
    SELECT k.received_at, k.id, e.request_place, q.request, q.reading, q.batch_of
      FROM unnest($1::timestamptz[], $2::uuid[]) AS k (received_at, id)
      LEFT JOIN LATERAL (
           SELECT request_place FROM events WHERE received_at = k.received_at AND id = k.id LIMIT 1) AS e ON true
      LEFT JOIN LATERAL (
           SELECT request, reading, batch_of FROM event_requests
            WHERE received_at = k.received_at AND id = k.id LIMIT 1) AS q ON true";

pub const BLOCKS: &str = "/* stored_requests.blocks */
    SELECT b.number, k.low, b.content
      FROM unnest($1::int8[], $2::timestamptz[], $3::timestamptz[]) AS k (number, low, high)
     CROSS JOIN LATERAL (
           SELECT number, content FROM event_request_blocks
            WHERE number = k.number AND received_at >= k.low AND received_at < k.high LIMIT 1) AS b";

/// The requests of these events, by their ids; those that are kept no longer are not among them.
pub async fn load_requests(
    client: &impl GenericClient,
    keys: &[(Timestamp, Uuid)],
) -> Result<HashMap<Uuid, KeptRequest>> {
    let own = load_texts(client, keys).await?;
    // What a batch has in common lies with its first element, received in the same moment (X3).
    let firsts: BTreeSet<(Timestamp, Uuid)> = keys
        .iter()
        .filter_map(|(at, id)| Some((*at, own.get(id)?.as_ref()?.batch_of?)))
        .filter(|(_, first)| !own.contains_key(first))
        .collect();
    let firsts: Vec<(Timestamp, Uuid)> = firsts.into_iter().collect();
    let common = load_texts(client, &firsts).await?;
    let common_of = |text: &RequestText| {
        let first = text.batch_of?;
        own.get(&first).or_else(|| common.get(&first))?.as_ref()
    };
    let kept = own.iter().map(|(id, text)| {
        let stored = text
            .as_ref()
            .and_then(|text| parse_request(text, common_of(text)));
        if stored.is_none() {
            tracing::warn!(event_id = %id, "the raw request cannot be read");
        }
        (
            *id,
            stored.map_or(KeptRequest::Unreadable, KeptRequest::Whole),
        )
    });
    Ok(kept.collect())
}

/// None where a part of it is missing: half a request is never taken for a whole one.
fn parse_request(text: &RequestText, common: Option<&RequestText>) -> Option<StoredRequest> {
    if text.batch_of.is_some() && common.is_none() {
        return None;
    }
    let common = common.map(|common| common.request.as_str());
    let request = RawRequest::from_stored(&text.request, text.batch_of, common).ok()?;
    let reading = text.reading.as_deref();
    let slots = reading.map_or_else(|| Ok(Vec::new()), serde_json::from_str);
    Some(StoredRequest {
        request,
        slots: slots.ok()?,
    })
}

/// Their texts; none for one that is there and cannot be read.
async fn load_texts(
    client: &impl GenericClient,
    keys: &[(Timestamp, Uuid)],
) -> Result<HashMap<Uuid, Option<RequestText>>> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let (times, ids): (Vec<Timestamp>, Vec<Uuid>) = keys.iter().copied().unzip();
    let mut texts = HashMap::with_capacity(keys.len());
    let mut places: PlacesByBlock = BTreeMap::new();
    for row in statement::query_rows(client, REQUESTS, &[&times, &ids]).await? {
        let id: Uuid = row.get("id");
        let place: Option<i64> = row.get("request_place");
        if let Some(request) = row.get("request") {
            let text = RequestText {
                request,
                reading: row.get("reading"),
                batch_of: row.get("batch_of"),
            };
            texts.insert(id, Some(text));
        } else if let Some(place) = place {
            let place = RequestPlace::of_column(row.get("received_at"), place);
            places.entry(place.block).or_default().push((id, place.row));
        }
    }
    load_from_blocks(client, &places, &mut texts).await?;
    Ok(texts)
}

/// The rows of each block that are asked for.
type PlacesByBlock = BTreeMap<BlockKey, Vec<(Uuid, usize)>>;

/// Each block is unpacked once, and only what is asked for is kept of it. A block that is not there is past its
/// retention; of one that cannot be read there is no text.
async fn load_from_blocks(
    client: &impl GenericClient,
    places: &PlacesByBlock,
    texts: &mut HashMap<Uuid, Option<RequestText>>,
) -> Result<()> {
    let keys: Vec<BlockKey> = places.keys().copied().collect();
    // A few at a time: each may be as large as a block can be.
    for some in keys.chunks(BLOCKS_AT_ONCE) {
        let numbers: Vec<i64> = some.iter().map(|key| key.number).collect();
        let (low, high): (Vec<Timestamp>, Vec<Timestamp>) =
            some.iter().map(|key| key.span()).unzip();
        for row in statement::query_rows(client, BLOCKS, &[&numbers, &low, &high]).await? {
            let key = BlockKey::of(row.get("low"), row.get("number"));
            let unpacked = unpack_requests(row.get("content"));
            if let Err(why) = &unpacked {
                tracing::warn!(
                    number = key.number,
                    "a block of raw requests cannot be read: {}",
                    why.0
                );
            }
            let rows = unpacked.ok();
            for (id, place) in places.get(&key).into_iter().flatten() {
                let text = rows.as_ref().and_then(|rows| rows.get(*place).cloned());
                texts.insert(*id, text);
            }
        }
    }
    Ok(())
}

/// Blocks that one statement fetches.
const BLOCKS_AT_ONCE: usize = 16;
