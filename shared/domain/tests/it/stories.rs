//! The words in which the tests of matching tell what happened to calls and reports, in the model's store.
//!
//! One caller, one day: a call is known by its number, a report by the number of its event and its minute.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use trueup_domain::call_record::{CallRecord, Caller};
use trueup_domain::crediting::{Payee, ReceptionOrder, Terms};
use trueup_domain::decision::Trigger;
use trueup_domain::report::{Payout, Report};
use trueup_event::reason::{Reason, Status};
use uuid::Uuid;

use crate::model::{Event, Row, Store, Work};

pub const CALLER: &str = "+13055550142";
pub const OTHER_CALLER: &str = "+13055550143";

/// The minute of the day, counted from noon.
pub fn minute(minutes: i64) -> Timestamp {
    let noon: Timestamp = "2026-03-14T12:00:00Z".parse().expect("a time");
    noon + SignedDuration::from_mins(minutes)
}

pub fn call_id(number: u128) -> Uuid {
    Uuid::from_u128(0xCA11_0000 + number)
}

pub fn event_id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A call that ended two minutes past noon, on the assignment of its own number.
#[derive(Clone, Copy)]
pub struct ToldCall {
    pub number: u128,
    pub ref_id: Option<&'static str>,
    pub caller: Option<&'static str>,
    pub seconds: i32,
}

pub fn call(number: u128, seconds: i32) -> ToldCall {
    ToldCall {
        number,
        ref_id: None,
        caller: Some(CALLER),
        seconds,
    }
}

impl ToldCall {
    pub fn with_ref(self, ref_id: &'static str) -> ToldCall {
        ToldCall {
            ref_id: Some(ref_id),
            ..self
        }
    }

    pub fn from(self, caller: Option<&'static str>) -> ToldCall {
        ToldCall { caller, ..self }
    }
}

/// A report of the one caller, unless it is said otherwise.
pub fn report(number: u128, at_minute: i64, seconds: u32, cents: i64) -> Event {
    Event {
        place: ReceptionOrder {
            received_at: minute(at_minute),
            position: 0,
            event_id: event_id(number),
        },
        webhook: 0,
        report: Report {
            caller: Some(CALLER.to_owned()),
            duration_seconds: Some(seconds),
            payout: Payout::Cents(cents),
            ..Report::default()
        },
    }
}

/// A report that names a call and nothing else.
pub fn named_report(number: u128, at_minute: i64, ref_id: &str, cents: i64) -> Event {
    let mut event = report(number, at_minute, 0, cents);
    event.report.caller = None;
    event.report.duration_seconds = None;
    event.naming(ref_id)
}

impl Event {
    pub fn naming(mut self, ref_id: &str) -> Event {
        self.report.ref_id = Some(ref_id.to_owned());
        self
    }
}

impl Store {
    pub fn tell(&mut self, call: ToldCall) {
        let taken = self.record(&CallRecord {
            id: call_id(call.number),
            ref_id: Some(call.ref_id.map(str::to_owned)),
            caller: Some(call.caller.map(|caller| Caller {
                raw: caller.to_owned(),
                e164: Some(caller.to_owned()),
            })),
            tracking_number: None,
            duration_seconds: call.seconds,
            started_at: minute(0),
            ended_at: minute(2),
            buyer_id: None,
            assignment_id: Some(Some(Uuid::from_u128(call.number.clamp(1, 3)))),
            value_cents: None,
            qualified: None,
        });
        assert!(taken, "the copy was refused");
    }

    pub fn settle_work(&mut self, work: &[Work]) {
        let lines = self.sight(work);
        self.settle(lines);
    }

    pub fn send(&mut self, event: Event) {
        self.settle_work(&[Work::Fresh(event)]);
    }

    pub fn assign(&mut self, event: u128, call: u128) {
        self.settle_work(&[Work::Assigned(event_id(event), call_id(call))]);
    }

    /// A person's own amount, made from a row.
    pub fn apply_from(&mut self, source: &Event, number: u128, at_minute: i64, cents: i64) {
        let call_id = self.row(source.place.event_id.as_u128()).call_id;
        let mut event = source.clone();
        event.place.received_at = minute(at_minute);
        event.place.event_id = event_id(number);
        event.report.payout = Payout::Cents(cents);
        self.settle_work(&[Work::Applied(event, call_id.expect("its call"))]);
        let row = self.rows.get_mut(&event_id(number)).expect("its row");
        row.applied_from = Some(source.place.event_id);
    }

    /// Whatever waits is tried again, in one batch.
    pub fn try_again(&mut self, trigger: Trigger) {
        let waiting = self.rows.iter_mut().filter(|(_, row)| row.waiting);
        let work: Vec<Work> = waiting
            .map(|(id, row)| {
                let changed = std::mem::take(&mut row.changed);
                let trigger = if changed { Trigger::Changed } else { trigger };
                Work::Again(*id, trigger)
            })
            .collect();
        self.settle_work(&work);
    }

    pub fn change_percent(&mut self, assignment: u128, percent_e4: i32) {
        let payee = Payee {
            publisher_id: Uuid::from_u128(100 + assignment),
            terms: Terms::RevShare { percent_e4 },
        };
        self.payees.insert(Uuid::from_u128(assignment), payee);
    }

    pub fn row(&self, number: u128) -> &Row {
        &self.rows[&event_id(number)]
    }

    pub fn said(&self, number: u128) -> (Status, Option<Reason>, Option<u128>) {
        let row = self.row(number);
        let call = row.call_id.map(|id| id.as_u128() - 0xCA11_0000);
        (row.status, row.reason, call)
    }

    /// The calls that buyers pay for, and what they pay.
    pub fn paid(&self) -> BTreeMap<u128, i64> {
        self.assert_sound();
        let paid = self.money().into_iter().filter_map(|(id, (value, ..))| {
            let cents = value.filter(|cents| *cents != 0)?;
            Some((id.as_u128() - 0xCA11_0000, cents))
        });
        paid.collect()
    }

    pub fn credit_of(&self, number: u128) -> i64 {
        self.money()[&call_id(number)].3
    }

    fn assert_sound(&self) {
        for check in [
            self.check(),
            self.check_repeats(),
            self.check_guesses(),
            self.check_one_call(),
            self.check_against_rows(),
        ] {
            check.unwrap_or_else(|breach| panic!("{breach}"));
        }
    }
}
