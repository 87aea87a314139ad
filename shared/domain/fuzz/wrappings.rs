//! What must hold for any bytes in any wrapping (X1b); shared by the fuzz targets, by `examples/fuzz_bodies.rs`
//! and by the tests, which replay the seeds.

use trueup_domain::reading::read_request;
use trueup_domain::report::{ParsedRequest, ReadSettings};
use trueup_event::batch::first_significant;
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::ReadingNote;

use super::checks::any_reading;

fn request(query: &str, body: &[u8], content_type: Option<&str>) -> RawRequest {
    RawRequest {
        method: "POST".into(),
        query: query.into(),
        content_type: content_type.map(Into::into),
        body: body.to_vec(),
        ..RawRequest::default()
    }
}

fn read(request: &RawRequest) -> ParsedRequest {
    let settings = ReadSettings::default();
    any_reading(request, &settings);
    read_request(request, &settings)
}

fn escape(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if u32::from(c) < 0x20 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// JSON that is read as it stands is read the same inside a string, a field, or a form's only key; whatever else
/// stands there breaks nothing.
pub fn any_wrapped_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace('\0', "");
    let plain = read(&request("", text.as_bytes(), None));
    let key = escape(&text);
    let field = format!("payload={key}");
    let wrapped = [
        request("", quote(&text).as_bytes(), None),
        request("", field.as_bytes(), None),
        request("", format!("{key}=").as_bytes(), None),
        request(&field, b"", None),
        request("", format!("{{\"a\":{}}}", quote(&text)).as_bytes(), None),
        // As the bytes stand.
        request("", format!("payload={text}").as_bytes(), None),
        request(&text, b"", None),
        request("", format!("'{text}'").as_bytes(), None),
    ];
    let is_plain_report =
        first_significant(text.as_bytes()) == Some(b'{') && plain.notes.is_empty();
    for (n, wrapped) in wrapped.iter().enumerate() {
        let reading = read(wrapped);
        if is_plain_report && n < 4 && plain.report.is_ok() {
            assert_eq!(plain.report, reading.report, "{n}: {text}");
        }
    }
}

/// Nothing is made up: a text that was read stands in the body.
pub fn any_mended_body(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace(['\0', '\\'], "");
    let reading = read(&request("", text.as_bytes(), None));
    // In a form a plus is a blank, and `%41` an A.
    let in_form = [ReadingNote::JsonInField, ReadingNote::JsonAsKey];
    let is_form = reading.notes.iter().any(|note| in_form.contains(note));
    if reading.notes.contains(&ReadingNote::Mended) && !is_form {
        for slot in &reading.slots {
            let raw = slot.raw.iter().map(|raw| raw.trim_end_matches('\u{2026}'));
            for raw in raw {
                // A list is told by its brackets.
                let is_word = matches!(raw, "true" | "false" | "[\u{2026}]");
                assert!(is_word || text.contains(raw), "{raw} of {text}");
            }
        }
    }
}

pub fn any_xml_body(data: &[u8]) {
    for content_type in [
        None,
        Some("text/xml"),
        Some("application/xml; charset=latin1"),
    ] {
        read(&request("", data, content_type));
    }
}

/// A text is read the same in every encoding; any bytes under any name break nothing.
pub fn any_charset(data: &[u8]) {
    let names = [
        "utf-16",
        "utf-16be",
        "windows-1252",
        "iso-8859-1",
        "\"UTF-8\"",
        "x",
    ];
    for name in names {
        let content_type = format!("application/json; charset={name}");
        read(&request("", data, Some(&content_type)));
    }
    read(&request("", &[b"\xFF\xFE", data].concat(), None));
    read(&request("", &[b"\xFE\xFF", data].concat(), None));
    let text = String::from_utf8_lossy(data).replace(['\0', '\u{FEFF}'], "");
    let plain = read(&request("", text.as_bytes(), None));
    let marked: Vec<u8> = "\u{FEFF}"
        .encode_utf16()
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let reading = read(&request("", &marked, None));
    if text.trim_ascii_start().starts_with("<?xml") {
        // It may name an encoding of its own.
    } else if plain.report.is_ok() {
        assert_eq!(plain.report, reading.report, "{text}");
    } else {
        assert!(reading.report.is_err(), "{text}");
    }
}
