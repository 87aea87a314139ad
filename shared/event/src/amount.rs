//! Events and their bytes: what waits somewhere, and what may.

/// So many events, of so many bytes in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    pub events: usize,
    pub bytes: usize,
}

impl Amount {
    pub fn add(&mut self, more: Amount) {
        self.events = self.events.saturating_add(more.events);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    pub fn subtract(&mut self, less: Amount) {
        self.events = self.events.saturating_sub(less.events);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }

    /// Below the limit, in both.
    pub fn is_below(self, limit: Amount) -> bool {
        self.events < limit.events && self.bytes < limit.bytes
    }

    /// Not above the limit, in both.
    pub fn is_within(self, limit: Amount) -> bool {
        self.events <= limit.events && self.bytes <= limit.bytes
    }

    /// The n-th part of it; of nothing, all of it.
    pub fn part(self, n: usize) -> Amount {
        Amount {
            events: self.events.checked_div(n).unwrap_or(self.events),
            bytes: self.bytes.checked_div(n).unwrap_or(self.bytes),
        }
    }
}
