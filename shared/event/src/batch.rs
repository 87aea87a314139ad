//! A top-level JSON array is a batch (X3), and so are lines of JSON objects (X1b): where each of its
//! elements begins and ends.
//!
//! This is all that the door looks at in a body. It builds nothing, decides nothing about what an
//! element says, and leaves an array that is not JSON whole: such a body is one event, and the reader
//! says at which byte it went wrong.

use std::ops::Range;

use crate::json_scanner::{JsonError, Scanner, bom_len, check_value};
use crate::limits::BATCH_ELEMENTS;

/// What the door makes events of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchSplit {
    /// The body is no array and no lines: one event.
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

/// True if the content type says that each line of the body is a JSON value of its own.
pub fn is_line_delimited(content_type: &str) -> bool {
    const TYPES: [&str; 7] = [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/json-lines",
    ];
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    TYPES.iter().any(|t| essence.eq_ignore_ascii_case(t))
}

/// True if a second line begins with `{`, as the first one does: the body may be a batch of lines, and
/// have a batch's length (X1b).
pub fn begins_with_two_objects(so_far: &[u8]) -> bool {
    let mut lines = lines(so_far);
    let mut begins = || {
        lines
            .next()
            .is_some_and(|line| so_far.get(line.start) == Some(&b'{'))
    };
    begins() && begins()
}

/// Linear in the body's length, whatever it holds.
pub fn split_batch(body: &[u8], content_type: Option<&str>) -> BatchSplit {
    let mut scanner = Scanner::new(body);
    match scanner.peek() {
        Some(b'{') => return split_lines(body, content_type.is_some_and(is_line_delimited)),
        Some(b'[') => scanner.consume(b'['),
        _ => return BatchSplit::NotABatch,
    };
    match find_elements(&mut scanner) {
        Err(JsonError { .. }) => BatchSplit::Unparseable,
        Ok((_, count)) if count > BATCH_ELEMENTS => BatchSplit::TooMany,
        Ok((ranges, _)) if ranges.is_empty() => BatchSplit::Empty,
        Ok((ranges, _)) => BatchSplit::Elements(ranges),
    }
}

/// The places of the lines that are not blank, without the white space around them.
fn lines(body: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut next = bom_len(body);
    let text = body.get(next..).unwrap_or_default();
    let places = text.split(|byte| *byte == b'\n').map(move |line| {
        let blanks = line.len().saturating_sub(line.trim_ascii_start().len());
        let start = next.saturating_add(blanks);
        next = next.saturating_add(line.len()).saturating_add(1);
        start..start.saturating_add(line.trim_ascii().len())
    });
    places.filter(|line| !line.is_empty())
}

/// Lines that each begin with `{` are a batch, unless the whole of them is one value: a value may have
/// line ends in it. Where the content type says that they are lines, they are.
fn split_lines(body: &[u8], declared: bool) -> BatchSplit {
    if !declared && !body.contains(&b'\n') {
        return BatchSplit::NotABatch;
    }
    let mut ranges = Vec::new();
    let mut count: usize = 0;
    for line in lines(body) {
        if !declared && body.get(line.start) != Some(&b'{') {
            return BatchSplit::NotABatch;
        }
        count = count.saturating_add(1);
        if count <= BATCH_ELEMENTS {
            ranges.push(line);
        }
    }
    if !declared && (count < 2 || check_value(body, usize::MAX).is_ok()) {
        return BatchSplit::NotABatch;
    }
    if count > BATCH_ELEMENTS {
        return BatchSplit::TooMany;
    }
    BatchSplit::Elements(ranges)
}

/// At most [`BATCH_ELEMENTS`] places, and how many elements there are in truth.
fn find_elements(scanner: &mut Scanner<'_>) -> Result<(Vec<Range<usize>>, usize), JsonError> {
    let mut ranges = Vec::new();
    let mut count: usize = 0;
    if !scanner.consume(b']') {
        loop {
            scanner.peek();
            let start = scanner.position();
            // No bound on the depth: an element that is too deep is that element's own fault.
            scanner.skip_value(usize::MAX)?;
            count = count.saturating_add(1);
            if count <= BATCH_ELEMENTS {
                ranges.push(start..scanner.position());
            }
            if scanner.consume(b']') {
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
        match split_batch(body.as_bytes(), None) {
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
                split_batch(body.as_bytes(), None),
                BatchSplit::NotABatch,
                "{body}"
            );
        }
        for body in ["[]", " [ \n ] ", "\u{FEFF}[]"] {
            assert_eq!(
                split_batch(body.as_bytes(), None),
                BatchSplit::Empty,
                "{body}"
            );
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
                split_batch(body.as_bytes(), None),
                BatchSplit::Unparseable,
                "{body}"
            );
        }
    }

    #[test]
    fn x3_five_hundred_elements_are_taken_and_one_more_is_not() {
        let of = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
        assert_eq!(texts(&of(500)).len(), 500);
        assert_eq!(split_batch(of(501).as_bytes(), None), BatchSplit::TooMany);
        assert_eq!(
            split_batch(of(200_000).as_bytes(), None),
            BatchSplit::TooMany
        );
        assert_eq!(
            split_batch(of(501).replace("}]", "").as_bytes(), None),
            BatchSplit::Unparseable
        );
    }

    #[test]
    fn x3_a_deep_element_does_not_spoil_its_neighbours() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(texts(&format!("[{{}},{deep},{{}}]")).len(), 3);
    }

    #[test]
    fn x1b_lines_of_objects_are_a_batch() {
        let lines = "\u{FEFF}\r\n {\"a\":1} \r\n\n{\"a\":\r\n{bad\n";
        assert_eq!(texts(lines), ["{\"a\":1}", "{\"a\":", "{bad"]);
        let declared = "application/x-NDJSON; charset=utf-8";
        let count = |body: &str| match split_batch(body.as_bytes(), Some(declared)) {
            BatchSplit::Elements(ranges) => ranges.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(count("{\"a\":1}"), 1);
        assert_eq!(count("{\n7\n"), 2);
    }

    #[test]
    fn x1b_one_object_over_several_lines_is_no_batch() {
        for body in [
            "{\n  \"a\": 1\n}",
            "{\"a\":\n{\"b\":1}}",
            "{\"a\":1}\n",
            "{\"a\":1}\n7",
            "{\"a\":1}",
        ] {
            assert_eq!(
                split_batch(body.as_bytes(), Some("application/json")),
                BatchSplit::NotABatch,
                "{body}"
            );
        }
    }

    #[test]
    fn x1b_five_hundred_lines_are_taken_and_one_more_is_not() {
        let of = |n: usize| "{}\n".repeat(n);
        assert_eq!(texts(&of(500)).len(), 500);
        assert_eq!(split_batch(of(501).as_bytes(), None), BatchSplit::TooMany);
    }

    #[test]
    fn x1_the_first_significant_byte() {
        assert_eq!(first_significant(b"\xEF\xBB\xBF \r\n\0{"), Some(b'{'));
        assert_eq!(first_significant(b" a=1"), Some(b'a'));
        assert_eq!(first_significant(b" \n"), None);
    }
}
