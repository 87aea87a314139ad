//! The points and their names.

/// Where a process may be told to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The calls that may be meant are found; nothing is locked.
    BeforeLock,
    /// Rows, postings and balances are written, not committed.
    AfterWrite,
    /// The next thing is the commit.
    BeforeCommit,
    /// Committed; the broker does not know yet.
    AfterCommit,
    /// One round is acknowledged, the next is not.
    BetweenAcks,
}

impl Point {
    pub const ALL: [Point; 5] = [
        Point::BeforeLock,
        Point::AfterWrite,
        Point::BeforeCommit,
        Point::AfterCommit,
        Point::BetweenAcks,
    ];

    /// What it is called from outside.
    pub const fn name(self) -> &'static str {
        match self {
            Point::BeforeLock => "before_lock",
            Point::AfterWrite => "after_write",
            Point::BeforeCommit => "before_commit",
            Point::AfterCommit => "after_commit",
            Point::BetweenAcks => "between_acks",
        }
    }
}
