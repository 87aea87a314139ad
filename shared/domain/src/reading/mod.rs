//! What a request says: X1 to X6, over the readers of money (X7), durations (X8) and callers (X9).
//!
//! Reading never fails and never guesses: a request that holds no report says why, a slot that could
//! not be read says which value was in the way. Nothing is scraped from a body that does not parse, not
//! even the query beside it: half a report may be half an amount.

mod field_collection;
mod form_body;
mod json_body;
mod slot_choice;

use crate::report::{ParsedRequest, ReadError, ReadSettings};
use field_collection::FieldCollector;
use trueup_event::batch::{self, BatchSplit};
use trueup_event::json_scanner::{JsonError, Scanner};
use trueup_event::raw_event::RawRequest;

/// The reading of one request, or of one element of a batch. Linear in the request's length.
pub fn read_request(request: &RawRequest, settings: &ReadSettings) -> ParsedRequest {
    let mut gathered = FieldCollector::new(settings);
    if let Err(no_report) = read_body(request, &mut gathered) {
        return ParsedRequest {
            report: Err(no_report),
            slots: Vec::new(),
        };
    }
    gathered.begin_query();
    form_body::read_urlencoded(request.query.as_bytes(), &mut gathered);
    slot_choice::choose_slots(gathered, settings)
}

/// X1: what the body is, its first significant byte says, whatever the content type.
fn read_body<'a>(
    request: &'a RawRequest,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), ReadError> {
    let bytes = request.body.as_slice();
    if request.encoded {
        return Err(ReadError::UnparseableBody { byte: 0 });
    }
    match batch::first_significant(bytes) {
        Some(b'{') => json_body::read_report(bytes, gathered).map_err(unparseable_at),
        _ if request.element => Err(ReadError::UnparseableElement),
        Some(b'[') => read_array(bytes, gathered),
        Some(_) => {
            form_body::read_body(bytes, request.content_type.as_deref(), gathered);
            Ok(())
        }
        None => Ok(()),
    }
}

fn unparseable_at(at: JsonError) -> ReadError {
    ReadError::UnparseableBody { byte: at.byte }
}

/// An array that the door left whole. One object in it is read (X2); several belong to as many events.
fn read_array<'a>(bytes: &'a [u8], gathered: &mut FieldCollector<'a, '_>) -> Result<(), ReadError> {
    match batch::split_batch(bytes, None) {
        BatchSplit::Empty => Err(ReadError::EmptyBatch),
        BatchSplit::Elements(ranges) if ranges.len() == 1 => {
            let range = ranges.into_iter().next().unwrap_or_default();
            let start = range.start;
            let element = bytes.get(range).unwrap_or_default();
            if batch::first_significant(element) != Some(b'{') {
                return Err(ReadError::UnparseableElement);
            }
            json_body::read_report(element, gathered).map_err(|at| ReadError::UnparseableBody {
                byte: start.saturating_add(at.byte),
            })
        }
        BatchSplit::Elements(_) | BatchSplit::TooMany | BatchSplit::NotABatch => {
            Err(ReadError::UnparseableElement)
        }
        BatchSplit::Unparseable => {
            let mut scanner = Scanner::new(bytes);
            let fault = scanner
                .skip_value(usize::MAX)
                .and_then(|()| scanner.expect_end());
            Err(fault.map_or_else(unparseable_at, |()| ReadError::UnparseableElement))
        }
    }
}
