//! Every shape that senders wrap a report in (X1b), line by line: what is read, and what the row says of it.

use base64::Engine;
use serde_json::Value;
use trueup_domain::reading::read_request;
use trueup_domain::report::{ReadError, ReadSettings};
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::ReadingNote;

use super::table::{settings, text, told};

const SHAPES: &str = include_str!("shapes.jsonl");

#[test]
fn x1b_every_shape_is_read_right_and_told() {
    let mut wrong = Vec::new();
    for line in SHAPES.lines() {
        let case: Value = serde_json::from_str(line).expect(line);
        let body = match text(&case, "body_b64") {
            Some(coded) => base64::engine::general_purpose::STANDARD
                .decode(coded)
                .expect("base64"),
            None => text(&case, "body").unwrap_or_default().into_bytes(),
        };
        let request = RawRequest {
            method: "POST".into(),
            query: text(&case, "query").unwrap_or_default().into(),
            content_type: text(&case, "content_type").map(Into::into),
            body,
            ..RawRequest::default()
        };
        let reading = read_request(&request, &settings(&case));
        let notes = serde_json::to_value(&reading.notes).expect("plain data");
        let got = (told(&reading), notes);
        let want = (case["expect"].clone(), case["notes"].clone());
        if got != want {
            let (id, note) = (&case["id"], &case["note"]);
            wrong.push(format!("{id} {note}\n  got  {got:?}\n  want {want:?}"));
        }
    }
    let count = SHAPES.lines().count();
    assert!(count > 100, "only {count} shapes");
    assert!(
        wrong.is_empty(),
        "{} of {count} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn x1b_a_compressed_body_is_told_and_one_that_could_not_be_decoded_is_unparseable() {
    let request = |encoded| RawRequest {
        method: "POST".into(),
        content_encoding: Some("gzip".into()),
        body: b"{\"payout\": 5}".to_vec(),
        encoded,
        ..RawRequest::default()
    };
    let decoded = read_request(&request(false), &ReadSettings::default());
    assert_eq!(decoded.notes, [ReadingNote::Compressed]);
    assert!(decoded.report.is_ok());
    let damaged = read_request(&request(true), &ReadSettings::default());
    assert_eq!(damaged.notes, [ReadingNote::NotDecoded]);
    assert_eq!(damaged.report, Err(ReadError::UnparseableBody { byte: 0 }));
}
