//! The fields of an XML report (X1b): elements and attributes as names, the root as the report itself.
//!
//! An element with elements inside is an object, a repeated one a list, as they would stand in JSON (X2).
//! No document type, no entity beside the five of XML and numbers of characters, at most [`JSON_DEPTH`]
//! elements inside one another: a body that has them is not read at all.

use std::borrow::Cow;
use std::collections::BTreeMap;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use crate::reading::field_collection::{FieldCollector, Value};
use trueup_event::limits::{FIELDS, JSON_DEPTH};

/// Gathers the fields of `text`, which must be one XML document; else the byte at which it is none.
pub(super) fn read_report<'a>(
    text: &'a str,
    gathered: &mut FieldCollector<'a, '_>,
) -> Result<(), usize> {
    let root = parse_document(text)?;
    let mut outer = Vec::new();
    if root.children.is_empty() {
        let value = Value::Text(Cow::Owned(root.text.clone()));
        add_value(&root.name, value, &outer, gathered);
    }
    add_fields(root, &mut outer, gathered);
    Ok(())
}

#[derive(Default)]
struct Element {
    name: String,
    text: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
}

impl Element {
    fn is_text(&self) -> bool {
        self.children.is_empty() && self.attributes.is_empty()
    }
}

fn parse_document(text: &str) -> Result<Element, usize> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    loop {
        let place = byte_of(reader.buffer_position());
        let event = reader
            .read_event()
            .map_err(|_| byte_of(reader.error_position()))?;
        let closed = match event {
            Event::Start(start) if open.len() < JSON_DEPTH && root.is_none() => {
                open.push(open_element(&start).ok_or(place)?);
                None
            }
            Event::Empty(start) if open.len() < JSON_DEPTH && root.is_none() => {
                Some(open_element(&start).ok_or(place)?)
            }
            Event::End(_) => Some(open.pop().ok_or(place)?),
            Event::Text(text) => {
                add_text(&mut open, &text.decode().map_err(|_| place)?).ok_or(place)?;
                None
            }
            Event::CData(text) => {
                add_text(&mut open, &text.decode().map_err(|_| place)?).ok_or(place)?;
                None
            }
            Event::GeneralRef(reference) => {
                let text = resolve_reference(&reference).ok_or(place)?;
                add_text(&mut open, &text).ok_or(place)?;
                None
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => None,
            // A second root, an element that is too deep, a document type.
            Event::Start(_) | Event::Empty(_) | Event::DocType(_) => return Err(place),
            Event::Eof if open.is_empty() => return root.ok_or(place),
            Event::Eof => return Err(place),
        };
        if let Some(element) = closed {
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => root = Some(element),
            }
        }
    }
}

fn byte_of(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// A name without its namespace's prefix.
fn local_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.rsplit(':').next().unwrap_or_default().to_owned()
}

/// None if an attribute is not well formed or stands twice. Beyond as many as fields are read, none is
/// looked at.
fn open_element(start: &BytesStart<'_>) -> Option<Element> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for attribute in start.attributes().with_checks(false).take(FIELDS) {
        let attribute = attribute.ok()?;
        if attribute.key.as_ref().starts_with(b"xmlns") {
            continue;
        }
        let name = local_name(attribute.key.as_ref());
        if attributes.iter().any(|(there, _)| *there == name) {
            return None;
        }
        let value = attribute.normalized_value(XmlVersion::Explicit1_0).ok()?;
        attributes.push((name, value.into_owned()));
    }
    Some(Element {
        name: local_name(start.name().as_ref()),
        attributes,
        ..Element::default()
    })
}

/// None outside of the root, where only blanks may stand.
fn add_text(open: &mut [Element], text: &str) -> Option<()> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return None,
    }
    Some(())
}

fn resolve_reference(reference: &BytesRef<'_>) -> Option<String> {
    if let Some(c) = reference.resolve_char_ref().ok()? {
        return (c != '\0').then(|| c.to_string());
    }
    let name = reference.decode().ok()?;
    resolve_predefined_entity(&name).map(str::to_owned)
}

fn add_value<'a>(
    name: &str,
    value: Value<'a>,
    outer: &[Cow<'a, str>],
    gathered: &mut FieldCollector<'a, '_>,
) {
    gathered.add_inner(&Cow::Owned(name.to_owned()), outer, name, || value);
}

/// The fields of an element that stands inside of `outer`. Recursion is bounded by [`JSON_DEPTH`].
fn add_fields<'a>(
    element: Element,
    outer: &mut Vec<Cow<'a, str>>,
    gathered: &mut FieldCollector<'a, '_>,
) {
    for (name, value) in element.attributes {
        add_value(&name, Value::Text(Cow::Owned(value)), outer, gathered);
    }
    let mut lists: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    for child in &element.children {
        let list = lists.entry(child.name.to_lowercase()).or_default();
        list.0 = list.0.saturating_add(1);
        list.1 |= !child.is_text();
    }
    for child in element.children {
        match lists.get_mut(&child.name.to_lowercase()) {
            // A list: of objects it is no report's, of texts it is no single value.
            Some((2.., of_objects)) => {
                if !*of_objects {
                    *of_objects = true;
                    add_value(&child.name, Value::List, outer, gathered);
                }
            }
            _ => add_child(child, outer, gathered),
        }
    }
}

fn add_child<'a>(
    mut child: Element,
    outer: &mut Vec<Cow<'a, str>>,
    gathered: &mut FieldCollector<'a, '_>,
) {
    if child.children.is_empty() {
        let text = std::mem::take(&mut child.text);
        add_value(&child.name, Value::Text(Cow::Owned(text)), outer, gathered);
    }
    if !child.is_text() {
        outer.push(Cow::Owned(child.name.clone()));
        add_fields(child, outer, gathered);
        outer.pop();
    }
}
