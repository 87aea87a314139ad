//! Where a text goes wrong is told in the bytes that were sent, whatever was taken off them (X1, X1b).

use proptest::prelude::*;
use trueup_domain::reading::read_request;
use trueup_domain::report::{ReadError, ReadSettings};
use trueup_event::raw_event::RawRequest;

/// A text, and the place in it at which its report goes wrong.
#[derive(Debug, Clone)]
struct BrokenText {
    before: String,
    after: String,
}

impl BrokenText {
    /// Two amounts or one, behind any text.
    fn new(text: &str) -> Self {
        BrokenText {
            before: format!("{{\"note\":{},\"payout\":12,", quoted(text, false)),
            after: "50}".to_owned(),
        }
    }

    fn encode(&self, encode: impl Fn(&str) -> String) -> Self {
        BrokenText {
            before: encode(&self.before),
            after: encode(&self.after),
        }
    }

    fn inside(self, begin: &str, end: &str) -> Self {
        BrokenText {
            before: format!("{begin}{}", self.before),
            after: format!("{}{end}", self.after),
        }
    }

    fn wrap(&self, wrapping: Wrapping) -> Self {
        match wrapping {
            Wrapping::Value => self
                .encode(|t| escaped(t, false))
                .inside("{\"data\": \"", "\"}"),
            Wrapping::EscapedValue => self
                .encode(|t| escaped(t, true))
                .inside("{\"b\":1,\"json\":\"", "\" }"),
            Wrapping::ListedValue => self
                .encode(|t| escaped(t, false))
                .inside("[{\"data\":\"", "\"}]"),
            Wrapping::MendedValue => self
                .encode(|t| escaped(t, false))
                .inside("{a: 'it\\'s \"b\"', \"c\": , \"data\": \"", "\",}"),
            Wrapping::RequotedValue => self
                .encode(|t| escaped(t, true).replace('\'', "\\'"))
                .inside("{'payload' : '", "'}"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Wrapping {
    Value,
    EscapedValue,
    ListedValue,
    MendedValue,
    RequotedValue,
}

fn wrapping() -> impl Strategy<Value = Wrapping> {
    prop_oneof![
        Just(Wrapping::Value),
        Just(Wrapping::EscapedValue),
        Just(Wrapping::ListedValue),
        Just(Wrapping::MendedValue),
        Just(Wrapping::RequotedValue),
    ]
}

/// What stands in JSON between quotes; `all`: everything but brackets in escapes of UTF-16 units.
fn escaped(text: &str, all: bool) -> String {
    let units = |c: char| -> String {
        let mut units = [0; 2];
        let units = c.encode_utf16(&mut units).iter();
        units.map(|unit| format!("\\u{unit:04X}")).collect()
    };
    text.chars()
        .map(|c| match c {
            '"' | '\\' if !all => format!("\\{c}"),
            '{' | '[' => c.to_string(),
            c if all || u32::from(c) < 0x20 => units(c),
            c => c.to_string(),
        })
        .collect()
}

fn quoted(text: &str, all: bool) -> String {
    format!("\"{}\"", escaped(text, all))
}

/// Half of it escaped, as the strictest and the laxest senders would.
fn form_escaped(text: &str) -> String {
    text.bytes()
        .enumerate()
        .map(|(n, b)| match b {
            b' ' if n % 2 == 0 => "+".to_owned(),
            b if n % 2 == 0 && b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02x}"),
        })
        .collect()
}

fn utf_16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn fault(query: &str, body: &[u8], content_type: Option<&str>) -> Option<ReadError> {
    let request = RawRequest {
        method: "POST".into(),
        query: query.into(),
        content_type: content_type.map(Into::into),
        body: body.to_vec(),
        ..RawRequest::default()
    };
    read_request(&request, &ReadSettings::default())
        .report
        .err()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn x1b_a_fault_is_told_at_its_place_in_what_was_sent(
        note in "[^\\x00\\u{FEFF}]{0,12}",
        wrappings in prop::collection::vec(wrapping(), 0..3),
    ) {
        let broken = wrappings.iter().fold(BrokenText::new(&note), |text, wrapping| text.wrap(*wrapping));
        let whole = |text: &BrokenText| format!("{}{}", text.before, text.after);
        let in_body = |before: usize| Some(ReadError::UnparseableBody { byte: before });

        prop_assert_eq!(fault("", whole(&broken).as_bytes(), None), in_body(broken.before.len()));

        let string = broken.encode(|t| escaped(t, false)).inside(" \"", "\"\n");
        prop_assert_eq!(fault("", whole(&string).as_bytes(), None), in_body(string.before.len()));

        let wide = [utf_16("\u{FEFF}"), utf_16(&broken.before)].concat();
        let body = [wide.clone(), utf_16(&broken.after)].concat();
        prop_assert_eq!(fault("", &body, None), in_body(wide.len()));

        let field = broken.encode(form_escaped).inside("\r\na=%2&payload=", "&b=+");
        prop_assert_eq!(fault("", whole(&field).as_bytes(), None), in_body(field.before.len()));

        let part = broken.clone().inside(
            "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"r\"\r\n\r\n",
            "\r\n--b--\r\n",
        );
        let parts = Some("multipart/form-data; boundary=b");
        prop_assert_eq!(fault("", whole(&part).as_bytes(), parts), in_body(part.before.len()));

        let query = broken.encode(form_escaped).inside("a=1&data=", "");
        let in_query = Some(ReadError::UnparseableQuery { byte: query.before.len() });
        prop_assert_eq!(fault(&whole(&query), b"{\"bid\":5}", None), in_query);

        let key = broken.encode(form_escaped);
        prop_assert_eq!(fault("", whole(&key).as_bytes(), None), in_body(key.before.len()));
    }
}
