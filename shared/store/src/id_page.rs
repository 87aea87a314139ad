//! Where a page of a list begins.

/// Where a page of a list by descending id begins, and how many rows it may hold.
#[derive(Debug, Clone, Copy)]
pub struct IdPage {
    /// The last id of the page before; rows below it follow.
    pub below: Option<uuid::Uuid>,
    pub limit: i64,
}

impl IdPage {
    /// Every id that we mint is below this one, so a first page needs no second form of the query.
    pub fn bound(&self) -> uuid::Uuid {
        self.below.unwrap_or(uuid::Uuid::max())
    }
}
