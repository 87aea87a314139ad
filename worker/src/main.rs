//! The worker: takes accepted reports from the broker and settles them into the books.
fn main() {}
