//! What versions before have stored beside a row is read into the verdict of its reason, and written again as it
//! was, whatever its figures.

use proptest::prelude::*;
use trueup_event::reason::{Reason, Status};
use trueup_event::verdict::Detail;

const STORED: &str = include_str!("../../../event/src/stored_details.tsv");

/// The text with its numbers, in their order, replaced by these; a sign stays.
fn with_figures(text: &str, figures: &[u32]) -> String {
    let mut figures = figures.iter().cycle();
    let mut values = text.split(':');
    let mut varied = values.next().unwrap_or_default().to_owned();
    for value in values {
        varied.push(':');
        let unsigned = value.strip_prefix('-').unwrap_or(value);
        varied.push_str(&value[..value.len() - unsigned.len()]);
        let rest = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() < unsigned.len() {
            varied.push_str(&figures.next().copied().unwrap_or(1).to_string());
        }
        varied.push_str(rest);
    }
    varied
}

proptest! {
    #[test]
    fn figures_are_read_and_written_byte_for_byte(
        line in prop::sample::select(STORED.lines().collect::<Vec<_>>()),
        // From 1: there is no "-0" to write again.
        figures in prop::collection::vec(1_u32.., 1..16),
    ) {
        let cells: Vec<&str> = line.split('\t').collect();
        let (status, reason) = (Status::from_code(cells[0]), Reason::from_code(cells[1]));
        let status = status.expect("a status");
        let text = with_figures(cells[2], &figures);
        let stored = Some(text.as_str()).filter(|text| !text.is_empty());
        let detail = Detail::of_row(status, reason, stored).expect("it was stored so");
        prop_assert_eq!((detail.status(), detail.reason()), (status, reason));
        let written = detail.to_json();
        prop_assert_eq!(written.as_deref(), stored);
    }
}
