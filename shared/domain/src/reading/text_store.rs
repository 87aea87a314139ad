//! Texts that a request holds only after something was undone: an escape, an encoding, a mending.
//!
//! The fields that are gathered borrow from the request, and from here where they cannot. It only grows,
//! while one request is read. A body may make thousands of texts: the place of the next one is found in as many
//! steps as their number has binary digits.

use std::cell::{Cell, OnceCell};

/// A binary tree, filled level by level.
#[derive(Default)]
pub(super) struct TextStore {
    text: OnceCell<String>,
    children: [OnceCell<Box<TextStore>>; 2],
    /// How many texts there are; at the root alone.
    count: Cell<u32>,
}

impl TextStore {
    /// Keeps `text` for as long as the store stands.
    pub fn keep(&self, text: String) -> &str {
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
        store.text.get_or_init(|| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_kept_at_a_place_of_its_own() {
        let store = TextStore::default();
        let kept: Vec<&str> = (0..1_000).map(|n| store.keep(n.to_string())).collect();
        for (n, text) in kept.iter().enumerate() {
            assert_eq!(*text, n.to_string());
        }
    }
}
