//! Recording a call: what a copy of it from our own system changes, and what that moves.
//!
//! A call may be recorded again as often as one likes. A field that a copy leaves out stays as it is;
//! what a webhook reported is never undone by a copy (V11), nor is a call given to another assignment
//! once money was posted for it (V9).

use std::collections::HashMap;
use std::fmt::Write;

use jiff::Timestamp;
use uuid::Uuid;

use crate::crediting::{Estimate, Payee, booked_revenue, credit_due};

/// One copy of a call. The outer option of a field says whether the copy names it at all.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRecord {
    pub id: Uuid,
    pub ref_id: Option<Option<String>>,
    pub caller: Option<Option<Caller>>,
    pub tracking_number: Option<Option<String>>,
    pub duration_seconds: i32,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub buyer_id: Option<Option<Uuid>>,
    pub assignment_id: Option<Option<Uuid>>,
    pub value_cents: Option<Option<i64>>,
    pub qualified: Option<Option<bool>>,
}

/// The id of a call that was sent without one: the same call sent twice is one call (a UUID v5 of the
/// account, from ref_id, caller, tracking number and start).
pub fn derive_call_id(
    account_id: Uuid,
    ref_id: Option<&str>,
    caller: Option<&Caller>,
    tracking_number: Option<&str>,
    started_at: Timestamp,
) -> Uuid {
    let caller = caller.map(|caller| caller.e164.as_deref().unwrap_or(&caller.raw));
    let mut text = started_at.to_string();
    for part in [ref_id, caller, tracking_number] {
        // Each is preceded by its length, so that no two lists of texts are one text.
        match part {
            Some(part) => _ = write!(text, " {}:{part}", part.len()),
            None => text.push_str(" -"),
        }
    }
    Uuid::new_v5(&account_id, text.as_bytes())
}

/// A caller as our own system gave it, and as E.164 where it is a number at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    pub raw: String,
    pub e164: Option<String>,
}

/// A call as it stands in the books.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCall {
    pub id: Uuid,
    pub ref_id: Option<String>,
    pub caller: Option<String>,
    pub caller_raw: Option<String>,
    pub tracking_number: Option<String>,
    pub duration_seconds: i32,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub buyer_id: Option<Uuid>,
    pub assignment_id: Option<Uuid>,
    pub value_cents: Option<i64>,
    pub value_from_webhook: bool,
    /// A report is folded into its money, if only a negative one that is held (V7): the estimate it was
    /// weighed against must stay, or the fold would come out otherwise.
    pub reported: bool,
    pub qualified: Option<bool>,
    pub credit_cents: i64,
    pub estimate: Estimate,
    /// The terms of the last posting.
    pub terms: Option<Payee>,
}

impl StoredCall {
    /// True if a guess that was made about the other may not hold for this one (M14).
    pub fn is_told_otherwise(&self, other: &StoredCall) -> bool {
        self.caller != other.caller
            || self.duration_seconds != other.duration_seconds
            || self.ended_at != other.ended_at
            || self.buyer_id != other.buyer_id
            || self.ref_id != other.ref_id
    }
}

/// Why recording a call moves the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCause {
    /// Its estimate came or changed (V11).
    Estimate,
    /// It was given its first assignment after it was reported or posted (V9).
    FirstAssignment,
}

/// How recording a call moves the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EstimateDelta {
    pub cause: RecordCause,
    pub payee: Option<Payee>,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot change: money has been posted for this call under the assignment that it has")]
pub struct AssignmentIsFixed;

/// Lays a copy over the call as it stands (nothing: it is new). `posted` says whether the ledger holds
/// a posting for it; `payees` holds the present terms of every assignment concerned.
pub fn apply_call_record(
    standing: Option<&StoredCall>,
    copy: &CallRecord,
    posted: bool,
    payees: &HashMap<Uuid, Payee>,
) -> Result<(StoredCall, Option<EstimateDelta>), AssignmentIsFixed> {
    let mut call = standing.cloned().unwrap_or_else(|| blank_call(copy));
    let assignment_id = copy.assignment_id.unwrap_or(call.assignment_id);
    let changes_assignment = assignment_id != call.assignment_id;
    // An applied report has fixed the terms even where it moved no cent, such as a first $0 (V9). A call
    // that has none is still free to be given its first.
    if changes_assignment && call.assignment_id.is_some() && (posted || call.value_from_webhook) {
        return Err(AssignmentIsFixed);
    }
    let estimate = Estimate {
        value_cents: copy.value_cents.unwrap_or(call.estimate.value_cents),
        qualified: copy.qualified.unwrap_or(call.estimate.qualified),
    };
    let unchanged = standing.is_some() && !changes_assignment && estimate == call.estimate;
    copy_description(&mut call, copy);
    call.assignment_id = assignment_id;
    let payee = assignment_id.and_then(|id| payees.get(&id)).copied();
    if call.value_from_webhook || call.reported {
        let moved = payee
            .filter(|_| changes_assignment)
            .and_then(|payee| credit_first_assignment(&mut call, payee, posted));
        return Ok((call, moved));
    }
    if unchanged {
        return Ok((call, None));
    }
    let moved = estimate_again(&mut call, estimate, payee, posted);
    Ok((call, moved))
}

/// The reports stand as they are; the publisher who is known only now gets the share of their value, on the
/// terms as they stand now (V9).
fn credit_first_assignment(
    call: &mut StoredCall,
    payee: Payee,
    posted: bool,
) -> Option<EstimateDelta> {
    let before = call.credit_cents;
    call.credit_cents = credit_due(Some(payee.terms), call.value_cents, call.qualified);
    let credit_delta_cents = call.credit_cents.saturating_sub(before);
    let is_fixed = posted || call.value_from_webhook || credit_delta_cents != 0;
    call.terms = is_fixed.then_some(payee);
    (credit_delta_cents != 0).then_some(EstimateDelta {
        cause: RecordCause::FirstAssignment,
        payee: Some(payee),
        revenue_delta_cents: 0,
        credit_delta_cents,
    })
}

fn blank_call(copy: &CallRecord) -> StoredCall {
    StoredCall {
        id: copy.id,
        ref_id: None,
        caller: None,
        caller_raw: None,
        tracking_number: None,
        duration_seconds: copy.duration_seconds,
        started_at: copy.started_at,
        ended_at: copy.ended_at,
        buyer_id: None,
        assignment_id: None,
        value_cents: None,
        value_from_webhook: false,
        reported: false,
        qualified: None,
        credit_cents: 0,
        estimate: Estimate::default(),
        terms: None,
    }
}

fn copy_description(call: &mut StoredCall, copy: &CallRecord) {
    call.duration_seconds = copy.duration_seconds;
    call.started_at = copy.started_at;
    call.ended_at = copy.ended_at;
    if let Some(ref_id) = &copy.ref_id {
        call.ref_id.clone_from(ref_id);
    }
    if let Some(caller) = &copy.caller {
        call.caller = caller.as_ref().and_then(|c| c.e164.clone());
        call.caller_raw = caller.as_ref().map(|c| c.raw.clone());
    }
    if let Some(tracking_number) = &copy.tracking_number {
        call.tracking_number.clone_from(tracking_number);
    }
    if let Some(buyer_id) = copy.buyer_id {
        call.buyer_id = buyer_id;
    }
}

fn estimate_again(
    call: &mut StoredCall,
    estimate: Estimate,
    payee: Option<Payee>,
    posted: bool,
) -> Option<EstimateDelta> {
    let booked = |call: &StoredCall| booked_revenue(call.value_cents, false, call.qualified);
    let (revenue_before, credit_before) = (booked(call), call.credit_cents);
    call.estimate = estimate;
    call.value_cents = estimate.value_cents;
    call.qualified = estimate.qualified;
    call.credit_cents = credit_due(
        payee.map(|p| p.terms),
        estimate.value_cents,
        estimate.qualified,
    );
    let moved = EstimateDelta {
        cause: RecordCause::Estimate,
        payee,
        revenue_delta_cents: booked(call).saturating_sub(revenue_before),
        credit_delta_cents: call.credit_cents.saturating_sub(credit_before),
    };
    let moves = moved.revenue_delta_cents != 0 || moved.credit_delta_cents != 0;
    // Terms that a report left behind are nobody's any more.
    call.terms = payee.filter(|_| moves || posted);
    moves.then_some(moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crediting::Terms;

    const ASSIGNMENT: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn payees(terms: Terms) -> HashMap<Uuid, Payee> {
        let payee = |n| Payee {
            publisher_id: Uuid::from_u128(n),
            terms,
        };
        HashMap::from([(ASSIGNMENT, payee(10)), (OTHER, payee(20))])
    }

    fn copy(value_cents: Option<Option<i64>>, qualified: Option<Option<bool>>) -> CallRecord {
        let at: Timestamp = "2026-03-14T12:00:00Z".parse().expect("a time");
        CallRecord {
            id: Uuid::nil(),
            ref_id: Some(Some("r".to_owned())),
            caller: None,
            tracking_number: None,
            duration_seconds: 90,
            started_at: at,
            ended_at: at,
            buyer_id: None,
            assignment_id: Some(Some(ASSIGNMENT)),
            value_cents,
            qualified,
        }
    }

    const SHARE: Terms = Terms::RevShare {
        percent_e4: 600_000,
    };
    const FLAT: Terms = Terms::Flat { amount_cents: 1800 };

    fn moved(m: Option<EstimateDelta>) -> Option<(i64, i64)> {
        m.map(|m| (m.revenue_delta_cents, m.credit_delta_cents))
    }

    #[test]
    fn v11_a_qualified_call_with_flat_terms_or_a_value_is_estimated() {
        for (terms, value, qualified, expected) in [
            (SHARE, Some(5000), Some(true), Some((5000, 3000))),
            (SHARE, None, Some(true), None),
            (FLAT, None, Some(true), Some((0, 1800))),
            (FLAT, Some(5000), Some(true), Some((5000, 1800))),
            (FLAT, Some(5000), Some(false), None),
            (FLAT, Some(5000), None, None),
        ] {
            let (call, m) = apply_call_record(
                None,
                &copy(Some(value), Some(qualified)),
                false,
                &payees(terms),
            )
            .expect("new");
            assert_eq!(moved(m), expected, "{terms:?} {value:?} {qualified:?}");
            assert_eq!(
                (call.value_cents, call.qualified),
                (value, qualified),
                "it is kept all the same"
            );
            assert_eq!(call.terms.is_some(), expected.is_some());
        }
        let nobody = CallRecord {
            assignment_id: None,
            ..copy(Some(Some(5000)), Some(Some(true)))
        };
        let (call, m) = apply_call_record(None, &nobody, false, &payees(SHARE)).expect("new");
        assert_eq!(
            (moved(m), call.credit_cents),
            (Some((5000, 0)), 0),
            "revenue without a publisher"
        );
    }

    #[test]
    fn v11_a_changed_copy_posts_the_difference_and_an_equal_one_nothing() {
        let payees = payees(SHARE);
        let (first, _) = apply_call_record(
            None,
            &copy(Some(Some(5000)), Some(Some(true))),
            false,
            &payees,
        )
        .expect("new");
        let again = apply_call_record(
            Some(&first),
            &copy(Some(Some(5000)), Some(Some(true))),
            true,
            &payees,
        )
        .expect("same");
        assert_eq!(again, (first.clone(), None));
        let silent =
            apply_call_record(Some(&first), &copy(None, None), true, &payees).expect("left out");
        assert_eq!(silent, (first.clone(), None), "what is left out stays");
        let (less, m) =
            apply_call_record(Some(&first), &copy(Some(Some(4000)), None), true, &payees)
                .expect("changed");
        assert_eq!(moved(m), Some((-1000, -600)));
        let (gone, m) =
            apply_call_record(Some(&less), &copy(None, Some(Some(false))), true, &payees)
                .expect("changed");
        assert_eq!(
            (moved(m), gone.credit_cents, gone.value_cents),
            (Some((-4000, -2400)), 0, Some(4000))
        );
        let (cleared, m) = apply_call_record(Some(&first), &copy(Some(None), None), true, &payees)
            .expect("changed");
        assert_eq!(
            (moved(m), cleared.value_cents),
            (Some((-5000, -3000)), None)
        );
    }

    #[test]
    fn v9_an_estimate_fixes_no_terms() {
        let (first, _) = apply_call_record(
            None,
            &copy(Some(Some(5000)), Some(Some(true))),
            false,
            &payees(SHARE),
        )
        .expect("new");
        let (next, m) = apply_call_record(
            Some(&first),
            &copy(Some(Some(6000)), None),
            true,
            &payees(FLAT),
        )
        .expect("changed");
        assert_eq!(moved(m), Some((1000, -1200)));
        assert_eq!(next.terms.map(|p| p.terms), Some(FLAT));
    }

    #[test]
    fn v9_the_assignment_is_fixed_by_a_posting() {
        let payees = payees(SHARE);
        let (first, _) =
            apply_call_record(None, &copy(Some(Some(5000)), None), false, &payees).expect("new");
        let other = CallRecord {
            assignment_id: Some(Some(OTHER)),
            ..copy(None, Some(Some(true)))
        };
        assert_eq!(
            apply_call_record(Some(&first), &other, true, &payees),
            Err(AssignmentIsFixed)
        );
        let none = CallRecord {
            assignment_id: Some(None),
            ..copy(None, None)
        };
        assert_eq!(
            apply_call_record(Some(&first), &none, true, &payees),
            Err(AssignmentIsFixed)
        );
        let (moved_on, m) =
            apply_call_record(Some(&first), &other, false, &payees).expect("nothing was posted");
        assert_eq!(
            moved_on.terms.map(|p| p.publisher_id),
            Some(Uuid::from_u128(20))
        );
        assert_eq!(moved(m), Some((5000, 3000)));
    }

    #[test]
    fn v9_a_reported_calls_first_assignment_is_credited_and_its_second_refused() {
        let payees = payees(SHARE);
        let nobody = CallRecord {
            assignment_id: None,
            ..copy(None, None)
        };
        let (mut call, _) = apply_call_record(None, &nobody, false, &payees).expect("new");
        call.value_from_webhook = true;
        call.value_cents = Some(5000);
        call.qualified = Some(true);
        let (given, m) =
            apply_call_record(Some(&call), &copy(None, None), true, &payees).expect("its first");
        assert_eq!(moved(m), Some((0, 3000)));
        assert_eq!(m.map(|m| m.cause), Some(RecordCause::FirstAssignment));
        assert_eq!(
            (given.credit_cents, given.terms.map(|p| p.terms)),
            (3000, Some(SHARE))
        );
        let again = apply_call_record(Some(&given), &copy(None, None), true, &payees);
        assert_eq!(
            again,
            Ok((given.clone(), None)),
            "the same copy moves nothing"
        );
        let other = CallRecord {
            assignment_id: Some(Some(OTHER)),
            ..copy(None, None)
        };
        assert_eq!(
            apply_call_record(Some(&given), &other, true, &payees),
            Err(AssignmentIsFixed)
        );
        call.qualified = Some(false);
        call.value_cents = Some(0);
        let (zero, m) =
            apply_call_record(Some(&call), &copy(None, None), true, &payees).expect("its first");
        assert_eq!(
            (m, zero.terms.is_some()),
            (None, true),
            "its terms are fixed"
        );
    }

    #[test]
    fn v11_a_copy_never_undoes_what_a_webhook_reported() {
        let payees = payees(SHARE);
        let (mut call, _) = apply_call_record(
            None,
            &copy(Some(Some(5000)), Some(Some(true))),
            false,
            &payees,
        )
        .expect("new");
        call.value_from_webhook = true;
        call.value_cents = Some(7000);
        call.credit_cents = 4200;
        let later = CallRecord {
            ref_id: Some(Some("new".to_owned())),
            ..copy(Some(Some(1)), Some(Some(false)))
        };
        let (after, m) = apply_call_record(Some(&call), &later, true, &payees).expect("recorded");
        assert_eq!(m, None);
        assert_eq!(
            after,
            StoredCall {
                ref_id: Some("new".to_owned()),
                ..call
            },
            "only the description changed"
        );
    }
}
