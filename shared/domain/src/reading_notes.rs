//! What a row says of how its request had to be read (X1b), so that an operator can tell the buyer.
//!
//! One sentence on what was mended, one on what the report was taken out of; none for a plain report.

use trueup_event::reason::ReadingNote;

/// Sentences to go behind a reason's, each with a space before it.
pub fn describe_notes(notes: &[ReadingNote]) -> String {
    let list = |mended: bool| {
        let phrases = notes.iter().filter(|note| is_mending(**note) == mended);
        let phrases: Vec<&str> = phrases.copied().filter_map(describe_note).collect();
        phrases.join(", ")
    };
    let (mended, wrapped) = (list(true), list(false));
    let mut text = String::new();
    if !mended.is_empty() {
        text.push_str(" The body was mended: ");
        text.push_str(&mended);
        text.push_str(". Tell the buyer to send JSON that parses.");
    }
    if !wrapped.is_empty() {
        text.push_str(" The report was not sent plainly: ");
        text.push_str(&wrapped);
        text.push('.');
    }
    text
}

fn is_mending(note: ReadingNote) -> bool {
    matches!(
        note,
        ReadingNote::Mended
            | ReadingNote::EmptyValue
            | ReadingNote::BareMacro
            | ReadingNote::BareWord
            | ReadingNote::PlusSign
            | ReadingNote::TrailingComma
            | ReadingNote::SingleQuotes
            | ReadingNote::BareName
    )
}

/// None for the note that only says that others follow.
const fn describe_note(note: ReadingNote) -> Option<&'static str> {
    Some(match note {
        ReadingNote::Mended => return None,
        ReadingNote::EmptyValue => "a value left empty was read as blank",
        ReadingNote::BareMacro => "a macro without quotes was read as blank",
        ReadingNote::BareWord => "a word that JSON does not know was read as blank",
        ReadingNote::PlusSign => "a number with a plus was put in quotes",
        ReadingNote::TrailingComma => "a trailing comma was dropped",
        ReadingNote::SingleQuotes => "single quotes were read as double ones",
        ReadingNote::BareName => "a name without quotes was put in quotes",
        ReadingNote::JsonInString => "it stood as JSON inside a string",
        ReadingNote::JsonInField => "it stood as JSON inside a form field",
        ReadingNote::JsonAsKey => "it stood as JSON in the only name of a form",
        ReadingNote::BracketNames => "its names have brackets, such as data[payout]",
        ReadingNote::AmpNames => "&amp; stood between the parameters instead of &",
        ReadingNote::SecondQuestionMark => "a second ? stood between the parameters instead of &",
        ReadingNote::Semicolons => "; stood between the parameters instead of &",
        ReadingNote::FilePart => "it came as a file",
        ReadingNote::Xml => "it was XML",
        ReadingNote::Utf16 => "it was written in UTF-16",
        ReadingNote::Windows1252 => "it was written in Windows-1252 or Latin-1",
        ReadingNote::Compressed => "its body was compressed",
        ReadingNote::NotDecoded => {
            "its body is no data of the Content-Encoding that it names, or was cut off"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x1b_the_row_says_what_to_tell_the_buyer() {
        assert_eq!(describe_notes(&[]), "");
        assert_eq!(
            describe_notes(&[
                ReadingNote::Mended,
                ReadingNote::TrailingComma,
                ReadingNote::Utf16
            ]),
            " The body was mended: a trailing comma was dropped. Tell the buyer to send JSON that parses. \
             The report was not sent plainly: it was written in UTF-16."
        );
        for note in ReadingNote::ALL {
            let is_said = !describe_notes(&[*note]).is_empty();
            assert_eq!(is_said, *note != ReadingNote::Mended, "{note}");
        }
    }
}
