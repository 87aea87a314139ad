//! A simulation from a seed: senders, a broker that delivers again, two workers that are killed at
//! any point, calls that are recorded late, persons, clocks that jump. The deciding is the product's;
//! broker and store are models. At each rest the invariants of RULES.md must hold.
//!
//! `TRUEUP_TEST_SIM_SEED` runs one seed again, and looks at the books after every step (a failure
//! prints its seed). `TRUEUP_TEST_SIM_STEPS` takes that many steps from seeds of today, or from the
//! given one on; `cargo xtask faults --iterations` does.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use trueup_domain::batch_decision::BatchRow;
use trueup_domain::call_record::CallRecord;
use trueup_domain::crediting::{Payee, ReceptionOrder, Terms};
use trueup_domain::decision::Trigger;
use trueup_domain::report::{Payout, Report};
use trueup_event::reason::{Status, Strategy};
use uuid::Uuid;

use crate::dice::SeededRng;
use crate::model::{Event, Store, Work, by_ref_id, plain_call};

/// Steps in the normal run of the tests, of each kind.
const STEPS: u64 = 9_600;
/// A run's books are then put aside: what is wrong shows early or not at all, and small books are fast.
const STEPS_PER_RUN: u64 = 1_200;
/// On average, a rest comes after this many steps.
const STEPS_PER_REST: usize = 120;
const WORKERS: usize = 2;
/// Calls of a run in order, recorded before its first report: a tenth of its steps goes on to the next.
const CALLS_IN_ORDER: u128 = 240;

/// What may happen in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Reports name their calls by id, terms stand still, no person acts: the books must equal those
    /// of one pass in order of reception (invariant 3).
    ByIds,
    /// Reports that name no id, decided in order of reception while all calls are recorded before: the books
    /// must equal those of one pass (M10, invariant 3 for guesses).
    GuessesInOrder,
    /// Everything: matching by caller and duration, changes of terms, persons.
    Everything,
}

#[derive(Clone)]
struct Message {
    events: Vec<Event>,
    redelivered: bool,
}

/// A worker between its search and its commit.
struct Busy {
    message: Message,
    lines: Vec<BatchRow>,
}

struct Simulation {
    kind: Kind,
    dice: SeededRng,
    now: Timestamp,
    store: Store,
    queue: VecDeque<Message>,
    workers: [Option<Busy>; WORKERS],
    /// Answered 200: each must have its row in the end (invariant 1).
    accepted: BTreeMap<Uuid, Event>,
    last_sent: Vec<Event>,
    next_event: u128,
    /// Calls that exist somewhere; a part of them has been recorded.
    calls: u128,
}

impl Simulation {
    fn new(kind: Kind, seed: u64) -> Simulation {
        let mut dice = SeededRng::new(seed);
        let now: Timestamp = "2026-03-14T12:00:00Z".parse().expect("a time");
        let mut store = Store::new();
        if kind == Kind::GuessesInOrder {
            for number in 1..=CALLS_IN_ORDER {
                let minutes = i64::try_from(number).expect("small") * 5;
                let ended_at = now + SignedDuration::from_mins(minutes);
                let assignment = dice.pick(&[1, 1, 2, 3]).copied();
                store.record(&plain_call(number, ended_at, assignment));
            }
        }
        Simulation {
            kind,
            dice,
            now,
            store,
            queue: VecDeque::new(),
            workers: [None, None],
            accepted: BTreeMap::new(),
            last_sent: Vec::new(),
            next_event: 1,
            calls: 8,
        }
    }

    /// `closely` looks at the books after every step: slow, and says where a breach begins.
    fn run(&mut self, steps: u64, closely: bool) -> Result<(), String> {
        for step in 0..steps {
            self.step()?;
            if closely {
                self.store
                    .check()
                    .and_then(|()| self.store.check_repeats())
                    .map_err(|breach| format!("after step {step}: {breach}"))?;
            }
            if self.dice.below(STEPS_PER_REST) == 0 {
                self.rest(false)?;
            }
        }
        self.rest(true)
    }

    fn step(&mut self) -> Result<(), String> {
        self.now = self
            .now
            .saturating_add(SignedDuration::from_millis(
                1_000 + self.dice.below(60_000) as i64,
            ))
            .expect("now");
        if self.kind == Kind::GuessesInOrder {
            return self.step_in_order();
        }
        match self.dice.below(100) {
            0..30 => self.send(),
            30..40 => self.send_again(),
            40..50 => self.correct(),
            50..58 => self.record_call(),
            58..60 => self.move_clock(),
            60..84 => self.work()?,
            84..88 => self.kill(),
            88..90 => self.publish_again(),
            90..94 => self.try_waiting()?,
            94..96 if self.kind == Kind::Everything => self.change_terms(),
            96..100 if self.kind == Kind::Everything => self.person()?,
            _ => {}
        }
        Ok(())
    }

    /// One worker, nothing overtakes; what it dies with comes again first.
    fn step_in_order(&mut self) -> Result<(), String> {
        match self.dice.below(100) {
            0..10 => {
                self.calls += 1;
            }
            10..40 => {
                let payout = self.dice.pick(&[1_000, 2_500, 5_000, 0]).copied();
                let call = self.calls.saturating_sub(self.dice.below(8) as u128);
                let mut report = by_ref_id(call, payout);
                report.ref_id = None;
                self.name_by_caller(call, &mut report);
                self.accept(0, report);
            }
            40..50 => self.send_again(),
            50..55 => self.correct(),
            55..95 => self.work()?,
            _ => self.kill(),
        }
        Ok(())
    }

    fn accept(&mut self, webhook: usize, report: Report) {
        let event_id = Uuid::from_u128(self.next_event);
        self.next_event += 1;
        let position = match self.kind {
            Kind::GuessesInOrder => 0,
            _ => u16::try_from(self.dice.below(3)).expect("small"),
        };
        let event = Event {
            place: ReceptionOrder {
                received_at: self.now,
                position,
                event_id,
            },
            webhook,
            report,
        };
        self.accepted.insert(event_id, event.clone());
        self.last_sent.push(event.clone());
        if self.last_sent.len() > 12 {
            self.last_sent.remove(0);
        }
        match self.queue.back_mut() {
            // Group commit: what arrives together rides in one message.
            Some(message)
                if !message.redelivered && message.events.len() < 4 && self.dice.likely(50) =>
            {
                message.events.push(event);
            }
            _ => self.queue.push_back(Message {
                events: vec![event],
                redelivered: false,
            }),
        }
    }

    fn send(&mut self) {
        if self.dice.likely(15) {
            self.calls += 1;
        }
        // Mostly the latest calls; one in ten is not recorded yet, or never will be.
        let back = self.dice.below(10) as u128;
        let call = (self.calls + 1).saturating_sub(back);
        let payouts = [1_000, 2_500, 5_000, 5_000, 0, 0, -1_000, -5_000, 2_000_000];
        let payout = if self.dice.likely(6) {
            None
        } else {
            self.dice.pick(&payouts).copied()
        };
        let mut report = by_ref_id(call, payout);
        if self.dice.likely(4) {
            report.currency = Some("EUR".into());
        }
        if self.dice.likely(4) {
            report.rejection_word = Some("rejected".into());
        }
        if self.dice.likely(25) {
            report.call_id = Some(plain_call(call, self.now, None).id.to_string());
            report.ref_id = self.dice.likely(30).then(|| "NOPE".to_owned());
        }
        if self.kind == Kind::Everything && self.dice.likely(55) {
            self.name_by_caller(call, &mut report);
        }
        let webhook = self.dice.below(2);
        self.accept(webhook, report);
    }

    fn name_by_caller(&mut self, call: u128, report: &mut Report) {
        let copy = plain_call(call, self.now, None);
        report.caller = copy.caller.flatten().and_then(|c| c.e164);
        let shorter = *self
            .dice
            .pick(&[0, 28, 30, 30, 31, 59, 60, 61])
            .expect("not empty");
        report.duration_seconds = u32::try_from(copy.duration_seconds - shorter).ok();
        if self.kind == Kind::GuessesInOrder {
            report.call_id = None;
            report.ref_id = None;
        } else if self.dice.likely(70) {
            report.call_id = None;
            report.ref_id = self.dice.likely(20).then(|| format!("X{}", call % 2));
        }
    }

    fn send_again(&mut self) {
        if let Some(event) = self.dice.pick(&self.last_sent).cloned() {
            self.accept(event.webhook, event.report);
        }
    }

    fn correct(&mut self) {
        let Some(mut event) = self.dice.pick(&self.last_sent).cloned() else {
            return;
        };
        let stands = event.report.payout.cents().unwrap_or(0);
        let amounts = [0, -stands, stands + 1_000, 2_500, 5_000];
        event.report.payout = self
            .dice
            .pick(&amounts)
            .map_or(Payout::Absent, |cents| Payout::Cents(*cents));
        self.accept(event.webhook, event.report);
    }

    fn record_call(&mut self) {
        let number = self.calls.saturating_sub(self.dice.below(8) as u128);
        let assignment = *self
            .dice
            .pick(&[Some(1), Some(1), Some(2), Some(3), None])
            .expect("not empty");
        let copy = plain_call(number, self.now - SignedDuration::from_secs(20), assignment);
        if self.kind == Kind::ByIds && self.store.has_call(copy.id) {
            // A changed estimate is a matter of when; the one pass knows only how it ended.
            return;
        }
        let copy = if self.kind == Kind::Everything && self.dice.likely(15) {
            CallRecord {
                duration_seconds: copy.duration_seconds + 200,
                ..copy
            }
        } else {
            copy
        };
        let copy = match self.dice.below(4) {
            0 => CallRecord {
                qualified: Some(Some(true)),
                value_cents: Some(Some(5_000)),
                ..copy
            },
            1 => CallRecord {
                qualified: Some(Some(true)),
                ..copy
            },
            2 => CallRecord {
                qualified: Some(Some(false)),
                value_cents: Some(Some(2_500)),
                ..copy
            },
            _ => copy,
        };
        // A refused copy (its assignment is fixed) changes nothing.
        let _ = self.store.record(&copy);
    }

    fn move_clock(&mut self) {
        let minutes = *self
            .dice
            .pick(&[-600, -20, -14, 14, 20, 600, 1_500])
            .expect("not empty");
        self.now = self
            .now
            .saturating_add(SignedDuration::from_mins(minutes))
            .expect("not at the end of time");
    }

    /// A worker takes a message and searches; or decides and commits, and its ack may be lost.
    fn work(&mut self) -> Result<(), String> {
        let in_order = self.kind == Kind::GuessesInOrder;
        let n = if in_order {
            0
        } else {
            self.dice.below(WORKERS)
        };
        match self.workers[n].take() {
            None => {
                let at = if in_order || self.dice.likely(80) {
                    0
                } else {
                    self.dice.below(self.queue.len())
                };
                let is_free = self.queue.get(at).is_some_and(|message| {
                    let mut callers = message.events.iter().map(|e| e.report.caller.as_ref());
                    callers.all(|caller| !self.is_locked(caller))
                });
                if !is_free {
                    return Ok(());
                }
                if let Some(message) = self.queue.remove(at) {
                    let work: Vec<Work> = message.events.iter().cloned().map(Work::Fresh).collect();
                    self.workers[n] = Some(Busy {
                        lines: self.store.sight(&work),
                        message,
                    });
                }
            }
            Some(busy) => {
                self.commit(&busy);
                if !in_order && self.dice.likely(20) {
                    self.queue.push_back(Message {
                        redelivered: true,
                        ..busy.message
                    });
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, busy: &Busy) {
        if !busy.message.redelivered {
            self.store.settle(busy.lines.clone());
            return;
        }
        // One that its worker died with is settled event by event, each searched for by itself (V12).
        for event in &busy.message.events {
            let lines = self.store.sight(&[Work::Fresh(event.clone())]);
            self.store.settle(lines);
        }
    }

    /// Before its commit: nothing was done, and the broker delivers again.
    fn kill(&mut self) {
        let n = match self.kind {
            Kind::GuessesInOrder => 0,
            _ => self.dice.below(WORKERS),
        };
        if let Some(busy) = self.workers[n].take() {
            self.queue.push_front(Message {
                redelivered: true,
                ..busy.message
            });
        }
    }

    /// A gateway that saw no confirm publishes the same event once more.
    fn publish_again(&mut self) {
        if let Some(event) = self.dice.pick(&self.last_sent).cloned() {
            self.queue.push_back(Message {
                events: vec![event],
                redelivered: false,
            });
        }
    }

    fn try_waiting(&mut self) -> Result<(), String> {
        let waiting: Vec<Work> = self
            .store
            .rows
            .iter()
            .filter(|(_, row)| row.waiting && !self.is_locked(row.event.report.caller.as_ref()))
            .map(|(id, row)| {
                let trigger = match (row.changed, self.now.as_second() % 2) {
                    (true, _) => Trigger::Changed,
                    (false, 0) => Trigger::Recorded,
                    (false, _) => Trigger::Again,
                };
                Work::Again(*id, trigger)
            })
            .collect();
        for work in &waiting {
            if let Work::Again(id, _) = work {
                self.store.rows.get_mut(id).expect("its row").changed = false;
            }
        }
        let lines = self.store.sight(&waiting);
        self.store.settle(lines);
        Ok(())
    }

    fn change_terms(&mut self) {
        let number = self.dice.below(3) as u128 + 1;
        let terms = *self
            .dice
            .pick(&[
                Terms::RevShare {
                    percent_e4: 500_000,
                },
                Terms::RevShare {
                    percent_e4: 1_000_000,
                },
                Terms::Flat { amount_cents: 900 },
            ])
            .expect("not empty");
        self.store.payees.insert(
            Uuid::from_u128(number),
            Payee {
                publisher_id: Uuid::from_u128(100 + number),
                terms,
            },
        );
    }

    /// M8, with the conditions of `trueup_settlement::manual_actions`.
    fn person(&mut self) -> Result<(), String> {
        let ids: Vec<Uuid> = self.store.rows.keys().rev().take(40).copied().collect();
        let Some(id) = self.dice.pick(&ids).copied() else {
            return Ok(());
        };
        let row = self.store.rows[&id].clone();
        if self.is_locked(row.event.report.caller.as_ref()) {
            return Ok(());
        }
        let free = !self.store.stands_for_money(id) && !row.ignored && row.applied_from.is_none();
        let call_id = plain_call(
            self.calls.saturating_sub(self.dice.below(8) as u128),
            self.now,
            None,
        )
        .id;
        let work = match self.dice.below(7) {
            0 if free => Work::Replayed(id),
            1 if self.store.has_call(call_id) && free => Work::Assigned(id, call_id),
            2 => match (row.call_id, row.event.report.payout.cents()) {
                (Some(call_id), Some(cents)) => {
                    self.apply(id, &row.event, cents.max(0), call_id);
                    return Ok(());
                }
                _ => return Ok(()),
            },
            3 if free => {
                self.store.ignore(id);
                return Ok(());
            }
            4 if row.ignored => {
                self.store.unignore(id);
                return Ok(());
            }
            5 if row.applied_from.is_some() && row.status == Status::Matched => Work::Revoked(id),
            6 if row.strategy == Some(Strategy::Person) && row.applied_from.is_none() => {
                Work::Undone(id)
            }
            _ => return Ok(()),
        };
        let reopened = row
            .applied_from
            .filter(|_| matches!(work, Work::Revoked(_)));
        let lines = self.store.sight(&[work]);
        self.store.settle(lines);
        if let Some(source) = reopened.filter(|id| self.store.rows[id].ignored) {
            self.store.unignore(source);
        }
        Ok(())
    }

    /// A worker has locked that caller (M15).
    fn is_locked(&self, caller: Option<&String>) -> bool {
        let busy = self.workers.iter().flatten().flat_map(|busy| &busy.lines);
        caller.is_some()
            && busy
                .filter_map(|line| line.report())
                .any(|report| report.caller.as_ref() == caller)
    }

    fn apply(&mut self, source: Uuid, from: &Event, cents: i64, call_id: Uuid) {
        let event_id = Uuid::from_u128(self.next_event);
        self.next_event += 1;
        let report = Report {
            payout: Payout::Cents(cents),
            currency: None,
            rejection_word: None,
            ..from.report.clone()
        };
        // After every report of its call, so that it always takes effect.
        let received_at = match self.store.last_report(call_id) {
            Some(last) if last >= self.now => last + SignedDuration::from_micros(1),
            _ => self.now,
        };
        if self.store.rows[&source].status == Status::Held {
            self.store.close(source);
        }
        let event = Event {
            place: ReceptionOrder {
                received_at,
                position: 0,
                event_id,
            },
            webhook: from.webhook,
            report,
        };
        self.accepted.insert(event_id, event.clone());
        let lines = self.store.sight(&[Work::Applied(event, call_id)]);
        self.store.settle(lines);
        let stands = self.store.money()[&call_id].0;
        assert_eq!(stands, Some(cents), "M8: an apply always takes effect");
        self.store
            .rows
            .get_mut(&event_id)
            .expect("its row")
            .applied_from = Some(source);
    }

    /// Everything that is under way comes to its end; then the invariants.
    fn rest(&mut self, at_the_end: bool) -> Result<(), String> {
        for n in 0..WORKERS {
            if let Some(busy) = self.workers[n].take() {
                self.commit(&busy);
            }
        }
        while let Some(message) = self.queue.pop_front() {
            let work: Vec<Work> = message.events.iter().cloned().map(Work::Fresh).collect();
            let busy = Busy {
                lines: self.store.sight(&work),
                message,
            };
            self.commit(&busy);
        }
        // What is tried again later is not decided in order of reception.
        if self.kind != Kind::GuessesInOrder {
            self.try_waiting()?;
        }
        self.store.check()?;
        self.store.check_repeats()?;
        self.store.check_guesses()?;
        if let Some(lost) = self
            .accepted
            .keys()
            .find(|id| !self.store.rows.contains_key(id))
        {
            return Err(format!("invariant 1: {lost} was accepted and has no row"));
        }
        if self.store.rows.len() != self.accepted.len() {
            return Err("invariant 1: a row that nobody sent".to_owned());
        }
        // The last rest of a run always takes the one pass; the others now and then, for it is slow.
        if self.kind != Kind::Everything && (at_the_end || self.dice.likely(20)) {
            let once = self.store.one_pass();
            once.check()?;
            let (is, should) = (self.store.money(), once.money());
            if let Some((id, money)) = should.iter().find(|(id, money)| is[*id] != **money) {
                return Err(format!(
                    "invariant 3: {id} has {:?}, one pass gives {money:?}",
                    is[id]
                ));
            }
            if self.store.owed() != once.owed() {
                return Err(format!(
                    "invariant 3: {:?}, one pass gives {:?}",
                    self.store.owed(),
                    once.owed()
                ));
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the variables are this test's own"
)]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Which seeds are run, and whether closely.
fn seeds() -> (std::ops::Range<u64>, bool) {
    let (seed, steps) = (
        number("TRUEUP_TEST_SIM_SEED"),
        number("TRUEUP_TEST_SIM_STEPS"),
    );
    let runs = steps.unwrap_or(STEPS).div_ceil(STEPS_PER_RUN);
    match (seed, steps) {
        (Some(seed), None) => (seed..seed + 1, true),
        (Some(seed), Some(_)) => (seed..seed + runs, false),
        (None, None) => (0..runs, false),
        (None, Some(_)) => {
            let today = u64::try_from(Timestamp::now().as_millisecond()).expect("after 1970");
            (today..today + runs, false)
        }
    }
}

#[test]
fn the_invariants_hold_at_every_rest() {
    let (seeds, closely) = seeds();
    println!("seeds {seeds:?}, {STEPS_PER_RUN} steps each");
    let mut statuses: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        for kind in [Kind::ByIds, Kind::GuessesInOrder, Kind::Everything] {
            let mut simulation = Simulation::new(kind, seed);
            if let Err(breach) = simulation.run(STEPS_PER_RUN, closely) {
                panic!("{breach}\nagain with TRUEUP_TEST_SIM_SEED={seed} ({kind:?})");
            }
            for row in simulation.store.rows.values() {
                *statuses.entry(row.status.code()).or_default() += 1;
            }
        }
    }
    println!("rows by status: {statuses:?}");
    for status in Status::ALL.iter().filter(|s| **s != Status::Refused) {
        assert!(
            statuses.contains_key(status.code()),
            "the runs never came upon {status}: {statuses:?}"
        );
    }
}
