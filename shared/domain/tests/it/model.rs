//! A store in memory around the product's own batch decision: it finds, locks and writes, as
//! `trueup-store` does with Postgres. What is decided, in which order and under which locks is the product's.
//!
//! A transaction is its decisions until it is committed: a worker that dies before leaves no trace.
//! Only what the real writes would write is written, so that a forgotten mark shows here, too.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use trueup_domain::batch_decision::{
    BatchRow, PreviousRow, calls_to_lock, decide_lines, sort_by_reception, wants_another_try,
    withdrawals_in_order,
};
use trueup_domain::call_application::{holds_money, split_withdrawal};
use trueup_domain::call_record::{CallRecord, StoredCall, apply_call_record};
use trueup_domain::crediting::{Payee, ReceptionOrder, Terms};
use trueup_domain::decision::{
    CallCandidate, CallCandidates, Decision, PostingCause, PostingDraft, Trigger,
};
use trueup_domain::locked_calls::{
    CallKey, CallReport, ClaimState, LockedCall, LockedCalls, OpenRow,
};
use trueup_domain::repeats::{StandingReport, rows_to_follow};
use trueup_domain::report::{ParsedRequest, Payout, Report, closing_keys, report_digest};
use trueup_domain::webhook_settings::WebhookRules;
use trueup_event::reason::{Reason, Status, Strategy};
use trueup_event::verdict::Detail;
use uuid::Uuid;

pub const ACCOUNT: Uuid = Uuid::from_u128(0xACC);

pub fn key(call_id: Uuid) -> CallKey {
    CallKey {
        account_id: ACCOUNT,
        call_id,
    }
}

/// One accepted report.
#[derive(Debug, Clone)]
pub struct Event {
    pub place: ReceptionOrder,
    pub webhook: usize,
    pub report: Report,
}

#[derive(Debug, Clone)]
pub enum Work {
    Fresh(Event),
    Again(Uuid, Trigger),
    Replayed(Uuid),
    Assigned(Uuid, Uuid),
    Applied(Event, Uuid),
    Undone(Uuid),
    Revoked(Uuid),
    Ignored(Uuid),
}

#[derive(Debug, Clone)]
pub struct Row {
    pub event: Event,
    pub status: Status,
    pub reason: Option<Reason>,
    pub strategy: Option<Strategy>,
    pub call_id: Option<Uuid>,
    pub credit: i64,
    pub waiting: bool,
    /// A copy has changed the call that it stands on by a guess.
    pub changed: bool,
    pub ignored: bool,
    /// A person's apply: the row that it was made from.
    pub applied_from: Option<Uuid>,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub event: Option<Uuid>,
    pub call_id: Uuid,
    pub publisher: Option<Uuid>,
    pub revenue: i64,
    pub credit: i64,
}

/// The columns of a call and its reports.
#[derive(Debug, Clone)]
pub struct Kept {
    pub recorded: StoredCall,
    reported_by: Option<Uuid>,
    pub reports: Vec<CallReport>,
}

#[derive(Default)]
pub struct Store {
    pub webhooks: Vec<WebhookRules>,
    /// The assignments' terms as they stand.
    pub payees: HashMap<Uuid, Payee>,
    pub calls: BTreeMap<Uuid, Kept>,
    pub rows: BTreeMap<Uuid, Row>,
    pub ledger: Vec<Entry>,
    pub balances: BTreeMap<Uuid, i64>,
    open_rows: HashMap<Uuid, OpenRow>,
}

/// A call's value, whether a webhook set it, whether it is qualified, and the publisher's credit.
pub type Money = (Option<i64>, bool, Option<bool>, i64);

impl Store {
    pub fn new() -> Store {
        Store {
            webhooks: webhooks(),
            payees: payees(),
            ..Store::default()
        }
    }

    /// Records a copy of a call, estimates and all; `false` if the copy was refused.
    pub fn record(&mut self, copy: &CallRecord) -> bool {
        let standing = self.calls.get(&copy.id);
        let posted = self.ledger.iter().any(|e| e.call_id == copy.id);
        let standing = standing.map(|kept| StoredCall {
            reported: kept.reports.iter().any(|r| r.role == ClaimState::Folded),
            ..kept.recorded.clone()
        });
        let Ok((recorded, moved)) =
            apply_call_record(standing.as_ref(), copy, posted, &self.payees)
        else {
            return false;
        };
        if standing.is_some_and(|standing| recorded.is_told_otherwise(&standing)) {
            // Guesses about it are looked at again (M14).
            let guesses = self.calls[&copy.id].reports.iter();
            let guesses = guesses.filter(|r| r.guess && r.role.stands());
            for id in guesses.map(|r| r.order.event_id).collect::<Vec<_>>() {
                let row = self.rows.get_mut(&id).expect("its row");
                (row.waiting, row.changed) = (true, true);
            }
        }
        let kept = self.calls.entry(copy.id).or_insert_with(|| Kept {
            recorded: recorded.clone(),
            reported_by: None,
            reports: Vec::new(),
        });
        kept.recorded = recorded;
        if let Some(moved) = moved {
            let publisher = moved.payee.map(|p| p.publisher_id);
            self.post(
                None,
                copy.id,
                publisher,
                moved.revenue_delta_cents,
                moved.credit_delta_cents,
            );
        }
        true
    }

    /// When the last report of a call was received.
    pub fn last_report(&self, call_id: Uuid) -> Option<Timestamp> {
        let reports = self.calls.get(&call_id)?.reports.iter();
        reports.map(|r| r.order.received_at).max()
    }

    pub fn has_call(&self, id: Uuid) -> bool {
        self.calls.contains_key(&id)
    }

    pub fn money(&self) -> BTreeMap<Uuid, Money> {
        let money = |k: &Kept| {
            let r = &k.recorded;
            (
                r.value_cents,
                r.value_from_webhook,
                r.qualified,
                r.credit_cents,
            )
        };
        self.calls
            .iter()
            .map(|(id, kept)| (*id, money(kept)))
            .collect()
    }

    /// The balances of those who are owed anything, or owe.
    pub fn owed(&self) -> BTreeMap<Uuid, i64> {
        self.balances
            .iter()
            .filter(|(_, cents)| **cents != 0)
            .map(|(id, cents)| (*id, *cents))
            .collect()
    }

    fn post(
        &mut self,
        event: Option<Uuid>,
        call_id: Uuid,
        publisher: Option<Uuid>,
        revenue: i64,
        credit: i64,
    ) {
        if let Some(publisher) = publisher {
            *self.balances.entry(publisher).or_default() += credit;
        }
        self.ledger.push(Entry {
            event,
            call_id,
            publisher,
            revenue,
            credit,
        });
    }

    /// The search, without locks: what a transaction sees when it begins.
    pub fn sight(&self, work: &[Work]) -> Vec<BatchRow> {
        let stored = |id: &Uuid, trigger| Some(self.line(&self.rows.get(id)?.event, trigger));
        let line = |work: &Work| match work {
            Work::Fresh(event) => Some(self.line(event, Trigger::Fresh)),
            Work::Again(id, trigger) => stored(id, *trigger),
            Work::Replayed(id) => stored(id, Trigger::Replayed),
            Work::Undone(id) => stored(id, Trigger::Undone),
            Work::Revoked(id) => stored(id, Trigger::Revoked),
            Work::Ignored(id) => stored(id, Trigger::Ignored),
            Work::Assigned(id, call_id) => stored(id, Trigger::Assigned(*call_id)),
            Work::Applied(event, call_id) => Some(self.line(event, Trigger::Applied(*call_id))),
        };
        let mut lines: Vec<BatchRow> = work.iter().filter_map(line).collect();
        let followers = rows_to_follow(&lines, &self.reports_of_calls());
        for ((_, id), must_leave) in &followers {
            lines.extend(stored(id, Trigger::Changed).map(|line| BatchRow {
                must_leave: *must_leave,
                ..line
            }));
        }
        lines
    }

    pub fn standing_reports(&self) -> Vec<StandingReport> {
        let mut reports = self.reports_of_calls();
        reports.retain(|report| !report.displaced);
        reports
    }

    pub fn reports_of_calls(&self) -> Vec<StandingReport> {
        let of_call = |(id, kept): (&Uuid, &Kept)| {
            let call_id = *id;
            let standing = kept.reports.iter().filter_map(move |r| {
                Some(StandingReport {
                    fingerprint: r.fingerprint()?,
                    order: r.order,
                    call_id,
                    guess: r.guess,
                    by_person: r.by_person,
                    displaced: r.role == ClaimState::Displaced,
                    ref_id: r.ref_id.clone(),
                    call_id_text: r.call_id_text.clone(),
                })
            });
            standing.collect::<Vec<_>>()
        };
        self.calls.iter().flat_map(of_call).collect()
    }

    fn line(&self, event: &Event, course: Trigger) -> BatchRow {
        let row = self.rows.get(&event.place.event_id);
        BatchRow {
            order: event.place,
            account_id: ACCOUNT,
            webhook_id: self.webhooks[event.webhook].id,
            trigger: course,
            exists: row.is_some(),
            request: None,
            source_ip: None,
            applied_from: None,
            earlier_call: row.and_then(|row| row.call_id),
            count: 1,
            refused: None,
            reading: ParsedRequest {
                report: Ok(event.report.clone()),
                slots: Vec::new(),
                notes: Vec::new(),
            },
            candidates: self.sightings(event),
            decision: None,
            before: row.map(Self::previous),
            actor: None,
            must_leave: false,
            left_call: None,
            withdrawal: None,
        }
    }

    fn previous(row: &Row) -> Box<PreviousRow> {
        Box::new(PreviousRow {
            status: row.status.code().to_owned(),
            reason: row.reason,
            detail: None,
            strategy: row.strategy,
            report: Ok(row.event.report.clone()),
        })
    }

    fn webhook_by_id(&self) -> HashMap<Uuid, WebhookRules> {
        let webhooks = self.webhooks.iter();
        webhooks.map(|w| (w.id, w.clone())).collect()
    }

    fn event(&self, line: &BatchRow) -> Event {
        let webhook = self.webhooks.iter().position(|w| w.id == line.webhook_id);
        Event {
            place: line.order,
            webhook: webhook.expect("a webhook of the model"),
            report: line.report().expect("the model sends reports").clone(),
        }
    }

    fn sightings(&self, event: &Event) -> CallCandidates {
        let sighting = |kept: &Kept| CallCandidate {
            call_id: kept.recorded.id,
            buyer_id: kept.recorded.buyer_id,
            duration_seconds: kept.recorded.duration_seconds.into(),
            ended_at: kept.recorded.ended_at,
            same_fingerprint: false,
        };
        let report = &event.report;
        let webhook_id = self.webhooks[event.webhook].id;
        let signed = |kept: &Kept| {
            let mut reports = kept.reports.iter();
            report.caller.is_some()
                && report.duration_seconds.is_some()
                && reports.any(|r| {
                    r.webhook_id == webhook_id
                        && r.caller == report.caller
                        && r.duration_seconds == report.duration_seconds.map(i64::from)
                })
        };
        let by_caller =
            |kept: &&Kept| report.caller.is_some() && kept.recorded.caller == report.caller;
        let by_ref_id =
            |kept: &&Kept| report.ref_id.is_some() && kept.recorded.ref_id == report.ref_id;
        CallCandidates {
            by_ref_id: self
                .calls
                .values()
                .filter(by_ref_id)
                .map(sighting)
                .collect(),
            by_call_id: report
                .call_uuid()
                .and_then(|id| self.calls.get(&id))
                .map(sighting),
            by_caller: self
                .calls
                .values()
                .filter(|kept| by_caller(kept) || signed(kept))
                .map(|kept| CallCandidate {
                    same_fingerprint: signed(kept),
                    ..sighting(kept)
                })
                .collect(),
        }
    }

    /// Locks, reads anew, decides in order of reception, and writes: one transaction.
    pub fn settle(&mut self, mut lines: Vec<BatchRow>) -> Vec<Decision> {
        // Another worker settled some of them since: the whole batch runs again without those.
        lines.retain(|l| l.trigger != Trigger::Fresh || !self.rows.contains_key(&l.order.event_id));
        // What a row stands for is read under its lock.
        for line in &mut lines {
            let row = self.rows.get(&line.order.event_id);
            line.earlier_call = row.and_then(|row| row.call_id);
            line.before = row.map(Self::previous);
        }
        let webhooks = self.webhook_by_id();
        sort_by_reception(&mut lines);
        lines.dedup_by_key(|l| l.order);
        let keys = calls_to_lock(&lines, &webhooks);
        let kept = keys.iter().filter_map(|key| self.calls.get(&key.call_id));
        let mut books = LockedCalls::new(kept.map(|kept| self.call(kept)).collect::<Vec<_>>())
            .with_open_rows(self.open_rows.clone());
        decide_lines(&mut lines, &webhooks, &mut books);
        for call in books.all_calls() {
            self.write_call(call);
        }
        for (line, draft) in withdrawals_in_order(&lines) {
            self.write_draft(line, &draft);
        }
        let mut decisions = Vec::with_capacity(lines.len());
        for line in lines {
            let Some(decision) = line.decision.clone() else {
                continue;
            };
            let (status, reason) = (decision.status(), decision.reason());
            let read = Detail::of_row(status, reason, decision.detail.to_json().as_deref());
            assert_eq!(read.ok().as_ref(), Some(&decision.detail));
            self.write_row(&line, &decision);
            decisions.push(decision);
        }
        decisions
    }

    /// A person's apply takes a held row's place.
    pub fn close(&mut self, id: Uuid) {
        let line = self.line(&self.rows[&id].event, Trigger::Closed);
        self.settle(vec![line]);
        self.ignore(id);
    }

    /// Closes a row as a person does: its repeats are closed, too (M8, M12).
    pub fn ignore(&mut self, id: Uuid) {
        if self.stays_by_its_effect(id) {
            return;
        }
        let lines = self.sight(&[Work::Ignored(id)]);
        self.settle(lines);
        let event = &self.rows[&id].event;
        let keys = closing_keys(self.webhooks[event.webhook].id, &event.report);
        let row = self.rows.get_mut(&id).expect("its row");
        row.ignored = true;
        row.waiting = false;
        if !matches!(row.status, Status::Held | Status::Unmatched) {
            return;
        }
        let open = OpenRow {
            order: row.event.place,
            reason: row.reason,
            ignored: true,
        };
        for key in keys {
            self.open_rows.insert(key, open.clone());
        }
    }

    /// It sets or reverses its call's value, whatever its row says (M8): it is not closed.
    fn stays_by_its_effect(&self, id: Uuid) -> bool {
        let row = &self.rows[&id];
        let kept = row.call_id.and_then(|call_id| self.calls.get(&call_id));
        kept.is_some_and(|kept| holds_money(&self.call(kept), row.event.place))
    }

    pub fn unignore(&mut self, id: Uuid) {
        let order = self.rows[&id].event.place;
        self.open_rows.retain(|_, open| open.order != order);
        self.rows.get_mut(&id).expect("its row").ignored = false;
        let lines = self.sight(&[Work::Replayed(id)]);
        self.settle(lines);
    }

    fn digest(&self, id: Uuid) -> Option<Uuid> {
        let event = &self.rows[&id].event;
        report_digest(self.webhooks[event.webhook].id, &event.report)
    }

    /// What stands in the ledger under an event, on one call.
    fn posted(&self, event: Uuid, call_id: Uuid) -> (i64, i64) {
        let own = |e: &&Entry| e.event == Some(event) && e.call_id == call_id;
        let sum = |sum: (i64, i64), e: &Entry| (sum.0 + e.revenue, sum.1 + e.credit);
        self.ledger.iter().filter(own).fold((0, 0), sum)
    }

    fn write_draft(&mut self, line: &BatchRow, draft: &PostingDraft) {
        let publisher = draft.payee.map(|p| p.publisher_id);
        let call_id = draft.call.call_id;
        match draft.cause {
            PostingCause::Report => {
                let (revenue, credit) = (draft.revenue_delta_cents, draft.credit_delta_cents);
                assert_eq!(
                    self.posted(line.order.event_id, call_id),
                    (0, 0),
                    "invariant 4: a second posting of one event on one call: {draft:?}"
                );
                self.post(
                    Some(line.order.event_id),
                    call_id,
                    publisher,
                    revenue,
                    credit,
                );
            }
            PostingCause::Left { report, rest, .. } => {
                let split = split_withdrawal(draft, self.posted(report.event_id, call_id));
                let shares = [
                    (Some(report.event_id), split.own),
                    (rest.map(|r| r.event_id), split.rest),
                ];
                for (event, (revenue, credit)) in shares {
                    if (revenue, credit) == (0, 0) {
                        continue;
                    }
                    self.post(event, call_id, publisher, revenue, credit);
                    let brings = rest
                        .filter(|r| Some(r.event_id) == event)
                        .and_then(|r| self.rows.get_mut(&r.event_id));
                    if let Some(row) = brings.filter(|row| row.status != Status::Matched) {
                        row.status = Status::Matched;
                        row.reason = None;
                    }
                    if let Some(row) = event.and_then(|id| self.rows.get_mut(&id))
                        && row.call_id == Some(call_id)
                    {
                        row.credit += credit;
                    }
                }
            }
        }
    }

    pub fn call(&self, kept: &Kept) -> LockedCall {
        let r = &kept.recorded;
        LockedCall {
            key: key(r.id),
            buyer_id: r.buyer_id,
            caller: r.caller.clone(),
            duration_seconds: r.duration_seconds.into(),
            ended_at: r.ended_at,
            value_cents: r.value_cents,
            value_from_webhook: r.value_from_webhook,
            qualified: r.qualified,
            credit_cents: r.credit_cents,
            estimate: r.estimate,
            current_terms: r.assignment_id.and_then(|id| self.payees.get(&id).copied()),
            posted_terms: r.terms,
            released_terms: None,
            reported_by: kept.reported_by,
            reports: kept.reports.clone(),
            changed: false,
        }
    }

    fn write_call(&mut self, call: &LockedCall) {
        let kept = self
            .calls
            .get_mut(&call.key.call_id)
            .expect("it was locked");
        if call.changed {
            kept.recorded.value_cents = call.value_cents;
            kept.recorded.value_from_webhook = call.value_from_webhook;
            kept.recorded.qualified = call.qualified;
            kept.recorded.credit_cents = call.credit_cents;
            kept.recorded.terms = call.posted_terms;
            kept.reported_by = call.reported_by;
        }
        for report in call.reports.iter().filter(|r| r.dirty) {
            kept.reports.retain(|r| r.order != report.order);
            if report.role == ClaimState::Withdrawn {
                continue;
            }
            kept.reports.push(CallReport {
                dirty: false,
                ..report.clone()
            });
        }
        kept.reports.sort_by_key(|r| r.order);
    }

    fn write_row(&mut self, line: &BatchRow, decision: &Decision) {
        let id = line.order.event_id;
        let applied_from = self.rows.get(&id).and_then(|row| row.applied_from);
        let row = Row {
            status: decision.status(),
            reason: decision.reason(),
            strategy: decision.strategy,
            call_id: decision.call_id,
            credit: decision
                .call_id
                .map_or(0, |call_id| self.posted(id, call_id).1),
            waiting: wants_another_try(line),
            changed: false,
            ignored: false,
            applied_from,
            event: self.event(line),
        };
        self.rows.insert(id, row);
        for draft in &decision.postings {
            self.write_draft(line, draft);
            let own = draft.cause == PostingCause::Report;
            if let Some(row) = self.rows.get_mut(&id).filter(|_| own) {
                row.credit += draft.credit_delta_cents;
            }
        }
        for displaced in &decision.displaced {
            if let Some(row) = self.rows.get_mut(&displaced.order.event_id)
                && matches!(row.status, Status::Matched | Status::Held)
            {
                (row.status, row.reason) = match displaced.repeats {
                    None => (Status::Held, Some(Reason::ReplacedHeuristicMatch)),
                    Some(_) => (Status::Duplicate, Some(Reason::RepeatOfOpenReport)),
                };
            }
        }
        let Some(digest) = self.digest(id) else {
            return;
        };
        if decision.status() == Status::Held {
            let open = OpenRow {
                order: line.order,
                reason: decision.reason(),
                ignored: false,
            };
            self.open_rows.insert(digest, open);
        } else if line.exists
            && self
                .open_rows
                .get(&digest)
                .is_some_and(|open| open.order == line.order)
        {
            self.open_rows.remove(&digest);
        }
    }

    /// Money stands under it, on some call (M8).
    pub fn stands_for_money(&self, id: Uuid) -> bool {
        let mut by_call: BTreeMap<Uuid, (i64, i64)> = BTreeMap::new();
        for entry in self.ledger.iter().filter(|e| e.event == Some(id)) {
            let sum = by_call.entry(entry.call_id).or_default();
            *sum = (sum.0 + entry.revenue, sum.1 + entry.credit);
        }
        by_call.values().any(|sum| *sum != (0, 0))
    }

    /// Invariant 3: the same reports in one pass, in order of reception, on an empty ledger.
    pub fn one_pass(&self) -> Store {
        let mut store = Store {
            payees: self.payees.clone(),
            ..Store::new()
        };
        for kept in self.calls.values() {
            store.record(&copy_of(&kept.recorded));
        }
        let work: Vec<Work> = self
            .rows
            .values()
            .map(|row| Work::Fresh(row.event.clone()))
            .collect();
        let lines = store.sight(&work);
        store.settle(lines);
        store
    }
}

fn copy_of(r: &StoredCall) -> CallRecord {
    CallRecord {
        id: r.id,
        ref_id: Some(r.ref_id.clone()),
        caller: Some(
            r.caller
                .clone()
                .map(|e164| trueup_domain::call_record::Caller {
                    raw: e164.clone(),
                    e164: Some(e164),
                }),
        ),
        tracking_number: None,
        duration_seconds: r.duration_seconds,
        started_at: r.started_at,
        ended_at: r.ended_at,
        buyer_id: Some(r.buyer_id),
        assignment_id: Some(r.assignment_id),
        value_cents: Some(r.estimate.value_cents),
        qualified: Some(r.estimate.qualified),
    }
}

/// A call as plain as can be: its number is its ref_id, its id and, in a way, its caller.
pub fn plain_call(number: u128, ended_at: Timestamp, assignment: Option<u128>) -> CallRecord {
    let caller = format!("+1305555{:04}", number % 7);
    CallRecord {
        id: Uuid::from_u128(0xCA11_0000 + number),
        ref_id: Some(Some(format!("R{number}"))),
        caller: Some(Some(trueup_domain::call_record::Caller {
            raw: caller.clone(),
            e164: Some(caller),
        })),
        tracking_number: None,
        duration_seconds: 60 + i32::try_from(number % 5).expect("small") * 31,
        started_at: ended_at,
        ended_at,
        buyer_id: None,
        assignment_id: Some(assignment.map(Uuid::from_u128)),
        value_cents: None,
        qualified: None,
    }
}

/// Three publishers: two of a share, one of a flat amount. The assignments are 1 to 3.
fn payees() -> HashMap<Uuid, Payee> {
    let terms = [
        Terms::RevShare {
            percent_e4: 600_000,
        },
        Terms::RevShare {
            percent_e4: 333_333,
        },
        Terms::Flat {
            amount_cents: 1_800,
        },
    ];
    let numbered = (1_u128..).zip(terms);
    numbered
        .map(|(n, terms)| {
            (
                Uuid::from_u128(n),
                Payee {
                    publisher_id: Uuid::from_u128(100 + n),
                    terms,
                },
            )
        })
        .collect()
}

/// Two webhooks with the defaults.
fn webhooks() -> Vec<WebhookRules> {
    [11, 12]
        .map(|n| WebhookRules::with_defaults(Uuid::from_u128(n), ACCOUNT))
        .to_vec()
}

/// A report that names its call by ref_id.
pub fn by_ref_id(number: u128, payout: Option<i64>) -> Report {
    let payout = payout.map_or(Payout::Absent, Payout::Cents);
    Report {
        ref_id: Some(format!("R{number}")),
        payout,
        ..Report::default()
    }
}
