//! One report against the books: the seed's matching, the 15 minutes, the three steps of payout
//! handling. Pure; what it decides is written afterwards, in one transaction.

use uuid::Uuid;

use crate::call_application::{MatchInfo, apply_to_call};
use crate::crediting::micros_between;
pub use crate::decision_input::{CallCandidate, CallCandidates, DecisionInput, Trigger};
pub use crate::decision_outcome::{
    Decision, DisplacedReport, LeaveCause, PostingCause, PostingDraft,
};
use crate::locked_calls::{CallKey, ClaimState, Fingerprint, LockedCalls, OpenRow};
use crate::matching::{
    Candidate, MatchEvidence, MatchInput, MatchResult, PriorMatch, find_better_than_guess,
    find_call,
};
use crate::report::{Payout, ReadError, Report, repeat_keys, report_digest};
use crate::text::names_differ;
use trueup_event::reason::{Reason, Status, Strategy};
use trueup_event::verdict::{NoCall, OtherCalls, Verdict};

/// A row that waits for a person answers for its repeats this long (M11).
const OPEN_ROW_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// What a request without a report becomes (X1, X3).
pub fn no_report(why: ReadError) -> Decision {
    Decision::without_call(Verdict::NoCall(match why {
        ReadError::UnparseableBody { byte } => NoCall::UnparseableBody {
            byte: u64::try_from(byte).unwrap_or(u64::MAX),
        },
        ReadError::UnparseableQuery { byte } => NoCall::UnparseableQuery {
            byte: u64::try_from(byte).unwrap_or(u64::MAX),
        },
        ReadError::UnparseableElement => NoCall::UnparseableElement,
        ReadError::EmptyBatch => NoCall::EmptyBatch,
    }))
}

/// True if a later call may still be this report's (M7), or a better one than it was given (M9).
pub fn may_match_later(decision: &Decision, report: &Report) -> bool {
    if decision.reason() == Some(Reason::PayoutUnparseable) {
        return false;
    }
    let names_a_call = report.ref_id.is_some() || report.call_uuid().is_some();
    let is_ambiguous = decision.reason() == Some(Reason::Ambiguous);
    match decision.status() {
        Status::Unmatched => names_a_call || report.has_fingerprint(),
        // One without an id waits for a repeat that names it (M12).
        Status::Held if is_ambiguous => names_a_call || report.has_fingerprint(),
        _ => decision.guess && names_a_call,
    }
}

/// Decides about one report and moves the books in memory.
pub fn decide_report(case: &DecisionInput<'_>, books: &mut LockedCalls) -> Decision {
    if let Some(closed) = closed_row_of(case, books) {
        return repeat_of_closed(case, books, closed);
    }
    let decision = decide_unless_closed(case, books);
    if decision.status() != Status::Held {
        return decision;
    }
    let digest = report_digest(case.webhook.id, case.report);
    let open = digest.and_then(|digest| open_row_of(case, books, digest));
    // One thing to decide, not one for each retry (M11).
    if let Some(open) = open.filter(|row| row.reason == decision.reason() && !row.ignored) {
        // A negative one keeps its place: a report that comes late may still make it a reversal (V3, V7).
        let keeps_its_place = case.report.payout.cents().is_some_and(i64::is_negative);
        if let Some(call_id) = decision.call_id.filter(|_| !keeps_its_place) {
            forget_claim(case, books, call_id);
        }
        // A guess that it displaced has gone, and its money with it (M13).
        return Decision {
            guess: decision.guess && keeps_its_place,
            postings: decision.postings,
            displaced: decision.displaced,
            ..Decision::repeat_of_open(open.order.event_id, decision.call_id, decision.strategy)
        };
    }
    let row = OpenRow {
        order: case.order,
        reason: decision.reason(),
        ignored: false,
    };
    if let Some(digest) = digest {
        books.set_open_row(digest, row);
    }
    decision
}

/// The row that a person closed, which closes its later repeats, but none that stood on a call (M12).
fn closed_row_of(case: &DecisionInput<'_>, books: &LockedCalls) -> Option<Uuid> {
    // Most batches repeat no open row: no digest is made for them.
    let stood = case.left_call.or(case.stands_on).is_some();
    if stood || !books.has_open_rows() {
        return None;
    }
    let closes = |row: &OpenRow| row.ignored && row.order < case.order;
    let mut keys = repeat_keys(case.webhook.id, case.report).into_iter();
    let closed = keys.find_map(|key| open_row_of(case, books, key).filter(closes));
    closed.map(|row| row.order.event_id)
}

/// A repeat of a closed row is closed with it, but a reversal that now fits is never swallowed (M11).
fn repeat_of_closed(case: &DecisionInput<'_>, books: &mut LockedCalls, closed: Uuid) -> Decision {
    if case.report.payout.cents().is_some_and(i64::is_negative) {
        let decision = decide_unless_closed(case, books);
        if decision.status() == Status::Matched {
            return decision;
        }
        if let Some(call_id) = decision.call_id {
            forget_claim(case, books, call_id);
        }
        return Decision {
            postings: decision.postings,
            displaced: decision.displaced,
            ..Decision::repeat_of_open(closed, None, None)
        };
    }
    Decision::repeat_of_open(closed, None, None)
}

/// The row that a report which nobody asked for may be a mere repeat of.
fn open_row_of(case: &DecisionInput<'_>, books: &LockedCalls, digest: Uuid) -> Option<OpenRow> {
    let open = books.open_row(digest)?;
    let apart = micros_between(open.order.received_at, case.order.received_at).saturating_abs();
    let repeats = case.trigger.is_automatic()
        && open.order.event_id != case.order.event_id
        && apart <= OPEN_ROW_MICROS;
    repeats.then(|| open.clone())
}

/// A held report set no value, so that nothing but its claim is taken back.
fn forget_claim(case: &DecisionInput<'_>, books: &mut LockedCalls, call_id: Uuid) {
    let key = CallKey {
        account_id: case.webhook.account_id,
        call_id,
    };
    if let Some(call) = books.call_mut(key) {
        for report in call.reports.iter_mut().filter(|r| r.order == case.order) {
            report.role = ClaimState::Withdrawn;
            report.dirty = true;
        }
    }
}

fn decide_unless_closed(case: &DecisionInput<'_>, books: &mut LockedCalls) -> Decision {
    if case.report.payout == Payout::Unparseable && case.trigger.searches() {
        // X5: never take money from `bid` because `payout` was garbled.
        return Decision::without_call(Verdict::NoCall(NoCall::PayoutUnparseable));
    }
    if let Some(decision) = still_displaced(case, books) {
        return decision;
    }
    let found = match case.trigger {
        Trigger::Assigned(call_id) | Trigger::Applied(call_id) => MatchResult::Call {
            call_id,
            strategy: Strategy::Person,
            by_signature: false,
            guess: false,
            others: OtherCalls::default(),
        },
        _ => {
            let (question, evidence) = match_query_of(case, books);
            find_call(&question, &evidence)
        }
    };
    match found {
        MatchResult::Nothing(no_call) => Decision::without_call(Verdict::NoCall(no_call)),
        MatchResult::Ambiguous { strategy, doubt } => Decision {
            strategy: Some(strategy),
            ..Decision::without_call(Verdict::Doubt(doubt))
        },
        MatchResult::RepeatOfDisplaced { of, call_id } => {
            // It waits for its id, if it names one, as the displaced one would (M9).
            Decision {
                guess: true,
                ..Decision::repeat_of_open(of, Some(call_id), Some(Strategy::CallerDuration))
            }
        }
        MatchResult::Call {
            call_id,
            strategy,
            by_signature,
            guess,
            others,
        } => {
            let key = CallKey {
                account_id: case.webhook.account_id,
                call_id,
            };
            let hit = MatchInfo {
                strategy,
                by_signature,
                guess,
            };
            let Some(call) = books.call_mut(key) else {
                // The caller of `decide` locks every call that was sighted; this one was not.
                return Decision::without_call(Verdict::NoCall(NoCall::CallIdNotFound));
            };
            let decision = apply_to_call(case, call, hit, others);
            if let Some(signature) = case.fingerprint() {
                books.add_fingerprint(signature, key);
            }
            decision
        }
    }
}

/// What a person takes back from a displaced report leaves it as it stood: it waits for a person, unless it
/// is known by now where it belongs (M8).
fn still_displaced(case: &DecisionInput<'_>, books: &LockedCalls) -> Option<Decision> {
    if case.trigger != Trigger::Undone || find_better_call(case, books).is_some() {
        return None;
    }
    let call = books.displaced_from(case.order.event_id)?;
    let by = call.reports.iter().find(|r| r.role.stands() && !r.guess);
    let displaced = Verdict::Displaced {
        by: by.map(|r| r.order.event_id),
    };
    Some(Decision {
        strategy: Some(Strategy::CallerDuration),
        call_id: Some(call.key.call_id),
        guess: true,
        ..Decision::without_call(displaced)
    })
}

/// Where a report that was placed by a guess belongs after all (M9, M12).
pub fn find_better_call(case: &DecisionInput<'_>, books: &LockedCalls) -> Option<MatchResult> {
    let (question, evidence) = match_query_of(case, books);
    find_better_than_guess(&question, &evidence)
}

/// Where the report is going to stand beyond doubt, for those that are the same report (M12).
pub fn expected_match(
    case: &DecisionInput<'_>,
    books: &LockedCalls,
) -> Option<(Fingerprint, PriorMatch)> {
    let payout_cents = case.report.payout.cents()?;
    if closed_row_of(case, books).is_some() {
        return None;
    }
    let (call_id, by_person) = match case.trigger {
        Trigger::Assigned(call_id) => (call_id, true),
        trigger if trigger.searches() => match find_better_call(case, books)? {
            MatchResult::Call {
                call_id,
                guess: false,
                ..
            } => (call_id, false),
            _ => return None,
        },
        _ => return None,
    };
    let expected = PriorMatch {
        call_id,
        event_id: case.order.event_id,
        received_at: case.order.received_at,
        payout_cents,
        by_person,
        is_apply: false,
        guess: false,
        by_caller: false,
        displaced: false,
        ref_id: case.report.ref_id.clone(),
        call_id_text: case.report.call_id.clone(),
    };
    Some((case.fingerprint()?, expected))
}

fn match_query_of<'a>(
    case: &DecisionInput<'a>,
    books: &LockedCalls,
) -> (MatchInput<'a>, MatchEvidence) {
    let report = case.report;
    let question = MatchInput {
        ref_id: report.ref_id.as_deref(),
        call_id_text: report.call_id.as_deref(),
        has_caller: report.caller.is_some(),
        duration_seconds: report.duration_seconds.map(i64::from),
        payout_cents: report.payout.cents(),
        received_at: case.order.received_at,
        stands_on: case.stands_on,
        tolerance_seconds: case.webhook.duration_tolerance_seconds,
        window_hours: case.webhook.match_window_hours,
    };
    let under_lock = |candidate: &CallCandidate| weigh_candidate(case, books, candidate);
    let evidence = MatchEvidence {
        by_ref_id: case.candidates.by_ref_id.iter().map(under_lock).collect(),
        by_call_id: case.candidates.by_call_id.as_ref().map(under_lock),
        by_caller: case
            .candidates
            .by_caller
            .iter()
            .map(under_lock)
            .filter(|c| c.same_caller)
            .collect(),
        precedents: case
            .fingerprint()
            .map(|s| books.prior_matches(&s, case.order.event_id))
            .unwrap_or_default(),
    };
    (question, evidence)
}

/// A candidate as it stands under lock; one that was not locked fits nothing and only tells a reason.
fn weigh_candidate(
    case: &DecisionInput<'_>,
    books: &LockedCalls,
    candidate: &CallCandidate,
) -> Candidate {
    let key = CallKey {
        account_id: case.webhook.account_id,
        call_id: candidate.call_id,
    };
    let in_scope =
        |buyer: Option<Uuid>| case.webhook.buyer_id.is_none() || case.webhook.buyer_id == buyer;
    let event_id = case.order.event_id;
    let reported = case.report.caller.as_deref();
    match books.call(key) {
        Some(call) => Candidate {
            call_id: candidate.call_id,
            duration_seconds: call.duration_seconds,
            ended_at: call.ended_at,
            in_scope: in_scope(call.buyer_id),
            same_caller: call.caller.is_some() && call.caller == case.report.caller,
            other_caller: names_differ(call.caller.as_deref(), reported),
            claimed: call.claimed_by_other_than(event_id),
            claimed_by_other_caller: reported
                .is_some_and(|caller| call.claimed_by_other_caller(caller, event_id)),
            payee: call.payee_for(),
        },
        None => Candidate {
            call_id: candidate.call_id,
            duration_seconds: candidate.duration_seconds,
            ended_at: candidate.ended_at,
            in_scope: in_scope(candidate.buyer_id),
            same_caller: true,
            other_caller: false,
            claimed: false,
            claimed_by_other_caller: false,
            payee: None,
        },
    }
}
