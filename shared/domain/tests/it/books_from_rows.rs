//! Invariant 5 over persons as well: each call's money made again from the rows alone, that is, from the
//! reports and from what persons did to them, with the terms that were recorded.

use std::collections::BTreeMap;

use trueup_domain::crediting::{FoldInput, ReceptionOrder, credit_due, fold_reports};
use trueup_domain::locked_calls::{CallReport, ClaimState};
use trueup_event::reason::{Reason, Status};
use uuid::Uuid;

use crate::model::{Kept, Row, Store};

impl Store {
    /// Neither the ledger nor what is kept with the calls about their reports is looked at, but for which of
    /// them were displaced: a repeat that was displaced together with its report stays `duplicate`.
    pub fn check_against_rows(&self) -> Result<(), String> {
        let mut inputs: BTreeMap<Uuid, Vec<FoldInput>> = BTreeMap::new();
        for row in self.rows.values() {
            let Some((call_id, input)) = counted_report(row) else {
                continue;
            };
            if !is_displaced(&self.calls[&call_id].reports, input.place) {
                inputs.entry(call_id).or_default().push(input);
            }
        }
        let mut balances: BTreeMap<Uuid, i64> = BTreeMap::new();
        for (id, kept) in &self.calls {
            let credit = check_call(kept, inputs.remove(id).unwrap_or_default())?;
            if let Some(payee) = kept.recorded.terms {
                *balances.entry(payee.publisher_id).or_default() += credit;
            }
        }
        for (publisher, balance) in &self.balances {
            let again = balances.get(publisher).copied().unwrap_or(0);
            if again != *balance {
                return Err(format!(
                    "invariant 5: the rows give {publisher} {again}, the books {balance}"
                ));
            }
        }
        Ok(())
    }
}

fn is_displaced(reports: &[CallReport], order: ReceptionOrder) -> bool {
    let mut reports = reports.iter();
    reports.any(|report| report.order == order && report.role == ClaimState::Displaced)
}

/// The call on which the row's report counts, and as what.
fn counted_report(row: &Row) -> Option<(Uuid, FoldInput)> {
    let counts = match (row.status, row.reason) {
        // Taken back by a person (M8).
        (_, Some(Reason::Undone)) => false,
        (Status::Matched | Status::Superseded, _) => true,
        (Status::Duplicate, reason) => reason != Some(Reason::RepeatOfOpenReport),
        // It is folded, and changes nothing where it is no reversal (V7).
        (Status::Held, reason) => reason == Some(Reason::NegativePayout),
        (Status::Unmatched | Status::Refused, _) => false,
    };
    let payout_cents = row.event.report.payout.cents()?;
    let input = FoldInput {
        place: row.event.place,
        payout_cents,
        exempt_from_v2: row.applied_from.is_some(),
    };
    row.call_id
        .filter(|_| counts && !row.ignored)
        .map(|call_id| (call_id, input))
}

fn check_call(kept: &Kept, mut inputs: Vec<FoldInput>) -> Result<i64, String> {
    inputs.sort_by_key(|input| input.place);
    let call = &kept.recorded;
    let folded = fold_reports(call.estimate, &inputs);
    let terms = call.terms.map(|payee| payee.terms);
    let credit = credit_due(terms, folded.value_cents, folded.qualified);
    let again = (
        folded.value_cents,
        folded.reported,
        folded.qualified,
        credit,
    );
    let stands = (
        call.value_cents,
        call.value_from_webhook,
        call.qualified,
        call.credit_cents,
    );
    if again == stands {
        Ok(credit)
    } else {
        Err(format!(
            "invariant 5: the rows of {} give {again:?}, the books say {stands:?}: {inputs:?}",
            call.id
        ))
    }
}
