//! A report meets its call: what it does to the call's money, whom it displaces, what it is held for.

use trueup_event::reason::Strategy;
use trueup_event::verdict::{
    CallChange, Contradiction, OnCall, OtherCalls, Outcome, Repeat, Verdict,
};
use uuid::Uuid;

use crate::crediting::{DUPLICATE_WINDOW_MICROS, Effect, Folded, ReceptionOrder, micros_between};
use crate::decision_input::{DecisionInput, Trigger};
use crate::decision_outcome::{Decision, DisplacedReport, LeaveCause, PostingCause, PostingDraft};
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
    others: OtherCalls,
) -> Decision {
    let left_call = case.left_call.filter(|left| *left != call.key.call_id);
    let mut applied = Applied {
        on_call: OnCall {
            others,
            left_call,
            late: case.trigger.is_retry() && left_call.is_none(),
            change: None,
            outcome: Outcome::Settled,
        },
        postings: Vec::new(),
        displaced: Vec::new(),
    };
    applied.on_call.outcome = settle_on_call(case, call, &hit, &mut applied);
    Decision {
        strategy: Some(hit.strategy),
        call_id: Some(call.key.call_id),
        guess: hit.guess,
        postings: applied.postings,
        displaced: applied.displaced,
        ..Decision::without_call(Verdict::OnCall(applied.on_call))
    }
}

/// What a report did to its call, while it is being found out.
struct Applied {
    on_call: OnCall,
    postings: Vec<PostingDraft>,
    displaced: Vec<DisplacedReport>,
}

fn settle_on_call(
    case: &DecisionInput<'_>,
    call: &mut LockedCall,
    hit: &MatchInfo,
    applied: &mut Applied,
) -> Outcome {
    let Some(payout_cents) = case.report.payout.cents() else {
        // V6; it claims nothing and leaves no signature (M5).
        return Outcome::NoPayout;
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
    if let Some(contradiction) = find_contradiction(case, payout_cents) {
        if call.standing_but(report.order.event_id) >= MAX_FOLDED_REPORTS {
            // Held ones are bounded as well (V13): it claims nothing.
            return Outcome::TooManyReports(Some(contradiction));
        }
        call.insert(CallReport {
            role: ClaimState::Held,
            ..report
        });
        return Outcome::Held(contradiction);
    }
    match room_for(case, call, &report) {
        Room::Fold => fold_in(case, call, report, hit, applied),
        Room::Repeat { of } => Outcome::SamePayoutWithin15m(Repeat {
            of: Some(of),
            value_changed_to_cents: None,
        }),
        Room::None => Outcome::TooManyReports(None),
    }
}

/// V8: reports that contradict themselves are for a person, unless the webhook says otherwise or the
/// report is a person's.
fn find_contradiction(case: &DecisionInput<'_>, payout_cents: i64) -> Option<Contradiction> {
    // No hold keeps a rejected call's credit: a zero takes it back, and so does a full reversal, whatever is
    // said beside them. Whether a negative amount is one, its place in the fold tells.
    if matches!(case.trigger, Trigger::Applied(_)) || payout_cents <= 0 {
        return None;
    }
    if let Some(conflict) = currency_conflict(case) {
        return Some(conflict);
    }
    let webhook = case.webhook;
    if let (ConflictPolicy::Hold, Some(word)) =
        (webhook.on_rejection_word, &case.report.rejection_word)
    {
        return Some(Contradiction::StatusSaysRejected { word: word.clone() });
    }
    let cap_cents = webhook.payout_cap_cents;
    (payout_cents > cap_cents).then_some(Contradiction::PayoutOverCap { cap_cents })
}

fn currency_conflict(case: &DecisionInput<'_>) -> Option<Contradiction> {
    let ours = &case.webhook.read.currency;
    let theirs = case.report.currency.as_ref()?;
    let holds = case.webhook.on_currency_mismatch == ConflictPolicy::Hold;
    if !holds || theirs.eq_ignore_ascii_case(ours) {
        return None;
    }
    Some(Contradiction::CurrencyMismatch {
        theirs: theirs.clone(),
        ours: Some(ours.clone()),
    })
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
    applied: &mut Applied,
) -> Outcome {
    let place = report.order;
    let payout_cents = report.payout_cents;
    let before = (call.value_cents, call.credit_cents);
    let had_payee = call.payee_for().is_some();
    displace_guesses(call, &report, applied);
    call.insert(report);
    let (folded, places) = call.fold_reports();
    let effect = effect_at(&folded.effects, &places, place);
    let later = later_report(&folded, &places, place);
    let movement = call.apply_fold(&folded);
    applied.on_call.change = Some(CallChange {
        value_before_cents: before.0,
        value_after_cents: call.value_cents,
        credit_before_cents: before.1,
        credit_after_cents: call.credit_cents,
    });
    applied.postings.extend(draft_posting(call, movement));
    let moved_nothing = !movement.changed && applied.displaced.is_empty();
    match effect {
        Effect::Duplicate { of } => {
            let changed = call.value_cents != Some(payout_cents.max(0));
            repeat_of(hit, of, call.value_cents.filter(|_| changed))
        }
        Effect::NotAReversal => {
            currency_conflict(case).map_or(Outcome::NegativePayout, Outcome::Held)
        }
        Effect::Applied | Effect::Reversed if moved_nothing => {
            // A retry that was processed before the report it repeats: two workers, or two gateways' clocks.
            if let Some(of) = overtaking_duplicate(&folded, &places, place) {
                repeat_of(hit, of, None)
            } else if later.is_some() {
                Outcome::OlderThanApplied { later }
            } else {
                name_match(case, applied, effect, movement, had_payee)
            }
        }
        Effect::Applied | Effect::Reversed => {
            name_match(case, applied, effect, movement, had_payee)
        }
    }
}

fn repeat_of(hit: &MatchInfo, of: Uuid, value_changed_to_cents: Option<i64>) -> Outcome {
    let repeat = Repeat {
        of: Some(of),
        value_changed_to_cents,
    };
    if hit.by_signature {
        Outcome::RepeatOfMatchedReport(repeat)
    } else {
        Outcome::SamePayoutWithin15m(repeat)
    }
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
fn name_match(
    case: &DecisionInput<'_>,
    applied: &Applied,
    effect: Effect,
    movement: MoneyDelta,
    had_payee: bool,
) -> Outcome {
    let replaced = applied.displaced.first().map(|d| d.order.event_id);
    if applied.on_call.left_call.is_some() && case.trigger.is_automatic() {
        Outcome::MovedToItsCall { replaced }
    } else if replaced.is_some() {
        Outcome::ReplacedHeuristicMatch { of: replaced }
    } else if effect == Effect::Reversed {
        Outcome::Reversal
    } else if !movement.changed {
        Outcome::NoChange
    } else if !had_payee {
        Outcome::NoAssignment
    } else if case.trigger.is_retry() {
        Outcome::MatchedLate
    } else {
        Outcome::Settled
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
fn displace_guesses(call: &mut LockedCall, by: &CallReport, applied: &mut Applied) {
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
    applied.displaced = displaced_reports(call, &guesses);
    // The last first: a repeat leaves before its report, so that it never stands for money.
    for displaced in applied.displaced.iter().rev() {
        let posting = withdraw_report(call, displaced.order, LeaveCause::Displaced);
        applied.postings.push(posting);
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
