//! Percentages as decimal text (0 to 100, at most 4 decimals), held as whole ten-thousandths.

/// Reads `60`, `33.33`, `12.5000`; the error says what it must be.
pub fn parse_percent(text: &str) -> Result<i32, &'static str> {
    const FORM: &str = "must be decimal text from \"0\" to \"100\" with at most 4 decimals, such as \"60\" or \"33.33\"";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.len() <= 32 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(FORM);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 4 {
        return Err(FORM);
    }
    let e4: u64 = format!("{}{fraction:0<4}", whole.trim_start_matches('0'))
        .parse()
        .map_err(|_| FORM)?;
    i32::try_from(e4)
        .ok()
        .filter(|e4| *e4 <= 1_000_000)
        .ok_or(FORM)
}

/// The shortest text: `60`, `33.33`.
pub fn to_text(e4: i32) -> String {
    let text = format!("{}.{:04}", e4.div_euclid(10_000), e4.rem_euclid(10_000));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_exact_and_comes_back_in_its_shortest_form() {
        for (text, e4, back) in [
            ("60", 600_000, "60"),
            ("60.0000", 600_000, "60"),
            ("33.33", 333_300, "33.33"),
            ("0", 0, "0"),
            ("0.0001", 1, "0.0001"),
            ("100", 1_000_000, "100"),
            ("012.50000000", 125_000, "12.5"),
        ] {
            assert_eq!(parse_percent(text), Ok(e4), "{text}");
            assert_eq!(to_text(e4), back);
        }
        for bad in [
            "",
            "100.0001",
            "-1",
            "+1",
            "1e1",
            "12.34567",
            ".",
            "5.",
            ".5",
            "6O",
            "60%",
            " 60",
            "99999999999999999999",
        ] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
