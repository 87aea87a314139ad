//! Which value each slot takes (X4, X5), and the words that tell a person why.

use crate::field_aliases::{BID_RANKS, Target};
use crate::placeholders::{find_placeholder, without_braces};
use crate::reading::field_collection::{BrokenField, Field, FieldCollector, Value};
use crate::reading::text_origin::Place;
use crate::report::{
    ParsedRequest, Payout, ReadSettings, RejectedCandidate, Report, Slot, SlotReading,
};
use crate::text::{clip_text, trim_text};
use crate::{duration, money, phone};
use trueup_event::limits::{ID_CHARS, PASSED_OVER, RAW_CHARS};

/// Words beside an amount that take it back (V8).
const REJECTIONS: [&str; 5] = ["rejected", "refused", "reversed", "chargeback", "declined"];

/// Characters of a currency that are kept; its codes have three.
const CURRENCY_CHARS: usize = 16;

/// Or the place of the fault in a field that may hold half a report.
pub(super) fn choose_slots<'a>(
    gathered: &mut FieldCollector<'a, '_>,
    settings: &ReadSettings,
) -> Result<ParsedRequest, Place<'a>> {
    let (fields, beyond) = gathered.take_fields();
    if let Some(broken) = gathered.broken_field
        && !has_payout_before(&broken, gathered.first_payout_rank(), &fields)
    {
        return Err(broken.place);
    }
    let mut report = Report::default();
    let mut slots = Vec::with_capacity(5);

    let mut ids = |slot| {
        let mut log = SlotTrace::new(slot);
        let id = log.first_usable(fields_of(&fields, Target::Slot(slot)), read_id, |id| {
            id.clone()
        });
        log.close_slot(&mut slots);
        id
    };
    report.ref_id = ids(Slot::RefId);
    report.call_id = ids(Slot::CallId);

    let mut log = SlotTrace::new(Slot::Caller);
    report.caller = log.first_usable(
        fields_of(&fields, Target::Slot(Slot::Caller)),
        |value| read_caller(value, settings),
        |number| number.clone(),
    );
    report.caller_raw = log.raw_text();
    log.close_slot(&mut slots);

    let mut log = SlotTrace::new(Slot::Duration);
    report.duration_seconds = log.first_usable(
        fields_of(&fields, Target::Slot(Slot::Duration)),
        |value| read_seconds(value, settings),
        |seconds| format!("{seconds} s"),
    );
    log.close_slot(&mut slots);

    let mut log = SlotTrace::new(Slot::Payout);
    let names = fields_of(&fields, Target::Slot(Slot::Payout));
    report.payout = read_payout(names, beyond, settings, &mut log);
    report.payout_raw = log.raw_text();
    log.close_slot(&mut slots);

    report.currency = read_currency(&fields, settings);
    report.rejection_word = read_rejection(&fields);
    Ok(ParsedRequest {
        report: Ok(report),
        slots,
        notes: std::mem::take(&mut gathered.notes).into_sorted(),
    })
}

/// Whether an amount stands that nothing in a field that does not parse could go before: one under the first
/// of the names (X2, X4, X5).
fn has_payout_before(broken: &BrokenField<'_>, first_rank: u8, fields: &[Field<'_>]) -> bool {
    fields_of(fields, Target::Slot(Slot::Payout))
        .iter()
        .find(|f| absent_reason(&f.value).is_none())
        .is_some_and(|f| f.rank == first_rank && broken.is_behind(f))
}

/// The fields of one target, best first.
fn fields_of<'f, 'a>(fields: &'f [Field<'a>], target: Target) -> &'f [Field<'a>] {
    let start = fields.partition_point(|f| f.target < target);
    let end = fields.partition_point(|f| f.target <= target);
    fields.get(start..end).unwrap_or_default()
}

/// Why a value says nothing, if it says nothing (X4).
fn absent_reason(value: &Value<'_>) -> Option<&'static str> {
    match value {
        Value::Null => Some("null"),
        Value::Text(text) => find_placeholder(text).map(|a| a.why()),
        Value::Bool(_) | Value::Number(_) | Value::List => None,
    }
}

fn shown_text<'v>(value: &'v Value<'_>) -> &'v str {
    match value {
        Value::Null => "null",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(text) | Value::Text(text) => text,
        Value::List => "[\u{2026}]",
    }
}

/// How one slot is being read.
struct SlotTrace {
    reading: SlotReading,
    any: bool,
    /// The first text that was there but could not be read, and the first that said nothing.
    unreadable: Option<String>,
    absent: Option<String>,
}

impl SlotTrace {
    fn new(slot: Slot) -> Self {
        SlotTrace {
            reading: SlotReading {
                slot,
                name: None,
                raw: None,
                value: None,
                passed_over: Vec::new(),
            },
            any: false,
            unreadable: None,
            absent: None,
        }
    }

    fn pass_over(&mut self, field: &Field<'_>, why: &'static str) {
        self.any = true;
        if self.reading.passed_over.len() < PASSED_OVER {
            self.reading.passed_over.push(RejectedCandidate {
                name: clip_text(&field.name, RAW_CHARS),
                raw: clip_text(shown_text(&field.value), RAW_CHARS),
                why: why.to_owned(),
            });
        }
    }

    fn pass_over_absent(&mut self, field: &Field<'_>, why: &'static str) {
        let text = shown_text(&field.value);
        if self.absent.is_none() && !trim_text(text).is_empty() {
            self.absent = Some(clip_text(text, RAW_CHARS));
        }
        self.pass_over(field, why);
    }

    fn pass_over_unreadable(&mut self, field: &Field<'_>, why: &'static str) {
        if self.unreadable.is_none() {
            self.unreadable = Some(clip_text(shown_text(&field.value), RAW_CHARS));
        }
        self.pass_over(field, why);
    }

    fn take_value(&mut self, field: &Field<'_>, value: Option<String>) {
        self.any = true;
        self.reading.name = Some(clip_text(&field.name, RAW_CHARS));
        self.reading.raw = Some(clip_text(shown_text(&field.value), RAW_CHARS));
        self.reading.value = value;
    }

    /// The first field that can be read: what is absent or unreadable goes on to the next (X4, X5).
    fn first_usable<T>(
        &mut self,
        fields: &[Field<'_>],
        read: impl Fn(&Value<'_>) -> Result<T, &'static str>,
        words: impl Fn(&T) -> String,
    ) -> Option<T> {
        for field in fields {
            if let Some(why) = absent_reason(&field.value) {
                self.pass_over_absent(field, why);
                continue;
            }
            match read(&field.value) {
                Ok(value) => {
                    self.take_value(field, Some(words(&value)));
                    return Some(value);
                }
                Err(why) => self.pass_over_unreadable(field, why),
            }
        }
        None
    }

    /// The text that a person should see for the slot, however it was read.
    fn raw_text(&mut self) -> Option<String> {
        self.reading
            .raw
            .clone()
            .or_else(|| self.unreadable.take())
            .or_else(|| self.absent.take())
    }

    fn close_slot(self, slots: &mut Vec<SlotReading>) {
        if self.any {
            slots.push(self.reading);
        }
    }
}

/// X6.
fn read_id(value: &Value<'_>) -> Result<String, &'static str> {
    let text = match value {
        Value::Text(text) | Value::Number(text) => trim_text(text),
        Value::Bool(_) | Value::List | Value::Null => return Err("not an id"),
    };
    let text = without_braces(text).unwrap_or(text);
    if text.len() > ID_CHARS && text.chars().nth(ID_CHARS).is_some() {
        return Err("over 256 characters");
    }
    Ok(text.to_owned())
}

/// X9.
fn read_caller(value: &Value<'_>, settings: &ReadSettings) -> Result<String, &'static str> {
    match value {
        Value::Text(text) | Value::Number(text) => {
            phone::normalise_caller(text, &settings.default_region).map_err(phone::PhoneError::why)
        }
        Value::Bool(_) | Value::List | Value::Null => Err("not a number"),
    }
}

/// X8.
fn read_seconds(value: &Value<'_>, settings: &ReadSettings) -> Result<u32, &'static str> {
    let (text, json_number) = match value {
        Value::Text(text) => (text, false),
        Value::Number(text) => (text, true),
        Value::Bool(_) | Value::List | Value::Null => return Err("not a duration"),
    };
    duration::parse_duration(text, json_number, settings.duration_unit)
        .map_err(duration::DurationParseError::reason)
}

/// X7.
fn read_cents(value: &Value<'_>, settings: &ReadSettings) -> Result<i64, &'static str> {
    let (text, json_number) = match value {
        Value::Text(text) => (text, false),
        Value::Number(text) => (text, true),
        Value::Bool(_) => return Err("true or false"),
        Value::List | Value::Null => return Err("a list"),
    };
    money::parse_cents(text, json_number, settings.payout_unit, &settings.currency)
        .map_err(money::MoneyParseError::why)
}

/// X5: the first payout name that says anything decides, readable or not.
fn read_payout(
    fields: &[Field<'_>],
    beyond: Option<(u8, String)>,
    settings: &ReadSettings,
    log: &mut SlotTrace,
) -> Payout {
    // Found once: it may be a long text.
    let fields: Vec<(&Field<'_>, Option<&'static str>)> = fields
        .iter()
        .map(|field| (field, absent_reason(&field.value)))
        .collect();
    let a_name_is_blank = fields
        .chunk_by(|(a, _), (b, _)| a.rank == b.rank)
        .any(|name| name.iter().all(|(_, absent)| absent.is_some()));
    for (field, absent) in fields {
        if let Some((rank, name)) = beyond.as_ref().filter(|(rank, _)| *rank <= field.rank) {
            return stop_beyond_limit(*rank, name, log);
        }
        if let Some(why) = absent {
            log.pass_over_absent(field, why);
            continue;
        }
        if a_name_is_blank && BID_RANKS.contains(&field.rank) {
            log.pass_over_absent(field, "a bid, and a payout name is blank");
            continue;
        }
        return match read_cents(&field.value, settings) {
            Ok(cents) => {
                log.take_value(field, Some(format!("{cents} cents")));
                Payout::Cents(cents)
            }
            Err(why) => {
                log.pass_over_unreadable(field, why);
                log.take_value(field, None);
                Payout::Unparseable
            }
        };
    }
    match beyond {
        Some((rank, name)) => stop_beyond_limit(rank, &name, log),
        None => Payout::Absent,
    }
}

/// An amount stands where nothing is read any more; one of a lower rank must not take its place.
fn stop_beyond_limit(_rank: u8, name: &str, log: &mut SlotTrace) -> Payout {
    log.any = true;
    log.reading.name = Some(clip_text(name, RAW_CHARS));
    log.reading.passed_over.push(RejectedCandidate {
        name: clip_text(name, RAW_CHARS),
        raw: String::new(),
        why: "beyond the 256th field".to_owned(),
    });
    Payout::Unparseable
}

/// The first value of a target that says anything.
fn first_said<'f, 'a>(fields: &'f [Field<'a>], target: Target) -> Option<&'f Value<'a>> {
    fields_of(fields, target)
        .iter()
        .map(|f| &f.value)
        .find(|v| absent_reason(v).is_none())
}

/// V8: the code as written, upper case; a symbol of the account's own currency is its code.
fn read_currency(fields: &[Field<'_>], settings: &ReadSettings) -> Option<String> {
    let text = trim_text(shown_text(first_said(fields, Target::Currency)?));
    if money::is_own_mark(text, &settings.currency) {
        return Some(settings.currency.to_ascii_uppercase());
    }
    Some(clip_text(&text.to_uppercase(), CURRENCY_CHARS))
}

/// V8: the word that takes the amount back.
fn read_rejection(fields: &[Field<'_>]) -> Option<String> {
    for target in [Target::Status, Target::State] {
        let said = first_said(fields, target).map(shown_text).map(trim_text);
        let word = said.and_then(|s| REJECTIONS.iter().find(|w| s.eq_ignore_ascii_case(w)));
        if let Some(word) = word {
            return Some((*word).to_owned());
        }
    }
    let reverse = first_said(fields, Target::Reverse)
        .map(shown_text)
        .map(trim_text)?;
    // A sender whose flags are JSON's or a language's own means the same by `true`.
    (reverse == "1" || reverse.eq_ignore_ascii_case("true")).then(|| "reverse=1".to_owned())
}
