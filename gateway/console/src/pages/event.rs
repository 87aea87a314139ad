//! One event with all that is known of it, and what a person may do with it.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use jiff::SignedDuration;
use trueup_domain::phone;
use trueup_domain::reason_text::format_cents;
use trueup_event::reason::{Reason, Status};
use trueup_store::calls::{self, TimePage};
use trueup_store::events;
use trueup_store::users::UserRole;
use uuid::Uuid;

use super::chart;
use super::events::reason_words;
use super::form::Form;
use super::formatting::{self, LocalTime, Markup, StatusBadge};
use super::layout::{PageError, PageLayout, PageResult, page, page_with};
use super::unknown_fields::unread_fields;
use super::viewer::Viewer;
use super::webhook_settings::slot_name;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::events::{
    ActionResponse, CandidateResponse, EventInFull, EventResponse, Request, SlotResponse,
    load_event_in_full,
};
use crate::operations::ledger::PostingResponse;
use crate::operations::webhooks::{ShownWebhook, show_webhook};
use crate::problem::Problem;

/// Calls that a search for the right one offers.
const OFFERED: i64 = 20;
/// Considered calls that are told by more than their id.
const MOST_WEIGHED: usize = 20;

struct EventSlotLine {
    slot: &'static str,
    name: String,
    raw: String,
    value: String,
    passed_over: Vec<(String, String, String)>,
}

struct CandidateLine {
    id: Uuid,
    /// When it started, and what else it is known by; absent if the call is gone.
    call: Option<(LocalTime, String)>,
    off: String,
    near: Markup,
    ended: String,
    note: &'static str,
}

struct PostingLine {
    at: LocalTime,
    kind: String,
    revenue: String,
    credit: String,
    balance: String,
    call: Uuid,
}

struct ActionLine {
    at: LocalTime,
    actor: String,
    what: String,
    outcome: String,
}

struct Offer {
    id: Uuid,
    caller: String,
    at: LocalTime,
    duration: String,
    value: String,
    ref_id: String,
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventDetailPage {
    look: PageLayout,
    fault: Option<String>,
    id: Uuid,
    at: LocalTime,
    processed: LocalTime,
    webhook_id: Uuid,
    webhook: String,
    pill: StatusBadge,
    reason: String,
    sentence: String,
    facts: Vec<(&'static str, String)>,
    call: Option<(Uuid, String)>,
    strategy: String,
    moved: String,
    applied_from: Option<Uuid>,
    ignored: Option<(LocalTime, String)>,
    count: i32,
    request_line: Option<String>,
    request_unreadable: bool,
    query: Option<String>,
    body: Option<String>,
    slots: Vec<EventSlotLine>,
    /// Fields that no slot reads, by name and value.
    unread: Vec<(String, String)>,
    can_set_names: bool,
    has_caller: bool,
    /// The request as a line for a shell, for who may send one.
    curl: Option<String>,
    newer: Option<Uuid>,
    older: Option<Uuid>,
    /// Its body could be taken apart.
    is_readable: bool,
    candidates: Vec<CandidateLine>,
    postings: Vec<PostingLine>,
    actions: Vec<ActionLine>,
    find: String,
    offers: Vec<Offer>,
    can_replay: bool,
    can_assign: bool,
    can_apply: bool,
    can_undo: bool,
    /// The person who last decided about it.
    decided_by: Option<String>,
    /// The event that this one repeats, displaced or was displaced by.
    other_event: Option<Uuid>,
    /// The call that it was moved away from.
    left_call: Option<Uuid>,
    amount: String,
    currency: String,
}

fn slot_line(slot: SlotResponse, currency: &str) -> EventSlotLine {
    EventSlotLine {
        slot: slot_name(slot.slot),
        name: slot.name.unwrap_or_default(),
        raw: slot.raw.unwrap_or_default(),
        value: formatting::read_as(slot.value.unwrap_or_default(), currency),
        passed_over: slot
            .passed_over
            .into_iter()
            .map(|p| (p.name, p.raw, p.why))
            .collect(),
    }
}

fn ended_before(seconds: i64) -> String {
    let (n, unit) = match seconds.abs() {
        s @ 0..=119 => (s, "s"),
        s @ 120..=7_199 => (s / 60, "min"),
        s => (s / 3_600, "h"),
    };
    format!(
        "{n} {unit} {}",
        if seconds < 0 { "after" } else { "before" }
    )
}

fn strategy_words(code: Option<&str>) -> String {
    match code {
        Some("ref_id") => "by ref_id",
        Some("call_id") => "by call_id",
        Some("caller_duration") => "by caller and duration",
        Some("person") => "by a person",
        _ => "",
    }
    .to_owned()
}

fn facts_of(event: &EventResponse, currency: &str) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    let raw = event
        .caller_raw
        .clone()
        .filter(|raw| Some(raw) != event.caller.as_ref());
    add(
        "Caller",
        event
            .caller
            .clone()
            .or(Some("none could be read".to_owned())),
    );
    add("Caller as sent", raw);
    add(
        "Duration",
        event
            .duration_seconds
            .map(|s| format!("{} ({s} s)", formatting::format_duration(Some(s)))),
    );
    add("ref_id", event.ref_id.clone());
    add("call_id", event.call_id.clone());
    add("Payout as sent", event.payout_raw.clone());
    add(
        "Payout",
        event
            .payout_cents
            .map(|cents| format_cents(cents, currency)),
    );
    add("Currency", event.currency.clone());
    add("Word of rejection", event.rejection_word.clone());
    add("Source address", event.source_ip.map(|ip| ip.to_string()));
    if event.position > 0 {
        add("Place in its batch", Some((event.position + 1).to_string()));
    }
    facts
}

fn action_words(action: &ActionResponse, currency: &str) -> String {
    let detail = |name: &str| action.detail.as_ref().and_then(|d| d.get(name).cloned());
    match action.action.as_str() {
        "assign" => {
            format!(
                "assigned to {}",
                detail("call_id")
                    .and_then(|v| v.as_str().map(str::to_owned))
                    .unwrap_or_default()
            )
        }
        "apply" => format!(
            "applied {}",
            formatting::format_money(detail("payout_cents").and_then(|v| v.as_i64()), currency)
        ),
        "replay" => "replayed".to_owned(),
        "unignore" => "opened again".to_owned(),
        "undo" => "undid what a person had done".to_owned(),
        _ => "ignored".to_owned(),
    }
}

/// Pretty where it is JSON, as it came where it is not.
fn body_text(text: String) -> String {
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) if json.is_object() || json.is_array() => {
            serde_json::to_string_pretty(&json).unwrap_or(text)
        }
        _ => text,
    }
}

/// A text in single quotes, as a shell reads it.
fn quote_for_shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The same request once more; secrets were redacted when it was kept.
fn curl_of(request: &Request, url: &str) -> String {
    let query = Some(&request.query).filter(|query| !query.is_empty());
    let address = query.map_or_else(|| url.to_owned(), |query| format!("{url}?{query}"));
    // Brackets in a URL are no pattern, and a body that begins with `@` is no file's name.
    let mut line = format!(
        "curl -g -X {} {}",
        request.method,
        quote_for_shell(&address)
    );
    if let Some(kind) = &request.content_type {
        line += &format!(" -H {}", quote_for_shell(&format!("Content-Type: {kind}")));
    }
    if let Some(body) = request.body.as_ref().filter(|body| !body.is_empty()) {
        line += &format!(" --data-raw {}", quote_for_shell(body));
    }
    line
}

fn unread_of(request: &Request, webhook: &ShownWebhook) -> Vec<(String, String)> {
    let body = request.body.as_deref().unwrap_or_default();
    unread_fields(
        &request.query,
        body.as_bytes(),
        &webhook.settings.field_names,
    )
}

async fn find_offers(
    app: &App,
    viewer: &Viewer,
    event: &EventResponse,
    find: &str,
) -> Result<Vec<Offer>, PageError> {
    let week = SignedDuration::from_hours(24 * 7);
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let page = TimePage {
        below: None,
        limit: OFFERED,
    };
    let mut filter = calls::CallFilter::default();
    if let Ok(id) = Uuid::try_parse(find) {
        let found = calls::get_call(&client, account, id, 0).await?;
        return Ok(found
            .into_iter()
            .map(|call| make_offer(call, viewer))
            .collect());
    }
    match phone::normalise_caller(find, &viewer.account.default_region) {
        _ if find.is_empty() => {
            let Some(caller) = event.caller.clone() else {
                return Ok(Vec::new());
            };
            filter.caller = Some(caller);
            filter.from = event.received_at.checked_sub(week).ok();
        }
        Ok(caller) => filter.caller = Some(caller),
        Err(_) => filter.ref_id = Some(find.to_owned()),
    }
    let found = calls::list_calls(&client, account, &filter, page, 0).await?;
    Ok(found
        .into_iter()
        .map(|call| make_offer(call, viewer))
        .collect())
}

fn make_offer(call: calls::Call, viewer: &Viewer) -> Offer {
    Offer {
        id: call.id,
        caller: call
            .caller
            .or(call.caller_raw)
            .unwrap_or_else(|| "withheld".to_owned()),
        at: viewer.clock.local_time(call.started_at),
        duration: formatting::format_duration(Some(call.duration_seconds)),
        value: formatting::format_money(call.value_cents, viewer.account_currency()),
        ref_id: call.ref_id.unwrap_or_default(),
    }
}

async fn page_of(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
    find: &str,
) -> Result<EventDetailPage, PageError> {
    let full = load_event_in_full(app, &viewer.auth_context(), id)
        .await
        .map_err(not_found)?;
    let webhook = show_webhook(app, &viewer.auth_context(), full.event.webhook_id, None).await?;
    let offers = find_offers(app, viewer, &full.event, find).await?;
    let weighed = weighed_candidates(app, viewer, &full.candidates).await?;
    let (at, of) = (full.event.received_at, full.event.webhook_id);
    let client = app.pool.get().await?;
    let (newer, older) = events::neighbours(&client, viewer.account.id, of, at, id).await?;
    Ok(EventDetailPage {
        newer,
        older,
        ..assemble_page(viewer, full, &webhook, &weighed, offers, find)
    })
}

fn candidate_line(
    candidate: CandidateResponse,
    weighed: &Weighed,
    tolerance: i64,
) -> CandidateLine {
    CandidateLine {
        id: candidate.call_id,
        call: weighed.get(&candidate.call_id).cloned(),
        off: format!("{:+} s", candidate.off_seconds),
        near: chart::near_chart(candidate.off_seconds, tolerance),
        ended: ended_before(candidate.ended_seconds_before),
        note: match (candidate.claimed, candidate.other_buyer) {
            (true, _) => "reported already",
            (_, true) => "another buyer's",
            _ => "free",
        },
    }
}

/// The calls that were considered, as a person knows them.
type Weighed = HashMap<Uuid, (LocalTime, String)>;

async fn weighed_candidates(
    app: &App,
    viewer: &Viewer,
    candidates: &[CandidateResponse],
) -> Result<Weighed, PageError> {
    let client = app.pool.get().await?;
    let mut weighed = Weighed::new();
    for candidate in candidates.iter().take(MOST_WEIGHED) {
        if let Some(call) =
            calls::get_call(&client, viewer.account.id, candidate.call_id, 0).await?
        {
            let duration = formatting::format_duration(Some(call.duration_seconds));
            let says = call.ref_id.map_or_else(
                || duration.clone(),
                |ref_id| format!("{duration}, {ref_id}"),
            );
            weighed.insert(call.id, (viewer.clock.local_time(call.started_at), says));
        }
    }
    Ok(weighed)
}

fn posting_line(posting: PostingResponse, viewer: &Viewer) -> PostingLine {
    let currency = viewer.account_currency();
    PostingLine {
        at: viewer.clock.local_time(posting.created_at),
        kind: match posting.actor {
            Some(actor) => format!("{} by {actor}", posting.kind),
            None => posting.kind,
        },
        revenue: formatting::format_signed_money(posting.revenue_delta_cents, currency),
        credit: formatting::format_signed_money(posting.credit_delta_cents, currency),
        balance: formatting::format_money(posting.balance_after_cents, currency),
        call: posting.call_id,
    }
}

fn action_line(action: ActionResponse, viewer: &Viewer) -> ActionLine {
    ActionLine {
        at: viewer.clock.local_time(action.created_at),
        what: action_words(&action, viewer.account_currency()),
        actor: action.actor,
        outcome: action.outcome.unwrap_or_default().replace('_', " "),
    }
}

fn assemble_page(
    viewer: &Viewer,
    full: EventInFull,
    webhook: &ShownWebhook,
    weighed: &Weighed,
    offers: Vec<Offer>,
    find: &str,
) -> EventDetailPage {
    let EventInFull {
        event,
        request,
        request_unreadable,
        reading,
        // The sentence says them.
        reading_notes: _,
        candidates,
        postings,
        actions,
    } = full;
    let currency = viewer.account_currency();
    let when = |at| viewer.clock.local_time(at);
    let status = Status::from_code(&event.status).unwrap_or(Status::Held);
    let reason = event.reason.as_deref().and_then(Reason::from_code);
    let is_report = status != Status::Refused || reason == Some(Reason::EndpointDisabled);
    let moved = event.revenue_delta_cents != 0 || event.credit_delta_cents != 0;
    let is_free = is_report && !moved && event.ignored_at.is_none() && event.applied_from.is_none();
    let stands_by_person =
        event.strategy.as_deref() == Some("person") && reason != Some(Reason::Undone);
    let was_applied = actions
        .last()
        .is_some_and(|action| action.action == "apply");
    let call = event.matched_call.as_ref().map(|call| {
        let label = call.tracking_number.clone().or_else(|| call.caller.clone());
        (call.id, label.unwrap_or_else(|| call.id.to_string()))
    });
    EventDetailPage {
        look: PageLayout::signed_in(viewer, format!("Event: {}", event.status), "/events"),
        fault: None,
        id: event.id,
        at: when(event.received_at),
        processed: when(event.processed_at),
        webhook_id: event.webhook_id,
        webhook: webhook.settings.name.clone(),
        pill: StatusBadge::for_status(status),
        reason: reason_words(reason),
        sentence: event.reason_text.clone(),
        facts: facts_of(&event, currency),
        strategy: strategy_words(event.strategy.as_deref()),
        moved: formatting::format_signed_money(event.credit_delta_cents, currency),
        applied_from: event.applied_from,
        ignored: event
            .ignored_at
            .map(|at| (when(at), event.ignored_by.clone().unwrap_or_default())),
        count: event.count,
        request_line: request.as_ref().map(|r| {
            format!(
                "{} {}",
                r.method,
                r.content_type.as_deref().unwrap_or("(no content type)")
            )
        }),
        request_unreadable,
        unread: request
            .as_ref()
            .map(|r| unread_of(r, webhook))
            .unwrap_or_default(),
        can_set_names: webhook.archived_at.is_none(),
        has_caller: event.caller.is_some(),
        curl: request
            .as_ref()
            .filter(|_| viewer.user.role >= UserRole::Operator)
            .map(|r| curl_of(r, &webhook.url)),
        newer: None,
        older: None,
        is_readable: !matches!(
            reason,
            Some(Reason::UnparseableBody | Reason::UnparseableElement)
        ),
        query: request
            .as_ref()
            .map(|r| r.query.clone())
            .filter(|q| !q.is_empty()),
        body: request
            .and_then(|r| r.body.or(r.body_base64))
            .filter(|b| !b.is_empty())
            .map(body_text),
        slots: reading
            .into_iter()
            .map(|slot| slot_line(slot, currency))
            .collect(),
        candidates: candidates
            .into_iter()
            .map(|c| candidate_line(c, weighed, webhook.settings.duration_tolerance_seconds))
            .collect(),
        postings: postings
            .into_iter()
            .map(|p| posting_line(p, viewer))
            .collect(),
        actions: actions
            .into_iter()
            .map(|a| action_line(a, viewer))
            .collect(),
        find: find.to_owned(),
        offers,
        can_replay: is_free,
        can_assign: is_free,
        can_apply: is_report && call.is_some() && event.ignored_at.is_none(),
        can_undo: stands_by_person || was_applied || event.ignored_at.is_some(),
        decided_by: event.decided_by.clone(),
        other_event: event.other_event_id,
        left_call: event.left_call_id,
        amount: event
            .payout_cents
            .filter(|c| *c >= 0)
            .map(formatting::plain_amount)
            .unwrap_or_default(),
        call,
        currency: currency.to_owned(),
    }
}

pub fn not_found(problem: Problem) -> PageError {
    if problem.status() == StatusCode::NOT_FOUND {
        PageError::NotFound("event")
    } else {
        problem.into()
    }
}

pub async fn event_page(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    uri: Uri,
) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    page(&page_of(&app, &viewer, id, form.text("find")).await?)
}

/// The page again with why an action could not be done.
pub async fn page_with_fault(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
    status: StatusCode,
    fault: String,
) -> PageResult {
    let fault = Some(fault);
    let shown = EventDetailPage {
        fault,
        ..page_of(app, viewer, id, "").await?
    };
    page_with(status, &shown)
}
