//! What had to be done to a request before it could be read (X1b), each thing once.

use trueup_event::reason::ReadingNote;

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct NoteList(Vec<ReadingNote>);

impl NoteList {
    pub fn add(&mut self, note: ReadingNote) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub fn add_all(&mut self, notes: NoteList) {
        notes.0.into_iter().for_each(|note| self.add(note));
    }

    pub fn into_sorted(mut self) -> Vec<ReadingNote> {
        self.0.sort_unstable();
        self.0
    }
}
