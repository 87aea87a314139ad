//! The pure half of settling a batch: what a row is on its way, in which order rows are decided, which
//! calls are locked for them, and what is decided. The store finds, locks and writes around it.

use std::collections::{BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use trueup_event::raw_event::{RawEvent, RawRequest};
use trueup_event::reason::{Reason, RefusalReason, Status, Strategy};
use trueup_event::verdict::Verdict;
use uuid::Uuid;

use crate::call_application::{holds_money, withdraw_report};
use crate::crediting::ReceptionOrder;
use crate::decision::{
    CallCandidate, CallCandidates, Decision, DecisionInput, PostingDraft, Trigger, decide_report,
    expected_match, find_better_call, may_match_later, no_report,
};
use crate::locked_calls::{CallKey, CallReport, ClaimState, Fingerprint, LockedCall, LockedCalls};
use crate::matching::{MatchResult, is_in_window};
use crate::reading::read_request;
use crate::report::{ParsedRequest, Payout, ReadError, Report, SlotReading};
use crate::webhook_settings::WebhookRules;

/// One thing to settle.
#[derive(Debug, Clone)]
pub enum SettleJob {
    /// From the broker. One that is settled already is skipped.
    Fresh(RawEvent),
    /// A row that is there already: tried again (M7), replayed or assigned (M8).
    Stored {
        id: Uuid,
        received_at: Timestamp,
        course: Trigger,
        /// The person who asks for it.
        actor: Option<String>,
    },
    /// A person's own report about the call of an earlier row (M8).
    Apply {
        id: Uuid,
        received_at: Timestamp,
        from_id: Uuid,
        from_received_at: Timestamp,
        payout_cents: i64,
        call_id: Uuid,
        actor: String,
    },
}

/// What became of one piece of work.
#[derive(Debug, Clone)]
pub struct SettleResult {
    pub id: Uuid,
    pub account_id: Uuid,
    pub received_at: Timestamp,
    /// Absent: it was settled before, nothing was done now.
    pub decision: Option<Decision>,
    /// What it took back on the call that it stood on before.
    pub left: Option<PostingDraft>,
    /// A person would close it, and it stays on its call: without it the call would be worth something else.
    pub stays: bool,
    pub report: Report,
    pub slots: Vec<SlotReading>,
}

impl SettleResult {
    /// One that was settled before; nothing is done now.
    pub fn settled_before(event: &RawEvent) -> SettleResult {
        SettleResult {
            id: event.id,
            account_id: event.account_id,
            received_at: event.received_at,
            decision: None,
            left: None,
            stays: false,
            report: Report::default(),
            slots: Vec::new(),
        }
    }
}

/// One row on its way through a batch.
#[derive(Debug, Clone)]
pub struct BatchRow {
    pub order: ReceptionOrder,
    pub account_id: Uuid,
    pub webhook_id: Uuid,
    pub trigger: Trigger,
    /// The row exists: it is updated, not inserted.
    pub exists: bool,
    pub request: Option<RawRequest>,
    pub source_ip: Option<std::net::IpAddr>,
    pub applied_from: Option<Uuid>,
    /// The call that the row stood for before, if any.
    pub earlier_call: Option<Uuid>,
    pub count: i32,
    pub refused: Option<Reason>,
    pub reading: ParsedRequest,
    pub candidates: CallCandidates,
    pub decision: Option<Decision>,
    /// What the row says, if it exists.
    pub before: Option<Box<PreviousRow>>,
    /// The person who asks for it; nobody, if it is decided by itself.
    pub actor: Option<String>,
    /// It is decided anew even if its call still fits: what had put it there was taken back.
    pub must_leave: bool,
    /// The call that it stood on until now and has left.
    pub left_call: Option<Uuid>,
    /// What its leaving moves; see [`withdrawals_in_order`].
    pub withdrawal: Option<Withdrawal>,
}

/// A row has left its call, as the so-maniest of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    pub step: u32,
    pub draft: PostingDraft,
}

/// The rows that have left their calls, in the order in which they did: what one lets go another may have
/// brought for a moment.
pub fn withdrawals_in_order(lines: &[BatchRow]) -> Vec<(&BatchRow, PostingDraft)> {
    let mut left: Vec<(u32, &BatchRow, PostingDraft)> = lines
        .iter()
        .filter_map(|line| {
            let withdrawal = line.withdrawal?;
            Some((withdrawal.step, line, withdrawal.draft))
        })
        .collect();
    left.sort_by_key(|(step, ..)| *step);
    left.into_iter()
        .map(|(_, line, draft)| (line, draft))
        .collect()
}

/// What a row said before it was settled again.
#[derive(Debug, Clone)]
pub struct PreviousRow {
    pub status: String,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    pub strategy: Option<Strategy>,
    pub report: Result<Report, ReadError>,
}

impl BatchRow {
    /// A row of an event from the broker.
    pub fn of_event(event: RawEvent, exists: bool) -> BatchRow {
        let refused = event.refusal.as_ref().map(|r| r.reason);
        let count = event
            .refusal
            .as_ref()
            .map_or(1, |r| i32::try_from(r.count).unwrap_or(i32::MAX));
        BatchRow {
            order: ReceptionOrder {
                received_at: event.received_at,
                position: event.position,
                event_id: event.id,
            },
            account_id: event.account_id,
            webhook_id: event.webhook_id,
            trigger: Trigger::Fresh,
            exists,
            request: event.request,
            source_ip: Some(event.source_ip),
            applied_from: None,
            earlier_call: None,
            count,
            refused,
            reading: ParsedRequest {
                report: Ok(Report::default()),
                slots: Vec::new(),
                notes: Vec::new(),
            },
            candidates: CallCandidates::default(),
            decision: None,
            before: None,
            actor: None,
            must_leave: false,
            left_call: None,
            withdrawal: None,
        }
    }

    /// The new row of a person's apply: the report of the row it is made from, with the person's amount.
    pub fn with_manual_amount(
        self,
        id: Uuid,
        received_at: Timestamp,
        payout_cents: i64,
        call_id: Uuid,
    ) -> BatchRow {
        let report = self.reading.report.unwrap_or_default();
        BatchRow {
            order: ReceptionOrder {
                received_at,
                position: 0,
                event_id: id,
            },
            trigger: Trigger::Applied(call_id),
            exists: false,
            request: None,
            source_ip: None,
            applied_from: Some(self.order.event_id),
            earlier_call: None,
            refused: None,
            count: 1,
            before: None,
            reading: ParsedRequest {
                report: Ok(Report {
                    payout: Payout::Cents(payout_cents),
                    payout_raw: None,
                    // The person has looked at these.
                    currency: None,
                    rejection_word: None,
                    ..report
                }),
                slots: Vec::new(),
                notes: Vec::new(),
            },
            ..self
        }
    }

    /// Tried again in vain (M7): the row says already what would be written, six times in a day.
    pub fn is_as_before(&self) -> bool {
        let (Some(before), Some(decision)) = (&self.before, &self.decision) else {
            return false;
        };
        self.trigger.is_retry()
            && decision.status() == Status::Unmatched
            && before.status == decision.status().code()
            && before.reason == decision.reason()
            && before.detail == decision.detail.to_json()
            && before.report == self.reading.report
    }

    /// A call of the row's account.
    fn call_key(&self, call_id: Uuid) -> CallKey {
        CallKey {
            account_id: self.account_id,
            call_id,
        }
    }

    /// What its retries are known by (M4).
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::of_report(self.webhook_id, self.report()?)
    }

    pub fn report(&self) -> Option<&Report> {
        if self.refused.is_some() {
            None
        } else {
            self.reading.report.as_ref().ok()
        }
    }
}

/// What the caller hears of a row.
pub fn result_of_row(line: BatchRow) -> SettleResult {
    SettleResult {
        id: line.order.event_id,
        account_id: line.account_id,
        received_at: line.order.received_at,
        decision: line.decision,
        left: line.withdrawal.map(|withdrawal| withdrawal.draft),
        stays: line.trigger == Trigger::Ignored
            && line.earlier_call.is_some()
            && line.left_call.is_none(),
        report: line.reading.report.unwrap_or_default(),
        slots: line.reading.slots,
    }
}

/// Reads each row's request (X).
pub fn read_reports(lines: &mut [BatchRow], webhooks: &HashMap<Uuid, WebhookRules>) {
    for line in lines {
        // What stands on a call, or waits for a person, is not read anew by itself when a setting changes.
        let stands = |before: &PreviousRow| before.status != Status::Unmatched.code();
        if line.trigger.is_retry() && line.before.as_deref().is_some_and(stands) {
            line.request = None;
        }
        // Rows whose raw request is gone were read from their columns when they were loaded.
        if let (Some(request), Some(webhook), None) = (
            &line.request,
            webhooks.get(&line.webhook_id),
            line.applied_from,
        ) {
            line.reading = read_request(request, &webhook.read);
        }
    }
}

/// Every call that may change or whose claims decide, so that one statement locks them all in order.
pub fn calls_to_lock(
    lines: &[BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
) -> BTreeSet<CallKey> {
    let of_line = |line| calls_of_line(line, webhooks);
    lines.iter().flat_map(of_line).collect()
}

fn calls_of_line(line: &BatchRow, webhooks: &HashMap<Uuid, WebhookRules>) -> Vec<CallKey> {
    let mut calls: Vec<Uuid> = line.earlier_call.into_iter().collect();
    match (line.trigger, webhooks.get(&line.webhook_id), line.report()) {
        (Trigger::Assigned(call_id) | Trigger::Applied(call_id), _, _) => calls.push(call_id),
        (_, webhook, report) => {
            let named = &line.candidates;
            calls.extend(named.by_ref_id.iter().map(|hit| hit.call_id));
            calls.extend(named.by_call_id.iter().map(|hit| hit.call_id));
            if let (Some(webhook), Some(report)) = (webhook, report) {
                let theirs = i64::from(report.duration_seconds.unwrap_or(0));
                let fits = |hit: &&CallCandidate| {
                    let off = hit.duration_seconds.saturating_sub(theirs);
                    off.abs() <= webhook.duration_tolerance_seconds || hit.same_fingerprint
                };
                calls.extend(named.by_caller.iter().filter(fits).map(|hit| hit.call_id));
            }
        }
    }
    calls
        .into_iter()
        .map(|call_id| line.call_key(call_id))
        .collect()
}

/// What somebody else holds, where a batch does not wait for locks (V12).
#[derive(Debug, Default)]
pub struct BusyLocks {
    pub calls: BTreeSet<CallKey>,
    /// By account and number.
    pub callers: BTreeSet<(Uuid, String)>,
}

impl BusyLocks {
    /// Splits off the rows that cannot be decided now, and with them all of the same caller, so that guesses
    /// stay in their order (M15).
    pub fn split_off(
        mut self,
        lines: Vec<BatchRow>,
        webhooks: &HashMap<Uuid, WebhookRules>,
    ) -> (Vec<BatchRow>, Vec<BatchRow>) {
        let caller_of = |line: &BatchRow| {
            let caller = line.report().and_then(|report| report.caller.clone());
            caller.map(|caller| (line.account_id, caller))
        };
        let waits = |line: &BatchRow, busy: &BusyLocks| {
            let mut calls = calls_of_line(line, webhooks).into_iter();
            caller_of(line).is_some_and(|caller| busy.callers.contains(&caller))
                || calls.any(|call| busy.calls.contains(&call))
        };
        // Where one of a caller's rows waits, all do: those that move together stay together (M12).
        for line in &lines {
            if waits(line, &self) {
                self.callers.extend(caller_of(line));
            }
        }
        let (aside, free) = lines.into_iter().partition(|line| waits(line, &self));
        (free, aside)
    }
}

/// The order in which rows are decided, whatever the order in which they came.
pub fn sort_by_reception(lines: &mut [BatchRow]) {
    lines.sort_by_key(|line| line.order);
}

/// Decides about the rows, each seeing what those before it did. One that stands on its call by a guess
/// and has no better one stays as it is, without a decision.
pub fn decide_lines(
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
    books: &mut LockedCalls,
) {
    // What a person has decided anew leaves first: it leads nobody to where it stood.
    let mut step = 0;
    for line in lines.iter_mut().filter(|line| !line.trigger.is_retry()) {
        leave_call(line, books, &mut step);
    }
    expect_matches(lines, webhooks, books);
    let mut anew: Vec<bool> = lines
        .iter()
        .map(|line| is_decided_anew(line, line.trigger == Trigger::Changed, webhooks, books))
        .collect();
    for (line, _) in lines.iter().zip(&anew).filter(|(_, anew)| !**anew) {
        name_in_place(line, webhooks, books);
    }
    // All of them leave before any is placed: what one lets go another may take (M12).
    for (line, anew) in lines.iter_mut().zip(&anew) {
        if *anew && line.trigger.is_retry() {
            leave_call(line, books, &mut step);
        }
    }
    for index in find_stranded(lines, webhooks, books) {
        leave_call(&mut lines[index], books, &mut step);
        anew[index] = true;
    }
    for (line, anew) in lines.iter_mut().zip(anew) {
        if anew {
            let mut decision = decide_line(line, webhooks, books);
            if line.refused.is_none() {
                decision
                    .detail
                    .reading_notes
                    .clone_from(&line.reading.notes);
            }
            line.decision = Some(decision);
        }
    }
}

/// Tells every row where those of its fingerprint are going to stand by their ids, whichever is decided first
/// (M12).
fn expect_matches(
    lines: &[BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
    books: &mut LockedCalls,
) {
    for line in lines {
        if let Some(case) = case_of_line(line, webhooks)
            && let Some((fingerprint, expected)) = expected_match(&case, books)
        {
            books.expect_match(fingerprint, expected);
        }
    }
}

fn case_of_line<'a>(
    line: &'a BatchRow,
    webhooks: &'a HashMap<Uuid, WebhookRules>,
) -> Option<DecisionInput<'a>> {
    Some(DecisionInput {
        order: line.order,
        webhook: webhooks.get(&line.webhook_id)?,
        report: line.report()?,
        candidates: &line.candidates,
        trigger: line.trigger,
        stands_on: line.earlier_call.filter(|_| line.left_call.is_none()),
        left_call: line.left_call,
    })
}

/// The rows that stand where one of their fingerprint has just left, by a guess that the call does not bear
/// out: that one may have been all that led them there (M12, M14).
fn find_stranded(
    lines: &[BatchRow],
    webhooks: &HashMap<Uuid, WebhookRules>,
    books: &LockedCalls,
) -> Vec<usize> {
    let left: HashSet<(Fingerprint, Uuid)> = lines
        .iter()
        .filter_map(|line| line.fingerprint().zip(line.left_call))
        .collect();
    let is_stranded = |line: &BatchRow| {
        let place = line.fingerprint().zip(line.earlier_call);
        line.left_call.is_none()
            && line.trigger.is_retry()
            && place.is_some_and(|place| left.contains(&place))
            && is_decided_anew(line, true, webhooks, books)
    };
    let lines = lines.iter().enumerate();
    lines
        .filter(|(_, line)| is_stranded(line))
        .map(|(index, _)| index)
        .collect()
}

/// False for a row that is tried again and stands where it should (M9).
fn is_decided_anew(
    line: &BatchRow,
    call_changed: bool,
    webhooks: &HashMap<Uuid, WebhookRules>,
    books: &LockedCalls,
) -> bool {
    let Some(before) = line.before.as_ref().filter(|_| line.trigger.is_retry()) else {
        return !line.trigger.only_leaves();
    };
    if before.status == Status::Unmatched.code() || line.must_leave {
        return true;
    }
    let Some(case) = case_of_line(line, webhooks) else {
        return false;
    };
    if before.strategy == Some(Strategy::Person) {
        return false;
    }
    // A displaced one, and a repeat of an open one, may name a call and stand nowhere.
    let may_stand_nowhere = matches!(
        before.reason,
        Some(Reason::ReplacedHeuristicMatch | Reason::RepeatOfOpenReport)
    );
    let stands_on = line.earlier_call.filter(|call_id| {
        match report_on(line, books, *call_id).map(|report| report.role) {
            // Its row may say how its payout fared before it was displaced.
            Some(ClaimState::Displaced) => false,
            role => !may_stand_nowhere || role.is_some_and(ClaimState::stands),
        }
    });
    let is_let_go = || {
        call_changed
            && stands_on.is_some_and(|call_id| {
                !is_named(line, books, call_id) && !is_admitted(line, &case, books, call_id)
            })
    };
    match find_better_call(&case, books) {
        // A guess among the calls of its ref_id is better than one by caller only on the caller's own call,
        // or where that one does not hold.
        Some(MatchResult::Call {
            call_id,
            strategy: Strategy::RefId,
            guess: true,
            ..
        }) if before.strategy == Some(Strategy::CallerDuration) && stands_on.is_some() => {
            stands_on != Some(call_id) && (is_of_same_caller(&case, books, call_id) || is_let_go())
        }
        Some(MatchResult::Call { call_id, .. }) => stands_on != Some(call_id),
        // Nothing but a further call puts a choice in doubt.
        Some(MatchResult::Ambiguous { .. }) => {
            line.trigger != Trigger::Again
                && stands_on.is_some_and(|call_id| !is_named(line, books, call_id))
        }
        _ => is_let_go(),
    }
}

/// A guess whose call is named by its id by now, since a copy gave it that id, is no guess any more (M9).
fn name_in_place(line: &BatchRow, webhooks: &HashMap<Uuid, WebhookRules>, books: &mut LockedCalls) {
    let (Some(case), Some(stands_on)) = (case_of_line(line, webhooks), line.earlier_call) else {
        return;
    };
    let is_named = line.trigger.is_retry()
        && matches!(
            find_better_call(&case, books),
            Some(MatchResult::Call { call_id, guess: false, .. }) if call_id == stands_on
        );
    let key = line.call_key(stands_on);
    if let Some(call) = books.call_mut(key).filter(|_| is_named) {
        call.name_report(line.order);
    }
}

/// The row's own report on that call, whether it stands there or was displaced from it.
fn report_on<'b>(line: &BatchRow, books: &'b LockedCalls, call_id: Uuid) -> Option<&'b CallReport> {
    let call = books.call(line.call_key(call_id))?;
    let mut reports = call.reports.iter();
    reports.find(|report| report.order.event_id == line.order.event_id)
}

/// It stands there beyond doubt: a copy of the call changes nothing (M14).
fn is_named(line: &BatchRow, books: &LockedCalls, call_id: Uuid) -> bool {
    let report = report_on(line, books, call_id);
    report.is_some_and(|report| report.role.stands() && !report.guess)
}

fn is_of_same_caller(case: &DecisionInput<'_>, books: &LockedCalls, call_id: Uuid) -> bool {
    let key = CallKey {
        account_id: case.webhook.account_id,
        call_id,
    };
    let call = books.call(key);
    call.is_some_and(|call| call.caller.is_some() && call.caller == case.report.caller)
}

/// A guess holds as long as the call, as it is recorded now, still fits the report (M14).
fn is_admitted(
    line: &BatchRow,
    case: &DecisionInput<'_>,
    books: &LockedCalls,
    call_id: Uuid,
) -> bool {
    let is_guess_by_caller = line
        .before
        .as_ref()
        .is_some_and(|before| before.strategy == Some(Strategy::CallerDuration));
    if !is_guess_by_caller {
        let hits = &line.candidates.by_ref_id;
        return hits.iter().any(|hit| hit.call_id == call_id);
    }
    books.call(line.call_key(call_id)).is_some_and(|call| {
        let report = case.report;
        let theirs = i64::from(report.duration_seconds.unwrap_or(0));
        let off = call
            .duration_seconds
            .saturating_sub(theirs)
            .saturating_abs();
        let ours = case.webhook.buyer_id.is_none() || case.webhook.buyer_id == call.buyer_id;
        call.caller == report.caller
            && off <= case.webhook.duration_tolerance_seconds
            && is_in_window(
                call.ended_at,
                line.order.received_at,
                case.webhook.match_window_hours,
            )
            && ours
    })
}

/// A report is about one call at most: what it did on the one that it stood on is taken back (M13).
fn leave_call(line: &mut BatchRow, books: &mut LockedCalls, step: &mut u32) {
    let Some(call_id) = line.earlier_call.filter(|_| line.exists) else {
        return;
    };
    let key = line.call_key(call_id);
    // A held row may hold money: it came before the report that it takes back. That is not closed (M8).
    let is_in_effect = |call: &LockedCall| holds_money(call, line.order);
    if line.trigger == Trigger::Ignored && books.call(key).is_some_and(is_in_effect) {
        return;
    }
    line.left_call = Some(call_id);
    let Some(call) = books.call_mut(key) else {
        return;
    };
    if call.standing(line.order.event_id).is_some() {
        let cause = line.trigger.leave_cause();
        line.withdrawal = Some(Withdrawal {
            step: *step,
            draft: withdraw_report(call, line.order, cause),
        });
        *step = step.saturating_add(1);
    }
}

/// The calls that nobody claims any more: reports that were `already_reported` are tried again (M9).
pub fn freed_calls(lines: &[BatchRow], books: &LockedCalls) -> BTreeSet<CallKey> {
    let left = lines.iter().filter_map(|line| line.withdrawal);
    left.map(|withdrawal| withdrawal.draft.call)
        .filter(|key| books.call(*key).is_some_and(|call| !call.is_claimed()))
        .collect()
}

fn decide_line(
    line: &BatchRow,
    webhooks: &HashMap<Uuid, WebhookRules>,
    books: &mut LockedCalls,
) -> Decision {
    if let Some(reason) = line.refused {
        // The door gives no other reason; what does not come from it is for a person.
        let verdict =
            RefusalReason::of_reason(reason).map_or(Verdict::ProcessingFailed, Verdict::Refused);
        return Decision::without_call(verdict);
    }
    if line.trigger == Trigger::Revoked {
        return Decision {
            strategy: Some(Strategy::Person),
            call_id: line.earlier_call,
            ..Decision::without_call(Verdict::Undone)
        };
    }
    if let Err(why) = &line.reading.report {
        return no_report(*why);
    }
    match case_of_line(line, webhooks) {
        Some(case) => decide_report(&case, books),
        None => Decision::without_call(Verdict::ProcessingFailed),
    }
}

/// True if the row waits for its call (M7), or for a better one than a guess gave it (M9).
pub fn wants_another_try(line: &BatchRow) -> bool {
    if matches!(line.trigger, Trigger::Assigned(_) | Trigger::Applied(_)) {
        return false;
    }
    match (&line.decision, line.report()) {
        (Some(decision), Some(report)) => may_match_later(decision, report),
        _ => false,
    }
}
