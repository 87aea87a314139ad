//! What counts as nothing in a text, and as the same name: the few questions that every reader asks.

/// A character that says nothing: white space, a control, or a mark that cannot be seen.
pub(crate) fn is_blank_char(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_whitespace() || c.is_ascii_control();
    }
    c.is_whitespace()
        || c.is_control()
        || matches!(
            c,
            '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180B}'..='\u{180E}'
                | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
                | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
        )
}

/// Without what says nothing at both ends.
pub(crate) fn trim_text(text: &str) -> &str {
    text.trim_matches(is_blank_char)
}

/// `prefix` is ASCII or has no case.
pub(crate) fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// Where `wanted`, which is ASCII in lower case, stands first.
pub(crate) fn find_ignoring_case(text: &str, wanted: &str) -> Option<usize> {
    text.as_bytes()
        .windows(wanted.len())
        .position(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Names are the same whatever their case, and otherwise exactly (X2).
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars()
        .flat_map(char::to_lowercase)
        .eq(b.chars().flat_map(char::to_lowercase))
}

/// A number that two names share if they are the same (FNV-1a over what case leaves): it spares most
/// comparisons, so that an object of thousands of names costs thousands of them and not millions.
pub(crate) fn name_fingerprint(name: &str) -> u32 {
    let step = |hash: u32, unit: u32| (hash ^ unit).wrapping_mul(0x0100_0193);
    let start = 0x811C_9DC5;
    if name.is_ascii() {
        return name.bytes().fold(start, |hash, b| {
            step(hash, u32::from(b.to_ascii_lowercase()))
        });
    }
    name.chars()
        .flat_map(char::to_lowercase)
        .fold(start, |hash, c| step(hash, u32::from(c)))
}

/// At most `chars` characters, with `…` where something was cut off.
pub(crate) fn clip_text(text: &str, chars: usize) -> String {
    // No more characters than bytes.
    if text.len() <= chars {
        return text.to_owned();
    }
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((end, _)) => {
            let mut cut = text.get(..end).unwrap_or_default().to_owned();
            cut.push('\u{2026}');
            cut
        }
    }
}

/// True if both name something, and not the same.
pub fn names_differ(a: Option<&str>, b: Option<&str>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x2_names_are_the_same_whatever_their_case() {
        assert!(same_name("Caller_ID", "caller_id"));
        assert!(same_name("\u{41F}\u{440}", "\u{43F}\u{420}"));
        for (a, b) in [
            ("Caller_ID", "caller_id"),
            ("\u{41F}", "\u{43F}"),
            ("\u{212A}", "k"),
        ] {
            assert!(same_name(a, b));
            assert_eq!(name_fingerprint(a), name_fingerprint(b));
        }
        assert_ne!(name_fingerprint("payout"), name_fingerprint("payouts"));
        assert!(!same_name("caller-id", "caller_id"));
        assert!(!same_name("caller_id ", "caller_id"));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(clip_text("h\u{E9}llo", 2), "h\u{E9}\u{2026}");
        assert_eq!(clip_text("h\u{E9}", 2), "h\u{E9}");
        assert_eq!(trim_text("\u{FEFF} \0a b\u{200B}\n"), "a b");
    }
}
