//! Assignments: what a publisher earns from a campaign's calls, the single source of truth for it.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use trueup_domain::crediting::Terms;
use trueup_domain::percent;
use trueup_store::IdPage;
use trueup_store::archive::{Archivable, archived_ids};
use trueup_store::assignments::{self, Assignment};
use trueup_store::webhook_activity::{self, NamedEntity};
use uuid::Uuid;

use super::archive::retain_in_use;
use super::form::Form;
use super::formatting::{self, LocalTime};
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::named_records::wants_archived;
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::assignments as operations;
use crate::problem::Problem;
use crate::request_fields::RequestFields;

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
    archived: bool,
    /// What was typed and not taken.
    kept: KeptAssignment,
}

#[derive(Default)]
struct KeptAssignment {
    campaign: String,
    publisher: String,
    kind: String,
    amount: String,
    /// Refused only because there is one of this campaign and publisher.
    twin: bool,
}

impl KeptAssignment {
    fn of_form(form: &Form, twin: bool) -> KeptAssignment {
        KeptAssignment {
            campaign: form.text("campaign_id").to_owned(),
            publisher: form.text("publisher_id").to_owned(),
            kind: form.text("kind").to_owned(),
            amount: form.text("amount").to_owned(),
            twin,
        }
    }
}

async fn build_list(
    app: &App,
    viewer: &Viewer,
    archived: bool,
) -> Result<AssignmentList, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let mut campaigns =
        webhook_activity::load_names(&client, account, NamedEntity::Campaigns).await?;
    let mut publishers =
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
    let gone = archived_ids(&client, Archivable::Assignment, account).await?;
    retain_in_use(&client, account, Archivable::Campaign, &mut campaigns, None).await?;
    retain_in_use(
        &client,
        account,
        Archivable::Publisher,
        &mut publishers,
        None,
    )
    .await?;
    let rows = found
        .into_iter()
        .filter(|it| gone.contains(&it.id) == archived)
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
                changed: viewer.clock.local_time(it.updated_at),
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
        archived,
        kept: KeptAssignment::default(),
    })
}

pub async fn assignments_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    page(&build_list(&app, &viewer, wants_archived(&uri)).await?)
}

/// The terms of a form, as a body has them: an amount or a percentage in one field, by its kind.
pub fn terms_of(form: &Form, viewer: &Viewer) -> Result<[(&'static str, String); 2], String> {
    let amount = form.text("amount");
    match form.text("kind") {
        "flat" => {
            let cents = formatting::parse_amount(amount, viewer.account_currency())
                .map_err(|why| format!("the amount {why}"))?;
            Ok([
                ("payout.kind", "flat".to_owned()),
                ("payout.amount_cents", cents.to_string()),
            ])
        }
        _ => {
            let percent = amount.trim_end_matches('%').trim();
            percent::parse_percent(percent).map_err(|_| {
                "the share must be a percentage from 0 to 100 with at most 4 decimals, such as 60"
            })?;
            Ok([
                ("payout.kind", "rev_share".to_owned()),
                ("payout.percent", percent.to_owned()),
            ])
        }
    }
}

async fn page_with_fault(
    app: &App,
    viewer: &Viewer,
    fault: String,
    kept: KeptAssignment,
) -> PageResult {
    let list = AssignmentList {
        fault: Some(fault),
        kept,
        ..build_list(app, viewer, false).await?
    };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
}

/// What a person can mend is said on the page; anything else is a page of its own.
async fn show_outcome(
    app: &App,
    viewer: &Viewer,
    result: Result<Assignment, Problem>,
    done: &str,
    kept: KeptAssignment,
) -> PageResult {
    match result {
        Ok(_) => redirect_to(&format!("/assignments?done={done}")),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            page_with_fault(app, viewer, problem.detail().to_owned(), kept).await
        }
        Err(problem) => Err(problem.into()),
    }
}

/// Is there one of this campaign and publisher in use?
async fn has_twin(app: &App, viewer: &Viewer, form: &Form) -> Result<bool, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let gone = archived_ids(&client, Archivable::Assignment, account).await?;
    let all = IdPage {
        below: None,
        limit: MOST,
    };
    let known = assignments::list_assignments(&client, account, all).await?;
    Ok(known.iter().any(|it| {
        !gone.contains(&it.id)
            && it.campaign_id.to_string() == form.text("campaign_id")
            && it.publisher_id.to_string() == form.text("publisher_id")
    }))
}

pub async fn create_assignment(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let kept = KeptAssignment::of_form(&form, false);
    let terms = match terms_of(&form, &viewer) {
        Ok(terms) => terms,
        Err(fault) => return page_with_fault(&app, &viewer, fault, kept).await,
    };
    if !form.is_on("twin") && has_twin(&app, &viewer, &form).await? {
        let fault = "this publisher has an assignment in this campaign already: change its terms, or make another one";
        let kept = KeptAssignment::of_form(&form, true);
        return page_with_fault(&app, &viewer, fault.to_owned(), kept).await;
    }
    let of = ["campaign_id", "publisher_id"].map(|name| (name, form.text(name).to_owned()));
    let result = match RequestFields::of_texts(of.into_iter().chain(terms)).read() {
        Ok(new) => operations::create_assignment(&app, &viewer.auth_context(), new).await,
        Err(bad) => Err(bad.into()),
    };
    show_outcome(&app, &viewer, result, "assignment-created", kept).await
}

pub async fn update_assignment(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let terms = match terms_of(&form, &viewer) {
        Ok(terms) => terms,
        Err(fault) => {
            return page_with_fault(&app, &viewer, fault, KeptAssignment::default()).await;
        }
    };
    let result = match RequestFields::of_texts(terms).read() {
        Ok(changes) => {
            operations::update_assignment(&app, &viewer.auth_context(), id, changes).await
        }
        Err(bad) => Err(bad.into()),
    };
    show_outcome(&app, &viewer, result, "saved", KeptAssignment::default()).await
}
