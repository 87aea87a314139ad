//! What must hold for any bytes at all; shared by the fuzz targets, by `examples/fuzz_bodies.rs`
//! and by the tests, which replay the seeds.
//!
//! A breach is a panic. Nothing here knows what the right reading of a body is: that is the tables' part.

use trueup_domain::reading::read_request;
use trueup_domain::report::{
    DurationUnit, ParsedRequest, Payout, PayoutUnit, ReadError, ReadSettings, Report, Slot,
};
use trueup_domain::{duration, money, phone};
use trueup_event::batch::{BatchSplit, first_significant, split_batch};
use trueup_event::limits::{BATCH_ELEMENTS, ID_CHARS, PASSED_OVER, RAW_CHARS};
use trueup_event::raw_event::RawRequest;

/// A request out of raw bytes: one of flags, the query up to a line's end, the body.
pub fn request(data: &[u8]) -> (RawRequest, ReadSettings) {
    let (flags, rest) = data.split_first().map_or((0, data), |(f, rest)| (*f, rest));
    let mut halves = rest.splitn(2, |b| *b == b'\n');
    let query = halves.next().unwrap_or_default();
    let body = halves.next().unwrap_or_default();
    let content_type = match flags & 3 {
        0 => None,
        1 => Some("application/json"),
        2 => Some("multipart/form-data; boundary=b"),
        _ => Some("application/x-www-form-urlencoded"),
    };
    let request = RawRequest {
        method: "POST".into(),
        query: String::from_utf8_lossy(query).into(),
        content_type: content_type.map(Into::into),
        body: body.to_vec(),
        element: flags & 4 != 0,
        ..RawRequest::default()
    };
    let mut settings = ReadSettings::default();
    if flags & 8 != 0 {
        settings
            .field_names
            .insert(Slot::Payout, "call.paid".into());
        settings.field_names.insert(Slot::RefId, "tid".into());
    }
    if flags & 16 != 0 {
        settings.default_region = "GB".into();
        settings.currency = "EUR".into();
        settings.payout_unit = PayoutUnit::Cents;
        settings.duration_unit = DurationUnit::Milliseconds;
    }
    (request, settings)
}

/// A request is split as the door splits it, and each event is read.
pub fn any_request(data: &[u8]) {
    let (request, settings) = request(data);
    any_reading(&request, &settings);
    for element in elements(&request.body) {
        let event = RawRequest {
            body: element.to_vec(),
            element: true,
            ..request.clone()
        };
        any_reading(&event, &settings);
    }
}

fn elements(body: &[u8]) -> Vec<&[u8]> {
    match split_batch(body, None) {
        BatchSplit::Elements(ranges) => {
            assert!((1..=BATCH_ELEMENTS).contains(&ranges.len()));
            // Before an array's first element stands its bracket; lines begin with the body.
            let mut end = is_array(body).then_some(0);
            ranges
                .into_iter()
                .map(|range| {
                    assert!(
                        end.is_none_or(|end| range.start > end) && range.start < range.end,
                        "in order and not empty"
                    );
                    end = Some(range.end);
                    &body[range]
                })
                .collect()
        }
        BatchSplit::NotABatch
        | BatchSplit::Empty
        | BatchSplit::TooMany
        | BatchSplit::Unparseable => Vec::new(),
    }
}

fn is_array(body: &[u8]) -> bool {
    first_significant(body) == Some(b'[')
}

pub fn any_batch(data: &[u8]) {
    for element in elements(data).into_iter().filter(|_| is_array(data)) {
        // An element stands for itself: alone in an array it is the same element.
        let alone = [b"[", element, b"]"].concat();
        let whole = 1..alone.len() - 1;
        assert_eq!(split_batch(&alone, None), BatchSplit::Elements(vec![whole]));
    }
}

pub fn any_reading(request: &RawRequest, settings: &ReadSettings) {
    let reading = read_request(request, settings);
    assert_eq!(
        reading,
        read_request(request, settings),
        "read twice the same"
    );
    match &reading.report {
        Ok(report) => any_report(report, &reading),
        Err(no_report) => {
            assert!(reading.slots.is_empty());
            match no_report {
                ReadError::UnparseableBody { byte } => assert!(*byte <= request.body.len()),
                ReadError::UnparseableQuery { byte } => assert!(*byte <= request.query.len()),
                ReadError::UnparseableElement | ReadError::EmptyBatch => {}
            }
        }
    }
}

fn any_report(report: &Report, reading: &ParsedRequest) {
    if let Payout::Cents(cents) = report.payout {
        assert!(cents.abs() < money::CENTS_BOUND);
    }
    assert!(
        report
            .duration_seconds
            .is_none_or(|s| s <= duration::SECONDS_MAX)
    );
    for id in [&report.ref_id, &report.call_id].into_iter().flatten() {
        assert!(!id.is_empty() && id.chars().count() <= ID_CHARS && !id.contains('\0'));
    }
    if let Some(caller) = &report.caller {
        any_number(caller);
    }
    let texts = [&report.caller_raw, &report.payout_raw, &report.currency];
    for text in texts.into_iter().flatten() {
        assert!(text.chars().count() <= RAW_CHARS + 1 && !text.contains('\0'));
    }
    let order: Vec<Slot> = reading.slots.iter().map(|s| s.slot).collect();
    assert!(order.is_sorted() && reading.slots.len() <= 5);
    for slot in &reading.slots {
        assert!(slot.passed_over.len() <= PASSED_OVER + 1);
        assert!(slot.name.is_some() || !slot.passed_over.is_empty());
    }
}

fn any_number(number: &str) {
    let digits = number.strip_prefix('+').expect("E.164");
    assert!((7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
    assert!(!digits.starts_with('0'));
    assert_eq!(
        phone::normalise_caller(number, "US").as_deref(),
        Ok(number),
        "stays as it is"
    );
}

pub fn any_phone(text: &str) {
    for region in ["US", "GB", "DE", "IT", "AU", "BR", "ZZ", ""] {
        if let Ok(number) = phone::normalise_caller(text, region) {
            any_number(&number);
        }
    }
}

pub fn any_money(text: &str) {
    for currency in ["USD", "EUR", "CAD", "XYZ", ""] {
        for unit in [PayoutUnit::Dollars, PayoutUnit::Cents] {
            for json in [false, true] {
                let Ok(cents) = money::parse_cents(text, json, unit, currency) else {
                    continue;
                };
                assert!(cents.abs() < money::CENTS_BOUND);
                let again = format!("{}{cents}e-2", if json { "" } else { " " });
                if json {
                    let read = money::parse_cents(&again, true, PayoutUnit::Dollars, currency);
                    assert_eq!(read, Ok(cents));
                }
            }
        }
    }
}

pub fn any_duration(text: &str) {
    for unit in [
        DurationUnit::Seconds,
        DurationUnit::Milliseconds,
        DurationUnit::Minutes,
    ] {
        for json in [false, true] {
            if let Ok(seconds) = duration::parse_duration(text, json, unit) {
                assert!(seconds <= duration::SECONDS_MAX);
                let again = duration::parse_duration(&format!("{seconds}s"), false, unit);
                assert_eq!(again, Ok(seconds));
            }
        }
    }
}
