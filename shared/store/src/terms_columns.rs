//! A publisher's terms, as three columns of several tables keep them: `kind`, `amount_cents`, `percent_e4`.

use tokio_postgres::Row;
use trueup_domain::crediting::{Payee, Terms};
use trueup_postgres::StoreError;
use uuid::Uuid;

const FLAT: &str = "flat";
const REV_SHARE: &str = "rev_share";

pub fn terms_kind(terms: Terms) -> &'static str {
    match terms {
        Terms::Flat { .. } => FLAT,
        Terms::RevShare { .. } => REV_SHARE,
    }
}

pub fn terms_amount(terms: Terms) -> Option<i64> {
    match terms {
        Terms::Flat { amount_cents } => Some(amount_cents),
        Terms::RevShare { .. } => None,
    }
}

pub fn terms_percent(terms: Terms) -> Option<i32> {
    match terms {
        Terms::Flat { .. } => None,
        Terms::RevShare { percent_e4 } => Some(percent_e4),
    }
}

/// The terms that the three columns say; nothing where there are none.
fn parse_terms(
    kind: Option<&str>,
    amount_cents: Option<i64>,
    percent_e4: Option<i32>,
) -> Result<Option<Terms>, StoreError> {
    match (kind, amount_cents, percent_e4) {
        (None, _, _) => Ok(None),
        (Some(FLAT), Some(amount_cents), _) => Ok(Some(Terms::Flat { amount_cents })),
        (Some(REV_SHARE), _, Some(percent_e4)) => Ok(Some(Terms::RevShare { percent_e4 })),
        (Some(kind), _, _) => Err(StoreError::Corrupt(format!(
            "terms of kind {kind} without their figure"
        ))),
    }
}

/// The terms of a row of `assignments`, which cannot be without.
pub fn terms_of_assignment(row: &Row) -> Result<Terms, StoreError> {
    let terms = parse_terms(
        row.get("kind"),
        row.get("amount_cents"),
        row.get("percent_e4"),
    )?;
    terms.ok_or_else(|| StoreError::Corrupt("an assignment without terms".to_owned()))
}

/// The terms that a row of `calls` or `postings` copied.
pub fn terms_of_row(row: &Row) -> Result<Option<Terms>, StoreError> {
    parse_terms(
        row.get("terms_kind"),
        row.get("terms_amount_cents"),
        row.get("terms_percent_e4"),
    )
}

/// Whom a row of `calls` pays, and how.
pub fn payee_of_row(row: &Row) -> Result<Option<Payee>, StoreError> {
    let publisher_id: Option<Uuid> = row.get("terms_publisher_id");
    let payee = publisher_id.zip(terms_of_row(row)?);
    Ok(payee.map(|(publisher_id, terms)| Payee {
        publisher_id,
        terms,
    }))
}
