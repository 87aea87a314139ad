//! A top-level JSON array is a batch (X3): where each of its elements begins and ends.
//!
//! This is all that the door looks at in a body. It builds nothing, decides nothing about what an
//! element says, and leaves an array that is not JSON whole: such a body is one event, and the reader
//! says at which byte it went wrong.

use std::ops::Range;

use crate::json_scanner::{JsonError, Scanner};
use crate::limits::BATCH_ELEMENTS;

/// What the door makes events of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchSplit {
    /// The body is no array: one event.
    NotABatch,
    /// `[]`: one event with the whole body, which the reader calls `empty_batch`.
    Empty,
    /// Over [`BATCH_ELEMENTS`]: answered 413.
    TooMany,
    /// One event for each element, in order: its bytes within the body, with `element: true`.
    Elements(Vec<Range<usize>>),
    /// An array that is not JSON: one event with the whole body (`unparseable_body`).
    Unparseable,
}

/// The body's first byte that says anything: what tells JSON from a form (X1), and a batch from one
/// report. A byte order mark, white space and U+0000 say nothing.
pub fn first_significant(body: &[u8]) -> Option<u8> {
    Scanner::new(body).peek()
}

/// Linear in the body's length, whatever it holds.
pub fn split_batch(body: &[u8]) -> BatchSplit {
    let mut scanner = Scanner::new(body);
    if !scanner.take(b'[') {
        return BatchSplit::NotABatch;
    }
    match find_elements(&mut scanner) {
        Err(JsonError { .. }) => BatchSplit::Unparseable,
        Ok((_, count)) if count > BATCH_ELEMENTS => BatchSplit::TooMany,
        Ok((ranges, _)) if ranges.is_empty() => BatchSplit::Empty,
        Ok((ranges, _)) => BatchSplit::Elements(ranges),
    }
}

/// At most [`BATCH_ELEMENTS`] places, and how many elements there are in truth.
fn find_elements(scanner: &mut Scanner<'_>) -> Result<(Vec<Range<usize>>, usize), JsonError> {
    let mut ranges = Vec::new();
    let mut count: usize = 0;
    if !scanner.take(b']') {
        loop {
            scanner.peek();
            let start = scanner.position();
            // No bound on the depth: an element that is too deep is that element's own fault.
            scanner.skip_value(usize::MAX)?;
            count = count.saturating_add(1);
            if count <= BATCH_ELEMENTS {
                ranges.push(start..scanner.position());
            }
            if scanner.take(b']') {
                break;
            }
            scanner.expect(b',')?;
        }
    }
    scanner.expect_end()?;
    Ok((ranges, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Vec<&str> {
        match split_batch(body.as_bytes()) {
            BatchSplit::Elements(ranges) => ranges.into_iter().map(|r| &body[r]).collect(),
            other => panic!("{other:?} for {body}"),
        }
    }

    #[test]
    fn x3_each_element_is_cut_out_exactly() {
        assert_eq!(
            texts("\u{FEFF} [ {\"a\":\"],[\"} ,7,\n[1,{}], \"x\\\"]\" ,null ] \n"),
            ["{\"a\":\"],[\"}", "7", "[1,{}]", "\"x\\\"]\"", "null"]
        );
    }

    #[test]
    fn x3_what_is_no_array_is_no_batch() {
        for body in ["", "a=[1]", "{\"a\":[1]}", "\"[]\"", "  x"] {
            assert_eq!(
                split_batch(body.as_bytes()),
                BatchSplit::NotABatch,
                "{body}"
            );
        }
        for body in ["[]", " [ \n ] ", "\u{FEFF}[]"] {
            assert_eq!(split_batch(body.as_bytes()), BatchSplit::Empty, "{body}");
        }
    }

    #[test]
    fn x3_an_array_that_is_not_json_stays_whole() {
        for body in [
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[{]",
            "[{\"a\":1},{bad}]",
            "[] []",
            "[1]x",
        ] {
            assert_eq!(
                split_batch(body.as_bytes()),
                BatchSplit::Unparseable,
                "{body}"
            );
        }
    }

    #[test]
    fn x3_five_hundred_elements_are_taken_and_one_more_is_not() {
        let of = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
        assert_eq!(texts(&of(500)).len(), 500);
        assert_eq!(split_batch(of(501).as_bytes()), BatchSplit::TooMany);
        assert_eq!(split_batch(of(200_000).as_bytes()), BatchSplit::TooMany);
        assert_eq!(
            split_batch(of(501).replace("}]", "").as_bytes()),
            BatchSplit::Unparseable
        );
    }

    #[test]
    fn x3_a_deep_element_does_not_spoil_its_neighbours() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(texts(&format!("[{{}},{deep},{{}}]")).len(), 3);
    }

    #[test]
    fn x1_the_first_significant_byte() {
        assert_eq!(first_significant(b"\xEF\xBB\xBF \r\n\0{"), Some(b'{'));
        assert_eq!(first_significant(b" a=1"), Some(b'a'));
        assert_eq!(first_significant(b" \n"), None);
    }
}
