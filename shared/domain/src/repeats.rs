//! Which rows are the same report as others, and have to go where those go (M12).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use uuid::Uuid;

use crate::batch_decision::BatchRow;
use crate::crediting::ReceptionOrder;
use crate::decision::Trigger;
use crate::locked_calls::Fingerprint;
use crate::report::Report;
use crate::text::names_differ;

/// A report that stands on some call, or was displaced from it, as the search by fingerprint comes upon it.
#[derive(Debug, Clone, PartialEq)]
pub struct StandingReport {
    pub fingerprint: Fingerprint,
    pub order: ReceptionOrder,
    pub call_id: Uuid,
    pub guess: bool,
    pub by_person: bool,
    /// Its place was taken by a report with the call's id: it stands nowhere, and waits for a person.
    pub displaced: bool,
    pub ref_id: Option<String>,
    pub call_id_text: Option<String>,
}

impl StandingReport {
    fn key(&self) -> (Timestamp, Uuid) {
        (self.order.received_at, self.order.event_id)
    }

    /// It stands by its ids, or where a person put it.
    fn is_named(&self) -> bool {
        !self.guess && !self.displaced
    }
}

/// The rows that are the same report as one of the batch, stand elsewhere (by a guess, or, where a person
/// assigns it, by their ids), and so may have to go where that one goes (M12). They are settled with it, in one transaction.
///
/// `true` for those that stood where a person had put it: the person has taken that back, so they are
/// decided anew, whatever still fits.
pub fn rows_to_follow(
    lines: &[BatchRow],
    standing: &[StandingReport],
) -> BTreeMap<(Timestamp, Uuid), bool> {
    let groups = group_by_fingerprint(lines, standing);
    let named = standing.iter().filter(|report| report.is_named());
    let named: BTreeSet<Uuid> = named.map(|report| report.order.event_id).collect();
    let mut rows = BTreeMap::new();
    for line in lines {
        let is_taken_back = takes_word_back(line, named.contains(&line.order.event_id));
        if !is_taken_back && !leads_others(line) {
            continue;
        }
        let Some((report, fingerprint)) = line.report().zip(line.fingerprint()) else {
            continue;
        };
        let Some(group) = groups.get(&fingerprint) else {
            continue;
        };
        // A person's word leads what came after the report that it was about.
        let by_word = matches!(line.trigger, Trigger::Assigned(_)) && !is_taken_back;
        let led_by_word = group.named.iter().filter(|_| by_word);
        let followers: Vec<&StandingReport> = group
            .guesses
            .iter()
            .chain(led_by_word)
            .copied()
            .filter(|r| group.follows(r, report, line) && (!by_word || r.order > line.order))
            // A displaced one goes where an id puts it, and waits otherwise.
            .filter(|r| !r.displaced || !(by_word || is_taken_back))
            .collect();
        for follower in &followers {
            // What came before may stand there on its own: it is only looked at again.
            *rows.entry(follower.key()).or_default() |=
                is_taken_back && follower.order > line.order;
        }
        // What a follower had led to the call that it leaves is looked at with it (M14).
        let left: BTreeSet<Uuid> = followers.iter().map(|r| r.call_id).collect();
        let beside = group
            .guesses
            .iter()
            .filter(|r| !r.displaced && left.contains(&r.call_id));
        for report in beside {
            rows.entry(report.key()).or_default();
        }
    }
    rows
}

/// What stands, with the ids that the batch's own rows name beside it.
fn group_by_fingerprint<'a>(
    lines: &'a [BatchRow],
    standing: &'a [StandingReport],
) -> HashMap<Fingerprint, SameReports<'a>> {
    let own: BTreeSet<Uuid> = lines.iter().map(|line| line.order.event_id).collect();
    let in_place = standing.iter().filter(|report| !report.displaced);
    let in_place: BTreeSet<Uuid> = in_place.map(|report| report.order.event_id).collect();
    // A displaced one may have gone to another call since.
    let has_gone_on =
        |report: &StandingReport| report.displaced && in_place.contains(&report.order.event_id);
    let mut groups: HashMap<Fingerprint, SameReports<'a>> = HashMap::new();
    for report in standing.iter().filter(|report| !has_gone_on(report)) {
        let group = groups.entry(report.fingerprint.clone()).or_default();
        group.add(report, own.contains(&report.order.event_id));
    }
    for line in lines {
        if let (Some(fingerprint), Some(report)) = (line.fingerprint(), line.report())
            && let Some(group) = groups.get_mut(&fingerprint)
        {
            group.name(report.ref_id.as_deref(), report.call_id.as_deref());
        }
    }
    groups
}

/// Reports of one fingerprint.
#[derive(Default)]
struct SameReports<'a> {
    /// Those that stand by a guess, or were displaced.
    guesses: Vec<&'a StandingReport>,
    /// Those that stand by their ids: only a person's word leads them elsewhere.
    named: Vec<&'a StandingReport>,
    ref_ids: BTreeSet<&'a str>,
    call_ids: BTreeSet<&'a str>,
    /// Where an id or a person put one of them.
    named_calls: BTreeSet<Uuid>,
}

impl<'a> SameReports<'a> {
    fn add(&mut self, report: &'a StandingReport, is_own: bool) {
        self.name(report.ref_id.as_deref(), report.call_id_text.as_deref());
        if report.is_named() {
            self.named_calls.insert(report.call_id);
        }
        if report.by_person || is_own {
            return;
        }
        if report.is_named() {
            self.named.push(report);
        } else {
            self.guesses.push(report);
        }
    }

    fn name(&mut self, ref_id: Option<&'a str>, call_id: Option<&'a str>) {
        self.ref_ids.extend(ref_id);
        self.call_ids.extend(call_id);
    }

    /// Where two ids are named, one that names none may be either's repeat: it stays (M12).
    fn follows(&self, guess: &StandingReport, leader: &Report, line: &BatchRow) -> bool {
        let leads_to = |call_id: &Uuid| {
            let hits = line
                .candidates
                .by_ref_id
                .iter()
                .chain(&line.candidates.by_call_id);
            hits.map(|hit| hit.call_id).any(|hit| hit == *call_id)
        };
        let names_none = guess.ref_id.is_none() && guess.call_id_text.is_none();
        let one_named = self.ref_ids.len() <= 1
            && self.call_ids.len() <= 1
            && self.named_calls.iter().all(leads_to);
        // Beside its leader it is a repeat of that one: left alone it would begin to bring money.
        let stands_beside = line.earlier_call == Some(guess.call_id);
        (one_named || !names_none || stands_beside || !line.trigger.is_automatic())
            && !names_differ(guess.ref_id.as_deref(), leader.ref_id.as_deref())
            && !names_differ(guess.call_id_text.as_deref(), leader.call_id.as_deref())
    }
}

/// An id finds its call, a person speaks about it, or a copy has changed the call of a guess.
fn leads_others(line: &BatchRow) -> bool {
    match line.trigger {
        // Those beside a guess whose call has changed are looked at with it: they may have come since (M14).
        // A closed row leads nobody to the call that it leaves (M12).
        Trigger::Assigned(_) | Trigger::Changed | Trigger::Ignored => true,
        Trigger::Fresh | Trigger::Again | Trigger::Recorded | Trigger::Replayed => {
            !line.candidates.by_ref_id.is_empty() || line.candidates.by_call_id.is_some()
        }
        _ => false,
    }
}

/// A person takes back what had put the row on its call, and what followed it there.
fn takes_word_back(line: &BatchRow, was_named: bool) -> bool {
    match line.trigger {
        Trigger::Undone | Trigger::Revoked => true,
        Trigger::Ignored | Trigger::Replayed | Trigger::Assigned(_) => was_named,
        _ => false,
    }
}
