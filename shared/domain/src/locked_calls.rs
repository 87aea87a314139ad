//! The calls that a batch may touch, as they stand under lock, with the reports they are folded from.
//!
//! A batch is decided in memory against this: each report sees what its predecessors did.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use uuid::Uuid;

use crate::crediting::{
    Estimate, FoldInput, Folded, Payee, ReceptionOrder, booked_revenue, credit_due, fold_reports,
};
use crate::matching::PriorMatch;
use crate::report::Report;
use crate::text::names_differ;
use trueup_event::reason::{Reason, Strategy};

/// Reports that one call's fold holds (V13): what others sent before must not make a report's work grow.
/// A person's apply, a rejection and a full reversal always have room.
pub const MAX_FOLDED_REPORTS: usize = 200;

/// A call's id belongs to its account: two accounts may use the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    pub account_id: Uuid,
    pub call_id: Uuid,
}

/// What part a report plays in its call's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimState {
    /// It is folded (V3).
    Folded,
    /// It is held for a person: it claims the call (M5) and moves nothing.
    Held,
    /// A report with the call's id took its place (M5): it neither claims nor counts.
    Displaced,
    /// It has left this call for another, or for none: nothing of it is kept here.
    Withdrawn,
}

impl ClaimState {
    /// It claims the call (M5).
    pub const fn stands(self) -> bool {
        matches!(self, ClaimState::Folded | ClaimState::Held)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CallReport {
    pub order: ReceptionOrder,
    pub webhook_id: Uuid,
    pub strategy: Strategy,
    pub role: ClaimState,
    pub exempt_from_v2: bool,
    pub by_person: bool,
    /// Its call was not named beyond doubt (M9, M14): it gives way to a report or a call that does.
    pub guess: bool,
    pub payout_cents: i64,
    pub caller: Option<String>,
    pub duration_seconds: Option<i64>,
    pub ref_id: Option<String>,
    pub call_id_text: Option<String>,
    /// Not yet in the database as it stands here.
    pub dirty: bool,
}

/// What a retry of a report is known by (M4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    pub webhook_id: Uuid,
    pub caller: String,
    pub duration_seconds: i64,
}

impl Fingerprint {
    /// Nothing without a caller and a duration.
    pub fn of_report(webhook_id: Uuid, report: &Report) -> Option<Fingerprint> {
        Some(Fingerprint {
            webhook_id,
            caller: report.caller.clone()?,
            duration_seconds: i64::from(report.duration_seconds?),
        })
    }
}

impl CallReport {
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Some(Fingerprint {
            webhook_id: self.webhook_id,
            caller: self.caller.clone()?,
            duration_seconds: self.duration_seconds?,
        })
    }

    /// Two reports that carry different values in the same id slot are never the same report (M4).
    pub fn is_told_apart_from(&self, ref_id: Option<&str>, call_id_text: Option<&str>) -> bool {
        names_differ(self.ref_id.as_deref(), ref_id)
            || names_differ(self.call_id_text.as_deref(), call_id_text)
    }
}

/// The terms that reports left behind: one of these that comes back at once finds them, any other is priced by
/// the terms as they stand (V9).
#[derive(Debug, Clone, PartialEq)]
pub struct ReleasedTerms {
    payee: Option<Payee>,
    by: Vec<ReceptionOrder>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LockedCall {
    pub key: CallKey,
    pub buyer_id: Option<Uuid>,
    pub caller: Option<String>,
    pub duration_seconds: i64,
    pub ended_at: Timestamp,
    pub value_cents: Option<i64>,
    pub value_from_webhook: bool,
    pub qualified: Option<bool>,
    pub credit_cents: i64,
    pub estimate: Estimate,
    /// The assignment's terms as they stand now.
    pub current_terms: Option<Payee>,
    /// The terms of the last posting; they rule once a report has been applied (V9).
    pub posted_terms: Option<Payee>,
    /// The terms that its reports left behind in this batch.
    pub released_terms: Option<ReleasedTerms>,
    /// Whose report the value is; none if a person set it, or nobody has.
    pub reported_by: Option<Uuid>,
    /// In order of reception.
    pub reports: Vec<CallReport>,
    pub changed: bool,
}

fn fold_input(report: &CallReport) -> FoldInput {
    FoldInput {
        place: report.order,
        payout_cents: report.payout_cents,
        exempt_from_v2: report.exempt_from_v2,
    }
}

/// How a call's money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MoneyDelta {
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// Value, qualification, or either of the sums changed.
    pub changed: bool,
}

impl LockedCall {
    /// Who earns from it and how: fixed by the first applied report, until then the assignment's (V9).
    pub fn payee_for(&self) -> Option<Payee> {
        if self.value_from_webhook {
            self.posted_terms
        } else {
            self.returned_terms().or(self.current_terms)
        }
    }

    /// The terms of a report that left in this batch and has come back.
    fn returned_terms(&self) -> Option<Payee> {
        let released = self.released_terms.as_ref()?;
        let is_back =
            |r: &CallReport| r.role == ClaimState::Folded && released.by.contains(&r.order);
        self.reports.iter().any(is_back).then_some(released.payee)?
    }

    fn release_terms(&mut self) {
        let has_left = |r: &&CallReport| r.dirty && !r.role.stands();
        let by = self.reports.iter().filter(has_left).map(|r| r.order);
        self.released_terms = Some(ReleasedTerms {
            payee: self.posted_terms,
            by: by.collect(),
        });
    }

    pub fn is_claimed(&self) -> bool {
        self.reports.iter().any(|r| r.role.stands())
    }

    pub fn claimed_by_other_than(&self, event_id: Uuid) -> bool {
        self.reports
            .iter()
            .any(|r| r.role.stands() && r.order.event_id != event_id)
    }

    /// A report from another number than `caller` stands on it (M14).
    pub fn claimed_by_other_caller(&self, caller: &str, event_id: Uuid) -> bool {
        self.reports.iter().any(|r| {
            r.role.stands()
                && r.order.event_id != event_id
                && names_differ(r.caller.as_deref(), Some(caller))
        })
    }

    /// The report of this event, if it stands here.
    pub fn standing(&self, event_id: Uuid) -> Option<&CallReport> {
        self.reports
            .iter()
            .find(|r| r.role.stands() && r.order.event_id == event_id)
    }

    /// How many reports claim it, other than the event's own (V13).
    pub fn standing_but(&self, event_id: Uuid) -> usize {
        let stands = |r: &&CallReport| r.role.stands() && r.order.event_id != event_id;
        self.reports.iter().filter(stands).count()
    }

    /// How many reports its fold holds, other than the event's own (V13).
    pub fn folded_but(&self, event_id: Uuid) -> usize {
        let folded = |r: &&CallReport| r.role == ClaimState::Folded && r.order.event_id != event_id;
        self.reports.iter().filter(folded).count()
    }

    /// Puts a report in its place by reception (V3). One event has one report on a call: a second
    /// decision about it replaces the first.
    pub fn insert(&mut self, report: CallReport) {
        self.reports.retain(|r| r.order != report.order);
        let at = self.reports.partition_point(|r| r.order < report.order);
        self.reports.insert(at, report);
    }

    /// What was placed by a guess stands by its id now.
    pub fn name_report(&mut self, order: ReceptionOrder) {
        let is_guess = |r: &&mut CallReport| r.order == order && r.role.stands() && r.guess;
        for report in self.reports.iter_mut().filter(is_guess) {
            report.guess = false;
            report.dirty = true;
        }
    }

    /// The fold as it stands.
    pub fn fold_reports(&self) -> (Folded, Vec<ReceptionOrder>) {
        self.fold_inputs(self.fold_inputs_but(None))
    }

    /// The fold as it would be with one more report, or with that one as it is now.
    pub fn fold_with(&self, report: &CallReport) -> (Folded, Vec<ReceptionOrder>) {
        let mut inputs = self.fold_inputs_but(Some(report.order));
        let at = inputs.partition_point(|input| input.place < report.order);
        inputs.insert(at, fold_input(report));
        self.fold_inputs(inputs)
    }

    fn fold_inputs_but(&self, order: Option<ReceptionOrder>) -> Vec<FoldInput> {
        self.reports
            .iter()
            .filter(|r| r.role == ClaimState::Folded && Some(r.order) != order)
            .map(fold_input)
            .collect()
    }

    fn fold_inputs(&self, inputs: Vec<FoldInput>) -> (Folded, Vec<ReceptionOrder>) {
        let places = inputs.iter().map(|input| input.place).collect();
        (fold_reports(self.estimate, &inputs), places)
    }

    /// Takes the fold's result over and says by how much the books must move.
    pub fn apply_fold(&mut self, folded: &Folded) -> MoneyDelta {
        if !self.value_from_webhook && !folded.reported {
            // No report has been applied: what stands is the estimate, whose postings are made where
            // calls are recorded (V11), on the terms of that moment. A held report re-prices nothing.
            return MoneyDelta::default();
        }
        let before = (self.value_cents, self.qualified, self.credit_cents);
        let revenue_before =
            booked_revenue(self.value_cents, self.value_from_webhook, self.qualified);
        // With its last report gone the call is an estimate again, and nothing fixes its terms (M9, V9).
        let payee = if folded.reported {
            self.payee_for()
        } else {
            self.current_terms
        };
        self.value_cents = folded.value_cents;
        self.qualified = folded.qualified;
        self.credit_cents =
            credit_due(payee.map(|p| p.terms), folded.value_cents, folded.qualified);
        let flag_changed = self.value_from_webhook != folded.reported;
        if self.value_from_webhook && !folded.reported {
            self.release_terms();
        } else if folded.reported {
            self.released_terms = None;
        }
        self.value_from_webhook = folded.reported;
        self.posted_terms = payee;
        self.reported_by = folded
            .last_applied
            .and_then(|id| self.reports.iter().find(|r| r.order.event_id == id))
            .filter(|r| !r.exempt_from_v2)
            .map(|r| r.webhook_id);
        let revenue_after =
            booked_revenue(self.value_cents, self.value_from_webhook, self.qualified);
        let changed = before != (self.value_cents, self.qualified, self.credit_cents);
        self.changed |= changed || flag_changed;
        MoneyDelta {
            revenue_delta_cents: revenue_after.saturating_sub(revenue_before),
            credit_delta_cents: self.credit_cents.saturating_sub(before.2),
            changed,
        }
    }
}

/// A row that waits for a person, or that a person has closed, by what its report says (M11, M12).
#[derive(Debug, Clone, PartialEq)]
pub struct OpenRow {
    pub order: ReceptionOrder,
    pub reason: Option<Reason>,
    /// A person has closed it: whatever repeats it is closed, too.
    pub ignored: bool,
}

/// Every call that was locked for a batch, and what else its reports are weighed against.
#[derive(Debug, Clone, Default)]
pub struct LockedCalls {
    calls: BTreeMap<CallKey, LockedCall>,
    signatures: HashMap<Fingerprint, Vec<CallKey>>,
    /// Where reports of this batch will stand, known before any of them is decided (M12).
    expected: HashMap<Fingerprint, Vec<PriorMatch>>,
    open_rows: HashMap<Uuid, OpenRow>,
}

impl LockedCalls {
    pub fn new(calls: impl IntoIterator<Item = LockedCall>) -> Self {
        let mut books = LockedCalls::default();
        for call in calls {
            for signature in call.reports.iter().filter_map(CallReport::fingerprint) {
                books.add_fingerprint(signature, call.key);
            }
            books.calls.insert(call.key, call);
        }
        books
    }

    /// With the open rows that the batch's reports may be repeats of, by [`repeat_keys`](crate::report::repeat_keys).
    pub fn with_open_rows(mut self, open_rows: HashMap<Uuid, OpenRow>) -> Self {
        self.open_rows = open_rows;
        self
    }

    pub fn has_open_rows(&self) -> bool {
        !self.open_rows.is_empty()
    }

    pub fn open_row(&self, digest: Uuid) -> Option<&OpenRow> {
        self.open_rows.get(&digest)
    }

    pub fn set_open_row(&mut self, digest: Uuid, row: OpenRow) {
        self.open_rows.insert(digest, row);
    }

    pub fn call(&self, key: CallKey) -> Option<&LockedCall> {
        self.calls.get(&key)
    }

    pub fn call_mut(&mut self, key: CallKey) -> Option<&mut LockedCall> {
        self.calls.get_mut(&key)
    }

    pub fn all_calls(&self) -> impl Iterator<Item = &LockedCall> {
        self.calls.values()
    }

    /// The call from which a report with its id has taken that event's report (M5).
    pub fn displaced_from(&self, event_id: Uuid) -> Option<&LockedCall> {
        let is_own =
            |r: &CallReport| r.role == ClaimState::Displaced && r.order.event_id == event_id;
        self.all_calls()
            .find(|call| call.reports.iter().any(is_own))
    }

    pub fn add_fingerprint(&mut self, signature: Fingerprint, key: CallKey) {
        let keys = self.signatures.entry(signature).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// A report with this fingerprint is going to stand on that call.
    pub fn expect_match(&mut self, signature: Fingerprint, expected: PriorMatch) {
        self.expected.entry(signature).or_default().push(expected);
    }

    /// The reports that have this signature and stand or stood somewhere, other than the event's own.
    pub fn prior_matches(&self, signature: &Fingerprint, own_event: Uuid) -> Vec<PriorMatch> {
        let keys = self
            .signatures
            .get(signature)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let standing = keys
            .iter()
            .filter_map(|key| self.calls.get(key))
            .flat_map(|call| call.reports.iter().map(move |r| (call.key.call_id, r)))
            .filter(|(_, r)| {
                r.role != ClaimState::Withdrawn
                    && r.webhook_id == signature.webhook_id
                    && r.duration_seconds == Some(signature.duration_seconds)
                    && r.caller.as_deref() == Some(signature.caller.as_str())
            })
            .map(|(call_id, r)| PriorMatch {
                call_id,
                event_id: r.order.event_id,
                received_at: r.order.received_at,
                payout_cents: r.payout_cents,
                by_person: r.by_person,
                is_apply: r.exempt_from_v2,
                guess: r.guess,
                by_caller: r.strategy == Strategy::CallerDuration,
                displaced: r.role == ClaimState::Displaced,
                ref_id: r.ref_id.clone(),
                call_id_text: r.call_id_text.clone(),
            });
        let expected = self.expected.get(signature).into_iter().flatten().cloned();
        standing
            .chain(expected)
            .filter(|prior| prior.event_id != own_event)
            .collect()
    }
}
