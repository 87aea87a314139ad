//! What is shown of an event: what became of a report, and all that is known of it.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use trueup_domain::money::parse_cents;
use trueup_domain::phone;
use trueup_domain::reason_text::{explain_reason, waiting_until};
use trueup_domain::report::PayoutUnit;
use trueup_domain::report::SlotReading;
use trueup_event::raw_event::RawRequest;
use trueup_event::reason::ReadingNote;
use trueup_event::verdict::CandidateNote;
use trueup_store::accounts::Account;
use trueup_store::event_search::Search;
use trueup_store::stored_requests::{KeptRequest, load_requests};
use trueup_store::{events, ledger};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ledger::PostingResponse;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;

/// What became of one report, or of a bundle of refused requests.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventResponse {
    pub id: Uuid,
    pub received_at: Timestamp,
    pub webhook_id: Uuid,
    /// Its place in the batch that it came in, from 0.
    pub position: i32,
    #[schema(value_type = Option<String>)]
    pub source_ip: Option<std::net::IpAddr>,
    /// E.164; null if none could be read.
    pub caller: Option<String>,
    /// As it was sent.
    pub caller_raw: Option<String>,
    pub duration_seconds: Option<i32>,
    /// As reported, never the match's.
    pub ref_id: Option<String>,
    /// As reported, never the match's.
    pub call_id: Option<String>,
    pub payout_raw: Option<String>,
    pub payout_cents: Option<i64>,
    pub currency: Option<String>,
    /// A word of rejection beside the amount.
    pub rejection_word: Option<String>,
    /// `matched`, `duplicate`, `superseded`, `held`, `unmatched` or `refused`.
    pub status: String,
    /// A code of a closed set; null where there is nothing to say.
    pub reason: Option<String>,
    /// What happened, and what to do about it.
    pub reason_text: String,
    /// `ref_id`, `call_id`, `caller_duration` or `person`.
    pub strategy: Option<String>,
    pub matched_call: Option<MatchedCallResponse>,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// How many requests a refused row stands for; else 1.
    pub count: i32,
    /// An unmatched report is tried again until then.
    pub retry_until: Option<Timestamp>,
    /// The row that a person applied this one from.
    pub applied_from: Option<Uuid>,
    pub ignored_at: Option<Timestamp>,
    pub ignored_by: Option<String>,
    /// The person who last assigned, applied, ignored, replayed or undid it.
    pub decided_by: Option<String>,
    /// The event that this one repeats, displaced or was displaced by, or that was received later.
    pub other_event_id: Option<Uuid>,
    /// The call that it was matched to before it was moved to this one.
    pub left_call_id: Option<Uuid>,
    /// When it was first decided about.
    pub processed_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MatchedCall)]
pub struct MatchedCallResponse {
    pub id: Uuid,
    pub caller: Option<String>,
    pub tracking_number: Option<String>,
}

/// An event with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventInFull {
    #[serde(flatten)]
    pub event: EventResponse,
    /// The request as it came, a secret in it redacted; null once retention has dropped it, and on
    /// refused requests that were not kept.
    pub request: Option<Request>,
    /// True if the request is kept and cannot be read: its block in the database is damaged.
    pub request_unreadable: bool,
    /// How each slot was read.
    pub reading: Vec<SlotResponse>,
    /// What was taken off, mended or decoded before the request could be read: codes of a closed set.
    pub reading_notes: Vec<String>,
    /// The calls that were considered, nearest first.
    pub candidates: Vec<CandidateResponse>,
    /// What it posted to the ledger.
    pub postings: Vec<PostingResponse>,
    /// What persons did with it.
    pub actions: Vec<ActionResponse>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Request {
    pub method: String,
    pub query: String,
    pub content_type: Option<String>,
    /// Its text; null if it is not UTF-8.
    pub body: Option<String>,
    /// The body in base64, where it is not UTF-8.
    pub body_base64: Option<String>,
    /// True if the body is one element of a batch.
    pub element: bool,
}

/// How one slot was read.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Slot)]
pub struct SlotResponse {
    /// `ref_id`, `call_id`, `caller`, `duration` or `payout`.
    #[schema(value_type = String)]
    pub slot: trueup_domain::report::Slot,
    /// The name whose value was taken, as it stood in the request.
    pub name: Option<String>,
    /// The text that was taken.
    pub raw: Option<String>,
    /// What it was read as.
    pub value: Option<String>,
    /// Names that were looked at first, and why each was passed over.
    pub passed_over: Vec<SkippedField>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SkippedField {
    pub name: String,
    pub raw: String,
    pub why: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Candidate)]
pub struct CandidateResponse {
    pub call_id: Uuid,
    /// Our duration minus theirs.
    pub off_seconds: i64,
    /// How long before the report was received the call had ended.
    pub ended_seconds_before: i64,
    /// Claimed by another report.
    pub claimed: bool,
    /// Sold to another buyer than the webhook's.
    pub other_buyer: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub struct ActionResponse {
    pub id: Uuid,
    /// `replay`, `assign`, `apply`, `ignore`, `unignore` or `undo`.
    pub action: String,
    pub actor: String,
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Value>,
    pub outcome: Option<String>,
    pub created_at: Timestamp,
}

/// What is typed into one box, laid into a search: a caller in any written form, an id or a part of one, an
/// amount.
pub fn search_text(search: &mut Search, text: &str, account: &Account) {
    let id = Uuid::try_parse(text).ok();
    search.text_as_caller = phone::normalise_caller(text, &account.default_region).ok();
    search.text_as_cents = parse_cents(text, false, PayoutUnit::Dollars, &account.currency).ok();
    search.text = Some(id.map_or_else(|| text.to_owned(), |id| id.to_string()));
}

/// The sentence of a row, with how long it still waits.
pub fn reason_text(it: &events::Event, currency: &str, zone: &TimeZone) -> String {
    let told = explain_reason(&it.detail, currency);
    match it.retry_until {
        Some(until) => told + &waiting_until(&until.to_zoned(zone.clone())),
        None => told,
    }
}

impl EventResponse {
    pub fn from_event(it: events::Event, currency: &str, zone: &TimeZone) -> Self {
        EventResponse {
            reason_text: reason_text(&it, currency, zone),
            id: it.id,
            received_at: it.received_at,
            webhook_id: it.webhook_id,
            position: it.position,
            source_ip: it.source_ip,
            caller: it.caller,
            caller_raw: it.caller_raw,
            duration_seconds: it.duration_seconds,
            ref_id: it.ref_id,
            call_id: it.call_id,
            payout_raw: it.payout_raw,
            payout_cents: it.payout_cents,
            currency: it.currency,
            rejection_word: it.rejection_word,
            status: it.status.code().to_owned(),
            reason: it.reason.map(|r| r.code().to_owned()),
            strategy: it.strategy,
            matched_call: it.matched_call.map(|c| MatchedCallResponse {
                id: c.id,
                caller: c.caller,
                tracking_number: c.tracking_number,
            }),
            revenue_delta_cents: it.revenue_delta_cents,
            credit_delta_cents: it.credit_delta_cents,
            count: it.count,
            retry_until: it.retry_until,
            applied_from: it.applied_from,
            ignored_at: it.ignored_at,
            ignored_by: it.ignored_by,
            decided_by: it.decided_by,
            other_event_id: it.detail.other_event(),
            left_call_id: it.detail.left_call(),
            processed_at: it.processed_at,
        }
    }
}

impl From<RawRequest> for Request {
    fn from(raw: RawRequest) -> Self {
        use base64::Engine;
        let (body, body_base64) = match String::from_utf8(raw.body) {
            Ok(text) => (Some(text), None),
            Err(e) => (
                None,
                Some(base64::engine::general_purpose::STANDARD.encode(e.as_bytes())),
            ),
        };
        let (method, query, content_type, element) = (
            raw.method,
            raw.query.to_string(),
            raw.content_type.map(|text| text.to_string()),
            raw.element,
        );
        Request {
            method,
            query,
            content_type,
            body,
            body_base64,
            element,
        }
    }
}

impl From<SlotReading> for SlotResponse {
    fn from(it: SlotReading) -> Self {
        let passed_over = it
            .passed_over
            .into_iter()
            .map(|p| SkippedField {
                name: p.name,
                raw: p.raw,
                why: p.why,
            })
            .collect();
        SlotResponse {
            slot: it.slot,
            name: it.name,
            raw: it.raw,
            value: it.value,
            passed_over,
        }
    }
}

impl From<CandidateNote> for CandidateResponse {
    fn from(it: CandidateNote) -> Self {
        CandidateResponse {
            call_id: it.call_id,
            off_seconds: it.off_seconds,
            ended_seconds_before: it.ended_seconds_before,
            claimed: it.claimed,
            other_buyer: it.other_buyer,
        }
    }
}

pub fn note_codes(notes: &[ReadingNote]) -> Vec<String> {
    notes.iter().map(|note| note.code().to_owned()).collect()
}

/// One event in full; `None` if the account has no such row (yet).
pub async fn load_event_in_full(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
) -> Result<EventInFull, Problem> {
    let client = app.pool.get().await?;
    let account_id = operator.account_id();
    let found = events::get_event(&client, account_id, id).await?;
    let found =
        found.ok_or_else(|| Problem::not_found("event (or it has not been processed yet)"))?;
    let kept = load_requests(&client, &[(found.received_at, id)])
        .await?
        .remove(&id);
    let postings = ledger::of_event(&client, account_id, id).await?;
    let actions = events::list_actions(&client, account_id, id).await?;
    let candidates = found.detail.candidates().to_vec();
    let reading_notes = note_codes(&found.detail.reading_notes);
    let request_unreadable = kept == Some(KeptRequest::Unreadable);
    let (request, slots) = kept
        .and_then(KeptRequest::whole)
        .map_or((None, Vec::new()), |kept| (Some(kept.request), kept.slots));
    Ok(EventInFull {
        event: EventResponse::from_event(found, &operator.account.currency, &operator.zone),
        request: request.map(Into::into),
        request_unreadable,
        reading: slots.into_iter().map(Into::into).collect(),
        reading_notes,
        candidates: candidates.into_iter().map(Into::into).collect(),
        postings: postings.into_iter().map(Into::into).collect(),
        actions: actions
            .into_iter()
            .map(|a| ActionResponse {
                id: a.id,
                action: a.action,
                actor: a.actor,
                detail: a.detail.and_then(|text| serde_json::from_str(&text).ok()),
                outcome: a.outcome,
                created_at: a.created_at,
            })
            .collect(),
    })
}
