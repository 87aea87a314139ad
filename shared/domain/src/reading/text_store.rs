//! Texts that a request holds only after something was undone: an escape, an encoding, a mending.
//!
//! The fields that are gathered borrow from the request, and from here where they cannot. It only grows,
//! while one request is read, and for no more texts than fields are read (X1).

use std::cell::OnceCell;

#[derive(Default)]
pub(super) struct TextStore {
    text: OnceCell<String>,
    next: OnceCell<Box<TextStore>>,
}

impl TextStore {
    /// Keeps `text` for as long as the store stands.
    pub fn keep(&self, text: String) -> &str {
        let mut store = self;
        while store.text.get().is_some() {
            store = store.next.get_or_init(Box::default);
        }
        store.text.get_or_init(|| text)
    }
}
