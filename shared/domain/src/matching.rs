//! Whose call is it? The seed's three strategies, first hit wins, and nobody is credited by a guess.
//!
//! Pure: the calls that may be meant have been found and locked before; what is decided here holds
//! because nobody else can change them meanwhile.

use jiff::Timestamp;
use uuid::Uuid;

use crate::crediting::{Payee, micros_between};
use crate::text::names_differ;
use trueup_event::reason::Strategy;
use trueup_event::verdict::{CandidateNote, Doubt, NearMiss, NoCall, OtherCalls};

/// The buyer's leg is typically this much shorter than ours (seed): the second yardstick of M6.
pub const TYPICAL_LEG_SECONDS: i64 = 30;
/// A call may end this much after its report was received: two clocks never agree (M3).
pub const CLOCK_SKEW_MICROS: i64 = 5 * 60 * 1_000_000;
/// Another payee's call that is this close to the winner makes the choice a guess (M6), inclusive.
pub const TOO_CLOSE_SECONDS: i64 = 5;
/// Calls that share one ref_id and are looked at where nothing tells which is meant.
pub const CALLS_OF_A_REF_ID: usize = 16;
/// Candidates listed on a row for a person to choose from.
pub const LISTED_CANDIDATES: usize = 10;

const MICROS: i64 = 1_000_000;

/// A call, as far as matching weighs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub call_id: Uuid,
    pub duration_seconds: i64,
    pub ended_at: Timestamp,
    /// Inside the webhook's scope: its buyer, if it names one.
    pub in_scope: bool,
    /// The same caller as the report's.
    pub same_caller: bool,
    /// Another caller than the report's; both are known (M14).
    pub other_caller: bool,
    /// Some other report has claimed it (M5).
    pub claimed: bool,
    /// A report from another number has claimed it (M14).
    pub claimed_by_other_caller: bool,
    pub payee: Option<Payee>,
}

/// A report that was matched to a call before and has this one's signature (M4), or is going to be (M12).
#[derive(Debug, Clone, PartialEq)]
pub struct PriorMatch {
    pub call_id: Uuid,
    pub event_id: Uuid,
    pub received_at: Timestamp,
    pub payout_cents: i64,
    pub by_person: bool,
    /// It is a person's apply: their word about the report that it was made from (M8).
    pub is_apply: bool,
    /// Its call was not named beyond doubt (M9).
    pub guess: bool,
    /// It was found by caller and duration.
    pub by_caller: bool,
    /// Its place was taken by a report with the call's id; it is left for a person (M14).
    pub displaced: bool,
    pub ref_id: Option<String>,
    pub call_id_text: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct MatchInput<'a> {
    pub ref_id: Option<&'a str>,
    pub call_id_text: Option<&'a str>,
    pub has_caller: bool,
    pub duration_seconds: Option<i64>,
    pub payout_cents: Option<i64>,
    pub received_at: Timestamp,
    /// The call that it stands on as yet.
    pub stands_on: Option<Uuid>,
    pub tolerance_seconds: i64,
    pub window_hours: i64,
}

/// What the books hold that may answer it.
#[derive(Debug, Clone, Default)]
pub struct MatchEvidence {
    /// Calls of the account that bear the reported ref_id.
    pub by_ref_id: Vec<Candidate>,
    /// The call of the account with the reported UUID, and whether it bears the reported ref_id, too.
    pub by_call_id: Option<Candidate>,
    /// Calls of the same caller: all that fit, and the nearest that do not.
    pub by_caller: Vec<Candidate>,
    pub precedents: Vec<PriorMatch>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum MatchResult {
    Call {
        call_id: Uuid,
        strategy: Strategy,
        /// Known by its signature (M4): a duplicate says `repeat_of_matched_report`.
        by_signature: bool,
        /// Not named beyond doubt: it gives way to what names it (M9, M14).
        guess: bool,
        others: OtherCalls,
    },
    /// The same report was displaced and waits for a person (M14).
    RepeatOfDisplaced {
        of: Uuid,
        call_id: Uuid,
    },
    /// Several calls fit and they would pay different people (M1, M4, M6).
    Ambiguous {
        strategy: Strategy,
        doubt: Doubt,
    },
    Nothing(NoCall),
}

/// M12, then M1, M2, M4 and M3.
pub fn find_call(question: &MatchInput<'_>, evidence: &MatchEvidence) -> MatchResult {
    let mut other_buyer = false;
    if let Some(found) = find_named_call(question, evidence, &mut other_buyer) {
        return found;
    }
    let by_caller = match (question.has_caller, question.duration_seconds) {
        (true, Some(duration)) => {
            by_caller_and_duration(question, duration, evidence, &mut other_buyer)
        }
        (has_caller, duration) => {
            MatchResult::Nothing(nothing_to_go_by(question, has_caller, duration))
        }
    };
    match by_caller {
        MatchResult::Nothing(_) if other_buyer => MatchResult::Nothing(NoCall::OtherBuyer),
        // "Your caller has no calls" tells less than "the id you echo is none of ours".
        MatchResult::Nothing(NoCall::CallerNotFound) => {
            MatchResult::Nothing(missed_id(question).unwrap_or(NoCall::CallerNotFound))
        }
        found => found,
    }
}

/// What finds the call without a guess about the caller's calls: a person's word about the same report
/// (M12), or an id (M1, M2).
fn find_named_call(
    question: &MatchInput<'_>,
    evidence: &MatchEvidence,
    other_buyer: &mut bool,
) -> Option<MatchResult> {
    if let Some(found) = by_person(question, evidence).or_else(|| by_same_id(question, evidence)) {
        return Some(found);
    }
    if question.ref_id.is_some()
        && let Some(found) = by_ref_id(question, evidence, other_buyer)
    {
        return Some(found);
    }
    if let Some(candidate) = &evidence.by_call_id {
        if candidate.in_scope {
            return Some(found_call(candidate.call_id, Strategy::CallId));
        }
        *other_buyer = true;
    }
    None
}

/// Where a report that was placed by a guess belongs after all: where a person or an id puts it, or the
/// same report (M9, M12). Nothing if nobody has said.
pub fn find_better_than_guess(
    question: &MatchInput<'_>,
    evidence: &MatchEvidence,
) -> Option<MatchResult> {
    let found = find_named_call(question, evidence, &mut false);
    match found {
        Some(MatchResult::Call { guess: false, .. }) => found,
        // A choice among the calls of a ref_id is a guess, too: the same report's place is better (M14).
        doubtful => beside_named_report(question, evidence).or(doubtful),
    }
}

/// The call that the same report is named on (M12).
fn beside_named_report(question: &MatchInput<'_>, evidence: &MatchEvidence) -> Option<MatchResult> {
    let is_named = |p: &PriorMatch| !p.guess && !p.displaced;
    let named = nearest_prior(question, evidence, is_named)?;
    // Where two calls are named, what stands nowhere may be either's repeat: it waits for a person.
    let elsewhere = |p: &PriorMatch| is_named(p) && p.call_id != named.call_id;
    let is_either =
        question.stands_on.is_none() && nearest_prior(question, evidence, elsewhere).is_some();
    (!is_either).then(|| known_by_signature(named.call_id))
}

fn found_call(call_id: Uuid, strategy: Strategy) -> MatchResult {
    MatchResult::Call {
        call_id,
        strategy,
        by_signature: false,
        guess: false,
        others: OtherCalls::default(),
    }
}

/// The same report stands there, though this one names no id: it follows wherever that one goes.
fn known_by_signature(call_id: Uuid) -> MatchResult {
    MatchResult::Call {
        call_id,
        strategy: Strategy::CallerDuration,
        by_signature: true,
        guess: true,
        others: OtherCalls::default(),
    }
}

/// What a person assigned takes its repeats along, also those that an id would find (M12).
fn by_person(question: &MatchInput<'_>, evidence: &MatchEvidence) -> Option<MatchResult> {
    // An earlier report is no repeat of the one that the person spoke about; an apply speaks about what
    // stands beside it, for it is placed after all of that.
    let leads = |p: &PriorMatch| {
        let is_about = p.received_at <= question.received_at
            || (p.is_apply && question.stands_on == Some(p.call_id));
        p.by_person && !p.displaced && is_about
    };
    let prior = nearest_prior(question, evidence, leads)?;
    Some(known_by_signature(prior.call_id))
}

/// A repeat that names the id by which the first one found its call stays there, whatever other call that id
/// finds by now (M4, M12).
fn by_same_id(question: &MatchInput<'_>, evidence: &MatchEvidence) -> Option<MatchResult> {
    let shares =
        |ours: Option<&str>, theirs: &Option<String>| ours.is_some() && ours == theirs.as_deref();
    let leads = |p: &PriorMatch| {
        !p.guess
            && !p.displaced
            && !p.by_person
            && (shares(question.ref_id, &p.ref_id)
                || shares(question.call_id_text, &p.call_id_text))
    };
    let prior = nearest_prior(question, evidence, leads)?;
    let strategy = if shares(question.ref_id, &prior.ref_id) {
        Strategy::RefId
    } else {
        Strategy::CallId
    };
    Some(found_call(prior.call_id, strategy))
}

/// Among the reports of this signature that `counts` admits: one whose call is beyond doubt, then one that
/// says the same, then the latest.
fn nearest_prior<'a>(
    question: &MatchInput<'_>,
    evidence: &'a MatchEvidence,
    counts: impl Fn(&PriorMatch) -> bool,
) -> Option<&'a PriorMatch> {
    evidence
        .precedents
        .iter()
        .filter(|p| counts(p) && in_reach(question, p) && !ids_conflict(question, p))
        .max_by_key(|p| {
            let says_the_same = Some(p.payout_cents) == question.payout_cents;
            (!p.guess, says_the_same, p.received_at, p.call_id)
        })
}

fn missed_id(question: &MatchInput<'_>) -> Option<NoCall> {
    match (question.ref_id, question.call_id_text) {
        (Some(_), _) => Some(NoCall::RefIdNotFound),
        (None, Some(_)) => Some(NoCall::CallIdNotFound),
        (None, None) => None,
    }
}

fn nothing_to_go_by(question: &MatchInput<'_>, has_caller: bool, duration: Option<i64>) -> NoCall {
    missed_id(question).unwrap_or(match (has_caller, duration) {
        (false, None) => NoCall::NothingToMatch,
        (false, Some(_)) => NoCall::NoCaller,
        (true, _) => NoCall::NoDuration,
    })
}

fn by_ref_id(
    question: &MatchInput<'_>,
    evidence: &MatchEvidence,
    other_buyer: &mut bool,
) -> Option<MatchResult> {
    let hits = &evidence.by_ref_id;
    let ours: Vec<&Candidate> = hits.iter().filter(|c| c.in_scope).collect();
    *other_buyer |= ours.len() < hits.len();
    let (first, others) = ours.split_first()?;
    // Where as many were found as are looked for, there may be others of this buyer.
    if others.is_empty() && hits.len() < CALLS_OF_A_REF_ID {
        return Some(sole_hit(question, evidence, first));
    }
    // ref_id is not unique (M1): the reported call_id decides, or else the reported caller.
    let named = evidence
        .by_call_id
        .as_ref()
        .filter(|named| named.in_scope && ours.iter().any(|c| c.call_id == named.call_id));
    if let Some(named) = named {
        return Some(found_call(named.call_id, Strategy::RefId));
    }
    let same_caller: Vec<&Candidate> = ours.iter().copied().filter(|c| c.same_caller).collect();
    Some(match (same_caller.as_slice(), question.duration_seconds) {
        ([only], _) => found_call(only.call_id, Strategy::RefId),
        (several @ [_, ..], Some(duration)) => {
            guess_by_ref_id(question, evidence, several, |unclaimed| {
                rank_contenders(duration, unclaimed)
            })
        }
        ([], _) => found_ambiguous(Strategy::RefId, question, &ours),
        (several, None) => found_ambiguous(Strategy::RefId, question, several),
    })
}

/// The only call with that ref_id; on another caller's call that is a guess (M14).
fn sole_hit(question: &MatchInput<'_>, evidence: &MatchEvidence, call: &Candidate) -> MatchResult {
    if !call.other_caller {
        return found_call(call.call_id, Strategy::RefId);
    }
    guess_by_ref_id(question, evidence, &[call], |free| free.first().copied())
}

/// A choice among calls of one ref_id: M4 and M5 hold for it as for any guess (M14).
fn guess_by_ref_id(
    question: &MatchInput<'_>,
    evidence: &MatchEvidence,
    several: &[&Candidate],
    choose: impl for<'a> Fn(&[&'a Candidate]) -> Option<&'a Candidate>,
) -> MatchResult {
    let is_among = |call_id: Uuid| several.iter().any(|c| c.call_id == call_id);
    let of_same_caller = several.iter().any(|c| c.same_caller);
    let follows = |p: &PriorMatch| {
        // What was guessed by caller and names the ref_id gives way to the caller's calls of that ref_id, as
        // this one does (M9).
        let gives_way = of_same_caller
            && p.guess
            && p.by_caller
            && p.ref_id.as_deref() == question.ref_id
            && !is_among(p.call_id);
        !p.displaced && !gives_way && is_borne_out(question, evidence, p)
    };
    if let Some(prior) = nearest_prior(question, evidence, follows) {
        if !is_among(prior.call_id) {
            return known_by_signature(prior.call_id);
        }
        if count_free(several, prior.call_id) > 0
            && !says_the_same(question, evidence, prior.call_id)
        {
            return found_ambiguous(Strategy::RefId, question, several);
        }
        return MatchResult::Call {
            call_id: prior.call_id,
            strategy: Strategy::RefId,
            by_signature: true,
            guess: true,
            others: OtherCalls::default(),
        };
    }
    let is_taken = |c: &Candidate| {
        if c.other_caller {
            c.claimed_by_other_caller
        } else {
            c.claimed
        }
    };
    let free: Vec<&Candidate> = several.iter().copied().filter(|c| !is_taken(c)).collect();
    match choose(&free) {
        Some(winner) => MatchResult::Call {
            call_id: winner.call_id,
            strategy: Strategy::RefId,
            by_signature: false,
            guess: true,
            others: OtherCalls::default(),
        },
        None => found_ambiguous(Strategy::RefId, question, several),
    }
}

fn found_ambiguous(
    strategy: Strategy,
    question: &MatchInput<'_>,
    contenders: &[&Candidate],
) -> MatchResult {
    let candidates = candidate_notes(question, contenders);
    let doubt = match strategy {
        Strategy::RefId => Doubt::SharedRefId(candidates),
        _ => Doubt::Payees(candidates),
    };
    MatchResult::Ambiguous { strategy, doubt }
}

fn by_caller_and_duration(
    question: &MatchInput<'_>,
    duration: i64,
    evidence: &MatchEvidence,
    other_buyer: &mut bool,
) -> MatchResult {
    let fits = |c: &&Candidate| {
        (c.duration_seconds.saturating_sub(duration)).abs() <= question.tolerance_seconds
            && in_window(question, c)
    };
    let fitting: Vec<&Candidate> = evidence.by_caller.iter().filter(fits).collect();
    let ours: Vec<&Candidate> = fitting.iter().copied().filter(|c| c.in_scope).collect();
    let unclaimed: Vec<&Candidate> = ours.iter().copied().filter(|c| !c.claimed).collect();
    if let Some(found) = by_signature(question, evidence, &ours) {
        return found;
    }
    if let Some(displaced) = displaced_prior(question, evidence) {
        return MatchResult::RepeatOfDisplaced {
            of: displaced.event_id,
            call_id: displaced.call_id,
        };
    }
    if ours.is_empty() {
        *other_buyer |= !fitting.is_empty();
        return near_miss(question, duration, &evidence.by_caller);
    }
    if unclaimed.is_empty() {
        let claimed = candidate_notes(question, &ours);
        return MatchResult::Nothing(NoCall::AlreadyReported(claimed));
    }
    match rank_contenders(duration, &unclaimed) {
        Some(winner) => {
            let others: Vec<&Candidate> = ours
                .iter()
                .copied()
                .filter(|c| c.call_id != winner.call_id)
                .collect();
            let others = OtherCalls {
                count: count_of(others.len()),
                candidates: if others.is_empty() {
                    Vec::new()
                } else {
                    candidate_notes(question, &ours)
                },
            };
            MatchResult::Call {
                call_id: winner.call_id,
                strategy: Strategy::CallerDuration,
                by_signature: false,
                guess: true,
                others,
            }
        }
        None => found_ambiguous(Strategy::CallerDuration, question, &unclaimed),
    }
}

/// The row that waits for a person with what this one says, displaced from its call: the first of its repeats.
fn displaced_prior<'a>(
    question: &MatchInput<'_>,
    evidence: &'a MatchEvidence,
) -> Option<&'a PriorMatch> {
    let says_the_same =
        |p: &PriorMatch| p.displaced && Some(p.payout_cents) == question.payout_cents;
    let nearest = nearest_prior(question, evidence, says_the_same)?;
    let priors = evidence.precedents.iter();
    priors
        .filter(|p| says_the_same(p) && p.call_id == nearest.call_id && !ids_conflict(question, p))
        .min_by_key(|p| (p.received_at, p.event_id))
}

fn count_of(n: usize) -> Option<u32> {
    if n == 0 {
        None
    } else {
        Some(u32::try_from(n).unwrap_or(u32::MAX))
    }
}

/// Calls other than `but` that nobody claims.
fn count_free(calls: &[&Candidate], but: Uuid) -> usize {
    let is_free = |c: &&&Candidate| !c.claimed && c.call_id != but;
    calls.iter().filter(is_free).count()
}

/// M4: the same report finds the same call; otherwise a retry would claim the caller's next similar
/// call and the publisher would be paid twice.
fn by_signature(
    question: &MatchInput<'_>,
    evidence: &MatchEvidence,
    ours: &[&Candidate],
) -> Option<MatchResult> {
    let leads = |p: &PriorMatch| !p.displaced && is_borne_out(question, evidence, p);
    let precedent = nearest_prior(question, evidence, leads)?;
    let others = count_free(ours, precedent.call_id);
    if others > 0 && !says_the_same(question, evidence, precedent.call_id) {
        // A correction of that call, or a first report of the other? Only a person can tell.
        let may_be_meant = |c: &&Candidate| !c.claimed || c.call_id == precedent.call_id;
        let contenders: Vec<&Candidate> = ours.iter().copied().filter(may_be_meant).collect();
        let others = OtherCalls {
            count: count_of(others),
            candidates: candidate_notes(question, &contenders),
        };
        return Some(MatchResult::Ambiguous {
            strategy: Strategy::CallerDuration,
            doubt: Doubt::Correction(others),
        });
    }
    let others = OtherCalls {
        count: count_of(others),
        candidates: Vec::new(),
    };
    Some(MatchResult::Call {
        call_id: precedent.call_id,
        strategy: Strategy::CallerDuration,
        by_signature: true,
        guess: true,
        others,
    })
}

/// A guess that its call, as it is recorded now, no longer bears out leads nobody there (M14).
fn is_borne_out(question: &MatchInput<'_>, evidence: &MatchEvidence, prior: &PriorMatch) -> bool {
    if !prior.guess {
        return true;
    }
    if !prior.by_caller {
        // Whether its call bears the ref_id is known to those who name it, too.
        let names_it = question.ref_id.is_some() && question.ref_id == prior.ref_id.as_deref();
        let mut hits = evidence.by_ref_id.iter();
        return !names_it || hits.any(|c| c.call_id == prior.call_id);
    }
    let mut calls = evidence.by_caller.iter();
    let theirs = question.duration_seconds.unwrap_or_default();
    calls.find(|c| c.call_id == prior.call_id).is_some_and(|c| {
        c.duration_seconds.saturating_sub(theirs).abs() <= question.tolerance_seconds
    })
}

/// A report of this signature says the same amount of that call; so does one that names none (M4).
fn says_the_same(question: &MatchInput<'_>, evidence: &MatchEvidence, call_id: Uuid) -> bool {
    let mut priors = evidence.precedents.iter();
    question
        .payout_cents
        .is_none_or(|payout| priors.any(|p| p.call_id == call_id && p.payout_cents == payout))
}

fn in_reach(question: &MatchInput<'_>, precedent: &PriorMatch) -> bool {
    micros_between(precedent.received_at, question.received_at).saturating_abs()
        <= question.window_hours.saturating_mul(3_600 * MICROS)
}

fn ids_conflict(question: &MatchInput<'_>, prior: &PriorMatch) -> bool {
    names_differ(question.ref_id, prior.ref_id.as_deref())
        || names_differ(question.call_id_text, prior.call_id_text.as_deref())
}

fn in_window(question: &MatchInput<'_>, candidate: &Candidate) -> bool {
    is_in_window(
        candidate.ended_at,
        question.received_at,
        question.window_hours,
    )
}

/// M3: the call ended within the window before the report came, or a clock's skew after it.
pub fn is_in_window(ended_at: Timestamp, received_at: Timestamp, window_hours: i64) -> bool {
    let before = micros_between(ended_at, received_at);
    before >= -CLOCK_SKEW_MICROS && before <= window_hours.saturating_mul(3_600 * MICROS)
}

/// M6. `None` if choosing would be a guess about whom to pay.
fn rank_contenders<'a>(theirs: i64, contenders: &[&'a Candidate]) -> Option<&'a Candidate> {
    let off = |c: &Candidate| c.duration_seconds.saturating_sub(theirs);
    let nearest = |yardstick: i64| {
        contenders.iter().copied().min_by_key(|c| {
            let d = off(c);
            // Ties: ours longer, then earliest ended, then lower id.
            (
                (d.saturating_sub(yardstick)).abs(),
                d.saturating_neg(),
                c.ended_at,
                c.call_id,
            )
        })
    };
    let winner = nearest(0)?;
    let by_typical_leg = nearest(TYPICAL_LEG_SECONDS)?;
    let too_close = contenders.iter().any(|c| {
        c.payee != winner.payee
            && off(c).abs().saturating_sub(off(winner).abs()) <= TOO_CLOSE_SECONDS
    });
    (by_typical_leg.payee == winner.payee && !too_close).then_some(winner)
}

/// The most telling reason, with its figure (M3).
fn near_miss(question: &MatchInput<'_>, duration: i64, by_caller: &[Candidate]) -> MatchResult {
    let ours: Vec<&Candidate> = by_caller.iter().filter(|c| c.in_scope).collect();
    let in_window: Vec<&Candidate> = ours
        .iter()
        .copied()
        .filter(|c| in_window(question, c))
        .collect();
    let near = || NearMiss {
        tolerance_seconds: question.tolerance_seconds,
        window_hours: question.window_hours,
        candidates: candidate_notes(question, &ours),
    };
    let off = |c: &&&Candidate| c.duration_seconds.saturating_sub(duration).abs();
    let away = |c: &&&Candidate| micros_between(c.ended_at, question.received_at).saturating_abs();
    if let Some(nearest) = in_window.iter().min_by_key(off) {
        MatchResult::Nothing(NoCall::DurationMismatch {
            off_seconds: off(&nearest),
            near: near(),
        })
    } else if let Some(nearest) = ours.iter().min_by_key(away) {
        let before = micros_between(nearest.ended_at, question.received_at).div_euclid(MICROS);
        MatchResult::Nothing(NoCall::OutsideWindow {
            ended_seconds_before: before,
            near: near(),
        })
    } else {
        MatchResult::Nothing(NoCall::CallerNotFound)
    }
}

fn candidate_notes(question: &MatchInput<'_>, candidates: &[&Candidate]) -> Vec<CandidateNote> {
    let mut notes: Vec<CandidateNote> = candidates
        .iter()
        .map(|c| CandidateNote {
            call_id: c.call_id,
            off_seconds: c
                .duration_seconds
                .saturating_sub(question.duration_seconds.unwrap_or(c.duration_seconds)),
            ended_seconds_before: micros_between(c.ended_at, question.received_at)
                .div_euclid(MICROS),
            claimed: c.claimed,
            other_buyer: !c.in_scope,
        })
        .collect();
    notes.sort_by_key(|n| {
        (
            n.off_seconds.saturating_abs(),
            n.ended_seconds_before.saturating_abs(),
            n.call_id,
        )
    });
    notes.truncate(LISTED_CANDIDATES);
    notes
}
