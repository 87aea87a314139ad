//! A simulation from a seed: senders, a broker that delivers again, two workers that are killed at
//! any point, calls that are recorded late, persons, clocks that jump. The deciding is the product's;
//! broker and store are models. At each rest the invariants of RULES.md must hold.
//!
//! Each move has dice of its own, and time, events' ids and calls go on by the number of the step: so a move
//! can be left out without changing what the others are (`simulation_runs` makes failing runs short by it).

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use trueup_domain::batch_decision::BatchRow;
use trueup_domain::call_record::CallRecord;
use trueup_domain::crediting::ReceptionOrder;
use trueup_domain::decision::Trigger;
use trueup_domain::report::{Payout, Report};
use uuid::Uuid;

use crate::model::{Event, Row, Store, Work, by_ref_id, plain_call};
use trueup_services::seeded_rng::SeededRng;

/// On average, a rest comes after this many steps.
const STEPS_PER_REST: usize = 120;
const WORKERS: usize = 2;
/// Calls of a run in order, recorded before its first report: a tenth of its steps goes on to the next.
const CALLS_IN_ORDER: u128 = 240;

/// Reports that a sender may send again or correct.
const LAST_SENT: usize = 12;
/// Events among which a person looks for something to do.
const LAST_EVENTS: usize = 40;
/// Ids that one step may give to events.
const EVENTS_PER_STEP: u128 = 16;

/// What may happen in a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Reports name their calls by id, terms stand still, no person acts: the books must equal those
    /// of one pass in order of reception (invariant 3).
    ByIds,
    /// Reports that name no id, decided in order of reception while all calls are recorded before: the books
    /// must equal those of one pass (M10, invariant 3 for guesses).
    GuessesInOrder,
    /// Everything: matching by caller and duration, changes of terms, persons.
    Everything,
}

/// One thing that happens in a run, by the number of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Step(u64),
    /// After that step.
    Rest(u64),
}

impl Move {
    fn dice(self, seed: u64) -> SeededRng {
        match self {
            Move::Step(number) => SeededRng::for_part(seed, 2 * number),
            Move::Rest(number) => SeededRng::for_part(seed, 2 * number + 1),
        }
    }
}

/// The moves of a whole run.
pub fn draw_moves(seed: u64, steps: u64) -> Vec<Move> {
    let mut moves = Vec::new();
    for number in 0..steps {
        moves.push(Move::Step(number));
        let rest = Move::Rest(number);
        if rest.dice(seed).below(STEPS_PER_REST) == 0 {
            moves.push(rest);
        }
    }
    moves
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// A call begins somewhere, of which nobody has told yet.
    BeginCall,
    Send,
    SendAgain,
    Correct,
    RecordCall,
    MoveClock,
    Work,
    Kill,
    PublishAgain,
    TryWaiting,
    ChangeTerms,
    Person,
    Nothing,
}

/// An invariant that a test plants, to see a run fail.
pub type PlantedCheck = fn(&Simulation) -> Result<(), String>;

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

pub struct Simulation {
    kind: Kind,
    seed: u64,
    /// Those of the move that is being made.
    pub dice: SeededRng,
    pub now: Timestamp,
    pub store: Store,
    queue: VecDeque<Message>,
    workers: [Option<Busy>; WORKERS],
    /// Answered 200: each must have its row in the end (invariant 1).
    pub accepted: BTreeMap<Uuid, Event>,
    /// The events of the last steps that send one; those of steps that are left out are nowhere else.
    last_sent: Vec<Uuid>,
    /// The same of whatever may make an event, for persons.
    last_events: Vec<Uuid>,
    /// The step that is being made, and the event that it may make.
    making: Option<(StepKind, Uuid)>,
    next_event: u128,
    /// Calls that exist somewhere; a part of them has been recorded.
    pub calls: u128,
    /// Steps whose time has passed, taken or left out.
    passed: u64,
    /// How often each kind of step was taken.
    pub taken: BTreeMap<StepKind, u64>,
    pub planted: Option<PlantedCheck>,
    /// What happened, if somebody wants to read it.
    pub history: Option<Vec<String>>,
    /// The rows as the history told them last.
    noted_rows: BTreeMap<Uuid, String>,
}

impl Simulation {
    pub fn new(kind: Kind, seed: u64) -> Simulation {
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
            seed,
            dice,
            now,
            store,
            queue: VecDeque::new(),
            workers: [None, None],
            accepted: BTreeMap::new(),
            last_sent: Vec::new(),
            last_events: Vec::new(),
            making: None,
            next_event: 0,
            calls: 8,
            passed: 0,
            taken: BTreeMap::new(),
            planted: None,
            history: None,
            noted_rows: BTreeMap::new(),
        }
    }

    /// Makes the moves, and comes to a rest. `closely` looks at the books after every move: slow, and says
    /// where a breach begins.
    pub fn run(&mut self, moves: &[Move], closely: bool) -> Result<(), String> {
        for one in moves {
            let made = self.make_move(*one);
            self.note_changed_rows();
            made?;
            if closely {
                self.store.check()?;
                self.store.check_repeats()?;
            }
        }
        self.note(|| "the end".to_owned());
        let rested = self.rest(true);
        self.note_changed_rows();
        rested
    }

    fn make_move(&mut self, one: Move) -> Result<(), String> {
        match one {
            Move::Step(number) => {
                while self.passed < number {
                    self.pass_step();
                }
                let kind = self.pass_step();
                *self.taken.entry(kind).or_default() += 1;
                let now = self.now;
                self.note(|| format!("step {number}, {now}: {kind:?}"));
                self.take_step(kind)
            }
            Move::Rest(number) => {
                self.note(|| format!("a rest after step {number}"));
                self.dice = one.dice(self.seed);
                // The first roll said that there is a rest.
                self.dice.roll();
                self.rest(false)
            }
        }
    }

    /// Time goes on and calls begin by the next step, also where it is left out: the others keep their hour
    /// and their calls.
    fn pass_step(&mut self) -> StepKind {
        self.dice = Move::Step(self.passed).dice(self.seed);
        self.passed += 1;
        self.next_event = u128::from(self.passed) * EVENTS_PER_STEP;
        self.remember_event();
        self.now = self
            .now
            .saturating_add(SignedDuration::from_millis(
                1_000 + self.dice.below(60_000) as i64,
            ))
            .expect("now");
        let kind = self.draw_kind();
        let begins = match kind {
            StepKind::BeginCall => true,
            StepKind::Send => self.kind != Kind::GuessesInOrder && self.dice.likely(15),
            _ => false,
        };
        self.calls += u128::from(begins);
        self.making = Some((kind, Uuid::from_u128(self.next_event + 1)));
        kind
    }

    /// Puts the event of the step before among those that later steps speak of.
    fn remember_event(&mut self) {
        let Some((kind, id)) = self.making.take() else {
            return;
        };
        let sends = matches!(
            kind,
            StepKind::Send | StepKind::SendAgain | StepKind::Correct
        );
        if sends {
            push_bounded(&mut self.last_sent, id, LAST_SENT);
        }
        if sends || kind == StepKind::Person {
            push_bounded(&mut self.last_events, id, LAST_EVENTS);
        }
    }

    /// One of the last rows; the next older one where there is none of that step.
    pub fn pick_row(&mut self) -> Option<Uuid> {
        let at = self.dice.below(self.last_events.len());
        let older = self.last_events.iter().take(at + 1).rev();
        older.copied().find(|id| self.store.rows.contains_key(id))
    }

    pub fn find_last_row(&self, wanted: impl Fn(&Row) -> bool) -> Option<Uuid> {
        let is_wanted = |id: &Uuid| self.store.rows.get(id).is_some_and(&wanted);
        self.last_events.iter().rev().copied().find(is_wanted)
    }

    fn draw_kind(&mut self) -> StepKind {
        let roll = self.dice.below(100);
        if self.kind == Kind::GuessesInOrder {
            return match roll {
                0..10 => StepKind::BeginCall,
                10..40 => StepKind::Send,
                40..50 => StepKind::SendAgain,
                50..55 => StepKind::Correct,
                55..95 => StepKind::Work,
                _ => StepKind::Kill,
            };
        }
        match roll {
            0..30 => StepKind::Send,
            30..40 => StepKind::SendAgain,
            40..50 => StepKind::Correct,
            50..58 => StepKind::RecordCall,
            58..60 => StepKind::MoveClock,
            60..84 => StepKind::Work,
            84..88 => StepKind::Kill,
            88..90 => StepKind::PublishAgain,
            90..94 => StepKind::TryWaiting,
            94..96 if self.kind == Kind::Everything => StepKind::ChangeTerms,
            96..100 if self.kind == Kind::Everything => StepKind::Person,
            _ => StepKind::Nothing,
        }
    }

    /// Of guesses in order there is one worker, and nothing overtakes; what it dies with comes again first.
    fn take_step(&mut self, kind: StepKind) -> Result<(), String> {
        match kind {
            StepKind::BeginCall | StepKind::Nothing => {}
            StepKind::Send if self.kind == Kind::GuessesInOrder => self.send_guess(),
            StepKind::Send => self.send(),
            StepKind::SendAgain => self.send_again(),
            StepKind::Correct => self.correct(),
            StepKind::RecordCall => self.record_call(),
            StepKind::MoveClock => self.move_clock(),
            StepKind::Work => self.work()?,
            StepKind::Kill => self.kill(),
            StepKind::PublishAgain => self.publish_again(),
            StepKind::TryWaiting => self.try_waiting()?,
            StepKind::ChangeTerms => self.change_terms(),
            StepKind::Person => self.person()?,
        }
        Ok(())
    }

    fn note_changed_rows(&mut self) {
        if self.history.is_none() {
            return;
        }
        let shown = self.store.rows.iter().map(|(id, row)| {
            let (status, reason, call) = (row.status, row.reason, row.call_id);
            let marks = (row.waiting, row.ignored, row.applied_from);
            let text = format!(
                "{status:?} {reason:?} on {call:?}, credit {}, waits, ignored, applied from: {marks:?}",
                row.credit
            );
            (*id, text)
        });
        let shown: BTreeMap<Uuid, String> = shown.collect();
        for (id, text) in &shown {
            if self.noted_rows.get(id) != Some(text) {
                self.note(|| format!("  {id} is {text}"));
            }
        }
        self.noted_rows = shown;
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(text());
        }
    }

    pub fn new_event_id(&mut self) -> Uuid {
        self.next_event += 1;
        Uuid::from_u128(self.next_event)
    }

    fn send_guess(&mut self) {
        let payout = self.dice.pick(&[1_000, 2_500, 5_000, 0]).copied();
        let call = self.calls.saturating_sub(self.dice.below(8) as u128);
        let mut report = by_ref_id(call, payout);
        report.ref_id = None;
        self.name_by_caller(call, &mut report);
        self.accept(0, report);
    }

    fn accept(&mut self, webhook: usize, report: Report) {
        let event_id = self.new_event_id();
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
        self.note(|| format!("  {event:?}"));
        self.accepted.insert(event_id, event.clone());
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
            report.ref_id = match self.dice.below(20) {
                0..4 => Some(format!("X{}", call % 2)),
                4..7 => Some(shared_ref_id(call)),
                // Another caller's call.
                7..9 => Some(format!("R{}", call + 1)),
                _ => None,
            };
        }
    }

    fn pick_sent(&mut self) -> Option<Event> {
        let id = self.dice.pick(&self.last_sent)?;
        self.accepted.get(id).cloned()
    }

    fn send_again(&mut self) {
        if let Some(event) = self.pick_sent() {
            self.accept(event.webhook, event.report);
        }
    }

    fn correct(&mut self) {
        let Some(mut event) = self.pick_sent() else {
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
        let copy = match self.dice.below(20) {
            0..2 if self.kind == Kind::Everything => CallRecord {
                ref_id: Some(Some(shared_ref_id(number))),
                ..copy
            },
            2..4 if self.kind == Kind::Everything => CallRecord {
                caller: Some(None),
                ..copy
            },
            4 if self.kind == Kind::Everything => CallRecord {
                caller: plain_call(number + 1, self.now, None).caller,
                ..copy
            },
            _ => copy,
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
        let taken = self.store.record(&copy);
        self.note(|| format!("  {} {copy:?}", if taken { "taken:" } else { "refused:" }));
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
        if let Some(event) = self.pick_sent() {
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

    /// A worker has locked that caller (M15).
    pub fn is_locked(&self, caller: Option<&String>) -> bool {
        let busy = self.workers.iter().flatten().flat_map(|busy| &busy.lines);
        caller.is_some()
            && busy
                .filter_map(|line| line.report())
                .any(|report| report.caller.as_ref() == caller)
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
        self.store.check_one_call()?;
        self.store.check_against_rows()?;
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
        if let Some(planted) = self.planted {
            planted(self)?;
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

/// Some calls bear a ref_id that others bear, too.
fn shared_ref_id(call: u128) -> String {
    format!("S{}", call % 3)
}

fn push_bounded(ids: &mut Vec<Uuid>, id: Uuid, most: usize) {
    ids.push(id);
    if ids.len() > most {
        ids.remove(0);
    }
}
