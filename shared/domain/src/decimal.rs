//! Written decimal digits, taken at their word: scaled by a power of ten and rounded once, in integers.
//!
//! Money (X7) and durations (X8) both stand on this. It refuses what does not fit; it never rounds
//! twice, and no float comes near it.

/// A number as its digits stand: those before the point, those after it, and a power of ten (JSON's
/// `1e2`). Bytes that are no digits, such as the separators of groups, are passed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal<'a> {
    pub whole: &'a [u8],
    pub fraction: &'a [u8],
    pub exponent: i64,
}

impl<'a> Decimal<'a> {
    /// `12`, `12.5`, `.5`, `12.`; nothing else.
    pub fn parse_plain(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let point = bytes.iter().position(|b| *b == b'.');
        let (whole, fraction) = match point {
            Some(at) => (bytes.get(..at)?, bytes.get(at.checked_add(1)?..)?),
            None => (bytes, &[][..]),
        };
        let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
        let empty = whole.is_empty() && fraction.is_empty();
        (!empty && digits(whole) && digits(fraction)).then_some(Decimal {
            whole,
            fraction,
            exponent: 0,
        })
    }

    /// A JSON number without its sign; an exponent beyond `i64` is as good as its bound.
    pub fn parse_json(text: &'a str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            None => (text, 0),
            Some((mantissa, exponent)) => {
                let bound = if exponent.starts_with('-') {
                    i64::MIN
                } else {
                    i64::MAX
                };
                (mantissa, exponent.parse().unwrap_or(bound))
            }
        };
        Some(Decimal {
            exponent,
            ..Decimal::parse_plain(mantissa)?
        })
    }

    /// The number times ten to the `shift`: its whole part, and the first digit that was cut off.
    /// `None` if it does not fit into 64 bits.
    pub fn cut(self, shift: i64) -> Option<(u64, u8)> {
        let digits = |part: &'a [u8]| part.iter().filter(|b| b.is_ascii_digit());
        let whole_digits = i64::try_from(digits(self.whole).count()).ok()?;
        // How many digits stand before the point once it has been moved.
        let mut before = whole_digits
            .saturating_add(self.exponent)
            .saturating_add(shift);
        let mut value: u64 = 0;
        for digit in digits(self.whole).chain(digits(self.fraction)) {
            let digit = digit.checked_sub(b'0')?;
            match before {
                1.. => value = value.checked_mul(10)?.checked_add(u64::from(digit))?,
                0 => return Some((value, digit)),
                // The first digit is already beyond the first place after the point.
                _ => return Some((0, 0)),
            }
            before = before.checked_sub(1)?;
        }
        while before > 0 && value != 0 {
            value = value.checked_mul(10)?;
            before = before.checked_sub(1)?;
        }
        Some((value, 0))
    }

    /// The number times ten to the `shift`, rounded half up.
    pub fn round_to(self, shift: i64) -> Option<u64> {
        let (value, next) = self.cut(shift)?;
        value.checked_add(u64::from(next >= 5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_scaled_and_rounded_once() {
        for (text, shift, want) in [
            ("0.19949999999999998", 2, Some(20)),
            ("0.994999999", 2, Some(99)),
            ("12.345", 2, Some(1235)),
            (".40", 2, Some(40)),
            ("50.", 2, Some(5000)),
            ("1e2", 2, Some(10000)),
            ("25E-1", 0, Some(3)),
            ("4e-1", 0, Some(0)),
            ("5e-1", 0, Some(1)),
            ("9e-2", 0, Some(0)),
            ("1e-99999999999999999999", 2, Some(0)),
            ("0e99999999999999999999", 2, Some(0)),
            ("1e400", 2, None),
            ("18446744073709551616", 0, None),
            ("000000000000000000000000000001", 0, Some(1)),
        ] {
            let read = Decimal::parse_json(text).expect(text).round_to(shift);
            assert_eq!(read, want, "{text}");
        }
        for text in ["", ".", "1.2.3", "1,2", "-1", "e5", "1 "] {
            assert!(Decimal::parse_plain(text).is_none(), "{text}");
        }
    }
}
