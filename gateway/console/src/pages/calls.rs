//! Calls: what each is worth, by the buyer's word or by our estimate, told apart everywhere.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::Uri;
use jiff::Timestamp;
use trueup_domain::phone;
use trueup_event::reason::{Reason, Status};
use trueup_store::calls::{self, Call, CallFilter, TimePage};
use trueup_store::event_search::SearchKey;
use trueup_store::ledger::{self, Posting};
use trueup_store::users::UserRole;
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{Client, StoreError, assignments, events};
use uuid::Uuid;

use super::call_assignment::offered_assignments;
use super::events::reason_words;
use super::filter::{cursor_of, cursor_text};
use super::first_steps::report_lines;
use super::form::Form;
use super::formatting::{self, LocalTime, StatusBadge};
use super::layout::{PageError, PageLayout, PageResult, page};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::work_shares::WorkPlace;

const ROWS: i64 = 50;
/// The newest calls among which an amount is looked for.
const LOOKED_AT: i64 = 20_000;
/// Reports shown with one call; more is a buyer's loop.
const REPORTS: i64 = 100;

struct CallRow {
    id: Uuid,
    at: LocalTime,
    caller: String,
    ref_id: String,
    duration: String,
    buyer: String,
    value: String,
    source: Option<StatusBadge>,
    qualified: &'static str,
    credit: String,
}

#[derive(Template)]
#[template(path = "calls.html")]
struct CallList {
    look: PageLayout,
    rows: Vec<CallRow>,
    q: String,
    buyer: String,
    value: String,
    buyers: Vec<(Uuid, String)>,
    next: Option<String>,
    first: bool,
    looked_back_to: Option<LocalTime>,
}

/// Real if a buyer reported it, an estimate if not; nothing where there is no value.
fn source_of(call: &Call) -> Option<StatusBadge> {
    call.value_cents?;
    Some(if call.value_from_webhook {
        StatusBadge::of("real", "real")
    } else {
        StatusBadge::of("estimate", "estimate")
    })
}

fn qualified_words(qualified: Option<bool>) -> &'static str {
    match qualified {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    }
}

fn make_row(call: Call, viewer: &Viewer, buyers: &HashMap<Uuid, String>) -> CallRow {
    CallRow {
        id: call.id,
        at: viewer.clock.local_time(call.started_at),
        source: source_of(&call),
        ref_id: call.ref_id.unwrap_or_default(),
        caller: call
            .caller
            .or(call.caller_raw)
            .unwrap_or_else(|| "withheld".to_owned()),
        duration: formatting::format_duration(Some(call.duration_seconds)),
        buyer: call
            .buyer_id
            .and_then(|id| buyers.get(&id).cloned())
            .unwrap_or_default(),
        value: formatting::format_money(call.value_cents, viewer.account_currency()),
        qualified: qualified_words(call.qualified),
        credit: formatting::format_money(
            Some(call.publisher_payout_cents),
            viewer.account_currency(),
        ),
    }
}

/// The call that an id means: its own, or that of a report about it.
async fn call_named(client: &Client, account: Uuid, text: &str) -> Result<Option<Uuid>, PageError> {
    let Ok(id) = Uuid::try_parse(text) else {
        return Ok(None);
    };
    if calls::get_call(client, account, id, 0).await?.is_some() {
        return Ok(Some(id));
    }
    let event = events::get_event(client, account, id).await?;
    Ok(event
        .and_then(|event| event.matched_call)
        .map(|call| call.id))
}

/// One more call than a page holds, if there are as many.
struct FoundCalls {
    calls: Vec<Call>,
    /// There may be older ones: no index finds an amount.
    looked_back_to: Option<Timestamp>,
}

/// A text is a caller in any written form; else how a ref_id begins; and if none begins so, an amount.
async fn search_calls(
    client: &Client,
    viewer: &Viewer,
    mut filter: CallFilter,
    text: &str,
    below: Option<SearchKey>,
) -> Result<FoundCalls, PageError> {
    let account = viewer.account.id;
    let page = TimePage {
        below,
        limit: ROWS + 1,
    };
    let caller = phone::normalise_caller(text, &viewer.account.default_region).ok();
    let cents = formatting::parse_amount(text, viewer.account_currency()).ok();
    if !text.is_empty() && caller.is_none() {
        filter.ref_id_start = Some(text.to_owned());
    }
    filter.caller = caller;
    let calls = calls::list_calls(client, account, &filter, page, 0).await?;
    let (true, Some(cents), Some(_)) = (calls.is_empty(), cents, filter.ref_id_start.take()) else {
        return Ok(FoundCalls {
            calls,
            looked_back_to: None,
        });
    };
    let looked_back_to =
        calls::start_of_nth(client, account, below.map(|(at, _)| at), LOOKED_AT).await?;
    filter.value_cents = Some(cents);
    filter.from = looked_back_to;
    Ok(FoundCalls {
        calls: calls::list_calls(client, account, &filter, page, 0).await?,
        looked_back_to,
    })
}

pub async fn calls_page(place: WorkPlace, viewer: Viewer, uri: Uri) -> PageResult {
    let query = uri.query().unwrap_or_default();
    let form = Form::parse(query.as_bytes());
    let (q, buyer, value) = (
        form.text("q").to_owned(),
        form.text("buyer").to_owned(),
        form.text("value").to_owned(),
    );
    let filter = CallFilter {
        buyer_id: Uuid::try_parse(&buyer).ok(),
        value_from_webhook: match value.as_str() {
            "real" => Some(true),
            "estimate" => Some(false),
            _ => None,
        },
        ..CallFilter::default()
    };
    let client = place.pool.get().await?;
    let account = viewer.account.id;
    if let Some(id) = call_named(&client, account, &q).await? {
        return super::layout::redirect_to(&format!("/calls/{id}"));
    }
    let below = cursor_of(form.text("before"));
    let found = search_calls(&client, &viewer, filter, &q, below).await?;
    let (mut found, looked_back_to) = (found.calls, found.looked_back_to);
    let more = found.len() > usize::try_from(ROWS).unwrap_or(50);
    found.truncate(usize::try_from(ROWS).unwrap_or(50));
    let next = found.last().filter(|_| more).map(|call| {
        let mut writer = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("q", &q), ("buyer", &buyer), ("value", &value)] {
            if !value.is_empty() {
                writer.append_pair(name, value);
            }
        }
        format!(
            "/calls?{}",
            writer
                .append_pair("before", &cursor_text((call.started_at, call.id)))
                .finish()
        )
    });
    let buyers = webhook_activity::load_names(&client, account, NamedEntity::Buyers).await?;
    let names: HashMap<Uuid, String> = buyers.iter().cloned().collect();
    page(&CallList {
        look: PageLayout::signed_in(&viewer, "Calls", "/calls"),
        rows: found
            .into_iter()
            .map(|call| make_row(call, &viewer, &names))
            .collect(),
        q,
        buyer,
        value,
        buyers,
        next,
        first: below.is_none(),
        looked_back_to: looked_back_to.map(|at| viewer.clock.local_time(at)),
    })
}

struct ReportLine {
    event: Uuid,
    at: LocalTime,
    webhook: String,
    pill: Option<StatusBadge>,
    reason: String,
    payout: String,
    counts: &'static str,
    /// The person who applied or assigned it.
    decided_by: Option<String>,
}

#[derive(Template)]
#[template(path = "call.html")]
struct One {
    look: PageLayout,
    row: CallRow,
    tracking: String,
    ended: LocalTime,
    facts: Vec<(&'static str, String)>,
    publisher: Option<(Uuid, String)>,
    campaign: String,
    reports: Vec<ReportLine>,
    postings: Vec<PostingOfCall>,
    /// Webhook and curl line, while nobody has reported it.
    curls: Vec<(String, String)>,
    /// Offered to who may give them, while the call has none.
    assignments: Vec<(Uuid, String)>,
}

/// What was posted for the call, and its value after it.
struct PostingOfCall {
    at: LocalTime,
    kind: String,
    event: Option<Uuid>,
    actor: String,
    revenue: String,
    value_after: String,
    credit: String,
}

/// The postings of a call, oldest first, each with the value that they make together.
fn postings_of_call(postings: Vec<Posting>, viewer: &Viewer) -> Vec<PostingOfCall> {
    let currency = viewer.account_currency();
    let mut value = 0_i64;
    let lines = postings.into_iter().map(|posting| {
        value = value.saturating_add(posting.revenue_delta_cents);
        PostingOfCall {
            at: viewer.clock.local_time(posting.created_at),
            kind: posting.kind,
            event: posting.event_id,
            actor: posting.actor.unwrap_or_default(),
            revenue: formatting::format_signed_money(posting.revenue_delta_cents, currency),
            value_after: formatting::format_money(Some(value), currency),
            credit: formatting::format_signed_money(posting.credit_delta_cents, currency),
        }
    });
    lines.collect()
}

/// The query by which a buyer would report this call.
fn query_of(call: &Call) -> String {
    let mut writer = form_urlencoded::Serializer::new(String::new());
    if let Some(caller) = &call.caller {
        writer.append_pair("caller_id", caller);
    }
    writer.append_pair("duration", &call.duration_seconds.to_string());
    if let Some(ref_id) = &call.ref_id {
        writer.append_pair("ref_id", ref_id);
    }
    writer.append_pair("payout", "50").finish()
}

/// Who says what the call is worth: a person, or the webhook whose report it is.
fn value_source(call: &Call, webhooks: &HashMap<Uuid, String>) -> Option<(&'static str, String)> {
    if let Some(webhook) = call.reported_by_webhook_id {
        let name = webhooks.get(&webhook).cloned().unwrap_or_default();
        return Some(("Value reported by", name));
    }
    let by_person = call.reports.iter().rev().find_map(|report| {
        let counts = report.role == "folded" && report.status.as_deref() == Some("matched");
        report.decided_by.clone().filter(|_| counts)
    });
    by_person
        .filter(|_| call.value_from_webhook)
        .map(|person| ("Value set by", person))
}

/// The name of the campaign that the call came by.
async fn campaign_of(
    client: &Client,
    account: Uuid,
    call: &Call,
    campaigns: Vec<(Uuid, String)>,
) -> Result<Option<String>, StoreError> {
    let Some(id) = call.assignment_id else {
        return Ok(None);
    };
    let assignment = assignments::get_assignment(client, account, id).await?;
    let named = campaigns.into_iter().find(|(id, _)| {
        assignment
            .as_ref()
            .is_some_and(|assignment| assignment.campaign_id == *id)
    });
    Ok(named.map(|(_, name)| name))
}

/// How to report the call, while nobody has, for who may send reports.
async fn curls_of(
    app: &App,
    viewer: &Viewer,
    call: &Call,
) -> Result<Vec<(String, String)>, StoreError> {
    if !call.reports.is_empty() || viewer.user.role < UserRole::Operator {
        return Ok(Vec::new());
    }
    report_lines(app, viewer, &query_of(call)).await
}

/// What a call that has no assignment may be given, by who may give it.
async fn assignments_for(
    client: &Client,
    viewer: &Viewer,
    call: &Call,
) -> Result<Vec<(Uuid, String)>, StoreError> {
    if call.assignment_id.is_some() || viewer.user.role < UserRole::Operator {
        return Ok(Vec::new());
    }
    offered_assignments(client, viewer.account.id).await
}

pub async fn call_page(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let call = calls::get_call(&client, account, id, REPORTS)
        .await?
        .ok_or(PageError::NotFound("call"))?;
    let names = |what| webhook_activity::load_names(&client, account, what);
    let buyers: HashMap<_, _> = names(NamedEntity::Buyers).await?.into_iter().collect();
    let webhooks: HashMap<_, _> = names(NamedEntity::Webhooks).await?.into_iter().collect();
    let publishers: HashMap<_, _> = names(NamedEntity::Publishers).await?.into_iter().collect();
    let campaigns = names(NamedEntity::Campaigns).await?;
    let campaign = campaign_of(&client, account, &call, campaigns).await?;
    let postings = ledger::of_call(&client, account, id).await?;
    let assignments = assignments_for(&client, &viewer, &call).await?;
    drop(client);
    let curls = curls_of(&app, &viewer, &call).await?;
    let currency = viewer.account_currency();
    let estimate = formatting::format_money(call.estimate.value_cents, currency);
    let mut facts = vec![("Estimate", estimate)];
    if let Some(payee) = &call.terms {
        facts.push(("Terms", formatting::format_terms(payee.terms, currency)));
    }
    facts.extend(value_source(&call, &webhooks));
    let publisher = call.terms.as_ref().map(|payee| {
        (
            payee.publisher_id,
            publishers
                .get(&payee.publisher_id)
                .cloned()
                .unwrap_or_default(),
        )
    });
    let reports = call
        .reports
        .iter()
        .rev()
        .map(|report| ReportLine {
            event: report.event_id,
            at: viewer.clock.local_time(report.received_at),
            webhook: webhooks
                .get(&report.webhook_id)
                .cloned()
                .unwrap_or_default(),
            pill: report
                .status
                .as_deref()
                .and_then(Status::from_code)
                .map(StatusBadge::for_status),
            reason: reason_words(report.reason.as_deref().and_then(Reason::from_code)),
            payout: formatting::format_money(Some(report.payout_cents), currency),
            counts: match (report.role.as_str(), report.status.as_deref()) {
                // A negative amount keeps its place in the order, but moves nothing (V7).
                (_, Some("held")) | ("held", _) => "held",
                ("displaced", _) => "displaced",
                _ => "counts",
            },
            decided_by: report.decided_by.clone(),
        })
        .collect();
    page(&One {
        look: PageLayout::signed_in(&viewer, "Call", "/calls"),
        tracking: call.tracking_number.clone().unwrap_or_default(),
        ended: viewer.clock.local_time(call.ended_at),
        facts,
        publisher,
        campaign: campaign.unwrap_or_default(),
        reports,
        postings: postings_of_call(postings, &viewer),
        curls,
        assignments,
        row: make_row(call, &viewer, &buyers),
    })
}
