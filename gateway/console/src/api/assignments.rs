//! Assignments: what a publisher earns from the calls of a campaign.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use trueup_domain::{crediting, percent};
use trueup_store::ceilings::CountedKind;
use trueup_store::{StoreError, assignments, audit_log, campaigns, publishers, run_tx};
use utoipa::ToSchema;
use uuid::Uuid;

use super::field_reader::{FieldReader, MaybeField};
use super::limits::MAX_CENTS;
use super::list::{ListParams, Page, Paging};
use super::request::{Id, JsonFields, Query};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::{FieldError, Problem};

/// What a publisher earns from a qualified call: an amount, or a share of its value.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = Terms)]
pub enum TermsBody {
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

impl From<crediting::Terms> for TermsBody {
    fn from(terms: crediting::Terms) -> Self {
        match terms {
            crediting::Terms::Flat { amount_cents } => TermsBody::Flat { amount_cents },
            crediting::Terms::RevShare { percent_e4 } => TermsBody::RevShare {
                percent: percent::to_text(percent_e4),
            },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Assignment)]
pub struct AssignmentResponse {
    pub id: Uuid,
    pub campaign_id: Uuid,
    pub publisher_id: Uuid,
    pub payout: TermsBody,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<assignments::Assignment> for AssignmentResponse {
    fn from(it: assignments::Assignment) -> Self {
        AssignmentResponse {
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
    payout: TermsBody,
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
    payout: Option<TermsBody>,
}

fn read_payout(fields: &mut FieldReader) -> MaybeField<crediting::Terms> {
    let mut payout = match fields.read_object("payout") {
        MaybeField::Is(payout) => payout,
        MaybeField::Null => return MaybeField::Null,
        MaybeField::Absent => return MaybeField::Absent,
    };
    let kind = payout.read_choice("kind", &["flat", "rev_share"]);
    let kind = payout.require_given("kind", kind);
    let amount_cents = payout.read_integer("amount_cents", 0..=MAX_CENTS);
    let percent = payout.read_with("percent", |value| match value {
        Value::String(text) => percent::parse_percent(text.trim()).map_err(str::to_owned),
        other => Err(format!(
            "must be decimal text such as \"60\", not {}",
            super::field_reader::kind_of(&other)
        )),
    });
    let terms = match kind {
        "flat" => {
            if percent != MaybeField::Absent {
                payout.add_fault("percent", "does not go with kind flat; give amount_cents");
            }
            crediting::Terms::Flat {
                amount_cents: payout.require_given("amount_cents", amount_cents),
            }
        }
        _ => {
            if amount_cents != MaybeField::Absent {
                payout.add_fault(
                    "amount_cents",
                    "does not go with kind rev_share; give percent",
                );
            }
            if kind.is_empty() {
                // The kind's own fault says enough.
                crediting::Terms::Flat { amount_cents: 0 }
            } else {
                crediting::Terms::RevShare {
                    percent_e4: payout.require_given("percent", percent),
                }
            }
        }
    };
    fields.absorb_faults(payout);
    MaybeField::Is(terms)
}

#[utoipa::path(post, path = "/api/v1/assignments", tag = "assignments", request_body = AssignmentBody,
    responses((status = 201, description = "It is made", body = AssignmentResponse)))]
pub async fn create_assignment(
    State(app): State<App>,
    operator: AuthContext,
    JsonFields(mut fields): JsonFields,
) -> Result<(StatusCode, Json<AssignmentResponse>), Problem> {
    let campaign_id = fields.read_uuid("campaign_id");
    let campaign_id = fields.require_given("campaign_id", campaign_id);
    let publisher_id = fields.read_uuid("publisher_id");
    let publisher_id = fields.require_given("publisher_id", publisher_id);
    let terms = read_payout(&mut fields);
    if terms == MaybeField::Null || (terms == MaybeField::Absent && !fields.has_fault("payout")) {
        fields.add_fault("payout", "is required");
    }
    fields.finish_reading()?;
    let MaybeField::Is(terms) = terms else {
        return Err(Problem::invalid_field("payout", "is required"));
    };

    let id = Uuid::now_v7();
    let ceilings = app.ceilings.clone();
    let made = run_tx(&app.pool, "assignments.create", move |tx| {
        let (ceilings, operator) = (ceilings.clone(), operator.clone());
        Box::pin(async move {
            let kind = CountedKind::Assignments;
            if let Err(problem) = ceilings.check_room(tx, operator.account_id(), kind).await? {
                return Ok(Err(problem));
            }
            let mut faults = Vec::new();
            if campaigns::get_campaign(tx, operator.account_id(), campaign_id).await?.is_none() {
                faults.push(not_ours("campaign_id", "campaign"));
            }
            if publishers::get_publisher(tx, operator.account_id(), publisher_id).await?.is_none() {
                faults.push(not_ours("publisher_id", "publisher"));
            }
            if !faults.is_empty() {
                return Ok(Err(Problem::invalid_fields(faults, Vec::new())));
            }
            let new = assignments::NewAssignment { id, campaign_id, publisher_id, terms };
            let made = assignments::insert_assignment(tx, operator.account_id(), &new).await?;
            let detail =
                json!({ "campaign_id": campaign_id, "publisher_id": publisher_id, "payout": TermsBody::from(terms) });
            audit_log::record_change(tx, operator.change("create", "assignment", id, detail)).await?;
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await??;
    Ok((StatusCode::CREATED, Json(made.into())))
}

pub(super) fn not_ours(field: &str, what: &str) -> FieldError {
    FieldError {
        field: field.to_owned(),
        message: format!("this account has no such {what}"),
    }
}

#[utoipa::path(get, path = "/api/v1/assignments", tag = "assignments", params(ListParams),
    responses((status = 200, description = "Newest first", body = Page<AssignmentResponse>)))]
pub async fn list_assignments(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<Page<AssignmentResponse>>, Problem> {
    let paging = Paging::<Uuid>::read_page(&mut fields, "assignments");
    fields.finish_reading()?;
    let rows =
        assignments::list_assignments(&app.pool.get().await?, operator.account_id(), paging.ids())
            .await?;
    Ok(Json(paging.page(rows, |row| row.id, Into::into)))
}

#[utoipa::path(get, path = "/api/v1/assignments/{id}", tag = "assignments", params(("id" = Uuid, Path)),
    responses((status = 200, description = "It", body = AssignmentResponse)))]
pub async fn get_assignment(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
) -> Result<Json<AssignmentResponse>, Problem> {
    let found =
        assignments::get_assignment(&app.pool.get().await?, operator.account_id(), id).await?;
    found
        .map(|it| Json(it.into()))
        .ok_or_else(|| Problem::not_found("assignment"))
}

#[utoipa::path(patch, path = "/api/v1/assignments/{id}", tag = "assignments", params(("id" = Uuid, Path)),
    request_body = AssignmentPatch,
    responses((status = 200, description = "As it is now; calls that were reported keep the terms of their first report",
        body = AssignmentResponse)))]
pub async fn update_assignment(
    State(app): State<App>,
    operator: AuthContext,
    Id(id): Id,
    JsonFields(mut fields): JsonFields,
) -> Result<Json<AssignmentResponse>, Problem> {
    let campaign_id = fields.read_uuid("campaign_id");
    let campaign_id = fields.not_null("campaign_id", campaign_id);
    let publisher_id = fields.read_uuid("publisher_id");
    let publisher_id = fields.not_null("publisher_id", publisher_id);
    let terms = read_payout(&mut fields);
    let terms = fields.not_null("payout", terms);
    fields.finish_reading()?;

    let updated = run_tx(&app.pool, "assignments.update", move |tx| {
        let operator = operator.clone();
        Box::pin(async move {
            let Some(before) = assignments::get_assignment(tx, operator.account_id(), id).await?
            else {
                return Ok(Err(Problem::not_found("assignment")));
            };
            if publisher_id.is_some_and(|publisher| publisher != before.publisher_id) {
                let message = "cannot change; make a new assignment for another publisher";
                return Ok(Err(Problem::invalid_field("publisher_id", message)));
            }
            if let Some(campaign) = campaign_id
                && campaigns::get_campaign(tx, operator.account_id(), campaign)
                    .await?
                    .is_none()
            {
                return Ok(Err(Problem::invalid_fields(
                    vec![not_ours("campaign_id", "campaign")],
                    Vec::new(),
                )));
            }
            let updated =
                assignments::update_assignment(tx, operator.account_id(), id, campaign_id, terms)
                    .await?;
            let detail = json!({ "campaign_id": campaign_id, "payout": terms.map(TermsBody::from),
                "payout_before": TermsBody::from(before.terms) });
            audit_log::record_change(tx, operator.change("update", "assignment", id, detail))
                .await?;
            Ok::<_, StoreError>(updated.ok_or_else(|| Problem::not_found("assignment")))
        })
    })
    .await??;
    Ok(Json(updated.into()))
}
