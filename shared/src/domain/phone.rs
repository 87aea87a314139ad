//! A caller's number, as E.164 (X9): the one way in which a reported caller and our own calls' callers
//! are written. It refuses what is nobody's number, above all the many spellings of a withheld one.

/// Why a text is no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    Unreadable,
}

pub fn normalise(_raw: &str, _default_region: &str) -> Result<String, WhyNot> {
    Err(WhyNot::Unreadable)
}
