//! Assignments: what a publisher earns from the calls of a campaign.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use trueup_domain::{crediting, percent};
use trueup_store::{StoreError, assignments, audit_log, campaigns, publishers, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use super::api_key_auth::Operator;
use super::field_reader::{Fields, Given};
use super::list::{ListParams, Page, Paging};
use super::problem::{Fault, Problem};
use super::request::{Id, Query, Setting};
use super::{App, MAX_CENTS};

/// What a publisher earns from a qualified call: an amount, or a share of its value.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Terms {
    Flat {
        #[schema(minimum = 0)]
        amount_cents: i64,
    },
    RevShare {
        /// Decimal text from 0 to 100 with at most 4 decimals.
        #[schema(example = "60")]
        percent: String,
    },
}

impl From<crediting::Terms> for Terms {
    fn from(terms: crediting::Terms) -> Self {
        match terms {
            crediting::Terms::Flat { amount_cents } => Terms::Flat { amount_cents },
            crediting::Terms::RevShare { percent_e4 } => Terms::RevShare {
                percent: percent::to_text(percent_e4),
            },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Assignment {
    pub id: Uuid,
    pub campaign_id: Uuid,
    pub publisher_id: Uuid,
    pub payout: Terms,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<assignments::Assignment> for Assignment {
    fn from(it: assignments::Assignment) -> Self {
        Assignment {
            id: it.id,
            campaign_id: it.campaign_id,
            publisher_id: it.publisher_id,
            payout: it.terms.into(),
            created_at: it.created_at,
            updated_at: it.updated_at,
        }
    }
}

#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct AssignmentBody {
    campaign_id: Uuid,
    publisher_id: Uuid,
    payout: Terms,
}

#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "only its description is used; the fields are read one by one"
)]
pub struct AssignmentPatch {
    campaign_id: Option<Uuid>,
    /// Cannot change: make a new assignment for another publisher.
    publisher_id: Option<Uuid>,
    payout: Option<Terms>,
}

fn read_payout(fields: &mut Fields) -> Given<crediting::Terms> {
    let mut payout = match fields.object("payout") {
        Given::Is(payout) => payout,
        Given::Null => return Given::Null,
        Given::Absent => return Given::Absent,
    };
    let kind = payout.choice("kind", &["flat", "rev_share"]);
    let kind = payout.need("kind", kind);
    let amount_cents = payout.integer("amount_cents", 0..=MAX_CENTS);
    let percent = payout.read("percent", |value| match value {
        Value::String(text) => percent::parse(text.trim()).map_err(str::to_owned),
        other => Err(format!(
            "must be decimal text such as \"60\", not {}",
            super::field_reader::kind_of(&other)
        )),
    });
    let terms = match kind {
        "flat" => {
            if percent != Given::Absent {
                payout.fault("percent", "does not go with kind flat; give amount_cents");
            }
            crediting::Terms::Flat {
                amount_cents: payout.need("amount_cents", amount_cents),
            }
        }
        _ => {
            if amount_cents != Given::Absent {
                payout.fault(
                    "amount_cents",
                    "does not go with kind rev_share; give percent",
                );
            }
            if kind.is_empty() {
                // The kind's own fault says enough.
                crediting::Terms::Flat { amount_cents: 0 }
            } else {
                crediting::Terms::RevShare {
                    percent_e4: payout.need("percent", percent),
                }
            }
        }
    };
    fields.absorb(payout);
    Given::Is(terms)
}

#[utoipa::path(post, path = "/api/v1/assignments", tag = "assignments", request_body = AssignmentBody,
    responses((status = 201, description = "It is made", body = Assignment)))]
pub async fn create(
    State(app): State<App>,
    operator: Operator,
    Setting(mut fields): Setting,
) -> Result<(StatusCode, Json<Assignment>), Problem> {
    let campaign_id = fields.uuid("campaign_id");
    let campaign_id = fields.need("campaign_id", campaign_id);
    let publisher_id = fields.uuid("publisher_id");
    let publisher_id = fields.need("publisher_id", publisher_id);
    let terms = read_payout(&mut fields);
    if terms == Given::Null || (terms == Given::Absent && !fields.has_fault("payout")) {
        fields.fault("payout", "is required");
    }
    fields.done()?;
    let Given::Is(terms) = terms else {
        return Err(Problem::field("payout", "is required"));
    };

    let id = Uuid::now_v7();
    let made = run_tx(&app.pool, "assignments.create", move |tx| {
        let operator = operator.clone();
        Box::pin(async move {
            let mut faults = Vec::new();
            if campaigns::get(tx, operator.account_id(), campaign_id).await?.is_none() {
                faults.push(not_ours("campaign_id", "campaign"));
            }
            if publishers::get(tx, operator.account_id(), publisher_id).await?.is_none() {
                faults.push(not_ours("publisher_id", "publisher"));
            }
            if !faults.is_empty() {
                return Ok(Err(Problem::invalid(faults, Vec::new())));
            }
            let new = assignments::New { id, campaign_id, publisher_id, terms };
            let made = assignments::insert(tx, operator.account_id(), &new).await?;
            let detail =
                json!({ "campaign_id": campaign_id, "publisher_id": publisher_id, "payout": Terms::from(terms) });
            audit_log::record(tx, operator.change("create", "assignment", id, detail)).await?;
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await??;
    Ok((StatusCode::CREATED, Json(made.into())))
}

pub(super) fn not_ours(field: &str, what: &str) -> Fault {
    Fault {
        field: field.to_owned(),
        message: format!("this account has no such {what}"),
    }
}

#[utoipa::path(get, path = "/api/v1/assignments", tag = "assignments", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<Assignment>)))]
pub async fn list(
    State(app): State<App>,
    operator: Operator,
    Query(mut fields): Query,
) -> Result<Json<Page<Assignment>>, Problem> {
    let paging = Paging::<Uuid>::read(&mut fields, "assignments");
    fields.done()?;
    let rows =
        assignments::list(&app.pool.get().await?, operator.account_id(), paging.ids()).await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/assignments/{id}", tag = "assignments", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = Assignment)))]
pub async fn get(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
) -> Result<Json<Assignment>, Problem> {
    let found = assignments::get(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("assignment"))
}

#[utoipa::path(patch, path = "/api/v1/assignments/{id}", tag = "assignments", params(("id" = Uuid, Path)),
    request_body = AssignmentPatch,
    responses((status = 200, description = "As it is now; calls that were reported keep the terms of their first report",
        body = Assignment)))]
pub async fn update(
    State(app): State<App>,
    operator: Operator,
    Id(id): Id,
    Setting(mut fields): Setting,
) -> Result<Json<Assignment>, Problem> {
    let campaign_id = fields.uuid("campaign_id");
    let campaign_id = fields.not_null("campaign_id", campaign_id);
    let publisher_id = fields.uuid("publisher_id");
    let publisher_id = fields.not_null("publisher_id", publisher_id);
    let terms = read_payout(&mut fields);
    let terms = fields.not_null("payout", terms);
    fields.done()?;

    let updated = run_tx(&app.pool, "assignments.update", move |tx| {
        let operator = operator.clone();
        Box::pin(async move {
            let Some(before) = assignments::get(tx, operator.account_id(), id).await? else {
                return Ok(Err(Problem::not_found("assignment")));
            };
            if publisher_id.is_some_and(|publisher| publisher != before.publisher_id) {
                let message = "cannot change; make a new assignment for another publisher";
                return Ok(Err(Problem::field("publisher_id", message)));
            }
            if let Some(campaign) = campaign_id
                && campaigns::get(tx, operator.account_id(), campaign)
                    .await?
                    .is_none()
            {
                return Ok(Err(Problem::invalid(
                    vec![not_ours("campaign_id", "campaign")],
                    Vec::new(),
                )));
            }
            let updated =
                assignments::update(tx, operator.account_id(), id, campaign_id, terms).await?;
            let detail = json!({ "campaign_id": campaign_id, "payout": terms.map(Terms::from),
                "payout_before": Terms::from(before.terms) });
            audit_log::record(tx, operator.change("update", "assignment", id, detail)).await?;
            Ok::<_, StoreError>(updated.ok_or_else(|| Problem::not_found("assignment")))
        })
    })
    .await??;
    Ok(Json(updated.into()))
}
