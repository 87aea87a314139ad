//! A report meets its call: what it does to the call's money, whom it displaces, what it is held for.

use trueup_event::reason::{Detail, Reason, Status, Strategy};
use uuid::Uuid;

use crate::crediting::{DUPLICATE_WINDOW_MICROS, Effect, Folded, ReceptionOrder, micros_between};
use crate::decision_input::{DecisionInput, Trigger};
use crate::decision_outcome::{
    CallChange, Decision, DisplacedReport, LeaveCause, PostingCause, PostingDraft,
};
use crate::locked_calls::{CallReport, ClaimState, LockedCall, MAX_FOLDED_REPORTS, MoneyDelta};
use crate::webhook_settings::ConflictPolicy;

/// Equal reports this close (60 s) were sent at once, and which of two workers was first says nothing:
/// the one that is settled second is the retry (seed). Further apart, the older one came late (V3).
const AT_ONCE_MICROS: i64 = 60_000_000;

/// How the call was found.
pub struct MatchInfo {
    pub strategy: Strategy,
    pub by_signature: bool,
    pub guess: bool,
}

/// The report's part in the call's money, decided and laid into the books.
pub fn apply_to_call(
    case: &DecisionInput<'_>,
    call: &mut LockedCall,
    hit: MatchInfo,
    detail: Detail,
) -> Decision {
    let left_call = case.left_call.filter(|left| *left != call.key.call_id);
    let mut decision = Decision {
        status: Status::Matched,
        reason: None,
        detail: Detail {
            late: case.trigger.is_retry() && left_call.is_none(),
            left_call,
            ..detail
        },
        strategy: Some(hit.strategy),
        call_id: Some(call.key.call_id),
        guess: hit.guess,
        postings: Vec::new(),
        displaced: Vec::new(),
    };
    let Some(payout_cents) = case.report.payout.cents() else {
        // V6; it claims nothing and leaves no signature (M5).
        decision.reason = Some(Reason::NoPayout);
        return decision;
    };
    let report = CallReport {
        order: case.order,
        webhook_id: case.webhook.id,
        strategy: hit.strategy,
        role: ClaimState::Folded,
        exempt_from_v2: matches!(case.trigger, Trigger::Applied(_)),
        by_person: matches!(case.trigger, Trigger::Applied(_) | Trigger::Assigned(_)),
        guess: hit.guess,
        payout_cents,
        caller: case.report.caller.clone(),
        duration_seconds: case.report.duration_seconds.map(i64::from),
        ref_id: case.report.ref_id.clone(),
        call_id_text: case.report.call_id.clone(),
        dirty: true,
    };
    if let Some(reason) = hold_reason(case, payout_cents, &mut decision.detail) {
        decision.status = Status::Held;
        decision.reason = Some(reason);
        if call.standing_but(report.order.event_id) >= MAX_FOLDED_REPORTS {
            // Held ones are bounded as well (V13): it claims nothing.
            decision.reason = Some(Reason::TooManyReports);
            return decision;
        }
        call.insert(CallReport {
            role: ClaimState::Held,
            ..report
        });
        return decision;
    }
    match room_for(case, call, &report) {
        Room::Fold => fold_in(case, call, report, &hit, &mut decision),
        Room::Repeat { of } => {
            decision.status = Status::Duplicate;
            decision.reason = Some(Reason::SamePayoutWithin15m);
            decision.detail.other_event = Some(of);
        }
        Room::None => {
            decision.status = Status::Held;
            decision.reason = Some(Reason::TooManyReports);
        }
    }
    decision
}

/// V8: reports that contradict themselves are for a person, unless the webhook says otherwise or the
/// report is a person's.
fn hold_reason(case: &DecisionInput<'_>, payout_cents: i64, detail: &mut Detail) -> Option<Reason> {
    // No hold keeps a rejected call's credit: a zero takes it back, and so does a full reversal, whatever is
    // said beside them. Whether a negative amount is one, its place in the fold tells.
    if matches!(case.trigger, Trigger::Applied(_)) || payout_cents <= 0 {
        return None;
    }
    if let Some(reason) = currency_conflict(case, detail) {
        return Some(reason);
    }
    let webhook = case.webhook;
    if let (ConflictPolicy::Hold, Some(word)) =
        (webhook.on_rejection_word, &case.report.rejection_word)
    {
        detail.word = Some(word.clone());
        return Some(Reason::StatusSaysRejected);
    }
    if payout_cents > webhook.payout_cap_cents {
        detail.cap_cents = Some(webhook.payout_cap_cents);
        return Some(Reason::PayoutOverCap);
    }
    None
}

fn currency_conflict(case: &DecisionInput<'_>, detail: &mut Detail) -> Option<Reason> {
    let ours = &case.webhook.read.currency;
    let theirs = case.report.currency.as_ref()?;
    let holds = case.webhook.on_currency_mismatch == ConflictPolicy::Hold;
    if !holds || theirs.eq_ignore_ascii_case(ours) {
        return None;
    }
    detail.word = Some(theirs.clone());
    detail.currency = Some(ours.clone());
    Some(Reason::CurrencyMismatch)
}

/// Whether a call's fold takes one more report (V13).
enum Room {
    Fold,
    /// It says what stands, and the fold has no room to keep it.
    Repeat {
        of: Uuid,
    },
    None,
}

fn room_for(case: &DecisionInput<'_>, call: &LockedCall, report: &CallReport) -> Room {
    let is_free = call.folded_but(report.order.event_id) < MAX_FOLDED_REPORTS;
    if is_free || matches!(case.trigger, Trigger::Applied(_)) {
        return Room::Fold;
    }
    let is_last = call
        .reports
        .iter()
        .all(|r| r.role != ClaimState::Folded || r.order <= report.order);
    let value_cents = call.value_cents.unwrap_or(0);
    if !is_last {
        return Room::None;
    }
    let takes_it_back = value_cents > 0
        && (report.payout_cents == 0 || report.payout_cents.checked_neg() == Some(value_cents));
    if takes_it_back {
        return Room::Fold;
    }
    let (folded, places) = call.fold_reports();
    let setter = folded
        .last_applied
        .and_then(|id| places.iter().find(|p| p.event_id == id));
    match setter {
        Some(setter)
            if report.payout_cents == value_cents
                && micros_between(setter.received_at, report.order.received_at)
                    <= DUPLICATE_WINDOW_MICROS =>
        {
            Room::Repeat {
                of: setter.event_id,
            }
        }
        _ => Room::None,
    }
}

fn fold_in(
    case: &DecisionInput<'_>,
    call: &mut LockedCall,
    report: CallReport,
    hit: &MatchInfo,
    decision: &mut Decision,
) {
    let place = report.order;
    let payout_cents = report.payout_cents;
    let before = (call.value_cents, call.credit_cents);
    let had_payee = call.payee_for().is_some();
    displace_guesses(call, &report, decision);
    call.insert(report);
    let (folded, places) = call.fold_reports();
    let effect = effect_at(&folded.effects, &places, place);
    let later = later_report(&folded, &places, place);
    let movement = call.apply_fold(&folded);
    decision.detail.value_before_cents = before.0;
    decision.detail.value_after_cents = call.value_cents;
    decision.detail.credit_before_cents = Some(before.1);
    decision.detail.credit_after_cents = Some(call.credit_cents);
    decision.postings.extend(draft_posting(call, movement));
    let displaces = !decision.displaced.is_empty();
    let overtaking = overtaking_duplicate(&folded, &places, place);
    match effect {
        Effect::Duplicate { of } => {
            become_duplicate(decision, hit, of);
            if call.value_cents != Some(payout_cents.max(0)) {
                decision.detail.value_changed_to_cents = call.value_cents;
            }
        }
        Effect::NotAReversal => {
            let conflict = currency_conflict(case, &mut decision.detail);
            decision.status = Status::Held;
            decision.reason = Some(conflict.unwrap_or(Reason::NegativePayout));
        }
        // A retry that was processed before the report it repeats: two workers, or two gateways' clocks.
        Effect::Applied | Effect::Reversed
            if !movement.changed && !displaces && overtaking.is_some() =>
        {
            if let Some(of) = overtaking {
                become_duplicate(decision, hit, of);
            }
        }
        Effect::Applied | Effect::Reversed
            if !movement.changed && !displaces && later.is_some() =>
        {
            decision.status = Status::Superseded;
            decision.reason = Some(Reason::OlderThanApplied);
            decision.detail.other_event = later;
        }
        Effect::Applied | Effect::Reversed => {
            decision.reason = matched_reason(case, decision, effect, movement, had_payee);
        }
    }
}

fn become_duplicate(decision: &mut Decision, hit: &MatchInfo, of: Uuid) {
    decision.status = Status::Duplicate;
    decision.reason = Some(if hit.by_signature {
        Reason::RepeatOfMatchedReport
    } else {
        Reason::SamePayoutWithin15m
    });
    decision.detail.other_event = Some(of);
}

/// The report of the same payout that was received at the same time or a little later, and was settled
/// before this one.
fn overtaking_duplicate(
    folded: &Folded,
    places: &[ReceptionOrder],
    place: ReceptionOrder,
) -> Option<Uuid> {
    let repeats = |effect: &Effect| *effect == Effect::Duplicate { of: place.event_id };
    let later = folded
        .effects
        .iter()
        .position(repeats)
        .and_then(|at| places.get(at))?;
    (micros_between(place.received_at, later.received_at) <= AT_ONCE_MICROS)
        .then_some(later.event_id)
}

/// The most useful thing to say of a match that took effect.
fn matched_reason(
    case: &DecisionInput<'_>,
    decision: &mut Decision,
    effect: Effect,
    movement: MoneyDelta,
    had_payee: bool,
) -> Option<Reason> {
    if let Some(displaced) = decision.displaced.first() {
        decision.detail.other_event = Some(displaced.order.event_id);
    }
    if decision.detail.left_call.is_some() && case.trigger.is_automatic() {
        Some(Reason::MovedToItsCall)
    } else if !decision.displaced.is_empty() {
        Some(Reason::ReplacedHeuristicMatch)
    } else if effect == Effect::Reversed {
        Some(Reason::Reversal)
    } else if !movement.changed {
        Some(Reason::NoChange)
    } else if !had_payee {
        Some(Reason::NoAssignment)
    } else if case.trigger.is_retry() {
        Some(Reason::MatchedLate)
    } else {
        None
    }
}

/// The report that says what the call stands at, if it was received after `place`; one that is held
/// for a person says nothing (V3).
fn later_report(folded: &Folded, places: &[ReceptionOrder], place: ReceptionOrder) -> Option<Uuid> {
    let later = |event_id: Uuid| places.iter().any(|p| p.event_id == event_id && *p > place);
    folded.last_applied.filter(|id| later(*id)).or_else(|| {
        let followers = places.iter().zip(&folded.effects).rev();
        followers
            .take_while(|(p, _)| **p > place)
            .find(|(_, e)| **e != Effect::NotAReversal)
            .map(|(p, _)| p.event_id)
    })
}

fn effect_at(effects: &[Effect], places: &[ReceptionOrder], place: ReceptionOrder) -> Effect {
    let at = places.iter().position(|p| *p == place);
    // The report was inserted with the role Folded just before: it has its place.
    at.and_then(|i| effects.get(i).copied())
        .unwrap_or(Effect::NotAReversal)
}

/// True if the call would be worth something else without that report.
pub fn holds_money(call: &LockedCall, order: ReceptionOrder) -> bool {
    let mut without = call.clone();
    let draft = withdraw_report(&mut without, order, LeaveCause::Undone);
    (draft.revenue_delta_cents, draft.credit_delta_cents) != (0, 0)
}

fn takes_effect(effect: Effect) -> bool {
    matches!(effect, Effect::Applied | Effect::Reversed)
}

/// M5: a report that names the call takes it from those that only guessed it, unless they are the same
/// report. A repeat or a reversal of what stands bears the guess out; anything that sets or reverses the
/// value takes its place (M14).
fn displace_guesses(call: &mut LockedCall, by: &CallReport, decision: &mut Decision) {
    if by.guess || by.by_person {
        return;
    }
    let guesses: Vec<ReceptionOrder> = call
        .reports
        .iter()
        .filter(|r| r.role.stands() && r.order != by.order && gives_way(r, by))
        .map(|r| r.order)
        .collect();
    if guesses.is_empty() {
        return;
    }
    // Its own repeats say nothing: a guess of another report is borne out, or not, by this one alone.
    let mut alone = call.clone();
    alone.reports.retain(|r| !is_same_report(r, by));
    let borne_out = matches!(
        effect_of(&alone, by),
        Effect::Duplicate { .. } | Effect::Reversed
    );
    alone.reports.retain(|r| !guesses.contains(&r.order));
    if borne_out || !takes_effect(effect_of(&alone, by)) {
        return;
    }
    decision.displaced = displaced_reports(call, &guesses);
    // The last first: a repeat leaves before its report, so that it never stands for money.
    for displaced in decision.displaced.iter().rev() {
        let posting = withdraw_report(call, displaced.order, LeaveCause::Displaced);
        decision.postings.push(posting);
    }
}

/// What the report does at its place among the call's.
fn effect_of(call: &LockedCall, by: &CallReport) -> Effect {
    let (folded, places) = call.fold_with(by);
    effect_at(&folded.effects, &places, by.order)
}

/// One row of each report is left for a person; its repeats are duplicates of that one (M11).
fn displaced_reports(call: &LockedCall, guesses: &[ReceptionOrder]) -> Vec<DisplacedReport> {
    let mut first: Vec<&CallReport> = Vec::new();
    let mut displaced = Vec::with_capacity(guesses.len());
    for report in call.reports.iter().filter(|r| guesses.contains(&r.order)) {
        let says_the_same =
            |r: &&&CallReport| r.payout_cents == report.payout_cents && is_same_report(r, report);
        let repeats = first.iter().find(says_the_same).map(|r| r.order.event_id);
        if repeats.is_none() {
            first.push(report);
        }
        displaced.push(DisplacedReport {
            order: report.order,
            repeats,
        });
    }
    displaced
}

fn is_same_report(report: &CallReport, by: &CallReport) -> bool {
    let fingerprint = by.fingerprint();
    fingerprint.is_some()
        && report.fingerprint() == fingerprint
        && !report.is_told_apart_from(by.ref_id.as_deref(), by.call_id_text.as_deref())
}

fn gives_way(guess: &CallReport, by: &CallReport) -> bool {
    guess.guess && !guess.by_person && !is_same_report(guess, by)
}

/// Takes a report off its call; the call is folded again without it (M9, M13).
pub fn withdraw_report(
    call: &mut LockedCall,
    order: ReceptionOrder,
    cause: LeaveCause,
) -> PostingDraft {
    let role = match cause {
        LeaveCause::Displaced => ClaimState::Displaced,
        LeaveCause::Moved | LeaveCause::Undone => ClaimState::Withdrawn,
    };
    for report in call.reports.iter_mut().filter(|r| r.order == order) {
        report.role = role;
        report.dirty = true;
    }
    let payee_before = call.payee_for();
    let (value_before_cents, credit_before_cents) = (call.value_cents, call.credit_cents);
    let (folded, places) = call.fold_reports();
    let movement = call.apply_fold(&folded);
    let rest = folded
        .last_applied
        .and_then(|id| places.iter().find(|p| p.event_id == id).copied());
    PostingDraft {
        call: call.key,
        payee: call.payee_for().or(payee_before),
        revenue_delta_cents: movement.revenue_delta_cents,
        credit_delta_cents: movement.credit_delta_cents,
        cause: PostingCause::Left {
            report: order,
            cause,
            rest,
            change: CallChange {
                value_before_cents,
                value_after_cents: call.value_cents,
                credit_before_cents,
                credit_after_cents: call.credit_cents,
            },
        },
    }
}

fn draft_posting(call: &LockedCall, movement: MoneyDelta) -> Option<PostingDraft> {
    if movement.revenue_delta_cents == 0 && movement.credit_delta_cents == 0 {
        return None;
    }
    Some(PostingDraft {
        call: call.key,
        payee: call.payee_for(),
        revenue_delta_cents: movement.revenue_delta_cents,
        credit_delta_cents: movement.credit_delta_cents,
        cause: PostingCause::Report,
    })
}

/// What an entry becomes in the ledger, once it is known what stands there under the report that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitPosting {
    /// Under the report that leaves: all of it, taken back.
    pub own: (i64, i64),
    /// What the call moves by beyond that.
    pub rest: (i64, i64),
}

/// `posted` is the revenue and the credit that the ledger holds under the report that leaves, on this call.
pub fn split_withdrawal(draft: &PostingDraft, posted: (i64, i64)) -> SplitPosting {
    SplitPosting {
        own: (posted.0.saturating_neg(), posted.1.saturating_neg()),
        rest: (
            draft.revenue_delta_cents.saturating_add(posted.0),
            draft.credit_delta_cents.saturating_add(posted.1),
        ),
    }
}
