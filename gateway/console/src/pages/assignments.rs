//! Assignments: what a publisher earns from a campaign's calls, the single source of truth for it.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use trueup_domain::crediting::Terms;
use trueup_domain::percent;
use trueup_store::webhook_activity::{self, Named};
use trueup_store::{IdPage, assignments};
use uuid::Uuid;

use super::form::{Form, Setting};
use super::formatting::{self, When};
use super::layout::{Fault, Look, Shown, go, page, page_with};
use super::session::Viewer;
use crate::api::handlers::{self, Id, Problem};
use crate::app_state::App;

const MOST: i64 = 500;

struct Row {
    id: Uuid,
    campaign: String,
    publisher: String,
    publisher_id: Uuid,
    terms: String,
    kind: &'static str,
    amount: String,
    changed: When,
}

#[derive(Template)]
#[template(path = "assignments.html")]
struct List {
    look: Look,
    rows: Vec<Row>,
    campaigns: Vec<(Uuid, String)>,
    publishers: Vec<(Uuid, String)>,
    fault: Option<String>,
    currency: String,
}

async fn build(app: &App, viewer: &Viewer) -> Result<List, Fault> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let campaigns = webhook_activity::names(&client, account, Named::Campaigns).await?;
    let publishers = webhook_activity::names(&client, account, Named::Publishers).await?;
    let found = assignments::list(
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
            Row {
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
                terms: formatting::terms(it.terms, viewer.currency()),
                kind,
                amount,
                changed: viewer.zone.when(it.updated_at),
            }
        })
        .collect();
    Ok(List {
        look: Look::of(viewer, "Assignments", "/assignments"),
        rows,
        campaigns,
        publishers,
        fault: None,
        currency: viewer.account.currency.clone(),
    })
}

pub async fn list(State(app): State<App>, viewer: Viewer) -> Shown {
    page(&build(&app, &viewer).await?)
}

/// The terms of a form: an amount or a percentage in one field, by its kind.
fn payout_of(form: &Form) -> Result<Value, String> {
    let amount = form.text("amount");
    match form.text("kind") {
        "flat" => {
            let cents = formatting::cents_of(amount).map_err(|why| format!("the amount {why}"))?;
            Ok(json!({ "kind": "flat", "amount_cents": cents }))
        }
        _ => Ok(json!({ "kind": "rev_share", "percent": amount.trim_end_matches('%').trim() })),
    }
}

async fn again(app: &App, viewer: &Viewer, fault: String) -> Shown {
    let list = List {
        fault: Some(fault),
        ..build(app, viewer).await?
    };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
}

fn is_ours_to_say(problem: &Problem) -> bool {
    problem.status() == StatusCode::UNPROCESSABLE_ENTITY
}

pub async fn create(State(app): State<App>, viewer: Viewer, form: Form) -> Shown {
    let payout = match payout_of(&form) {
        Ok(payout) => payout,
        Err(fault) => return again(&app, &viewer, fault).await,
    };
    let setting = Setting::default()
        .put("campaign_id", form.text("campaign_id"))
        .put("publisher_id", form.text("publisher_id"))
        .put("payout", payout);
    match handlers::create_assignment(State(app.clone()), viewer.operator(), setting.into()).await {
        Ok(_) => go("/assignments?done=made"),
        Err(problem) if is_ours_to_say(&problem) => {
            again(&app, &viewer, problem.detail().to_owned()).await
        }
        Err(problem) => Err(problem.into()),
    }
}

pub async fn update(State(app): State<App>, viewer: Viewer, Id(id): Id, form: Form) -> Shown {
    let payout = match payout_of(&form) {
        Ok(payout) => payout,
        Err(fault) => return again(&app, &viewer, fault).await,
    };
    let setting = Setting::default().put("payout", payout);
    match handlers::update_assignment(
        State(app.clone()),
        viewer.operator(),
        Id(id),
        setting.into(),
    )
    .await
    {
        Ok(_) => go("/assignments?done=saved"),
        Err(problem) if is_ours_to_say(&problem) => {
            again(&app, &viewer, problem.detail().to_owned()).await
        }
        Err(problem) => Err(problem.into()),
    }
}
