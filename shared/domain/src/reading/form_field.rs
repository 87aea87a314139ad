//! One field of a form, a query or a part: a name, perhaps with steps, and a text that may be a whole report.

use std::borrow::Cow;

use crate::reading::field_collection::{FieldCollector, Surroundings, Value};
use crate::reading::json_body::{self, JsonText};
use crate::reading::text_origin::Origin;
use trueup_event::reason::ReadingNote;

/// Steps of a name such as `a[b][c]`; PHP stops at 64, and no slot is as deep as this.
const NAME_STEPS: usize = 8;

/// A report in a form stands in no brackets, but inside of the form's own fields (X2).
pub(super) fn first_wrapping<'a>() -> Surroundings<'a> {
    Surroundings {
        level: 1,
        ..Surroundings::default()
    }
}

/// A field whose text `value` makes of `origin`. `holds_report`: the text may be a whole report.
pub(super) fn add_field<'a>(
    name: Cow<'a, str>,
    value: impl FnOnce() -> Cow<'a, str>,
    origin: Origin<'a>,
    holds_report: bool,
    gathered: &mut FieldCollector<'a, '_>,
) {
    if name.contains('[') && !gathered.is_configured(&name) {
        let whole = gathered.keep_name(name);
        match name_steps(whole) {
            Some(steps) => add_stepped_field(whole, &steps, value, gathered),
            None => gathered.add_pair(&Cow::Borrowed(whole), value),
        }
    } else if !holds_report || gathered.is_configured(&name) || !gathered.is_within_limit() {
        gathered.add_pair(&name, value);
    } else {
        let text = value();
        if !json_body::begins_with_object(text.as_bytes()) {
            gathered.add_pair(&name, || text);
            return;
        }
        let text = gathered.keep(text, origin);
        read_report_in_field(name, text, gathered);
    }
}

fn read_report_in_field<'a>(
    name: Cow<'a, str>,
    text: &'a str,
    gathered: &mut FieldCollector<'a, '_>,
) {
    let mut around = first_wrapping();
    if gathered.has_paths() {
        around.outer.push(name.clone());
    }
    match json_body::read_text(text, &around, true, gathered) {
        JsonText::Read => {
            gathered.count_field();
            gathered.notes.add(ReadingNote::JsonInField);
        }
        JsonText::Broken(place) => {
            gathered.count_field();
            gathered.note_broken_field(place, around.level);
        }
        JsonText::NoReport => {
            gathered.add_pair(&name, || Cow::Borrowed(text));
        }
    }
}

/// The steps of `a[b][c]`; none if its brackets do not fit.
fn name_steps(name: &str) -> Option<Vec<&str>> {
    let (head, rest) = name.split_once('[')?;
    let rest = rest.strip_suffix(']')?;
    if head.is_empty() {
        return None;
    }
    let mut steps = Vec::with_capacity(NAME_STEPS);
    steps.push(head);
    for (n, part) in rest.split(']').enumerate() {
        let step = if n == 0 {
            part
        } else {
            part.strip_prefix('[')?
        };
        if step.contains('[') || steps.len() == NAME_STEPS {
            return None;
        }
        steps.push(step);
    }
    Some(steps)
}

/// `a[b]=` is `b` inside `a`, and `a[]=` is `a` (X1b). A number is a list's, as `[]` is: a list of one is
/// entered, of several elements none is the report's (X2).
fn add_stepped_field<'a>(
    whole: &'a str,
    steps: &[&'a str],
    value: impl FnOnce() -> Cow<'a, str>,
    gathered: &mut FieldCollector<'a, '_>,
) {
    gathered.notes.add(ReadingNote::BracketNames);
    let is_number = |step: &str| !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
    let mut path: Vec<Cow<'a, str>> = Vec::with_capacity(steps.len());
    let mut length: usize = 0;
    for (n, step) in steps.iter().enumerate() {
        let is_last = n.saturating_add(1) == steps.len();
        let is_list = n > 0 && is_number(step);
        if is_list && !is_last && !step.trim_start_matches('0').is_empty() {
            gathered.drop_list(whole.get(..length.saturating_add(1)).unwrap_or_default());
        }
        let is_element = step.is_empty() || (is_list && (!is_last || *step == "0"));
        if n == 0 || !is_element {
            path.push(Cow::Borrowed(*step));
        }
        // A step and its brackets.
        let brackets = if n == 0 { 0 } else { 2 };
        length = length.saturating_add(step.len()).saturating_add(brackets);
    }
    let Some((name, outer)) = path.split_last() else {
        return;
    };
    gathered.add_inner(&Cow::Borrowed(whole), outer, name, || Value::Text(value()));
}
