//! The pure half of settling a batch: what a row is on its way, in which order rows are decided, which
//! calls are locked for them, and what is decided. The store finds, locks and writes around it.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use trueup_event::raw_event::{RawEvent, RawRequest};
use trueup_event::reason::{Reason, Status};
use uuid::Uuid;

use crate::crediting::ReceptionOrder;
use crate::decision::{
    CallCandidates, Decision, DecisionInput, Trigger, decide_report, may_match_later, no_report,
};
use crate::locked_calls::{CallKey, LockedCalls};
use crate::reading::read_request;
use crate::report::{ParsedRequest, Payout, ReadError, Report, SlotReading};
use crate::webhook_settings::Webhook;

/// One thing to settle.
#[derive(Debug, Clone)]
pub enum SettleJob {
    /// From the broker. One that is settled already is skipped.
    Fresh(RawEvent),
    /// A row that is there already: tried again (M7), replayed or assigned (M8).
    Stored {
        id: Uuid,
        received_at: Timestamp,
        course: Trigger,
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
pub struct SettleResult {
    pub id: Uuid,
    pub account_id: Uuid,
    pub received_at: Timestamp,
    /// Absent: it was settled before, nothing was done now.
    pub decision: Option<Decision>,
    pub report: Report,
    pub slots: Vec<SlotReading>,
}

impl SettleResult {
    /// One that was settled before; nothing is done now.
    pub fn settled_before(event: &RawEvent) -> SettleResult {
        SettleResult {
            id: event.id,
            account_id: event.account_id,
            received_at: event.received_at,
            decision: None,
            report: Report::default(),
            slots: Vec::new(),
        }
    }
}

/// One row on its way through a batch.
#[derive(Debug, Clone)]
pub struct BatchRow {
    pub order: ReceptionOrder,
    pub account_id: Uuid,
    pub webhook_id: Uuid,
    pub trigger: Trigger,
    /// The row exists: it is updated, not inserted.
    pub exists: bool,
    pub request: Option<RawRequest>,
    pub source_ip: Option<std::net::IpAddr>,
    pub applied_from: Option<Uuid>,
    /// The call that the row stood for before, if any.
    pub earlier_call: Option<Uuid>,
    pub count: i32,
    pub refused: Option<Reason>,
    pub reading: ParsedRequest,
    pub candidates: CallCandidates,
    pub decision: Option<Decision>,
    /// What the row says, if it exists.
    pub before: Option<Box<PreviousRow>>,
}

/// What a row said before it was settled again.
#[derive(Debug, Clone)]
pub struct PreviousRow {
    pub status: String,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    pub report: Result<Report, ReadError>,
}

impl BatchRow {
    /// A row of an event from the broker.
    pub fn of_event(event: RawEvent, exists: bool) -> BatchRow {
        let refused = event.refusal.as_ref().map(|r| r.reason);
        let count = event
            .refusal
            .as_ref()
            .map_or(1, |r| i32::try_from(r.count).unwrap_or(i32::MAX));
        BatchRow {
            order: ReceptionOrder {
                received_at: event.received_at,
                position: event.position,
                event_id: event.id,
            },
            account_id: event.account_id,
            webhook_id: event.webhook_id,
            trigger: Trigger::Fresh,
            exists,
            request: event.request,
            source_ip: Some(event.source_ip),
            applied_from: None,
            earlier_call: None,
            count,
            refused,
            reading: ParsedRequest {
                report: Ok(Report::default()),
                slots: Vec::new(),
            },
            candidates: CallCandidates::default(),
            decision: None,
            before: None,
        }
    }

    /// The new row of a person's apply: the report of the row it is made from, with the person's amount.
    pub fn with_manual_amount(
        self,
        id: Uuid,
        received_at: Timestamp,
        payout_cents: i64,
        call_id: Uuid,
    ) -> BatchRow {
        let report = self.reading.report.unwrap_or_default();
        BatchRow {
            order: ReceptionOrder {
                received_at,
                position: 0,
                event_id: id,
            },
            trigger: Trigger::Applied(call_id),
            exists: false,
            request: None,
            source_ip: None,
            applied_from: Some(self.order.event_id),
            earlier_call: None,
            refused: None,
            count: 1,
            before: None,
            reading: ParsedRequest {
                report: Ok(Report {
                    payout: Payout::Cents(payout_cents),
                    payout_raw: None,
                    // The person has looked at these.
                    currency: None,
                    rejection_word: None,
                    ..report
                }),
                slots: Vec::new(),
            },
            ..self
        }
    }

    /// Tried again in vain (M7): the row says already what would be written, six times in a day.
    pub fn is_as_before(&self) -> bool {
        let (Some(before), Some(decision)) = (&self.before, &self.decision) else {
            return false;
        };
        self.trigger == Trigger::Again
            && decision.status == Status::Unmatched
            && before.status == decision.status.code()
            && before.reason == decision.reason
            && before.detail == decision.detail.to_json()
            && before.report == self.reading.report
    }

    pub fn report(&self) -> Option<&Report> {
        if self.refused.is_some() {
            None
        } else {
            self.reading.report.as_ref().ok()
        }
    }
}

/// What the caller hears of a row.
pub fn result_of_row(line: BatchRow) -> SettleResult {
    SettleResult {
        id: line.order.event_id,
        account_id: line.account_id,
        received_at: line.order.received_at,
        decision: line.decision,
        report: line.reading.report.unwrap_or_default(),
        slots: line.reading.slots,
    }
}

/// Reads each row's request (X).
pub fn read_reports(lines: &mut [BatchRow], webhooks: &HashMap<Uuid, Webhook>) {
    for line in lines {
        // Rows whose raw request is gone were read from their columns when they were loaded.
        if let (Some(request), Some(webhook), None) = (
            &line.request,
            webhooks.get(&line.webhook_id),
            line.applied_from,
        ) {
            line.reading = read_request(request, &webhook.read);
        }
    }
}

/// Every call that may change or whose claims decide, so that one statement locks them all in order.
pub fn calls_to_lock(lines: &[BatchRow], webhooks: &HashMap<Uuid, Webhook>) -> BTreeSet<CallKey> {
    let mut keys = BTreeSet::new();
    for line in lines {
        let mut add = |call_id: Uuid| {
            keys.insert(CallKey {
                account_id: line.account_id,
                call_id,
            })
        };
        line.earlier_call.map(&mut add);
        if let Trigger::Assigned(call_id) | Trigger::Applied(call_id) = line.trigger {
            add(call_id);
            continue;
        }
        line.candidates
            .by_ref_id
            .iter()
            .for_each(|s| _ = add(s.call_id));
        line.candidates
            .by_call_id
            .iter()
            .for_each(|s| _ = add(s.call_id));
        let (Some(webhook), Some(report)) = (webhooks.get(&line.webhook_id), line.report()) else {
            continue;
        };
        for candidate in &line.candidates.by_caller {
            let theirs = i64::from(report.duration_seconds.unwrap_or(0));
            let off = candidate.duration_seconds.saturating_sub(theirs);
            if off.abs() <= webhook.duration_tolerance_seconds || candidate.same_fingerprint {
                add(candidate.call_id);
            }
        }
    }
    keys
}

/// The order in which rows are decided, whatever the order in which they came.
pub fn sort_by_reception(lines: &mut [BatchRow]) {
    lines.sort_by_key(|line| line.order);
}

/// Decides about the rows, each seeing what those before it did.
pub fn decide_lines(
    lines: &mut [BatchRow],
    webhooks: &HashMap<Uuid, Webhook>,
    books: &mut LockedCalls,
) {
    for line in lines {
        line.decision = Some(decide_line(line, webhooks, books));
    }
}

fn decide_line(
    line: &BatchRow,
    webhooks: &HashMap<Uuid, Webhook>,
    books: &mut LockedCalls,
) -> Decision {
    if let Some(reason) = line.refused {
        return Decision::without_detail(Status::Refused, reason);
    }
    let Some(webhook) = webhooks.get(&line.webhook_id) else {
        return Decision::without_detail(Status::Held, Reason::ProcessingFailed);
    };
    match &line.reading.report {
        Err(why) => no_report(*why),
        Ok(report) => {
            let case = DecisionInput {
                order: line.order,
                webhook,
                report,
                candidates: &line.candidates,
                trigger: line.trigger,
            };
            decide_report(&case, books)
        }
    }
}

/// True if the row waits for its call (M7).
pub fn wants_another_try(line: &BatchRow) -> bool {
    match (&line.decision, line.report()) {
        (Some(decision), Some(report)) => may_match_later(decision, report),
        _ => false,
    }
}
