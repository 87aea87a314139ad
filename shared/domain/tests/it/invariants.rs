//! What must hold of the model's books at any rest: the invariants of RULES.md, and M5, M12, M14.

use std::collections::{BTreeMap, BTreeSet};

use trueup_domain::crediting::{booked_revenue, credit_due};
use trueup_domain::locked_calls::{CallReport, Fingerprint};
use trueup_domain::repeats::StandingReport;
use trueup_event::reason::{Status, Strategy};
use uuid::Uuid;

use crate::model::{Kept, Store};

impl Store {
    /// The invariants of RULES.md that hold at any time; the text names the first breach.
    pub fn check(&self) -> Result<(), String> {
        let mut sums: BTreeMap<Uuid, i64> = BTreeMap::new();
        let mut by_call: BTreeMap<Uuid, (i64, i64)> = BTreeMap::new();
        let mut by_row: BTreeMap<(Uuid, Uuid), (i64, i64)> = BTreeMap::new();
        for entry in &self.ledger {
            let of_call = by_call.entry(entry.call_id).or_default();
            *of_call = (of_call.0 + entry.revenue, of_call.1 + entry.credit);
            if let Some(publisher) = entry.publisher {
                *sums.entry(publisher).or_default() += entry.credit;
            } else if entry.credit != 0 {
                return Err(format!("a credit to nobody: {entry:?}"));
            }
            let Some(event) = entry.event else { continue };
            let of_row = by_row.entry((event, entry.call_id)).or_default();
            *of_row = (of_row.0 + entry.revenue, of_row.1 + entry.credit);
        }
        for ((event, call_id), sum) in by_row.iter().filter(|(_, sum)| **sum != (0, 0)) {
            if let Some(row) = self
                .rows
                .get(event)
                .filter(|row| row.status != Status::Matched || row.call_id != Some(*call_id))
            {
                return Err(format!(
                    "invariant 4: {sum:?} on {call_id} under {event} {row:?}"
                ));
            }
        }
        for (publisher, balance) in &self.balances {
            if sums.get(publisher).copied().unwrap_or(0) != *balance {
                return Err(format!(
                    "invariant 2: {publisher} has {balance}, its postings give {sums:?}"
                ));
            }
        }
        for (id, kept) in &self.calls {
            self.check_call(kept, by_call.get(id).copied().unwrap_or_default())?;
        }
        self.rows.iter().try_for_each(|(id, row)| {
            let posted = row
                .call_id
                .and_then(|call_id| by_row.get(&(*id, call_id)))
                .map_or(0, |sum| sum.1);
            if posted == row.credit {
                Ok(())
            } else {
                Err(format!("{row:?} says {}, posted {posted}", row.credit))
            }
        })
    }

    fn check_call(&self, kept: &Kept, posted: (i64, i64)) -> Result<(), String> {
        let call = self.call(kept);
        let due = credit_due(
            call.posted_terms.map(|p| p.terms),
            call.value_cents,
            call.qualified,
        );
        if due != call.credit_cents {
            return Err(format!("invariant 2: its terms give {due}: {call:?}"));
        }
        let booked = booked_revenue(call.value_cents, call.value_from_webhook, call.qualified);
        if posted != (booked, call.credit_cents) {
            return Err(format!(
                "invariant 2: posted {posted:?}, booked {booked}: {call:?}"
            ));
        }
        let (folded, _) = call.fold_reports();
        if (folded.value_cents, folded.qualified, folded.reported)
            != (call.value_cents, call.qualified, call.value_from_webhook)
        {
            return Err(format!("invariant 5: the fold gives {folded:?}: {call:?}"));
        }
        let standing = || call.reports.iter().filter(|r| r.role.stands());
        let guessed = |r: &CallReport| r.strategy == Strategy::CallerDuration && !r.by_person;
        let signatures: Vec<_> = standing().map(CallReport::fingerprint).collect();
        if standing().all(guessed) && signatures.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!(
                "M5: two different reports claimed one call: {call:?}"
            ));
        }
        for report in standing() {
            let row = &self.rows[&report.order.event_id];
            if row.call_id != Some(call.key.call_id) {
                return Err(format!(
                    "a report counts on a call that its row does not name: {row:?} {call:?}"
                ));
            }
        }
        Ok(())
    }

    /// M12: of one report among whose repeats at most one id is named, all stand where an id put one of
    /// them, unless a person spoke.
    pub fn check_repeats(&self) -> Result<(), String> {
        let standing = self.standing_reports();
        let one_named = |of: &StandingReport| {
            let same = standing.iter().filter(|r| r.fingerprint == of.fingerprint);
            let calls: BTreeSet<_> = same.filter(|r| !r.guess).map(|r| r.call_id).collect();
            let (ref_ids, call_ids) = self.ids_named(&of.fingerprint);
            ref_ids.len() <= 1 && call_ids.len() <= 1 && calls.len() <= 1
        };
        let named = standing.iter().filter(|r| !r.guess && !r.by_person);
        for named in named.filter(|r| one_named(r)) {
            let strayed = standing.iter().find(|r| {
                r.guess
                    && r.fingerprint == named.fingerprint
                    && r.call_id != named.call_id
                    && !differ(&r.ref_id, &named.ref_id)
                    && !differ(&r.call_id_text, &named.call_id_text)
                    && is_within_a_day(named, r)
            });
            let spoken_for = |r: &StandingReport| {
                let same =
                    |other: &&StandingReport| other.by_person && other.fingerprint == r.fingerprint;
                standing.iter().any(|other| same(&other))
            };
            if let Some(strayed) = strayed.filter(|r| !spoken_for(r)) {
                let row = |r: &StandingReport| &self.rows[&r.order.event_id];
                return Err(format!(
                    "M12: {strayed:?} {:?} is the same report as {named:?} {:?}",
                    row(strayed),
                    row(named)
                ));
            }
        }
        Ok(())
    }

    /// The ref_ids and call_ids that reports of one fingerprint name: those that stand, those that were
    /// displaced, and those that wait for their call.
    fn ids_named(&self, fingerprint: &Fingerprint) -> (BTreeSet<String>, BTreeSet<String>) {
        let placed = self.reports_of_calls().into_iter();
        let placed = placed.filter(|r| r.fingerprint == *fingerprint);
        let waiting = self.rows.values().filter(|row| {
            let webhook_id = self.webhooks[row.event.webhook].id;
            row.waiting
                && Fingerprint::of_report(webhook_id, &row.event.report).as_ref()
                    == Some(fingerprint)
        });
        let waiting = waiting.map(|row| &row.event.report);
        let (mut ref_ids, mut call_ids) = (BTreeSet::new(), BTreeSet::new());
        for report in placed {
            ref_ids.extend(report.ref_id);
            call_ids.extend(report.call_id_text);
        }
        for report in waiting {
            ref_ids.extend(report.ref_id.clone());
            call_ids.extend(report.call_id.clone());
        }
        (ref_ids, call_ids)
    }

    /// M4, M12: reports of one fingerprint, among which at most one id is named, stand on one call, unless a
    /// person spoke.
    pub fn check_one_call(&self) -> Result<(), String> {
        let standing = self.standing_reports();
        for of in &standing {
            let same: Vec<&StandingReport> = standing
                .iter()
                .filter(|r| r.fingerprint == of.fingerprint)
                .collect();
            let (ref_ids, call_ids) = self.ids_named(&of.fingerprint);
            let spoken_for = same.iter().any(|r| r.by_person);
            if ref_ids.len() + call_ids.len() > 1 || spoken_for {
                continue;
            }
            // Two that are more than a day apart are two reports: what lies between may be either's repeat.
            let are_two = |other: Uuid| {
                let of_call = |call_id| same.iter().filter(move |r| r.call_id == call_id);
                of_call(of.call_id).any(|a| of_call(other).any(|b| !is_within_a_day(a, b)))
            };
            let strayed = same
                .iter()
                .find(|r| r.call_id != of.call_id && is_within_a_day(r, of) && !are_two(r.call_id));
            if let Some(strayed) = strayed {
                let row = |r: &StandingReport| &self.rows[&r.order.event_id];
                return Err(format!(
                    "M4: one report on two calls: {of:?} {:?} and {strayed:?} {:?}",
                    row(of),
                    row(strayed)
                ));
            }
        }
        Ok(())
    }

    /// M14: a guess by caller and duration stands only on a call that fits it, or where an id put the same
    /// report.
    pub fn check_guesses(&self) -> Result<(), String> {
        for kept in self.calls.values() {
            let call = &kept.recorded;
            let is_named = |guess: &CallReport| {
                let by_caller = |r: &CallReport| r.guess && r.strategy == Strategy::CallerDuration;
                kept.reports.iter().any(|r| {
                    !by_caller(r) && r.role.stands() && r.fingerprint() == guess.fingerprint()
                })
            };
            for guess in kept
                .reports
                .iter()
                .filter(|r| r.guess && r.role.stands() && r.strategy == Strategy::CallerDuration)
            {
                let theirs = guess.duration_seconds.expect("a guess has a duration");
                let off = i64::from(call.duration_seconds) - theirs;
                // A copy may have given the call the very ref_id that the report names.
                let bears_its_id = guess.ref_id.is_some() && guess.ref_id == call.ref_id;
                let fits = call.caller == guess.caller && off.abs() <= 60;
                if !fits && !bears_its_id && !is_named(guess) {
                    return Err(format!("M14: {guess:?} does not fit {call:?}"));
                }
            }
        }
        Ok(())
    }
}

/// As far as a report leads its repeats (M4).
fn is_within_a_day(a: &StandingReport, b: &StandingReport) -> bool {
    let apart = a.order.received_at.duration_since(b.order.received_at);
    apart.abs() <= jiff::SignedDuration::from_hours(24)
}

fn differ(a: &Option<String>, b: &Option<String>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}
