//! One report against the books: the seed's matching, the 15 minutes, the three steps of payout
//! handling. Pure; what it decides is written afterwards, in one transaction.

use jiff::Timestamp;
use uuid::Uuid;

use crate::crediting::{Effect, Folded, Payee, ReceptionOrder, micros_between};
use crate::locked_calls::{
    CallKey, CallReport, ClaimState, Fingerprint, LockedCall, LockedCalls, MAX_REPORTS_KEPT,
    MoneyDelta,
};
use crate::matching::{Candidate, MatchEvidence, MatchInput, MatchResult, find_call};
use crate::report::{Payout, ReadError, Report};
use crate::webhook_settings::{ConflictPolicy, Webhook};
use trueup_event::reason::{Detail, Reason, Status, Strategy};

/// Equal reports this close (60 s) were sent at once, and which of two workers was first says nothing:
/// the one that is settled second is the retry (seed). Further apart, the older one came late (V3).
const AT_ONCE_MICROS: i64 = 60_000_000;

/// A call that the search came upon, before any lock.
#[derive(Debug, Clone, PartialEq)]
pub struct CallCandidate {
    pub call_id: Uuid,
    pub buyer_id: Option<Uuid>,
    pub duration_seconds: i64,
    pub ended_at: Timestamp,
    /// A report with the same signature was matched to it (M4), wherever its window lies.
    pub same_fingerprint: bool,
}

/// What the search came upon for one report.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CallCandidates {
    pub by_ref_id: Vec<CallCandidate>,
    pub by_call_id: Option<CallCandidate>,
    pub by_caller: Vec<CallCandidate>,
}

/// How the report came to be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// From the broker, for the first time.
    Fresh,
    /// Unmatched before; tried again by a schedule, or because a call was recorded (M7).
    Again,
    /// A person has it decided again, by the rules as they stand (M8).
    Replayed,
    /// A person says which call it is about (M8).
    Assigned(Uuid),
    /// A person's own report about a call, in place of the buyer's (M8).
    Applied(Uuid),
}

impl Trigger {
    /// The rules find the call; no person has said which it is.
    pub fn searches(self) -> bool {
        matches!(self, Trigger::Fresh | Trigger::Again | Trigger::Replayed)
    }
}

#[derive(Debug, Clone)]
pub struct DecisionInput<'a> {
    pub order: ReceptionOrder,
    pub webhook: &'a Webhook,
    pub report: &'a Report,
    pub candidates: &'a CallCandidates,
    pub trigger: Trigger,
}

/// One entry of the ledger that a decision calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostingDraft {
    pub call: CallKey,
    pub payee: Option<Payee>,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// Caused by the person who moved the report to another call, not by the report (M8).
    pub attributed_to_actor: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub status: Status,
    pub reason: Option<Reason>,
    pub detail: Detail,
    pub strategy: Option<Strategy>,
    pub call_id: Option<Uuid>,
    /// At most one for the call itself, and one for a call that the report was moved away from.
    pub postings: Vec<PostingDraft>,
    /// Events whose match by caller and duration this one took over (M5).
    pub displaced: Vec<ReceptionOrder>,
}

impl Decision {
    /// A status and a reason, and nothing else to say.
    pub fn without_detail(status: Status, reason: Reason) -> Self {
        Decision {
            status,
            ..Decision::unmatched(reason, Detail::default())
        }
    }

    fn unmatched(reason: Reason, detail: Detail) -> Self {
        Decision {
            status: Status::Unmatched,
            reason: Some(reason),
            detail,
            strategy: None,
            call_id: None,
            postings: Vec::new(),
            displaced: Vec::new(),
        }
    }
}

/// What a request without a report becomes (X1, X3).
pub fn no_report(why: ReadError) -> Decision {
    match why {
        ReadError::UnparseableBody { byte } => Decision::unmatched(
            Reason::UnparseableBody,
            Detail {
                byte: u64::try_from(byte).ok(),
                ..Detail::default()
            },
        ),
        ReadError::UnparseableElement => {
            Decision::unmatched(Reason::UnparseableElement, Detail::default())
        }
        ReadError::EmptyBatch => Decision::unmatched(Reason::EmptyBatch, Detail::default()),
    }
}

/// True if a later call may still be this report's (M7).
pub fn may_match_later(decision: &Decision, report: &Report) -> bool {
    decision.status == Status::Unmatched
        && decision.reason != Some(Reason::PayoutUnparseable)
        && (report.ref_id.is_some()
            || report.call_uuid().is_some()
            || (report.caller.is_some() && report.duration_seconds.is_some()))
}

/// Decides about one report and moves the books in memory.
pub fn decide_report(case: &DecisionInput<'_>, books: &mut LockedCalls) -> Decision {
    let account_id = case.webhook.account_id;
    if case.report.payout == Payout::Unparseable && case.trigger.searches() {
        // X5: never take money from `bid` because `payout` was garbled.
        let moved = withdraw_elsewhere(case, books, None);
        return Decision {
            postings: moved,
            ..Decision::unmatched(Reason::PayoutUnparseable, Detail::default())
        };
    }
    let found = match case.trigger {
        Trigger::Assigned(call_id) | Trigger::Applied(call_id) => MatchResult::Call {
            call_id,
            strategy: Strategy::Person,
            by_signature: false,
            detail: Detail::default(),
        },
        Trigger::Fresh | Trigger::Again | Trigger::Replayed => find_call_for(case, books),
    };
    match found {
        MatchResult::Nothing { reason, detail } => Decision {
            postings: withdraw_elsewhere(case, books, None),
            ..Decision::unmatched(reason, detail)
        },
        MatchResult::Ambiguous { strategy, detail } => Decision {
            status: Status::Held,
            strategy: Some(strategy),
            postings: withdraw_elsewhere(case, books, None),
            ..Decision::unmatched(Reason::Ambiguous, detail)
        },
        MatchResult::Call {
            call_id,
            strategy,
            by_signature,
            detail,
        } => {
            let key = CallKey {
                account_id,
                call_id,
            };
            let hit = MatchInfo {
                strategy,
                by_signature,
            };
            // A report without a payout claims nothing (M5), also where it claimed before it was read anew.
            let moved = withdraw_elsewhere(case, books, case.report.payout.cents().map(|_| key));
            let Some(call) = books.call_mut(key) else {
                // The caller of `decide` locks every call that was sighted; this one was not.
                return Decision::unmatched(Reason::CallIdNotFound, Detail::default());
            };
            let mut decision = apply_to_call(case, call, hit, detail);
            decision.postings.extend(moved);
            if let Some(signature) = fingerprint_of(case) {
                books.add_fingerprint(signature, key);
            }
            decision
        }
    }
}

fn fingerprint_of(case: &DecisionInput<'_>) -> Option<Fingerprint> {
    Some(Fingerprint {
        webhook_id: case.webhook.id,
        caller: case.report.caller.clone()?,
        duration_seconds: i64::from(case.report.duration_seconds?),
    })
}

fn find_call_for(case: &DecisionInput<'_>, books: &LockedCalls) -> MatchResult {
    let report = case.report;
    let question = MatchInput {
        ref_id: report.ref_id.as_deref(),
        call_id_text: report.call_id.as_deref(),
        has_caller: report.caller.is_some(),
        duration_seconds: report.duration_seconds.map(i64::from),
        payout_cents: report.payout.cents(),
        received_at: case.order.received_at,
        tolerance_seconds: case.webhook.duration_tolerance_seconds,
        window_hours: case.webhook.match_window_hours,
    };
    let weigh = |sighting: &CallCandidate| weigh_candidate(case, books, sighting);
    let evidence = MatchEvidence {
        by_ref_id: case.candidates.by_ref_id.iter().map(weigh).collect(),
        by_call_id: case.candidates.by_call_id.as_ref().map(weigh),
        by_caller: case
            .candidates
            .by_caller
            .iter()
            .map(weigh)
            .filter(|c| c.same_caller)
            .collect(),
        precedents: fingerprint_of(case)
            .map(|s| books.prior_matches(&s, case.order.event_id))
            .unwrap_or_default(),
    };
    find_call(&question, &evidence)
}

/// A sighting as it stands under lock; one that was not locked fits nothing and only tells a reason.
fn weigh_candidate(
    case: &DecisionInput<'_>,
    books: &LockedCalls,
    sighting: &CallCandidate,
) -> Candidate {
    let key = CallKey {
        account_id: case.webhook.account_id,
        call_id: sighting.call_id,
    };
    let in_scope =
        |buyer: Option<Uuid>| case.webhook.buyer_id.is_none() || case.webhook.buyer_id == buyer;
    match books.call(key) {
        Some(call) => Candidate {
            call_id: sighting.call_id,
            duration_seconds: call.duration_seconds,
            ended_at: call.ended_at,
            in_scope: in_scope(call.buyer_id),
            same_caller: call.caller.is_some() && call.caller == case.report.caller,
            claimed: call.claimed_by_other_than(case.order.event_id),
            payee: call.payee_for(),
        },
        None => Candidate {
            call_id: sighting.call_id,
            duration_seconds: sighting.duration_seconds,
            ended_at: sighting.ended_at,
            in_scope: in_scope(sighting.buyer_id),
            same_caller: true,
            claimed: false,
            payee: None,
        },
    }
}

/// A report is about one call at most: what it did on any other is undone, and the difference posted
/// under the name of whoever had it decided again (M8).
fn withdraw_elsewhere(
    case: &DecisionInput<'_>,
    books: &mut LockedCalls,
    but_for: Option<CallKey>,
) -> Vec<PostingDraft> {
    if case.trigger == Trigger::Fresh {
        return Vec::new();
    }
    let elsewhere: Vec<CallKey> = books
        .all_calls()
        .filter(|c| Some(c.key) != but_for)
        .filter(|c| {
            c.reports
                .iter()
                .any(|r| r.order == case.order && r.role != ClaimState::Displaced)
        })
        .map(|c| c.key)
        .collect();
    let mut postings = Vec::new();
    for key in elsewhere {
        let Some(call) = books.call_mut(key) else {
            continue;
        };
        for report in call.reports.iter_mut().filter(|r| r.order == case.order) {
            report.role = ClaimState::Displaced;
            report.dirty = true;
        }
        let (folded, _) = call.fold_reports();
        let movement = call.apply_fold(&folded);
        postings.extend(draft_posting(call, movement, true));
    }
    postings
}

struct MatchInfo {
    strategy: Strategy,
    by_signature: bool,
}

fn apply_to_call(
    case: &DecisionInput<'_>,
    call: &mut LockedCall,
    hit: MatchInfo,
    detail: Detail,
) -> Decision {
    let mut decision = Decision {
        status: Status::Matched,
        reason: None,
        detail: Detail {
            late: case.trigger == Trigger::Again,
            ..detail
        },
        strategy: Some(hit.strategy),
        call_id: Some(call.key.call_id),
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
        call.insert(CallReport {
            role: ClaimState::Held,
            ..report
        });
        // It may have been folded when it was decided before.
        let (folded, _) = call.fold_reports();
        let movement = call.apply_fold(&folded);
        decision
            .postings
            .extend(draft_posting(call, movement, true));
        return decision;
    }
    fold_in(case, call, report, &hit, &mut decision);
    decision
}

/// V8: reports that contradict themselves are for a person, unless the webhook says otherwise or the
/// report is a person's.
fn hold_reason(case: &DecisionInput<'_>, payout_cents: i64, detail: &mut Detail) -> Option<Reason> {
    if matches!(case.trigger, Trigger::Applied(_)) {
        return None;
    }
    let webhook = case.webhook;
    if let (ConflictPolicy::Hold, Some(currency)) =
        (webhook.on_currency_mismatch, &case.report.currency)
        && !currency.eq_ignore_ascii_case(&webhook.read.currency)
    {
        detail.word = Some(currency.clone());
        detail.currency = Some(webhook.read.currency.clone());
        return Some(Reason::CurrencyMismatch);
    }
    // Beside a zero or a negative amount a word of rejection is no contradiction: V5 and V7 take it back.
    if let (ConflictPolicy::Hold, Some(word), 1..) = (
        webhook.on_rejection_word,
        &case.report.rejection_word,
        payout_cents,
    ) {
        detail.word = Some(word.clone());
        return Some(Reason::StatusSaysRejected);
    }
    if payout_cents > webhook.payout_cap_cents {
        detail.cap_cents = Some(webhook.payout_cap_cents);
        return Some(Reason::PayoutOverCap);
    }
    None
}

#[allow(
    clippy::cognitive_complexity,
    reason = "the one knot of the rules: who may displace whom (M1, M5), and what a late report changes (V3)"
)]
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
    call.insert(report.clone());
    let (mut folded, mut places) = call.fold_reports();
    let mut effect = effect_at(&folded.effects, &places, place);
    // A repeat or a reversal of what stands bears the guess out; anything else takes its place (M5).
    if effect == Effect::Applied {
        decision.displaced = displace_guesses(call, &report);
        if !decision.displaced.is_empty() {
            (folded, places) = call.fold_reports();
            effect = effect_at(&folded.effects, &places, place);
        }
    }
    let later = later_report(&folded, &places, place);
    let movement = call.apply_fold(&folded);
    if matches!(effect, Effect::Duplicate { .. })
        && call.reports.len() > MAX_REPORTS_KEPT
        && places.last() == Some(&place)
    {
        call.reports.retain(|r| r.order != place);
    }
    decision.detail.value_before_cents = before.0;
    decision.detail.value_after_cents = call.value_cents;
    decision.detail.credit_before_cents = Some(before.1);
    decision.detail.credit_after_cents = Some(call.credit_cents);
    // Only a report that takes effect has postings of its own (invariant 4). One that took the call from
    // a guess did so, even if without the guess another report of its amount stands before it.
    let displaces = !decision.displaced.is_empty();
    let takes_effect = displaces || matches!(effect, Effect::Applied | Effect::Reversed);
    decision
        .postings
        .extend(draft_posting(call, movement, !takes_effect));
    match effect {
        _ if displaces => {
            decision.reason = matched_reason(case, decision, effect, movement, had_payee)
        }
        Effect::Duplicate { of } => {
            decision.status = Status::Duplicate;
            decision.reason = Some(if hit.by_signature {
                Reason::RepeatOfMatchedReport
            } else {
                Reason::SamePayoutWithin15m
            });
            decision.detail.other_event = Some(of);
            if call.value_cents != Some(payout_cents.max(0)) {
                decision.detail.value_changed_to_cents = call.value_cents;
            }
        }
        Effect::NotAReversal => {
            decision.status = Status::Held;
            decision.reason = Some(Reason::NegativePayout);
        }
        // A retry that was processed before the report it repeats: two workers, or two gateways' clocks.
        Effect::Applied | Effect::Reversed
            if !movement.changed && overtaking_duplicate(&folded, &places, place).is_some() =>
        {
            decision.status = Status::Duplicate;
            decision.reason = Some(if hit.by_signature {
                Reason::RepeatOfMatchedReport
            } else {
                Reason::SamePayoutWithin15m
            });
            decision.detail.other_event = overtaking_duplicate(&folded, &places, place);
        }
        Effect::Applied | Effect::Reversed if !movement.changed && later.is_some() => {
            decision.status = Status::Superseded;
            decision.reason = Some(Reason::OlderThanApplied);
            decision.detail.other_event = later;
        }
        Effect::Applied | Effect::Reversed => {
            decision.reason = matched_reason(case, decision, effect, movement, had_payee);
        }
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
fn matched_reason(
    case: &DecisionInput<'_>,
    decision: &mut Decision,
    effect: Effect,
    movement: MoneyDelta,
    had_payee: bool,
) -> Option<Reason> {
    if let Some(displaced) = decision.displaced.first() {
        decision.detail.other_event = Some(displaced.event_id);
        return Some(Reason::ReplacedHeuristicMatch);
    }
    if effect == Effect::Reversed {
        Some(Reason::Reversal)
    } else if !movement.changed {
        Some(Reason::NoChange)
    } else if !had_payee {
        Some(Reason::NoAssignment)
    } else if case.trigger == Trigger::Again {
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

/// M5: a report that names the call takes it from those that only guessed it, unless they are the
/// same report (the same signature).
fn displace_guesses(call: &mut LockedCall, by: &CallReport) -> Vec<ReceptionOrder> {
    if !matches!(by.strategy, Strategy::RefId | Strategy::CallId) {
        return Vec::new();
    }
    let signature = by.fingerprint();
    let mut displaced = Vec::new();
    for report in &mut call.reports {
        let guessed = report.strategy == Strategy::CallerDuration
            && !report.by_person
            && report.role != ClaimState::Displaced;
        if guessed
            && (signature.is_none() || report.fingerprint() != signature || told_apart(report, by))
        {
            report.role = ClaimState::Displaced;
            report.dirty = true;
            displaced.push(report.order);
        }
    }
    displaced
}

fn told_apart(a: &CallReport, b: &CallReport) -> bool {
    let differ =
        |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
    differ(&a.ref_id, &b.ref_id) || differ(&a.call_id_text, &b.call_id_text)
}

fn draft_posting(call: &LockedCall, movement: MoneyDelta, by_move: bool) -> Option<PostingDraft> {
    if movement.revenue_delta_cents == 0 && movement.credit_delta_cents == 0 {
        return None;
    }
    Some(PostingDraft {
        call: call.key,
        payee: call.payee_for(),
        revenue_delta_cents: movement.revenue_delta_cents,
        credit_delta_cents: movement.credit_delta_cents,
        attributed_to_actor: by_move,
    })
}
