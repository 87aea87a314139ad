//! Assignments: what a publisher earns from the calls of a campaign.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use trueup_domain::crediting::Terms;
use trueup_domain::percent;
use trueup_store::assignments::{self, Assignment};
use trueup_store::ceilings::CountedKind;
use trueup_store::{TransactionName, audit_log, campaigns, publishers};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{commit_change, not_ours};
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::{FieldError, Problem};
use crate::request_fields::{Cents, not_null};

/// What a publisher earns from a qualified call: an amount, or a share of its value.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = Terms)]
pub enum ShownTerms {
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

impl From<Terms> for ShownTerms {
    fn from(terms: Terms) -> Self {
        match terms {
            Terms::Flat { amount_cents } => ShownTerms::Flat { amount_cents },
            Terms::RevShare { percent_e4 } => ShownTerms::RevShare {
                percent: percent::to_text(percent_e4),
            },
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TermsKind {
    Flat,
    RevShare,
}

/// [`ShownTerms`] as a body has them: which field goes with which kind is told field by field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenTerms {
    kind: TermsKind,
    amount_cents: Option<Cents>,
    percent: Option<Percent>,
}

/// Decimal text, as ten-thousandths of a percent.
#[derive(Debug, Clone, Copy)]
struct Percent(i32);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadPercent;
        impl Visitor<'_> for ReadPercent {
            type Value = Percent;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("decimal text such as \"60\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Percent, E> {
                percent::parse_percent(text).map(Percent).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(ReadPercent)
    }
}

impl GivenTerms {
    fn terms(self) -> Result<Terms, Problem> {
        match (self.kind, self.amount_cents, self.percent) {
            (TermsKind::Flat, Some(amount), None) => Ok(Terms::Flat {
                amount_cents: amount.get(),
            }),
            (TermsKind::RevShare, None, Some(percent)) => Ok(Terms::RevShare {
                percent_e4: percent.0,
            }),
            (TermsKind::Flat, amount, percent) => Err(terms_problem(
                ("amount_cents", amount.is_some()),
                ("percent", percent.is_some()),
                "does not go with kind flat; give amount_cents",
            )),
            (TermsKind::RevShare, amount, percent) => Err(terms_problem(
                ("percent", percent.is_some()),
                ("amount_cents", amount.is_some()),
                "does not go with kind rev_share; give percent",
            )),
        }
    }
}

/// `wanted` is the field that goes with the kind, `other` the one that does not.
fn terms_problem(wanted: (&str, bool), other: (&str, bool), why_not: &str) -> Problem {
    let mut faults = Vec::new();
    if other.1 {
        faults.push(FieldError::new(format!("payout.{}", other.0), why_not));
    }
    if !wanted.1 {
        faults.push(FieldError::new(
            format!("payout.{}", wanted.0),
            "is required",
        ));
    }
    Problem::invalid_fields(faults, Vec::new())
}

/// An assignment to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AssignmentBody)]
pub struct NewAssignment {
    pub campaign_id: Uuid,
    pub publisher_id: Uuid,
    #[schema(value_type = ShownTerms)]
    pub payout: GivenTerms,
}

/// The changes of an assignment: what is left out stays.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AssignmentPatch)]
pub struct AssignmentChanges {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub campaign_id: Option<Uuid>,
    /// Cannot change: make a new assignment for another publisher.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub publisher_id: Option<Uuid>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Option<ShownTerms>, nullable = false)]
    pub payout: Option<GivenTerms>,
}

pub async fn create_assignment(
    app: &App,
    operator: &AuthContext,
    body: NewAssignment,
) -> Result<Assignment, Problem> {
    let new = assignments::NewAssignment {
        id: Uuid::now_v7(),
        campaign_id: body.campaign_id,
        publisher_id: body.publisher_id,
        terms: body.payout.terms()?,
    };
    let input = (app.clone(), operator.clone(), new);
    commit_change(&app.pool, TransactionName::AssignmentsCreate, input, |tx, input| {
        Box::pin(async move {
            let (app, operator, new) = input;
            let account_id = operator.account_id();
            app.ceilings
                .check_room(tx, account_id, CountedKind::Assignments)
                .await??;
            let mut faults = Vec::new();
            let campaign = campaigns::get_campaign(tx, account_id, new.campaign_id).await?;
            if campaign.is_none() {
                faults.push(not_ours("campaign_id", "campaign"));
            }
            let publisher = publishers::get_publisher(tx, account_id, new.publisher_id).await?;
            if publisher.is_none() {
                faults.push(not_ours("publisher_id", "publisher"));
            }
            if !faults.is_empty() {
                return Err(Problem::invalid_fields(faults, Vec::new()).into());
            }
            let made = assignments::insert_assignment(tx, account_id, &new).await?;
            let detail = json!({ "campaign_id": new.campaign_id, "publisher_id": new.publisher_id,
                "payout": ShownTerms::from(new.terms) });
            let change = operator.change("create", "assignment", new.id, detail);
            audit_log::record_change(tx, change).await?;
            Ok(made)
        })
    })
    .await
}

pub async fn update_assignment(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    changes: AssignmentChanges,
) -> Result<Assignment, Problem> {
    let terms = changes.payout.map(GivenTerms::terms).transpose()?;
    let (campaign_id, publisher_id) = (changes.campaign_id, changes.publisher_id);
    let input = (operator.clone(), id, campaign_id, publisher_id, terms);
    commit_change(&app.pool, TransactionName::AssignmentsUpdate, input, |tx, input| {
        Box::pin(async move {
            let (operator, id, campaign_id, publisher_id, terms) = input;
            let account_id = operator.account_id();
            let no_such = || Problem::not_found("assignment");
            let before = assignments::get_assignment(tx, account_id, id)
                .await?
                .ok_or_else(no_such)?;
            if publisher_id.is_some_and(|publisher| publisher != before.publisher_id) {
                let message = "cannot change; make a new assignment for another publisher";
                return Err(Problem::invalid_field("publisher_id", message).into());
            }
            if let Some(campaign) = campaign_id
                && campaigns::get_campaign(tx, account_id, campaign)
                    .await?
                    .is_none()
            {
                let fault = not_ours("campaign_id", "campaign");
                return Err(Problem::invalid_fields(vec![fault], Vec::new()).into());
            }
            let updated = assignments::update_assignment(tx, account_id, id, campaign_id, terms)
                .await?
                .ok_or_else(no_such)?;
            let detail = json!({ "campaign_id": campaign_id, "payout": terms.map(ShownTerms::from),
                "payout_before": ShownTerms::from(before.terms) });
            let change = operator.change("update", "assignment", id, detail);
            audit_log::record_change(tx, change).await?;
            Ok(updated)
        })
    })
    .await
}
