//! Invariant 5 over persons as well: each call's money made again from the rows alone, that is, from the
//! reports and from what persons did to them, with the terms that were recorded.

use std::collections::BTreeMap;

use trueup_domain::crediting::{FoldInput, credit_due, fold_reports};
use trueup_domain::locked_calls::ClaimState;
use trueup_event::reason::{Reason, Status};
use uuid::Uuid;

use crate::model::{Kept, Row, Store};

impl Store {
    /// Neither the ledger nor what is kept with the calls about their reports is looked at, but where a row
    /// does not tell: a repeat that was displaced together with its report stays `duplicate`, and a negative
    /// repeat of an open row may have kept its place.
    pub fn check_against_rows(&self) -> Result<(), String> {
        let mut inputs: BTreeMap<Uuid, Vec<FoldInput>> = BTreeMap::new();
        for row in self.rows.values() {
            let (Some(call_id), Some(input)) = (row.call_id, fold_input(row)) else {
                continue;
            };
            let kept = self.calls[&call_id].reports.iter();
            let mut kept = kept.filter(|report| report.order == input.place);
            let role = kept.next().map(|report| report.role);
            if counts(row, input.payout_cents, role) {
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

fn fold_input(row: &Row) -> Option<FoldInput> {
    Some(FoldInput {
        place: row.event.place,
        payout_cents: row.event.report.payout.cents()?,
        exempt_from_v2: row.applied_from.is_some(),
    })
}

/// Whether the row's report counts on its call. `role` is for rows that do not tell.
fn counts(row: &Row, payout_cents: i64, role: Option<ClaimState>) -> bool {
    if row.ignored || role == Some(ClaimState::Displaced) {
        return false;
    }
    match (row.status, row.reason) {
        // Taken back by a person (M8).
        (_, Some(Reason::Undone)) => false,
        (Status::Matched | Status::Superseded, _) => true,
        (Status::Duplicate, Some(Reason::RepeatOfOpenReport)) => {
            payout_cents < 0 && role == Some(ClaimState::Folded)
        }
        (Status::Duplicate, _) => true,
        // A negative one is folded whatever else is wrong with it: a late report may make it a reversal (V7).
        (Status::Held, reason) => payout_cents < 0 && reason != Some(Reason::TooManyReports),
        (Status::Unmatched | Status::Refused, _) => false,
    }
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
