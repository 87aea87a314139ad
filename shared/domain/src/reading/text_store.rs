//! Texts that a request holds only after something was undone: an escape, an encoding, a mending.
//!
//! The fields that are gathered borrow from the request, and from here where they cannot. It only grows,
//! while one request is read. A body may make thousands of texts: the place of the next one is found in as many
//! steps as their number has binary digits.

use std::cell::{Cell, OnceCell};

use crate::reading::text_origin::{Origin, Place};

/// A binary tree, filled level by level.
#[derive(Default)]
pub(super) struct TextStore<'a> {
    text: OnceCell<(String, Origin<'a>)>,
    children: [OnceCell<Box<TextStore<'a>>>; 2],
    /// How many texts there are; at the root alone.
    count: Cell<u32>,
}

impl<'a> TextStore<'a> {
    /// Keeps `text` for as long as the store stands.
    pub fn keep(&self, text: String, origin: Origin<'a>) -> &str {
        // The root is 1, its children 2 and 3: the digits after the first one are the way.
        let place = self.count.get().saturating_add(1);
        self.count.set(place);
        let mut store = self;
        for digit in (0..place.ilog2()).rev() {
            let child = usize::from(place >> digit & 1 == 1);
            if let Some(child) = store.children.get(child) {
                store = child.get_or_init(Box::default);
            }
        }
        let (text, _) = store.text.get_or_init(|| (text, origin));
        text
    }

    /// The place in `sent` that `place` comes from; `None` if it comes from something else.
    pub fn place_in_sent(&self, sent: &[u8], place: Place<'a>) -> Option<usize> {
        let mut place = place;
        loop {
            if let Some(byte) = place.within(sent) {
                return Some(byte);
            }
            // A text is made of what was there before: the way ends.
            place = self.place_in_origin(place)?;
        }
    }

    /// Recursion is bounded by the digits of the number of texts.
    fn place_in_origin(&self, place: Place<'a>) -> Option<Place<'a>> {
        let (text, origin) = self.text.get()?;
        if let Some(byte) = place.within(text.as_bytes()) {
            return Some(origin.place_before(text, byte));
        }
        self.children
            .iter()
            .filter_map(OnceCell::get)
            .find_map(|child| child.place_in_origin(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::text_origin::Encoding;

    #[test]
    fn each_text_is_kept_at_a_place_of_its_own_and_its_origin_is_found() {
        let sent: String = (0..1_000).map(|n| format!("{n:04}\\n")).collect();
        let store = TextStore::default();
        let kept: Vec<&str> = (0..1_000)
            .map(|n| {
                let bytes = sent.as_bytes().get(n * 6..n * 6 + 6).expect("in the text");
                let origin = Origin::new(bytes, Encoding::JsonEscapes);
                store.keep(format!("{n:04}\n"), origin)
            })
            .collect();
        for (n, text) in kept.iter().enumerate() {
            assert_eq!(*text, format!("{n:04}\n"));
            let end = Place {
                bytes: text.as_bytes(),
                byte: 5,
            };
            assert_eq!(store.place_in_sent(sent.as_bytes(), end), Some(n * 6 + 6));
            assert_eq!(store.place_in_sent(b"other", end), None);
        }
    }
}
