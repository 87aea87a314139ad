//! Settling: a batch of reports against the books, in one transaction.
//!
//! load → find the calls that may be meant (no locks) → lock them all, in id order, in one statement →
//! read claims and reports in a *new* statement (a lock wait does not refresh a statement's snapshot)
//! → decide in memory, in order of reception → write → publishers last, in id order. Recording calls
//! locks in the same order, so the two never wait for each other in a ring.
//!
//! The worker settles what comes from the broker; the console settles what a person asks for, and
//! tries a sample by settling it and rolling back. It commits nothing itself: that is the caller's.

mod find;
pub mod late;
mod load;
pub mod parked;
pub mod person;
pub mod plans;
mod stored;
mod write;

pub use load::terms;
pub use write::{Entry, terms_columns, write_entries};

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use crate::crash::{self, Point};
use crate::domain::books::{Books, CallKey};
use crate::domain::crediting::Place;
use crate::domain::decide::{
    Case, Course, Decision, Sightings, decide, may_match_later, no_report,
};
use crate::domain::event::{RawEvent, RawRequest};
use crate::domain::read::read;
use crate::domain::reason::{Detail, Reason, Status, Strategy};
use crate::domain::report::{NoReport, Reading, Report, SlotReading};
use crate::domain::webhook::Webhook;

/// One thing to settle.
#[derive(Debug, Clone)]
pub enum Work {
    /// From the broker. One that is settled already is skipped.
    Fresh(RawEvent),
    /// A row that is there already: tried again (M7), replayed or assigned (M8).
    Stored {
        id: Uuid,
        received_at: Timestamp,
        course: Course,
    },
    /// A person's own report about the call of an earlier row (M8).
    Apply {
        id: Uuid,
        received_at: Timestamp,
        from_id: Uuid,
        from_received_at: Timestamp,
        payout_cents: i64,
        call_id: Uuid,
    },
}

/// What became of one piece of work.
#[derive(Debug, Clone)]
pub struct Settled {
    pub id: Uuid,
    pub account_id: Uuid,
    pub received_at: Timestamp,
    /// Absent: it was settled before, nothing was done now.
    pub decision: Option<Decision>,
    pub report: Report,
    pub slots: Vec<SlotReading>,
}

/// One row on its way through a batch.
pub(super) struct Line {
    place: Place,
    account_id: Uuid,
    webhook_id: Uuid,
    course: Course,
    /// The row exists: it is updated, not inserted.
    exists: bool,
    request: Option<RawRequest>,
    source_ip: Option<std::net::IpAddr>,
    applied_from: Option<Uuid>,
    /// The call that the row stood for before, if any.
    earlier_call: Option<Uuid>,
    count: i32,
    refused: Option<Reason>,
    reading: Reading,
    sightings: Sightings,
    decision: Option<Decision>,
    /// What the row says, if it exists.
    before: Option<Box<Before>>,
}

/// What a row said before it was settled again.
pub(super) struct Before {
    status: String,
    reason: Option<Reason>,
    detail: Option<String>,
    report: Result<Report, NoReport>,
}

impl Line {
    /// Tried again in vain (M7): the row says already what would be written, six times in a day.
    fn is_as_before(&self) -> bool {
        let (Some(before), Some(decision)) = (&self.before, &self.decision) else {
            return false;
        };
        self.course == Course::Again
            && decision.status == Status::Unmatched
            && before.status == decision.status.code()
            && before.reason == decision.reason
            && before.detail == detail_json(&decision.detail)
            && before.report == self.reading.report
    }

    fn report(&self) -> Option<&Report> {
        if self.refused.is_some() {
            None
        } else {
            self.reading.report.as_ref().ok()
        }
    }
}

/// Settles `work` inside `tx`. The order of `work` does not matter; the order of reception does.
pub async fn settle(tx: &Transaction<'_>, work: Vec<Work>) -> Result<Vec<Settled>, StoreError> {
    let load::Loaded {
        mut lines,
        skipped,
        webhooks,
    } = load::load(tx, work).await?;
    read_reports(&mut lines, &webhooks);
    lines.sort_by_key(|line| line.place);
    find::sight(tx, &mut lines, &webhooks).await?;
    crash::point(Point::BeforeLock);
    let mut locked = load::lock_books(tx, calls_to_lock(&lines, &webhooks)).await?;
    for line in &mut lines {
        line.decision = Some(decide_line(line, &webhooks, &mut locked.books));
    }
    write::batch(tx, &lines, &locked).await?;
    crash::point(Point::AfterWrite);
    Ok(lines.into_iter().map(settled).chain(skipped).collect())
}

fn settled(line: Line) -> Settled {
    Settled {
        id: line.place.event_id,
        account_id: line.account_id,
        received_at: line.place.received_at,
        decision: line.decision,
        report: line.reading.report.unwrap_or_default(),
        slots: line.reading.slots,
    }
}

fn read_reports(lines: &mut [Line], webhooks: &HashMap<Uuid, Webhook>) {
    for line in lines {
        // Rows whose raw request is gone were read from their columns when they were loaded.
        if let (Some(request), Some(webhook), None) = (
            &line.request,
            webhooks.get(&line.webhook_id),
            line.applied_from,
        ) {
            line.reading = read(request, &webhook.read);
        }
    }
}

/// Every call that may change or whose claims decide, so that one statement locks them all in order.
fn calls_to_lock(lines: &[Line], webhooks: &HashMap<Uuid, Webhook>) -> BTreeSet<CallKey> {
    let mut keys = BTreeSet::new();
    for line in lines {
        let mut add = |call_id: Uuid| {
            keys.insert(CallKey {
                account_id: line.account_id,
                call_id,
            })
        };
        line.earlier_call.map(&mut add);
        if let Course::Assigned(call_id) | Course::Applied(call_id) = line.course {
            add(call_id);
            continue;
        }
        line.sightings
            .by_ref_id
            .iter()
            .for_each(|s| _ = add(s.call_id));
        line.sightings
            .by_call_id
            .iter()
            .for_each(|s| _ = add(s.call_id));
        let (Some(webhook), Some(report)) = (webhooks.get(&line.webhook_id), line.report()) else {
            continue;
        };
        for sighting in &line.sightings.by_caller {
            let off = sighting.duration_seconds - i64::from(report.duration_seconds.unwrap_or(0));
            if off.abs() <= webhook.duration_tolerance_seconds || sighting.signed {
                add(sighting.call_id);
            }
        }
    }
    keys
}

fn decide_line(line: &Line, webhooks: &HashMap<Uuid, Webhook>, books: &mut Books) -> Decision {
    if let Some(reason) = line.refused {
        return Decision::plain(Status::Refused, reason);
    }
    let Some(webhook) = webhooks.get(&line.webhook_id) else {
        return Decision::plain(Status::Held, Reason::ProcessingFailed);
    };
    match &line.reading.report {
        Err(why) => no_report(*why),
        Ok(report) => {
            let case = Case {
                place: line.place,
                webhook,
                report,
                sightings: &line.sightings,
                course: line.course,
            };
            decide(&case, books)
        }
    }
}

fn wants_another_try(line: &Line) -> bool {
    match (&line.decision, line.report()) {
        (Some(decision), Some(report)) => may_match_later(decision, report),
        _ => false,
    }
}

/// Balance changes by publisher, in id order: the order in which everybody locks them.
pub type Balances = BTreeMap<Uuid, i64>;

pub(super) fn strategy_code(strategy: Option<Strategy>) -> Option<&'static str> {
    strategy.map(Strategy::code)
}

pub(super) fn detail_json(detail: &Detail) -> Option<String> {
    if *detail == Detail::default() {
        return None;
    }
    // Plain data of our own: it always serialises.
    serde_json::to_string(detail).ok()
}
