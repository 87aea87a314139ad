//! From an empty account to the first credited match by the pages alone: what is still to do, one step for
//! publisher, campaign and terms, and a call recorded for trying.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trueup_store::archive::Archivable;
use trueup_store::assignments::Assignment;
use trueup_store::campaigns::Campaign;
use trueup_store::first_steps::{self, FirstSteps};
use trueup_store::publishers::Publisher;
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{IdPage, StoreError, webhooks};
use uuid::Uuid;

use super::archive::retain_in_use;
use super::assignments::terms_of;
use super::call_assignment::offered_assignments;
use super::form::Form;
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::named_records::create_named;
use super::viewer::Viewer;
use super::webhook_templates::SecretPlace;
use crate::app_state::App;
use crate::operations::assignments as operations;
use crate::operations::calls::{CallsRecorded, read_call, record_calls};
use crate::operations::webhooks::ShownWebhook;
use crate::problem::Problem;
use crate::request_fields::RequestFields;

/// Webhooks to which a call's page shows how to report it.
const REPORTED_TO: i64 = 5;
/// A test call ended so long ago (seconds).
const ENDED_BEFORE: i64 = 60;

/// A step, whether it is done, and where it is done.
pub struct Step {
    pub done: bool,
    pub words: &'static str,
    pub href: String,
}

/// What is still to do until money moves; nothing once it has.
pub async fn open_steps(app: &App, viewer: &Viewer) -> Result<Vec<Step>, StoreError> {
    let client = app.pool.get().await?;
    let FirstSteps {
        webhook,
        assignment,
        call,
        credited,
    } = first_steps::load_steps(&client, viewer.account.id).await?;
    if credited {
        return Ok(Vec::new());
    }
    let report = call.map_or_else(|| "/calls".to_owned(), |id| format!("/calls/{id}"));
    let step = |done, words, href: &str| Step {
        done,
        words,
        href: href.to_owned(),
    };
    Ok(vec![
        step(
            webhook,
            "Make a webhook: the URL that a buyer reports to",
            "/webhooks/new",
        ),
        step(
            assignment,
            "Say what a publisher earns from a campaign",
            "/assignments/new",
        ),
        step(call.is_some(), "Record a test call", "/calls/new"),
        step(false, "Report its payout, as the buyer will", &report),
    ])
}

#[derive(Template)]
#[template(path = "first_terms.html")]
struct FirstTerms {
    look: PageLayout,
    fault: Option<String>,
    campaign: String,
    publisher: String,
    kind: String,
    amount: String,
    currency: String,
}

fn terms_form(viewer: &Viewer, form: &Form, fault: Option<String>) -> FirstTerms {
    FirstTerms {
        look: PageLayout::signed_in(viewer, "What a publisher earns", "/assignments"),
        fault,
        campaign: form.text("campaign").to_owned(),
        publisher: form.text("publisher").to_owned(),
        kind: form.text("kind").to_owned(),
        amount: form.text("amount").to_owned(),
        currency: viewer.account_currency().to_owned(),
    }
}

pub async fn terms_page(viewer: Viewer) -> PageResult {
    page(&terms_form(&viewer, &Form::default(), None))
}

/// A form that has this name alone, for what is made with a name.
fn named(name: &str) -> Form {
    Form::parse(
        form_urlencoded::Serializer::new(String::new())
            .append_pair("name", name)
            .finish()
            .as_bytes(),
    )
}

/// Publisher, campaign and assignment in one step; each is an operation of its own, with its line in the log.
pub async fn create_terms(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    match make_terms(&app, &viewer, &form).await? {
        Ok(_) => redirect_to("/assignments?done=assignment-created"),
        Err(fault) => page_with(
            StatusCode::UNPROCESSABLE_ENTITY,
            &terms_form(&viewer, &form, Some(fault)),
        ),
    }
}

async fn make_terms(
    app: &App,
    viewer: &Viewer,
    form: &Form,
) -> Result<Result<Assignment, String>, PageError> {
    // What can be wrong with the terms is known before anything is made.
    let terms = match terms_of(form, viewer) {
        Ok(terms) => terms,
        Err(fault) => return Ok(Err(fault)),
    };
    if form.text("campaign").is_empty() || form.text("publisher").is_empty() {
        return Ok(Err("name the campaign and the publisher".to_owned()));
    }
    let publisher: Publisher =
        match create_named(app, viewer, &named(form.text("publisher"))).await? {
            Ok(made) => made,
            Err(refused) => return Ok(Err(refused.fault.unwrap_or_default())),
        };
    let campaign: Campaign = match create_named(app, viewer, &named(form.text("campaign"))).await? {
        Ok(made) => made,
        Err(refused) => return Ok(Err(refused.fault.unwrap_or_default())),
    };
    let of = [
        ("campaign_id", campaign.id.to_string()),
        ("publisher_id", publisher.id.to_string()),
    ];
    let new = RequestFields::of_texts(of.into_iter().chain(terms)).read()?;
    match operations::create_assignment(app, &viewer.auth_context(), new).await {
        Ok(made) => Ok(Ok(made)),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            Ok(Err(problem.detail().to_owned()))
        }
        Err(problem) => Err(problem.into()),
    }
}

#[derive(Template)]
#[template(path = "call_new.html")]
struct NewCall {
    look: PageLayout,
    fault: Option<String>,
    caller: String,
    ref_id: String,
    duration: String,
    assignment: String,
    buyer: String,
    assignments: Vec<(Uuid, String)>,
    buyers: Vec<(Uuid, String)>,
}

async fn call_form(
    app: &App,
    viewer: &Viewer,
    form: &Form,
    fault: Option<String>,
) -> Result<NewCall, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let assignments = offered_assignments(&client, account).await?;
    let mut buyers = webhook_activity::load_names(&client, account, NamedEntity::Buyers).await?;
    retain_in_use(&client, account, Archivable::Buyer, &mut buyers, None).await?;
    Ok(NewCall {
        look: PageLayout::signed_in(viewer, "Record a test call", "/calls"),
        fault,
        caller: form.text("caller").to_owned(),
        ref_id: form.text("ref_id").to_owned(),
        duration: form.text("duration_seconds").to_owned(),
        assignment: form.text("assignment_id").to_owned(),
        buyer: form.text("buyer_id").to_owned(),
        assignments,
        buyers,
    })
}

pub async fn call_form_page(State(app): State<App>, viewer: Viewer) -> PageResult {
    let ref_id = format!("test-{}", Timestamp::now().as_second());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("caller", "+13055550142"),
            ("ref_id", &ref_id),
            ("duration_seconds", "90"),
        ])
        .finish();
    page(&call_form(&app, &viewer, &Form::parse(query.as_bytes()), None).await?)
}

/// Recorded as the API records a call, so that all of its rules hold.
pub async fn record_test_call(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    match record_call(&app, &viewer, &form).await? {
        Ok(id) => redirect_to(&format!("/calls/{id}?done=call-recorded")),
        Err(fault) => page_with(
            StatusCode::UNPROCESSABLE_ENTITY,
            &call_form(&app, &viewer, &form, Some(fault)).await?,
        ),
    }
}

async fn record_call(
    app: &App,
    viewer: &Viewer,
    form: &Form,
) -> Result<Result<Uuid, String>, PageError> {
    let given = |name: &str| Some(form.text(name)).filter(|text| !text.is_empty());
    let Ok(duration) = form.text("duration_seconds").parse::<i64>() else {
        return Ok(Err("the duration is a whole number of seconds".to_owned()));
    };
    let before = SignedDuration::from_secs(duration.clamp(0, 86_400).saturating_add(ENDED_BEFORE));
    let started_at = Timestamp::now()
        .checked_sub(before)
        .unwrap_or(Timestamp::now());
    let body = json!({
        "id": Uuid::now_v7(),
        "caller": given("caller"),
        "ref_id": given("ref_id"),
        "duration_seconds": duration,
        "started_at": started_at.to_string(),
        "buyer_id": given("buyer_id"),
        "assignment_id": given("assignment_id"),
    });
    let operator = viewer.auth_context();
    let record = match read_call(&body.to_string(), &operator) {
        Ok(record) => record,
        Err(faults) => {
            return Ok(Err(Problem::invalid_fields(faults, Vec::new())
                .detail()
                .to_owned()));
        }
    };
    let id = record.id;
    let mut answer = CallsRecorded {
        accepted: 0,
        errors: Vec::new(),
        ids: vec![None],
    };
    record_calls(app, &operator, vec![(0, record)], &mut answer).await?;
    Ok(match answer.errors.pop() {
        None => Ok(id),
        Some(error) => Err(format!("{}: {}", error.field, error.message)),
    })
}

/// Curl lines that report a payout of a call to the account's own webhooks.
pub async fn report_lines(
    app: &App,
    viewer: &Viewer,
    query: &str,
) -> Result<Vec<(String, String)>, StoreError> {
    let client = app.pool.get().await?;
    let newest = IdPage {
        below: None,
        limit: REPORTED_TO,
    };
    let found = webhooks::list_webhooks(&client, viewer.account.id, false, newest).await?;
    Ok(found
        .into_iter()
        .map(|webhook| {
            let secret = SecretPlace::of_settings(&webhook.settings);
            let header = match secret {
                SecretPlace::Header => " -H 'X-Webhook-Secret: <the secret>'",
                SecretPlace::Nowhere | SecretPlace::Query(_) => "",
            };
            let in_query = secret.in_query();
            let shown = ShownWebhook::from_webhook(webhook, Vec::new(), &app.public_url);
            (
                shown.settings.name,
                format!("curl{header} '{}?{in_query}{query}'", shown.url),
            )
        })
        .collect())
}
