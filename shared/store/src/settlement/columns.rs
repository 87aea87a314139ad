//! The columns of the tables that settling writes: each column's name, type and value in one place.

use tokio_postgres::Row;
use trueup_domain::batch_decision::{BatchRow, wants_another_try};
use trueup_domain::call_record::StoredCall;
use trueup_domain::crediting::Payee;
use trueup_domain::decision::Decision;
use trueup_domain::locked_calls::{CallReport, ClaimState, LockedCall};
use trueup_domain::report::Report;
use trueup_event::reason::{Reason, Status, Strategy};
use uuid::Uuid;

use crate::column_table::{TableColumn, columns};
use crate::settlement::posting::NewPosting;
use crate::terms_columns::{terms_amount, terms_kind, terms_percent};

/// A row of `events` as it is decided.
pub struct EventRow<'a> {
    pub line: &'a BatchRow,
    pub decision: &'a Decision,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// In which block its request lies, and where.
    pub request_place: Option<i64>,
}

impl<'a> EventRow<'a> {
    fn report(&self) -> Option<&'a Report> {
        self.line.report()
    }
}

pub fn event_key<'a>() -> Vec<TableColumn<'a, EventRow<'a>>> {
    columns!(|row: EventRow<'a>|
        "received_at": "timestamptz" = row.line.order.received_at;
        "id": "uuid" = row.line.order.event_id;
    )
}

/// What reading and deciding fill, and fill anew when the report is decided again.
pub fn decided_event<'a>() -> Vec<TableColumn<'a, EventRow<'a>>> {
    columns!(|row: EventRow<'a>|
        "caller": "text" = row.report().and_then(|r| r.caller.as_deref());
        "caller_raw": "text" = row.report().and_then(stored_caller_raw);
        "duration_seconds": "int4" = row.report().and_then(|r| signed_seconds(r.duration_seconds));
        "ref_id": "text" = row.report().and_then(|r| r.ref_id.as_deref());
        "call_id": "text" = row.report().and_then(|r| r.call_id.as_deref());
        "payout_raw": "text" = row.report().and_then(|r| r.payout_raw.as_deref());
        "payout_cents": "int8" = row.report().and_then(|r| r.payout.cents());
        "currency": "text" = row.report().and_then(|r| r.currency.as_deref());
        "rejection_word": "text" = row.report().and_then(|r| r.rejection_word.as_deref());
        "status": "text" = row.decision.status().code();
        "reason": "text" = row.decision.reason().map(Reason::code);
        "detail": "text" as "json" = row.decision.detail.to_json();
        "strategy": "text" = row.decision.strategy.map(Strategy::code);
        "matched_call_id": "uuid" = row.decision.call_id;
        "revenue_delta_cents": "int8" = row.revenue_delta_cents;
        "credit_delta_cents": "int8" = row.credit_delta_cents;
        "decided_by": "text" = row.line.actor.as_deref();
    )
}

/// What a row says from its first day on.
fn fixed_event<'a>() -> Vec<TableColumn<'a, EventRow<'a>>> {
    columns!(|row: EventRow<'a>|
        "account_id": "uuid" = row.line.account_id;
        "webhook_id": "uuid" = row.line.webhook_id;
        "position": "int4" = i32::from(row.line.order.position);
        "source_ip": "inet" = row.line.source_ip;
        "count": "int4" = row.line.count;
        "applied_from": "uuid" = row.line.applied_from;
        "request_place": "int8" = row.request_place;
    )
}

/// What an insert is given.
pub fn inserted_event<'a>() -> Vec<TableColumn<'a, EventRow<'a>>> {
    let written = [event_key(), decided_event(), fixed_event(), event_waits()];
    written.into_iter().flatten().collect()
}

/// What an update is given.
pub fn updated_event<'a>() -> Vec<TableColumn<'a, EventRow<'a>>> {
    let written = [event_key(), decided_event(), event_waits()];
    written.into_iter().flatten().collect()
}

/// No column: whether the row is told until when it is tried again (`retry_until`).
fn event_waits<'a>() -> Vec<TableColumn<'a, EventRow<'a>>> {
    columns!(|row: EventRow<'a>| "waits": "bool" = is_told_to_wait(row.line);)
}

/// A row without a call says until when it is tried again; one that has a call by a guess waits as well,
/// but nothing is missing.
pub fn is_told_to_wait(line: &BatchRow) -> bool {
    let unmatched = |d: &Decision| d.status() == Status::Unmatched;
    line.decision.as_ref().is_some_and(unmatched) && wants_another_try(line)
}

/// A call's row under lock, and where it lies.
pub struct LockedRow<'a> {
    pub call: &'a LockedCall,
    pub ctid: Option<&'a str>,
}

pub fn locked_call_key<'a>() -> Vec<TableColumn<'a, LockedRow<'a>>> {
    columns!(|row: LockedRow<'a>|
        "account_id": "uuid" = row.call.key.account_id;
        "id": "uuid" = row.call.key.call_id;
    )
}

/// No column: where its row was locked.
pub fn locked_call_place<'a>() -> Vec<TableColumn<'a, LockedRow<'a>>> {
    columns!(|row: LockedRow<'a>| "at": "text" as "tid" = row.ctid;)
}

/// What an update of a locked call is given.
pub fn updated_call<'a>() -> Vec<TableColumn<'a, LockedRow<'a>>> {
    let given = [locked_call_key(), locked_call_place(), settled_call()];
    given.into_iter().flatten().collect()
}

/// What settling changes about a call.
pub fn settled_call<'a>() -> Vec<TableColumn<'a, LockedRow<'a>>> {
    let written = [call_value_source(), call_money()];
    written.into_iter().flatten().collect()
}

/// Who set a call's value.
fn call_value_source<'a>() -> Vec<TableColumn<'a, LockedRow<'a>>> {
    columns!(|row: LockedRow<'a>|
        "value_from_webhook": "bool" = row.call.value_from_webhook;
        "reported_by_webhook_id": "uuid" = row.call.reported_by;
    )
}

/// A call's money.
pub struct CallMoney {
    pub value_cents: Option<i64>,
    pub qualified: Option<bool>,
    pub credit_cents: i64,
    pub payee: Option<Payee>,
}

/// A row of `calls`, whoever writes it: settling, or recording.
pub trait PaidCall {
    fn money(&self) -> CallMoney;
}

impl PaidCall for LockedRow<'_> {
    fn money(&self) -> CallMoney {
        CallMoney {
            value_cents: self.call.value_cents,
            qualified: self.call.qualified,
            credit_cents: self.call.credit_cents,
            payee: self.call.posted_terms,
        }
    }
}

impl PaidCall for &StoredCall {
    fn money(&self) -> CallMoney {
        CallMoney {
            value_cents: self.value_cents,
            qualified: self.qualified,
            credit_cents: self.credit_cents,
            payee: self.terms,
        }
    }
}

pub fn call_money<'a, R: PaidCall>() -> Vec<TableColumn<'a, R>> {
    columns!(|row: R|
        "value_cents": "int8" = row.money().value_cents;
        "qualified": "bool" = row.money().qualified;
        "publisher_payout_cents": "int8" = row.money().credit_cents;
        "terms_publisher_id": "uuid" = row.money().payee.map(|payee| payee.publisher_id);
        "terms_kind": "text" = row.money().payee.map(|payee| terms_kind(payee.terms));
        "terms_amount_cents": "int8" = row.money().payee.and_then(|payee| terms_amount(payee.terms));
        "terms_percent_e4": "int4" = row.money().payee.and_then(|payee| terms_percent(payee.terms));
    )
}

/// What a call knows of a report.
pub struct CallReportRow<'a> {
    pub call: &'a LockedCall,
    pub report: &'a CallReport,
}

pub fn call_report_key<'a>() -> Vec<TableColumn<'a, CallReportRow<'a>>> {
    columns!(|row: CallReportRow<'a>|
        "account_id": "uuid" = row.call.key.account_id;
        "call_id": "uuid" = row.call.key.call_id;
        "received_at": "timestamptz" = row.report.order.received_at;
        "position": "int4" = i32::from(row.report.order.position);
        "event_id": "uuid" = row.report.order.event_id;
    )
}

pub fn inserted_call_report<'a>() -> Vec<TableColumn<'a, CallReportRow<'a>>> {
    let written = [call_report_key(), call_report_state(), fixed_call_report()];
    written.into_iter().flatten().collect()
}

/// What an update is given.
pub fn updated_call_report<'a>() -> Vec<TableColumn<'a, CallReportRow<'a>>> {
    let given = [call_report_key(), call_report_state()];
    given.into_iter().flatten().collect()
}

/// What never changes about a report of a call.
fn fixed_call_report<'a>() -> Vec<TableColumn<'a, CallReportRow<'a>>> {
    columns!(|row: CallReportRow<'a>|
        "webhook_id": "uuid" = row.report.webhook_id;
        "exempt_from_v2": "bool" = row.report.exempt_from_v2;
    )
}

pub fn call_report_state<'a>() -> Vec<TableColumn<'a, CallReportRow<'a>>> {
    columns!(|row: CallReportRow<'a>|
        "strategy": "text" = row.report.strategy.code();
        "role": "text" = role_code(row.report.role);
        "by_person": "bool" = row.report.by_person;
        "payout_cents": "int8" = row.report.payout_cents;
        "caller": "text" = row.report.caller.as_deref();
        "duration_seconds": "int4" = row.report.duration_seconds.and_then(|d| i32::try_from(d).ok());
        "ref_id": "text" = row.report.ref_id.as_deref();
        "call_id_text": "text" = row.report.call_id_text.as_deref();
        "guess": "bool" = row.report.guess;
    )
}

/// An entry of the ledger with its id, and what its publisher is owed after it.
pub struct PostingRow<'a> {
    pub id: Uuid,
    pub posting: &'a NewPosting,
    pub balance_after_cents: Option<i64>,
}

pub fn posting_columns<'a>() -> Vec<TableColumn<'a, PostingRow<'a>>> {
    columns!(|row: PostingRow<'a>|
        "id": "uuid" = row.id;
        "account_id": "uuid" = row.posting.call.account_id;
        "call_id": "uuid" = row.posting.call.call_id;
        "publisher_id": "uuid" = row.posting.publisher_id;
        "event_id": "uuid" = row.posting.event_id;
        "actor": "text" = row.posting.actor.as_deref();
        "kind": "text" = row.posting.kind.code();
        "revenue_delta_cents": "int8" = row.posting.revenue_delta_cents;
        "credit_delta_cents": "int8" = row.posting.credit_delta_cents;
        "balance_after_cents": "int8" = row.balance_after_cents;
        "terms_kind": "text" = row.posting.terms.map(terms_kind);
        "terms_amount_cents": "int8" = row.posting.terms.and_then(terms_amount);
        "terms_percent_e4": "int4" = row.posting.terms.and_then(terms_percent);
        "round": "int2" = row.posting.round;
    )
}

fn role_code(role: ClaimState) -> &'static str {
    match role {
        ClaimState::Folded => "folded",
        ClaimState::Held => "held",
        ClaimState::Displaced => "displaced",
        // Such a report is not kept.
        ClaimState::Withdrawn => "withdrawn",
    }
}

/// What was sent for a caller, where it is not the caller itself, as from those who write E.164.
fn stored_caller_raw(report: &Report) -> Option<&str> {
    let raw = report.caller_raw.as_deref()?;
    (report.caller.as_deref() != Some(raw)).then_some(raw)
}

/// What was sent for the caller of a stored row.
pub fn caller_raw_of_row(row: &Row) -> Option<String> {
    let raw: Option<String> = row.get("caller_raw");
    raw.or_else(|| row.get("caller"))
}

/// No report is longer than an int4 of seconds can say (X5).
fn signed_seconds(duration: Option<u32>) -> Option<i32> {
    duration.and_then(|d| i32::try_from(d).ok())
}
