//! The fields of an XML report (X1b): elements and attributes as names, the root as the report itself.
//!
//! An element with elements inside is an object, a repeated one a list, as they would stand in JSON (X2).
//! No document type, no entity beside the five of XML and numbers of characters, at most [`JSON_DEPTH`]
//! elements inside one another: a body that has them is not read at all.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use crate::reading::field_collection::{FieldCollector, Value};
use crate::text::name_fingerprint;
use trueup_event::limits::{FIELDS, JSON_DEPTH};

/// Gathers the fields of `text`, which must be one XML document; else the byte at which it is none.
pub(super) fn read_report<'a>(
    text: &'a str,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), usize> {
    let mut document = Document::parse(text)?;
    let mut outer = Vec::new();
    let root = document.elements.first_mut();
    if let Some(root) = root.filter(|root| root.end == 1) {
        let text = std::mem::take(&mut root.text);
        add_value(root.name, Value::Text(text), &outer, gathered);
    }
    document.add_fields(0, &mut outer, gathered);
    Ok(())
}

/// The elements in the order in which they open, and the attributes of all of them: two lists, and no more
/// memory than a few times the text. Texts are those of the document wherever nothing is escaped in them.
struct Document<'a> {
    text: &'a str,
    elements: Vec<Element<'a>>,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
    /// Places of the elements that are not closed yet.
    open: Vec<usize>,
}

#[derive(Default)]
struct Element<'a> {
    name: &'a str,
    text: Cow<'a, str>,
    attributes: Range<usize>,
    /// The place of the first element that is not inside of it.
    end: usize,
    list: ListPart,
}

/// What an element is among those of its name beside it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ListPart {
    #[default]
    Alone,
    /// The first of several that are texts.
    FirstText,
    Other,
}

impl<'a> Document<'a> {
    fn parse(text: &'a str) -> Result<Self, usize> {
        let mut document = Document {
            text,
            elements: Vec::new(),
            attributes: Vec::new(),
            open: Vec::with_capacity(JSON_DEPTH),
        };
        let mut reader = Reader::from_str(text);
        loop {
            let place = byte_of(reader.buffer_position());
            let event = reader
                .read_event()
                .map_err(|_| byte_of(reader.error_position()))?;
            if matches!(event, Event::Eof) {
                let is_whole = document.open.is_empty() && !document.elements.is_empty();
                return if is_whole { Ok(document) } else { Err(place) };
            }
            document.add_event(event).ok_or(place)?;
        }
    }

    /// None for what may not stand there.
    fn add_event(&mut self, event: Event<'a>) -> Option<()> {
        match event {
            Event::Start(start) => self.open_element(&start),
            Event::Empty(start) => {
                self.open_element(&start)?;
                self.close_element()
            }
            Event::End(_) => self.close_element(),
            Event::Text(found) => self.add_text(found.decode().ok()?),
            Event::CData(found) => self.add_text(found.decode().ok()?),
            Event::GeneralRef(reference) => self.add_text(resolve_reference(&reference)?.into()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => Some(()),
            Event::DocType(_) | Event::Eof => None,
        }
    }

    /// None for a second root, an element that is too deep, an attribute that is not well formed or stands twice.
    /// Beyond as many attributes as fields are read, none is looked at.
    fn open_element(&mut self, start: &BytesStart<'_>) -> Option<()> {
        let is_second_root = self.open.is_empty() && !self.elements.is_empty();
        if is_second_root || self.open.len() >= JSON_DEPTH {
            return None;
        }
        let first = self.attributes.len();
        for attribute in start.attributes().with_checks(false).take(FIELDS) {
            let attribute = attribute.ok()?;
            if attribute.key.as_ref().starts_with(b"xmlns") {
                continue;
            }
            let name = local_name(self.text, attribute.key.as_ref())?;
            let mut others = self.attributes.iter().skip(first);
            if others.any(|(there, _)| *there == name) {
                return None;
            }
            let value = match attribute.normalized_value(XmlVersion::Explicit1_0).ok()? {
                Cow::Borrowed(value) => part_of(self.text, value.as_bytes())?.into(),
                Cow::Owned(value) => value.into(),
            };
            self.attributes.push((name, value));
        }
        self.open.push(self.elements.len());
        self.elements.push(Element {
            name: local_name(self.text, start.name().as_ref())?,
            attributes: first..self.attributes.len(),
            ..Element::default()
        });
        Some(())
    }

    fn close_element(&mut self) -> Option<()> {
        let end = self.elements.len();
        let at = self.open.pop()?;
        self.elements.get_mut(at)?.end = end;
        Some(())
    }

    /// None outside of the root, where only blanks may stand.
    fn add_text(&mut self, text: Cow<'a, str>) -> Option<()> {
        let open = self.open.last().and_then(|at| self.elements.get_mut(*at));
        match open {
            Some(element) if element.text.is_empty() => element.text = text,
            Some(element) => element.text.to_mut().push_str(&text),
            None if text.trim().is_empty() => {}
            None => return None,
        }
        Some(())
    }

    /// The element at a place, if it stands before `end`.
    fn child_before(&self, end: usize, at: usize) -> Option<&Element<'a>> {
        self.elements.get(at).filter(|_| at < end)
    }

    /// The fields of the element at `at`, which stands inside of `outer`. Recursion is bounded by [`JSON_DEPTH`].
    fn add_fields(
        &mut self,
        at: usize,
        outer: &mut Vec<Cow<'a, str>>,
        gathered: &mut FieldCollector<'a, '_>,
    ) {
        let Some(element) = self.elements.get(at) else {
            return;
        };
        let (first, end) = (at.saturating_add(1), element.end);
        let attributes = self.attributes.get_mut(element.attributes.clone());
        for (name, value) in attributes.unwrap_or_default() {
            add_value(name, Value::Text(std::mem::take(value)), outer, gathered);
        }
        self.find_lists(first, end);
        let mut place = first;
        while let Some(child) = self.child_before(end, place) {
            let (name, next) = (child.name, child.end);
            match child.list {
                ListPart::Alone => self.add_child(place, outer, gathered),
                // A list: of texts it is no single value, of objects it is no report's.
                ListPart::FirstText => add_value(name, Value::List, outer, gathered),
                ListPart::Other => {}
            }
            place = next;
        }
    }

    /// Sets which of the children, the elements from `first` on, make a list: all those of one name.
    fn find_lists(&mut self, first: usize, end: usize) {
        let mut children = Vec::new();
        let mut place = first;
        while let Some(child) = self.child_before(end, place) {
            children.push(Child {
                print: name_fingerprint(child.name),
                name: child.name,
                place,
                is_text: child.is_text(place),
            });
            place = child.end;
        }
        children.sort_unstable_by(Child::compare);
        let lists = children.chunk_by(|a, b| a.compare_names(b).is_eq());
        for list in lists.filter(|list| list.len() > 1) {
            let of_texts = list.iter().all(|child| child.is_text);
            for (n, child) in list.iter().enumerate() {
                if let Some(element) = self.elements.get_mut(child.place) {
                    element.list = match n {
                        0 if of_texts => ListPart::FirstText,
                        _ => ListPart::Other,
                    };
                }
            }
        }
    }

    fn add_child(
        &mut self,
        at: usize,
        outer: &mut Vec<Cow<'a, str>>,
        gathered: &mut FieldCollector<'a, '_>,
    ) {
        let Some(child) = self.elements.get_mut(at) else {
            return;
        };
        let (name, is_text) = (child.name, child.is_text(at));
        if !child.has_children(at) {
            let text = std::mem::take(&mut child.text);
            add_value(name, Value::Text(text), outer, gathered);
        }
        if !is_text {
            outer.push(Cow::Borrowed(name));
            self.add_fields(at, outer, gathered);
            outer.pop();
        }
    }
}

impl Element<'_> {
    /// `at` is its own place.
    fn has_children(&self, at: usize) -> bool {
        self.end > at.saturating_add(1)
    }

    fn is_text(&self, at: usize) -> bool {
        !self.has_children(at) && self.attributes.is_empty()
    }
}

fn byte_of(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// The reader lends its pieces for a moment; they stand in `document`, which stays.
fn part_of<'a>(document: &'a str, piece: &[u8]) -> Option<&'a str> {
    if piece.is_empty() {
        return Some("");
    }
    let start = piece
        .as_ptr()
        .addr()
        .checked_sub(document.as_ptr().addr())?;
    document.get(start..start.checked_add(piece.len())?)
}

/// A name without its namespace's prefix.
fn local_name<'a>(document: &'a str, name: &[u8]) -> Option<&'a str> {
    let name = part_of(document, name)?;
    name.rsplit_once(':')
        .map_or(Some(name), |(_, local)| Some(local))
}

fn resolve_reference(reference: &BytesRef<'_>) -> Option<String> {
    if let Some(c) = reference.resolve_char_ref().ok()? {
        return (c != '\0').then(|| c.to_string());
    }
    let name = reference.decode().ok()?;
    resolve_predefined_entity(&name).map(str::to_owned)
}

fn add_value<'a>(
    name: &'a str,
    value: Value<'a>,
    outer: &[Cow<'a, str>],
    gathered: &mut FieldCollector<'a, '_>,
) {
    gathered.add_inner(&Cow::Borrowed(name), outer, name, || value);
}

/// An element beside others, of which those with the same name are to be found.
struct Child<'a> {
    /// What names that are the same share, and most others do not.
    print: u32,
    name: &'a str,
    place: usize,
    is_text: bool,
}

impl Child<'_> {
    /// Equal for names that differ by case alone (X2).
    fn compare_names(&self, other: &Self) -> Ordering {
        self.print.cmp(&other.print).then_with(|| {
            let [a, b] = [self.name, other.name].map(|n| n.chars().flat_map(char::to_lowercase));
            a.cmp(b)
        })
    }

    /// Of one name, the one that stands first goes first.
    fn compare(&self, other: &Self) -> Ordering {
        let by_name = self.compare_names(other);
        by_name.then(self.place.cmp(&other.place))
    }
}
