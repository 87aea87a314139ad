//! One event with all that is known of it, and what a person may do with it.

use std::collections::HashMap;

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use jiff::SignedDuration;
use trueup_domain::phone;
use trueup_domain::reason_text::format_cents;
use trueup_event::reason::{Reason, Status};
use trueup_store::calls::{self, TimePage};
use uuid::Uuid;

use super::chart;
use super::events::reason_words;
use super::form::{Form, Setting};
use super::formatting::{self, Markup, Pill, When};
use super::layout::{Fault, Look, Shown, go, page, page_with};
use super::session::Viewer;
use super::webhook_settings::slot_name;
use crate::api::handlers::{self, EventInFull, Id, Problem, Slot};
use crate::app_state::App;

/// Calls that a search for the right one offers.
const OFFERED: i64 = 20;
/// Considered calls that are told by more than their id.
const MOST_WEIGHED: usize = 20;

struct SlotLine {
    slot: &'static str,
    name: String,
    raw: String,
    value: String,
    passed_over: Vec<(String, String, String)>,
}

struct CandidateLine {
    id: Uuid,
    /// When it started, and what else it is known by; absent if the call is gone.
    call: Option<(When, String)>,
    off: String,
    near: Markup,
    ended: String,
    note: &'static str,
}

struct PostingLine {
    at: When,
    kind: String,
    revenue: String,
    credit: String,
    balance: String,
    call: Uuid,
}

struct ActionLine {
    at: When,
    actor: String,
    what: String,
    outcome: String,
}

struct Offer {
    id: Uuid,
    caller: String,
    at: When,
    duration: String,
    value: String,
    ref_id: String,
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    look: Look,
    fault: Option<String>,
    id: Uuid,
    at: When,
    processed: When,
    webhook_id: Uuid,
    webhook: String,
    pill: Pill,
    reason: String,
    sentence: String,
    facts: Vec<(&'static str, String)>,
    call: Option<(Uuid, String)>,
    strategy: String,
    moved: String,
    applied_from: Option<Uuid>,
    ignored: Option<(When, String)>,
    count: i32,
    request_line: Option<String>,
    query: Option<String>,
    body: Option<String>,
    slots: Vec<SlotLine>,
    candidates: Vec<CandidateLine>,
    postings: Vec<PostingLine>,
    actions: Vec<ActionLine>,
    find: String,
    offers: Vec<Offer>,
    can_replay: bool,
    can_assign: bool,
    can_apply: bool,
    amount: String,
    currency: String,
}

fn slot_line(slot: Slot, currency: &str) -> SlotLine {
    SlotLine {
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

fn facts_of(event: &handlers::Event, currency: &str) -> Vec<(&'static str, String)> {
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
            .map(|s| format!("{} ({s} s)", formatting::span(Some(s)))),
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

fn action_words(action: &handlers::Action, currency: &str) -> String {
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
            formatting::money(detail("payout_cents").and_then(|v| v.as_i64()), currency)
        ),
        "replay" => "replayed".to_owned(),
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

async fn offers(
    app: &App,
    viewer: &Viewer,
    event: &handlers::Event,
    find: &str,
) -> Result<Vec<Offer>, Fault> {
    let week = SignedDuration::from_hours(24 * 7);
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let page = TimePage {
        below: None,
        limit: OFFERED,
    };
    let mut filter = calls::Filter::default();
    if let Ok(id) = Uuid::try_parse(find) {
        let found = calls::get(&client, account, id, 0).await?;
        return Ok(found.into_iter().map(|call| offer(call, viewer)).collect());
    }
    match phone::normalise(find, &viewer.account.default_region) {
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
    let found = calls::list(&client, account, &filter, page, 0).await?;
    Ok(found.into_iter().map(|call| offer(call, viewer)).collect())
}

fn offer(call: calls::Call, viewer: &Viewer) -> Offer {
    Offer {
        id: call.id,
        caller: call
            .caller
            .or(call.caller_raw)
            .unwrap_or_else(|| "withheld".to_owned()),
        at: viewer.zone.when(call.started_at),
        duration: formatting::span(Some(call.duration_seconds)),
        value: formatting::money(call.value_cents, viewer.currency()),
        ref_id: call.ref_id.unwrap_or_default(),
    }
}

async fn page_of(app: &App, viewer: &Viewer, id: Uuid, find: &str) -> Result<EventPage, Fault> {
    let full = handlers::event_in_full(app, &viewer.operator(), id)
        .await
        .map_err(gone)?;
    let webhook =
        handlers::show_webhook(app, &viewer.operator(), full.event.webhook_id, None).await?;
    let offers = offers(app, viewer, &full.event, find).await?;
    let weighed = weighed(app, viewer, &full.candidates).await?;
    Ok(assemble(viewer, full, &webhook, &weighed, offers, find))
}

fn candidate_line(
    candidate: handlers::Candidate,
    weighed: &Weighed,
    tolerance: i32,
) -> CandidateLine {
    CandidateLine {
        id: candidate.call_id,
        call: weighed.get(&candidate.call_id).cloned(),
        off: format!("{:+} s", candidate.off_seconds),
        near: chart::near(candidate.off_seconds, i64::from(tolerance)),
        ended: ended_before(candidate.ended_seconds_before),
        note: match (candidate.claimed, candidate.other_buyer) {
            (true, _) => "reported already",
            (_, true) => "another buyer's",
            _ => "free",
        },
    }
}

/// The calls that were considered, as a person knows them.
type Weighed = HashMap<Uuid, (When, String)>;

async fn weighed(
    app: &App,
    viewer: &Viewer,
    candidates: &[handlers::Candidate],
) -> Result<Weighed, Fault> {
    let client = app.pool.get().await?;
    let mut weighed = Weighed::new();
    for candidate in candidates.iter().take(MOST_WEIGHED) {
        if let Some(call) = calls::get(&client, viewer.account.id, candidate.call_id, 0).await? {
            let duration = formatting::span(Some(call.duration_seconds));
            let says = call.ref_id.map_or_else(
                || duration.clone(),
                |ref_id| format!("{duration}, {ref_id}"),
            );
            weighed.insert(call.id, (viewer.zone.when(call.started_at), says));
        }
    }
    Ok(weighed)
}

fn posting_line(posting: handlers::Posting, viewer: &Viewer) -> PostingLine {
    let currency = viewer.currency();
    PostingLine {
        at: viewer.zone.when(posting.created_at),
        kind: posting.kind,
        revenue: formatting::moved(posting.revenue_delta_cents, currency),
        credit: formatting::moved(posting.credit_delta_cents, currency),
        balance: formatting::money(posting.balance_after_cents, currency),
        call: posting.call_id,
    }
}

fn action_line(action: handlers::Action, viewer: &Viewer) -> ActionLine {
    ActionLine {
        at: viewer.zone.when(action.created_at),
        what: action_words(&action, viewer.currency()),
        actor: action.actor,
        outcome: action.outcome.unwrap_or_default().replace('_', " "),
    }
}

fn assemble(
    viewer: &Viewer,
    full: EventInFull,
    webhook: &handlers::Webhook,
    weighed: &Weighed,
    offers: Vec<Offer>,
    find: &str,
) -> EventPage {
    let EventInFull {
        event,
        request,
        reading,
        candidates,
        postings,
        actions,
    } = full;
    let currency = viewer.currency();
    let when = |at| viewer.zone.when(at);
    let status = Status::from_code(&event.status).unwrap_or(Status::Held);
    let reason = event.reason.as_deref().and_then(Reason::from_code);
    let is_report = status != Status::Refused || reason == Some(Reason::EndpointDisabled);
    let free = postings.is_empty();
    let displaced = reason == Some(Reason::ReplacedHeuristicMatch);
    let call = event.matched_call.as_ref().map(|call| {
        let label = call.tracking_number.clone().or_else(|| call.caller.clone());
        (call.id, label.unwrap_or_else(|| call.id.to_string()))
    });
    EventPage {
        look: Look::of(viewer, format!("Event: {}", event.status), "/events"),
        fault: None,
        id: event.id,
        at: when(event.received_at),
        processed: when(event.processed_at),
        webhook_id: event.webhook_id,
        webhook: webhook.name.clone(),
        pill: Pill::status(status),
        reason: reason_words(reason),
        sentence: event.reason_text.clone(),
        facts: facts_of(&event, currency),
        strategy: strategy_words(event.strategy.as_deref()),
        moved: formatting::moved(event.credit_delta_cents, currency),
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
        can_replay: is_report && free,
        can_assign: is_report && (free || displaced),
        can_apply: is_report && call.is_some(),
        amount: event
            .payout_cents
            .filter(|c| *c >= 0)
            .map(formatting::plain_amount)
            .unwrap_or_default(),
        call,
        currency: currency.to_owned(),
    }
}

fn gone(problem: Problem) -> Fault {
    if problem.status() == StatusCode::NOT_FOUND {
        Fault::NotFound("event")
    } else {
        problem.into()
    }
}

pub async fn show(State(app): State<App>, viewer: Viewer, Id(id): Id, uri: Uri) -> Shown {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    page(&page_of(&app, &viewer, id, form.text("find")).await?)
}

/// After an action: to the row it made or changed, or the page again with why it could not be done.
async fn outcome(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
    done: &str,
    result: Result<Json<EventInFull>, Problem>,
) -> Shown {
    match result {
        Ok(Json(full)) => go(&format!("/events/{}?done={done}", full.event.id)),
        Err(problem)
            if matches!(
                problem.status(),
                StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
            ) =>
        {
            let fault = Some(problem.detail().to_owned());
            page_with(
                problem.status(),
                &EventPage {
                    fault,
                    ..page_of(app, viewer, id, "").await?
                },
            )
        }
        Err(problem) => Err(gone(problem)),
    }
}

pub async fn replay(State(app): State<App>, viewer: Viewer, Id(id): Id) -> Shown {
    let result = handlers::replay(
        State(app.clone()),
        viewer.operator(),
        Id(id),
        Setting::default().into(),
    )
    .await;
    outcome(&app, &viewer, id, "replayed", result).await
}

pub async fn assign(State(app): State<App>, viewer: Viewer, Id(id): Id, form: Form) -> Shown {
    let setting = Setting::default().put("call_id", form.text("call_id"));
    let result = handlers::assign(
        State(app.clone()),
        viewer.operator(),
        Id(id),
        setting.into(),
    )
    .await;
    outcome(&app, &viewer, id, "assigned", result).await
}

pub async fn apply(State(app): State<App>, viewer: Viewer, Id(id): Id, form: Form) -> Shown {
    let setting = match formatting::cents_of(form.text("amount")) {
        Ok(cents) => Setting::default().put("payout_cents", cents),
        Err(why) => {
            let fault = Some(format!("The amount {why}."));
            let page = EventPage {
                fault,
                ..page_of(&app, &viewer, id, "").await?
            };
            return page_with(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
    };
    let result = handlers::apply(
        State(app.clone()),
        viewer.operator(),
        Id(id),
        setting.into(),
    )
    .await;
    outcome(&app, &viewer, id, "applied", result).await
}

pub async fn ignore(State(app): State<App>, viewer: Viewer, Id(id): Id) -> Shown {
    let result = handlers::ignore(
        State(app.clone()),
        viewer.operator(),
        Id(id),
        Setting::default().into(),
    )
    .await;
    outcome(&app, &viewer, id, "ignored", result).await
}
