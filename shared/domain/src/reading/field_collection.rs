//! The flat map (X2): every field of a request whose name means something, with the place that decides
//! between several of a name. Nothing is judged here; a value is looked at only when its slot is chosen.

#![expect(
    clippy::ptr_arg,
    reason = "a name that is borrowed from the request is kept without a copy"
)]

use std::borrow::Cow;

use crate::field_aliases::{CONFIGURED_RANK, Target, find_alias};
use crate::reading::note_list::NoteList;
use crate::reading::text_origin::{Origin, Place};
use crate::reading::text_store::TextStore;
use crate::report::{ReadSettings, Slot};
use crate::text::{name_fingerprint, same_name, trim_text};
use trueup_event::limits::{FIELDS, FLAT_DEPTH};

/// Names of one slot cannot be more than its aliases and a configured one.
const SLOTS: [Slot; 5] = [
    Slot::RefId,
    Slot::CallId,
    Slot::Caller,
    Slot::Duration,
    Slot::Payout,
];

/// How much further inside the query's fields stand: after whatever the body holds, however deep.
const QUERY_OFFSET: u8 = u8::MAX / 2;

/// A value as it stood in the request. An object is never one (X5).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// JSON digits as written.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// A list that is not one object.
    List,
}

/// What tells whether a later field of a JSON object bears the same name: the object, and the name's
/// fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldKey {
    object: u32,
    print: u32,
}

/// A query's and a form's fields stand in no object, and replace nothing.
const NO_KEY: FieldKey = FieldKey {
    object: 0,
    print: 0,
};

impl FieldKey {
    /// Fields of the same key have it in common, and few others: four of them are compared at once.
    fn mark(self) -> u32 {
        self.print ^ self.object.wrapping_mul(0x9E37_79B9)
    }
}

/// The mark of what was dropped, or one that is as rare as any.
const NO_MARK: u32 = 0;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field<'a> {
    pub target: Target,
    /// The place of its name among the slot's names (X4).
    pub rank: u8,
    /// How deep it stood: the outer beats the inner, the body the query (X2).
    pub level: u8,
    /// The order in which the fields stood.
    pub order: usize,
    pub name: Cow<'a, str>,
    pub value: Value<'a>,
    key: FieldKey,
    /// A later field of its object bore the same name (X2: the last wins).
    dropped: bool,
}

/// The fields that a named object inside an object brought.
struct Span<'a> {
    key: FieldKey,
    name: Cow<'a, str>,
    fields: std::ops::Range<usize>,
}

/// What a JSON text stands in: brackets, objects and their names, and texts that were unwrapped.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings<'a> {
    pub depth: usize,
    pub level: usize,
    pub wraps: u8,
    /// Kept only where a dotted path is configured.
    pub outer: Vec<Cow<'a, str>>,
}

/// The objects around a field; those from `start` on are in the same text, where a path begins as well.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldPath<'p, 'a> {
    pub outer: &'p [Cow<'a, str>],
    pub start: usize,
}

/// A field that should hold a report, and does not parse.
#[derive(Debug, Clone, Copy)]
pub(super) struct BrokenField<'a> {
    /// The first fault in the first of them.
    pub place: Place<'a>,
    /// The level and the order from which on a field does not go before what any of them may hold (X2).
    behind: (u8, usize),
}

impl BrokenField<'_> {
    pub fn is_behind(&self, field: &Field<'_>) -> bool {
        (field.level, field.order) < self.behind
    }
}

pub(super) struct FieldCollector<'a, 's> {
    store: &'a TextStore<'a>,
    pub notes: NoteList,
    pub broken_field: Option<BrokenField<'a>>,
    configured: Vec<(Slot, &'s str)>,
    has_paths: bool,
    fields: Vec<Field<'a>>,
    /// The mark of each field, apart from it: a body of thousands of names looks for each among all of them.
    field_marks: Vec<u32>,
    spans: Vec<Span<'a>>,
    span_marks: Vec<u32>,
    /// Names seen in the current source.
    seen: usize,
    /// Added to each level: the body's fields go before the query's.
    level_offset: u8,
    /// What stands before a list's number in a name, where there is more than one element.
    long_lists: Vec<String>,
    objects: u32,
    /// The best rank of a payout name beyond the limit: an amount that was not read, so that none
    /// of a lower rank may be taken in its stead (X5).
    payout_beyond_limit: Option<(u8, String)>,
}

/// Which slots a name is about.
struct FieldTargets {
    configured: [bool; SLOTS.len()],
    alias: Option<(Target, u8)>,
}

impl FieldTargets {
    fn is_none(&self) -> bool {
        self.alias.is_none() && !self.configured.contains(&true)
    }

    fn targets(&self) -> impl Iterator<Item = (Target, u8)> + '_ {
        SLOTS
            .iter()
            .zip(&self.configured)
            .filter(|(_, is)| **is)
            .map(|(slot, _)| (Target::Slot(*slot), CONFIGURED_RANK))
            .chain(self.alias)
    }
}

impl<'a, 's> FieldCollector<'a, 's> {
    pub fn new(settings: &'s ReadSettings, store: &'a TextStore<'a>) -> Self {
        let configured: Vec<(Slot, &str)> = settings
            .field_names
            .iter()
            .map(|(slot, name)| (*slot, trim_text(name)))
            .filter(|(_, name)| !name.is_empty())
            .collect();
        FieldCollector {
            has_paths: configured.iter().any(|(_, name)| name.contains('.')),
            configured,
            store,
            notes: NoteList::default(),
            broken_field: None,
            long_lists: Vec::new(),
            fields: Vec::with_capacity(8),
            field_marks: Vec::with_capacity(8),
            spans: Vec::new(),
            span_marks: Vec::new(),
            seen: 0,
            level_offset: 0,
            objects: 0,
            payout_beyond_limit: None,
        }
    }

    /// Whether objects too deep for bare names must be entered all the same.
    pub fn has_paths(&self) -> bool {
        self.has_paths
    }

    pub fn begin_query(&mut self) {
        self.seen = 0;
        self.level_offset = QUERY_OFFSET;
    }

    /// The body has turned out not to be what it was read as: nothing of it stands.
    pub fn forget_fields(&mut self) {
        self.fields.clear();
        self.field_marks.clear();
        self.spans.clear();
        self.span_marks.clear();
        self.seen = 0;
        self.payout_beyond_limit = None;
        self.broken_field = None;
    }

    /// The text itself, or one that the request holds only in another form, kept with its origin.
    pub fn keep(&self, text: Cow<'a, str>, origin: Origin<'a>) -> &'a str {
        match text {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => self.store.keep(text, origin),
        }
    }

    /// A text in which no report, and so no fault, can be.
    pub fn keep_name(&self, name: Cow<'a, str>) -> &'a str {
        self.keep(name, Origin::default())
    }

    /// The place in `sent`, the body or the query, that `place` comes from.
    pub fn place_in_sent(&self, sent: &[u8], place: Place<'a>) -> Option<usize> {
        self.store.place_in_sent(sent, place)
    }

    /// Whether the source's fields are still read; what is beyond is not unwrapped either.
    pub fn is_within_limit(&self) -> bool {
        self.seen <= FIELDS
    }

    /// The fields that stand, best first, and the best of the payout's names beyond the limit.
    pub fn take_fields(&mut self) -> (Vec<Field<'a>>, Option<(u8, String)>) {
        let mut fields = std::mem::take(&mut self.fields);
        let lists = &self.long_lists;
        let is_of_a_list = |f: &Field<'_>| lists.iter().any(|list| f.name.starts_with(list));
        fields.retain(|f| !f.dropped && (lists.is_empty() || !is_of_a_list(f)));
        fields.sort_unstable_by_key(|f| (f.target, f.rank, f.level, f.order));
        (fields, self.payout_beyond_limit.take())
    }

    /// A configured name is its slot's alone: a duration that was named `value` is no payout.
    fn targets_of_name(&self, name: &str, path: FieldPath<'_, 'a>, flat: bool) -> FieldTargets {
        let mut meaning = FieldTargets {
            configured: [false; SLOTS.len()],
            alias: None,
        };
        let mut any = false;
        for (slot, wanted) in &self.configured {
            if (flat && same_name(wanted, name)) || path.is_named(wanted, name) {
                any = true;
                for (at, is) in SLOTS.iter().zip(&mut meaning.configured) {
                    *is |= at == slot;
                }
            }
        }
        if flat && !any {
            meaning.alias = find_alias(name);
        }
        meaning
    }

    /// A field of a form or a query.
    pub fn add_pair(&mut self, name: &Cow<'a, str>, value: impl FnOnce() -> Cow<'a, str>) {
        self.add_inner(name, &[], name, || Value::Text(value()));
    }

    /// A field that stands inside of `outer`: `a[b]` is `b` inside `a`, and an element of XML stands in its
    /// parent (X1b).
    pub fn add_inner(
        &mut self,
        whole: &Cow<'a, str>,
        outer: &[Cow<'a, str>],
        name: &str,
        value: impl FnOnce() -> Value<'a>,
    ) {
        let level = outer.len().saturating_add(1);
        let path = FieldPath { outer, start: 0 };
        let meaning = self.targets_of_name(name, path, level <= FLAT_DEPTH);
        if self.admit_field(whole, &meaning) {
            let level = u8::try_from(level).unwrap_or(QUERY_OFFSET);
            self.push_field(&meaning, whole, value, level, NO_KEY);
        }
    }

    /// A field inside of `level` objects should hold a report, and does not parse at this place.
    pub fn note_broken_field(&mut self, place: Place<'a>, level: usize) {
        let level = u8::try_from(level.saturating_add(1)).unwrap_or(QUERY_OFFSET);
        let behind = (level.saturating_add(self.level_offset), self.fields.len());
        let first = self.broken_field.unwrap_or(BrokenField { place, behind });
        self.broken_field = Some(BrokenField {
            place: first.place,
            behind: first.behind.min(behind),
        });
    }

    /// The rank of the first of the payout's names (X4).
    pub fn first_payout_rank(&self) -> u8 {
        let is_configured = self
            .configured
            .iter()
            .any(|(slot, _)| *slot == Slot::Payout);
        CONFIGURED_RANK.saturating_add(u8::from(!is_configured))
    }

    /// The fields whose names begin so are several elements of a list: no report's (X2).
    pub fn drop_list(&mut self, prefix: &str) {
        if self.is_within_limit() && !self.long_lists.iter().any(|list| list == prefix) {
            self.long_lists.push(prefix.to_owned());
        }
    }

    /// Whether a configured name is `name`.
    pub fn is_configured(&self, name: &str) -> bool {
        self.configured
            .iter()
            .any(|(_, wanted)| same_name(wanted, name))
    }

    /// A field of a JSON object at `level` (the report itself is 1), inside objects named `outer`.
    pub fn add_member(
        &mut self,
        key: FieldKey,
        level: u8,
        path: FieldPath<'_, 'a>,
        name: &Cow<'a, str>,
        flat: bool,
        value: impl FnOnce() -> Value<'a>,
    ) {
        let meaning = self.targets_of_name(name, path, flat);
        if self.admit_field(name, &meaning) {
            self.push_field(&meaning, name, value, level, key);
        }
    }

    /// A field that was a whole report is one of as many as are read.
    pub fn count_field(&mut self) {
        self.seen = self.seen.saturating_add(1);
    }

    /// Whether a field is within the limit and about anything.
    fn admit_field(&mut self, name: &str, meaning: &FieldTargets) -> bool {
        self.count_field();
        if meaning.is_none() {
            return false;
        }
        if self.seen <= FIELDS {
            return true;
        }
        for (target, rank) in meaning.targets() {
            let better = self
                .payout_beyond_limit
                .as_ref()
                .is_none_or(|(best, _)| rank < *best);
            if target == Target::Slot(Slot::Payout) && better {
                self.payout_beyond_limit = Some((rank, name.to_owned()));
            }
        }
        false
    }

    fn push_field(
        &mut self,
        meaning: &FieldTargets,
        name: &Cow<'a, str>,
        value: impl FnOnce() -> Value<'a>,
        level: u8,
        key: FieldKey,
    ) {
        let value = value();
        let level = level.saturating_add(self.level_offset);
        for (target, rank) in meaning.targets() {
            self.fields.push(Field {
                target,
                rank,
                level,
                order: self.fields.len(),
                name: name.clone(),
                value: value.clone(),
                key,
                dropped: false,
            });
            self.field_marks.push(key.mark());
        }
    }

    pub fn begin_object(&mut self) -> u32 {
        self.objects = self.objects.saturating_add(1);
        self.objects
    }

    /// A field named `name` begins in `object`: an earlier one of that name there is no more (X2).
    pub fn begin_field(&mut self, object: u32, name: &str) -> FieldKey {
        let key = FieldKey {
            object,
            print: name_fingerprint(name),
        };
        if holds_mark(&self.field_marks, key.mark()) {
            self.drop_fields(key, name);
        }
        if holds_mark(&self.span_marks, key.mark()) {
            self.drop_spans(key, name);
        }
        key
    }

    #[cold]
    fn drop_fields(&mut self, key: FieldKey, name: &str) {
        for (field, mark) in self.fields.iter_mut().zip(&mut self.field_marks) {
            if *mark == key.mark() && field.key == key && same_name(&field.name, name) {
                field.dropped = true;
                *mark = NO_MARK;
            }
        }
    }

    #[cold]
    fn drop_spans(&mut self, key: FieldKey, name: &str) {
        for (span, mark) in self.spans.iter().zip(&mut self.span_marks) {
            if *mark == key.mark() && span.key == key && same_name(&span.name, name) {
                *mark = NO_MARK;
                let inner = self.fields.get_mut(span.fields.clone());
                for field in inner.unwrap_or_default() {
                    field.dropped = true;
                }
            }
        }
    }

    /// The place where a container's fields will begin.
    pub fn field_count(&self) -> usize {
        self.fields.len()
    }

    /// The fields since `mark` came from an object under `name`, whose key is `key`.
    pub fn add_span(&mut self, key: FieldKey, name: &Cow<'a, str>, mark: usize) {
        if mark < self.fields.len() {
            self.span_marks.push(key.mark());
            self.spans.push(Span {
                key,
                name: name.clone(),
                fields: mark..self.fields.len(),
            });
        }
    }

    /// The fields since `mark` stood in the first of several objects in a list: no report's.
    pub fn drop_since(&mut self, mark: usize) {
        for field in self.fields.iter_mut().skip(mark) {
            field.dropped = true;
        }
    }
}

/// Without a branch in the loop, so that several are compared at once.
fn holds_mark(marks: &[u32], mark: u32) -> bool {
    let found = marks
        .iter()
        .fold(0, |found, m| found | u32::from(*m == mark));
    found != 0
}

impl<'a> FieldPath<'_, 'a> {
    /// Whether `wanted` is a path to the field `name`, from the report or from the text that it stands in.
    fn is_named(self, wanted: &str, name: &str) -> bool {
        is_path(wanted, self.outer, name)
            || (self.start > 0
                && is_path(
                    wanted,
                    self.outer.get(self.start..).unwrap_or_default(),
                    name,
                ))
    }
}

/// Whether `wanted` (`call.payout`) names the field `name` inside the objects `outer`.
fn is_path(wanted: &str, outer: &[Cow<'_, str>], name: &str) -> bool {
    if outer.is_empty() {
        return false;
    }
    let mut rest = wanted;
    for step in outer {
        let Some((head, tail)) = rest
            .get(..step.len())
            .zip(rest.get(step.len()..).and_then(|t| t.strip_prefix('.')))
        else {
            return false;
        };
        if !same_name(head, step) {
            return false;
        }
        rest = tail;
    }
    same_name(rest, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x2_a_dotted_path_starts_at_the_report() {
        let outer = [Cow::Borrowed("Data"), Cow::Borrowed("Call.1")];
        assert!(is_path("data.call.1.PAYOUT", &outer, "payout"));
        for wanted in ["data.payout", "call.1.payout", "payout", "data.call.1", ""] {
            assert!(!is_path(wanted, &outer, "payout"), "{wanted}");
        }
        assert!(!is_path("payout", &[], "payout"));
    }
}
