//! How large a value in a request may be.

/// A name of anything (characters).
pub const MAX_NAME: usize = 200;
/// Just under 10^12 cents; an amount at or above it is a mistake (X7).
pub const MAX_CENTS: i64 = 999_999_999_999;
