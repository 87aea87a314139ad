//! The inputs of the benches: reports as senders write them, and a batch of 200 with its calls.

use jiff::{SignedDuration, Timestamp};
use trueup_domain::crediting::{Estimate, Payee, ReceptionOrder, Terms};
use trueup_domain::decision::{
    CallCandidate, CallCandidates, Decision, DecisionInput, Trigger, decide_report,
};
use trueup_domain::locked_calls::{CallKey, LockedCall, LockedCalls};
use trueup_domain::report::{Payout, Report};
use trueup_domain::webhook_settings::WebhookRules;
use trueup_event::raw_event::RawRequest;
use uuid::Uuid;

/// Reports of one transaction, as a busy worker settles them.
const BATCH: u32 = 200;

pub fn json() -> RawRequest {
    let body = br#"{"caller_id":"+13055551234","duration":90,"payout":"50.00","ref_id":"abc123","campaign":"HVAC"}"#;
    request("POST", "", Some("application/json"), body)
}

pub fn form() -> RawRequest {
    let body = b"caller_id=%2B13055551234&duration=90&payout=50.00&ref_id=abc123&campaign=HVAC";
    request("POST", "", Some("application/x-www-form-urlencoded"), body)
}

pub fn query() -> RawRequest {
    request(
        "GET",
        "caller_id=%2B13055551234&duration=90&payout=50.00&ref_id=abc123&campaign=HVAC",
        None,
        b"",
    )
}

pub fn request(method: &str, query: &str, content_type: Option<&str>, body: &[u8]) -> RawRequest {
    RawRequest {
        method: method.to_owned(),
        query: query.into(),
        content_type: content_type.map(Into::into),
        body: body.to_vec(),
        ..RawRequest::default()
    }
}

/// A batch of reports that name their calls, and what the search came upon for each.
pub struct Batch {
    books: LockedCalls,
    webhook: WebhookRules,
    reports: Vec<(ReceptionOrder, Report, CallCandidates)>,
}

impl Batch {
    pub fn new() -> Batch {
        let account_id = Uuid::from_u128(1);
        let at = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24);
        let payee = Payee {
            publisher_id: Uuid::from_u128(2),
            terms: Terms::RevShare {
                percent_e4: 600_000,
            },
        };
        let call_id = |n: u32| Uuid::from_u128(1 << 100 | u128::from(n));
        let call = |n: u32| LockedCall {
            released_terms: None,
            key: CallKey {
                account_id,
                call_id: call_id(n),
            },
            buyer_id: None,
            caller: Some(format!("+1305555{n:04}")),
            duration_seconds: 120,
            ended_at: at,
            value_cents: None,
            value_from_webhook: false,
            qualified: None,
            credit_cents: 0,
            estimate: Estimate {
                value_cents: None,
                qualified: None,
            },
            current_terms: Some(payee),
            posted_terms: None,
            reported_by: None,
            reports: Vec::new(),
            changed: false,
        };
        let report = |n: u32| {
            let place = ReceptionOrder {
                received_at: at + SignedDuration::from_micros(n.into()),
                position: 0,
                event_id: Uuid::from_u128(n.into()),
            };
            let report = Report {
                ref_id: Some(format!("ref-{n}")),
                caller: Some(format!("+1305555{n:04}")),
                duration_seconds: Some(90),
                payout: Payout::Cents(5_000 + i64::from(n)),
                ..Report::default()
            };
            let sighting = CallCandidate {
                call_id: call_id(n),
                buyer_id: None,
                duration_seconds: 120,
                ended_at: at,
                same_fingerprint: false,
            };
            (
                place,
                report,
                CallCandidates {
                    by_ref_id: vec![sighting],
                    ..CallCandidates::default()
                },
            )
        };
        Batch {
            books: LockedCalls::new((0..BATCH).map(call)),
            webhook: WebhookRules::with_defaults(Uuid::from_u128(3), account_id),
            reports: (0..BATCH).map(report).collect(),
        }
    }

    pub fn books(&self) -> LockedCalls {
        self.books.clone()
    }

    pub fn decide(&self, books: &mut LockedCalls) -> Vec<Decision> {
        let one = |(place, report, sightings): &(ReceptionOrder, Report, CallCandidates)| {
            let case = DecisionInput {
                stands_on: None,
                left_call: None,
                order: *place,
                webhook: &self.webhook,
                report,
                candidates: sightings,
                trigger: Trigger::Fresh,
            };
            decide_report(&case, books)
        };
        self.reports.iter().map(one).collect()
    }
}
