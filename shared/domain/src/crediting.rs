//! Money: what a call is worth after all its reports, and what its publisher earns from that.
//!
//! Reports *set* a call's value, they never add to it (V1). A call's money is the fold of all its
//! reports in order of reception, whatever the order they were processed in (V3); the books then move
//! by the difference between two totals. So a retry, a redelivery or a replay is harmless by design.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Two reports with the same payout on one call are one report if they came within this (seed),
/// inclusive.
pub const DUPLICATE_WINDOW_MICROS: i64 = 15 * 60 * 1_000_000;

/// 100 % in the unit of [`Terms::RevShare`].
pub const WHOLE_PERCENT_E4: i64 = 1_000_000;

/// What a publisher earns from a call, by the campaign assignment (seed: the single source of truth).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Terms {
    /// The same for each qualified call, in cents.
    Flat { amount_cents: i64 },
    /// A share of the call's value, in percent × 10⁴ (60 % is 600 000); 0 to 1 000 000.
    RevShare { percent_e4: i32 },
}

/// Who earns, and on which terms. Two calls with the same payee are the same money to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payee {
    pub publisher_id: Uuid,
    pub terms: Terms,
}

impl Terms {
    /// The share of `value_cents`, rounded half up to whole cents, once, on the total (V4).
    pub fn credit_for(self, value_cents: i64) -> i64 {
        match self {
            Terms::Flat { amount_cents } => amount_cents,
            Terms::RevShare { percent_e4 } => {
                let whole = i128::from(WHOLE_PERCENT_E4);
                let product = i128::from(value_cents).saturating_mul(i128::from(percent_e4));
                let rounded = product.saturating_add(whole / 2).div_euclid(whole);
                // A share of at most 100 % fits where the value did.
                i64::try_from(rounded).unwrap_or(value_cents)
            }
        }
    }
}

/// The publisher's credit for a call in this state; 0 unless it is qualified and somebody earns.
pub fn credit_due(terms: Option<Terms>, value_cents: Option<i64>, qualified: Option<bool>) -> i64 {
    match (terms, qualified) {
        (Some(terms), Some(true)) => match (terms, value_cents) {
            (Terms::RevShare { .. }, None) => 0,
            (terms, value) => terms.credit_for(value.unwrap_or(0)),
        },
        _ => 0,
    }
}

/// The revenue that stands in the ledger for a call in this state: what a buyer reported, or the
/// estimate of a qualified call. An estimate of a call that is not qualified is no revenue.
pub fn booked_revenue(
    value_cents: Option<i64>,
    value_from_webhook: bool,
    qualified: Option<bool>,
) -> i64 {
    if value_from_webhook || qualified == Some(true) {
        value_cents.unwrap_or(0)
    } else {
        0
    }
}

/// What our own copy of a call said before any report: the ground the fold starts from (V11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    pub value_cents: Option<i64>,
    pub qualified: Option<bool>,
}

/// A report's place in the order of reception (V3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceptionOrder {
    pub received_at: Timestamp,
    pub position: u16,
    pub event_id: Uuid,
}

/// One report as the fold sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldInput {
    pub place: ReceptionOrder,
    pub payout_cents: i64,
    /// A person's apply is never a duplicate (M8).
    pub exempt_from_v2: bool,
}

/// What a report did at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Applied,
    /// A negative amount equal to minus the value: the value went to zero (V7).
    Reversed,
    /// The same payout as an applied report at most 15 minutes earlier (V2).
    Duplicate {
        of: Uuid,
    },
    /// A negative amount that is not minus the value: a person decides (V7).
    NotAReversal,
}

/// A call's money after all its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    pub value_cents: Option<i64>,
    pub qualified: Option<bool>,
    /// True once any report was applied: `value_from_webhook`.
    pub reported: bool,
    /// The last report that was applied.
    pub last_applied: Option<Uuid>,
    /// One for each report, in the order given.
    pub effects: Vec<Effect>,
}

/// Folds V2 and V4–V7 over a call's reports. `reports` must be in order of reception ([`ReceptionOrder`]).
pub fn fold_reports(estimate: Estimate, reports: &[FoldInput]) -> Folded {
    debug_assert!(
        reports
            .windows(2)
            .all(|pair| pair[0].place <= pair[1].place),
        "reports are in order of reception"
    );
    let mut state = Folded {
        value_cents: estimate.value_cents,
        qualified: estimate.qualified,
        reported: false,
        last_applied: None,
        effects: Vec::with_capacity(reports.len()),
    };
    // The last applied report of each payout.
    let mut applied: HashMap<i64, FoldInput> = HashMap::new();
    for report in reports {
        let effect = effect_of(report, &applied, state.value_cents);
        if matches!(effect, Effect::Applied | Effect::Reversed) {
            let value = if effect == Effect::Reversed {
                0
            } else {
                report.payout_cents
            };
            state.value_cents = Some(value);
            state.qualified = Some(value > 0);
            state.reported = true;
            state.last_applied = Some(report.place.event_id);
            applied.insert(report.payout_cents, *report);
        }
        state.effects.push(effect);
    }
    state
}

fn effect_of(
    report: &FoldInput,
    applied: &HashMap<i64, FoldInput>,
    value_cents: Option<i64>,
) -> Effect {
    let repeats = applied.get(&report.payout_cents).filter(|earlier| {
        micros_between(earlier.place.received_at, report.place.received_at)
            <= DUPLICATE_WINDOW_MICROS
    });
    match repeats {
        Some(earlier) if !report.exempt_from_v2 => Effect::Duplicate {
            of: earlier.place.event_id,
        },
        _ if report.payout_cents >= 0 => Effect::Applied,
        _ if report.payout_cents.checked_neg() == Some(value_cents.unwrap_or(0)) => {
            Effect::Reversed
        }
        _ => Effect::NotAReversal,
    }
}

/// `to - from` in microseconds.
pub fn micros_between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_microsecond().saturating_sub(from.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_773_489_730_000_000;
    const MINUTE: i64 = 60_000_000;

    fn report(n: u8, micros_after: i64, payout_cents: i64) -> FoldInput {
        FoldInput {
            place: ReceptionOrder {
                received_at: Timestamp::from_microsecond(T0 + micros_after).expect("in range"),
                position: 0,
                event_id: Uuid::from_u128(u128::from(n)),
            },
            payout_cents,
            exempt_from_v2: false,
        }
    }

    fn values(
        estimate: Option<i64>,
        reports: &[FoldInput],
    ) -> (Option<i64>, Option<bool>, Vec<Effect>) {
        let folded = fold_reports(
            Estimate {
                value_cents: estimate,
                qualified: estimate.map(|_| true),
            },
            reports,
        );
        (folded.value_cents, folded.qualified, folded.effects)
    }

    fn duplicate(n: u8) -> Effect {
        Effect::Duplicate {
            of: Uuid::from_u128(u128::from(n)),
        }
    }

    #[test]
    fn v4_shares_are_rounded_half_up_on_the_total() {
        let third = Terms::RevShare {
            percent_e4: 333_300,
        };
        assert_eq!([50, 100, 0, 1].map(|v| third.credit_for(v)), [17, 33, 0, 0]);
        assert_eq!(
            Terms::RevShare {
                percent_e4: 500_000
            }
            .credit_for(1),
            1,
            "half a cent goes up"
        );
        assert_eq!(
            Terms::RevShare {
                percent_e4: 1_000_000
            }
            .credit_for(999_999_999_999),
            999_999_999_999
        );
        assert_eq!(Terms::Flat { amount_cents: 1800 }.credit_for(1), 1800);
    }

    #[test]
    fn v5_and_v11_only_a_qualified_call_earns() {
        let flat = Some(Terms::Flat { amount_cents: 1800 });
        let share = Some(Terms::RevShare {
            percent_e4: 600_000,
        });
        assert_eq!(credit_due(flat, None, Some(true)), 1800);
        assert_eq!(credit_due(share, None, Some(true)), 0);
        assert_eq!(credit_due(share, Some(5000), Some(true)), 3000);
        assert_eq!(credit_due(share, Some(5000), None), 0);
        assert_eq!(credit_due(flat, Some(0), Some(false)), 0);
        assert_eq!(credit_due(None, Some(5000), Some(true)), 0);
    }

    #[test]
    fn v2_the_window_is_inclusive_and_duplicates_do_not_carry_it_on() {
        let at_15 = [report(1, 0, 5000), report(2, 15 * MINUTE, 5000)];
        assert_eq!(values(None, &at_15).2, [Effect::Applied, duplicate(1)]);
        let past_15 = [report(1, 0, 5000), report(2, 15 * MINUTE + 1, 5000)];
        assert_eq!(values(None, &past_15).2, [Effect::Applied, Effect::Applied]);
        let chain = [
            report(1, 0, 5000),
            report(2, 10 * MINUTE, 5000),
            report(3, 20 * MINUTE, 5000),
        ];
        assert_eq!(
            values(None, &chain).2,
            [Effect::Applied, duplicate(1), Effect::Applied]
        );
    }

    #[test]
    fn v2_a_duplicate_does_not_bring_an_older_value_back() {
        let reports = [
            report(1, 0, 5000),
            report(2, MINUTE, 3000),
            report(3, 2 * MINUTE, 5000),
        ];
        assert_eq!(
            values(None, &reports),
            (
                Some(3000),
                Some(true),
                vec![Effect::Applied, Effect::Applied, duplicate(1)]
            )
        );
        let mut by_person = reports;
        by_person[2].exempt_from_v2 = true;
        assert_eq!(
            values(None, &by_person).0,
            Some(5000),
            "M8: an apply is exempt"
        );
    }

    #[test]
    fn v5_zero_unqualifies() {
        assert_eq!(
            values(None, &[report(1, 0, 5000), report(2, 60 * MINUTE, 0)]),
            (Some(0), Some(false), vec![Effect::Applied, Effect::Applied])
        );
    }

    #[test]
    fn v7_only_the_exact_negative_reverses() {
        let exact = [
            report(1, 0, 5000),
            report(2, MINUTE, -5000),
            report(3, 2 * MINUTE, -5000),
        ];
        assert_eq!(
            values(None, &exact),
            (
                Some(0),
                Some(false),
                vec![Effect::Applied, Effect::Reversed, duplicate(2)]
            )
        );
        let other = [report(1, 0, 5000), report(2, MINUTE, -2500)];
        assert_eq!(
            values(None, &other),
            (
                Some(5000),
                Some(true),
                vec![Effect::Applied, Effect::NotAReversal]
            )
        );
        assert_eq!(
            values(Some(4000), &[report(1, 0, -4000)]),
            (Some(0), Some(false), vec![Effect::Reversed])
        );
        assert_eq!(
            values(None, &[report(1, 0, i64::MIN)]).2,
            [Effect::NotAReversal]
        );
    }

    #[test]
    fn v11_an_estimate_of_an_unqualified_call_is_no_revenue() {
        assert_eq!(booked_revenue(Some(4000), false, None), 0);
        assert_eq!(booked_revenue(Some(4000), false, Some(true)), 4000);
        assert_eq!(booked_revenue(Some(4000), true, Some(true)), 4000);
        assert_eq!(booked_revenue(Some(0), true, Some(false)), 0);
    }
}
