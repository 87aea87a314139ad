//! What a request says: X1 to X6, over the readers of money (X7), durations (X8) and callers (X9).
//!
//! Reading never fails and never guesses: a request that holds no report says why, a slot that could
//! not be read says which value was in the way. Nothing is scraped from a body that does not parse, not
//! even the query beside it: half a report may be half an amount.

mod field_collection;
mod form_body;
mod json_body;
mod slot_choice;

use crate::report::{NoReport, ReadSettings, Reading};
use field_collection::Gathered;
use trueup_event::batch::{self, Split};
use trueup_event::json_scanner::{NotJson, Scanner};
use trueup_event::raw_event::RawRequest;

/// The reading of one request, or of one element of a batch. Linear in the request's length.
pub fn read(request: &RawRequest, settings: &ReadSettings) -> Reading {
    let mut gathered = Gathered::new(settings);
    if let Err(no_report) = body(request, &mut gathered) {
        return Reading {
            report: Err(no_report),
            slots: Vec::new(),
        };
    }
    gathered.begin_query();
    form_body::urlencoded(request.query.as_bytes(), &mut gathered);
    slot_choice::reading(gathered, settings)
}

/// X1: what the body is, its first significant byte says, whatever the content type.
fn body<'a>(request: &'a RawRequest, gathered: &mut Gathered<'a, '_>) -> Result<(), NoReport> {
    let bytes = request.body.as_slice();
    match batch::first_significant(bytes) {
        Some(b'{') => json_body::report(bytes, gathered).map_err(unparseable),
        _ if request.element => Err(NoReport::UnparseableElement),
        Some(b'[') => array(bytes, gathered),
        Some(_) => {
            form_body::body(bytes, request.content_type.as_deref(), gathered);
            Ok(())
        }
        None => Ok(()),
    }
}

fn unparseable(at: NotJson) -> NoReport {
    NoReport::UnparseableBody { byte: at.byte }
}

/// An array that the door left whole. One object in it is read (X2); several belong to as many events.
fn array<'a>(bytes: &'a [u8], gathered: &mut Gathered<'a, '_>) -> Result<(), NoReport> {
    match batch::split(bytes) {
        Split::Empty => Err(NoReport::EmptyBatch),
        Split::Elements(ranges) if ranges.len() == 1 => {
            let range = ranges.into_iter().next().unwrap_or_default();
            let start = range.start;
            let element = bytes.get(range).unwrap_or_default();
            if batch::first_significant(element) != Some(b'{') {
                return Err(NoReport::UnparseableElement);
            }
            json_body::report(element, gathered).map_err(|at| NoReport::UnparseableBody {
                byte: start.saturating_add(at.byte),
            })
        }
        Split::Elements(_) | Split::TooMany | Split::NotABatch => Err(NoReport::UnparseableElement),
        Split::Unparseable => {
            let mut scanner = Scanner::new(bytes);
            let fault = scanner.skip(usize::MAX).and_then(|()| scanner.end());
            Err(fault.map_or_else(unparseable, |()| NoReport::UnparseableElement))
        }
    }
}
