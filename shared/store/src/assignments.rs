//! Assignments: a campaign, a publisher, and what the publisher earns (the seed's single source of
//! truth). The publisher of an assignment never changes (V9); the database refuses it too.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::IdPage;
use crate::terms_columns::{terms_amount, terms_kind, terms_of_assignment, terms_percent};
use trueup_domain::crediting::Terms;
use trueup_postgres::statement::{self, Result};

#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub id: Uuid,
    pub campaign_id: Uuid,
    pub publisher_id: Uuid,
    pub terms: Terms,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Assignment {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Assignment {
            id: row.get("id"),
            campaign_id: row.get("campaign_id"),
            publisher_id: row.get("publisher_id"),
            terms: terms_of_assignment(row)?,
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
        })
    }
}

/// An assignment about to be made.
#[derive(Debug, Clone)]
pub struct NewAssignment {
    pub id: Uuid,
    pub campaign_id: Uuid,
    pub publisher_id: Uuid,
    pub terms: Terms,
}

pub async fn insert_assignment(
    client: &impl GenericClient,
    account_id: Uuid,
    new: &NewAssignment,
) -> Result<Assignment> {
    const INSERT: &str = "/* assignments.insert */
        INSERT INTO assignments (id, account_id, campaign_id, publisher_id, kind, amount_cents, percent_e4)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        RETURNING id, campaign_id, publisher_id, kind, amount_cents, percent_e4, created_at, updated_at";
    let (kind, amount_cents, percent_e4) = (
        terms_kind(new.terms),
        terms_amount(new.terms),
        terms_percent(new.terms),
    );
    let row = statement::query_one(
        client,
        INSERT,
        &[
            &new.id,
            &account_id,
            &new.campaign_id,
            &new.publisher_id,
            &kind,
            &amount_cents,
            &percent_e4,
        ],
    )
    .await?;
    Assignment::from_row(&row)
}

pub async fn get_assignment(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<Assignment>> {
    const GET: &str = "/* assignments.get */
        SELECT id, campaign_id, publisher_id, kind, amount_cents, percent_e4, created_at, updated_at
          FROM assignments WHERE account_id = $1 AND id = $2";
    let row = statement::query_opt(client, GET, &[&account_id, &id]).await?;
    row.as_ref().map(Assignment::from_row).transpose()
}

/// The account's own among `ids`, for recording calls; the others are simply not in the answer.
pub async fn get_many(
    client: &impl GenericClient,
    account_id: Uuid,
    ids: &[Uuid],
) -> Result<Vec<Assignment>> {
    const GET_MANY: &str = "/* assignments.get_many */
        SELECT id, campaign_id, publisher_id, kind, amount_cents, percent_e4, created_at, updated_at
          FROM assignments WHERE account_id = $1 AND id = ANY($2)";
    let rows = statement::query_rows(client, GET_MANY, &[&account_id, &ids]).await?;
    rows.iter().map(Assignment::from_row).collect()
}

pub async fn list_assignments(
    client: &impl GenericClient,
    account_id: Uuid,
    page: IdPage,
) -> Result<Vec<Assignment>> {
    const LIST: &str = "/* assignments.list */
        SELECT id, campaign_id, publisher_id, kind, amount_cents, percent_e4, created_at, updated_at
          FROM assignments WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let rows =
        statement::query_rows(client, LIST, &[&account_id, &page.bound(), &page.limit]).await?;
    rows.iter().map(Assignment::from_row).collect()
}

/// Changes the campaign, the terms, or both; nothing if the account has no such assignment.
pub async fn update_assignment(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    campaign_id: Option<Uuid>,
    terms: Option<Terms>,
) -> Result<Option<Assignment>> {
    const UPDATE: &str = "/* assignments.update */
        UPDATE assignments
           SET campaign_id = COALESCE($3, campaign_id),
               kind = COALESCE($4, kind),
               amount_cents = CASE WHEN $4 IS NULL THEN amount_cents ELSE $5 END,
               percent_e4 = CASE WHEN $4 IS NULL THEN percent_e4 ELSE $6 END,
               updated_at = now()
         WHERE account_id = $1 AND id = $2
        RETURNING id, campaign_id, publisher_id, kind, amount_cents, percent_e4, created_at, updated_at";
    let kind = terms.map(terms_kind);
    let amount_cents = terms.and_then(terms_amount);
    let percent_e4 = terms.and_then(terms_percent);
    let row = statement::query_opt(
        client,
        UPDATE,
        &[
            &account_id,
            &id,
            &campaign_id,
            &kind,
            &amount_cents,
            &percent_e4,
        ],
    )
    .await?;
    row.as_ref().map(Assignment::from_row).transpose()
}
