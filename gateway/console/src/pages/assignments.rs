//! Assignments: what a publisher earns from a campaign's calls, the single source of truth for it.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use trueup_domain::crediting::Terms;
use trueup_domain::percent;
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{IdPage, assignments};
use uuid::Uuid;

use super::form::{Form, FormSetting};
use super::formatting::{self, LocalTime};
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::viewer::Viewer;
use crate::api::handlers::{self, Id, Problem};
use crate::app_state::App;

const MOST: i64 = 500;

struct AssignmentRow {
    id: Uuid,
    campaign: String,
    publisher: String,
    publisher_id: Uuid,
    terms: String,
    kind: &'static str,
    amount: String,
    changed: LocalTime,
}

#[derive(Template)]
#[template(path = "assignments.html")]
struct AssignmentList {
    look: PageLayout,
    rows: Vec<AssignmentRow>,
    campaigns: Vec<(Uuid, String)>,
    publishers: Vec<(Uuid, String)>,
    fault: Option<String>,
    currency: String,
}

async fn build_list(app: &App, viewer: &Viewer) -> Result<AssignmentList, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let campaigns = webhook_activity::load_names(&client, account, NamedEntity::Campaigns).await?;
    let publishers =
        webhook_activity::load_names(&client, account, NamedEntity::Publishers).await?;
    let found = assignments::list_assignments(
        &client,
        account,
        IdPage {
            below: None,
            limit: MOST,
        },
    )
    .await?;
    let (of_campaign, of_publisher): (HashMap<_, _>, HashMap<_, _>) = (
        campaigns.iter().cloned().collect(),
        publishers.iter().cloned().collect(),
    );
    let rows = found
        .into_iter()
        .map(|it| {
            let (kind, amount) = match it.terms {
                Terms::Flat { amount_cents } => ("flat", formatting::plain_amount(amount_cents)),
                Terms::RevShare { percent_e4 } => ("rev_share", percent::to_text(percent_e4)),
            };
            AssignmentRow {
                id: it.id,
                campaign: of_campaign
                    .get(&it.campaign_id)
                    .cloned()
                    .unwrap_or_default(),
                publisher: of_publisher
                    .get(&it.publisher_id)
                    .cloned()
                    .unwrap_or_default(),
                publisher_id: it.publisher_id,
                terms: formatting::format_terms(it.terms, viewer.account_currency()),
                kind,
                amount,
                changed: viewer.zone.local_time(it.updated_at),
            }
        })
        .collect();
    Ok(AssignmentList {
        look: PageLayout::signed_in(viewer, "Assignments", "/assignments"),
        rows,
        campaigns,
        publishers,
        fault: None,
        currency: viewer.account.currency.clone(),
    })
}

pub async fn assignments_page(State(app): State<App>, viewer: Viewer) -> PageResult {
    page(&build_list(&app, &viewer).await?)
}

/// The terms of a form: an amount or a percentage in one field, by its kind.
fn payout_of(form: &Form, viewer: &Viewer) -> Result<Value, String> {
    let amount = form.text("amount");
    match form.text("kind") {
        "flat" => {
            let cents = formatting::parse_amount(amount, viewer.account_currency())
                .map_err(|why| format!("the amount {why}"))?;
            Ok(json!({ "kind": "flat", "amount_cents": cents }))
        }
        _ => Ok(json!({ "kind": "rev_share", "percent": amount.trim_end_matches('%').trim() })),
    }
}

async fn page_with_fault(app: &App, viewer: &Viewer, fault: String) -> PageResult {
    let list = AssignmentList {
        fault: Some(fault),
        ..build_list(app, viewer).await?
    };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
}

fn is_ours_to_say(problem: &Problem) -> bool {
    problem.status() == StatusCode::UNPROCESSABLE_ENTITY
}

pub async fn create_assignment(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let payout = match payout_of(&form, &viewer) {
        Ok(payout) => payout,
        Err(fault) => return page_with_fault(&app, &viewer, fault).await,
    };
    let setting = FormSetting::default()
        .with_field("campaign_id", form.text("campaign_id"))
        .with_field("publisher_id", form.text("publisher_id"))
        .with_field("payout", payout);
    match handlers::create_assignment(State(app.clone()), viewer.auth_context(), setting.into())
        .await
    {
        Ok(_) => redirect_to("/assignments?done=made"),
        Err(problem) if is_ours_to_say(&problem) => {
            page_with_fault(&app, &viewer, problem.detail().to_owned()).await
        }
        Err(problem) => Err(problem.into()),
    }
}

pub async fn update_assignment(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let payout = match payout_of(&form, &viewer) {
        Ok(payout) => payout,
        Err(fault) => return page_with_fault(&app, &viewer, fault).await,
    };
    let setting = FormSetting::default().with_field("payout", payout);
    match handlers::update_assignment(
        State(app.clone()),
        viewer.auth_context(),
        Id(id),
        setting.into(),
    )
    .await
    {
        Ok(_) => redirect_to("/assignments?done=saved"),
        Err(problem) if is_ours_to_say(&problem) => {
            page_with_fault(&app, &viewer, problem.detail().to_owned()).await
        }
        Err(problem) => Err(problem.into()),
    }
}
