//! Reads the ledger. It only grows, and only settling and recording write to it.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::terms_columns::terms_of_row;
use trueup_domain::crediting::Terms;
use trueup_postgres::statement::{self, Result};

/// One posting.
#[derive(Debug, Clone, PartialEq)]
pub struct Posting {
    /// Its place in the order of writing.
    pub seq: i64,
    pub id: Uuid,
    pub call_id: Uuid,
    pub publisher_id: Option<Uuid>,
    pub event_id: Option<Uuid>,
    pub actor: Option<String>,
    pub kind: String,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    pub balance_after_cents: Option<i64>,
    pub terms: Option<Terms>,
    pub created_at: Timestamp,
}

impl Posting {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Posting {
            seq: row.get("seq"),
            id: row.get("id"),
            call_id: row.get("call_id"),
            publisher_id: row.get("publisher_id"),
            event_id: row.get("event_id"),
            actor: row.get("actor"),
            kind: row.get("kind"),
            revenue_delta_cents: row.get("revenue_delta_cents"),
            credit_delta_cents: row.get("credit_delta_cents"),
            balance_after_cents: row.get("balance_after_cents"),
            terms: terms_of_row(row)?,
            created_at: row.get("created_at"),
        })
    }
}

macro_rules! columns {
    () => {
        "seq, id, call_id, publisher_id, event_id, actor, kind, revenue_delta_cents, credit_delta_cents,
         balance_after_cents, terms_kind, terms_amount_cents, terms_percent_e4, created_at"
    };
}

/// A publisher's postings, newest first, those before `below`.
pub async fn of_publisher(
    client: &impl GenericClient,
    account_id: Uuid,
    publisher_id: Uuid,
    below: Option<i64>,
    limit: i64,
) -> Result<Vec<Posting>> {
    const OF_PUBLISHER: &str = concat!(
        "/* ledger.of_publisher */ SELECT ",
        columns!(),
        " FROM postings WHERE publisher_id = $2 AND account_id = $1 AND seq < $3 ORDER BY seq DESC LIMIT $4"
    );
    let rows = statement::rows_planned(
        client,
        OF_PUBLISHER,
        &[
            &account_id,
            &publisher_id,
            &below.unwrap_or(i64::MAX),
            &limit,
        ],
    )
    .await?;
    rows.iter().map(Posting::from_row).collect()
}

/// What stands or stood under one event, on whatever call, oldest first.
pub async fn of_event(
    client: &impl GenericClient,
    account_id: Uuid,
    event_id: Uuid,
) -> Result<Vec<Posting>> {
    const OF_EVENT: &str = concat!(
        "/* ledger.of_event */ SELECT ",
        columns!(),
        " FROM postings WHERE account_id = $1 AND event_id = $2 ORDER BY seq"
    );
    let rows = statement::query_rows(client, OF_EVENT, &[&account_id, &event_id]).await?;
    rows.iter().map(Posting::from_row).collect()
}

/// Postings of one call that are shown; more is a buyer's loop.
const OF_CALL_AT_MOST: i64 = 500;

/// What was posted for a call, oldest first.
pub async fn of_call(
    client: &impl GenericClient,
    account_id: Uuid,
    call_id: Uuid,
) -> Result<Vec<Posting>> {
    const OF_CALL: &str = concat!(
        "/* ledger.of_call */ SELECT ",
        columns!(),
        " FROM postings WHERE account_id = $1 AND call_id = $2 ORDER BY seq LIMIT $3"
    );
    let params: statement::Params<'_> = &[&account_id, &call_id, &OF_CALL_AT_MOST];
    let rows = statement::query_rows(client, OF_CALL, params).await?;
    rows.iter().map(Posting::from_row).collect()
}

/// Calls of which a transaction tells how it moves them; a person is shown no more.
pub const MOVES_AT_MOST: i64 = 50;

/// How a transaction that is still open moves one call's money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallMove {
    pub call_id: Uuid,
    /// Absent: a call without an assignment.
    pub publisher: Option<String>,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
}

/// The place of the newest posting that can be seen: what is written from now on stands after it.
pub async fn newest_place(client: &impl GenericClient) -> Result<i64> {
    const NEWEST: &str = "/* ledger.newest_place */ SELECT COALESCE(max(seq), 0) FROM postings";
    let row = statement::query_one(client, NEWEST, &[]).await?;
    Ok(row.get(0))
}

/// What this transaction has posted after that place, call by call; at most [`MOVES_AT_MOST`]. What was
/// posted and taken back again moves nothing and is left out.
pub async fn moves_of_transaction(
    client: &impl GenericClient,
    account_id: Uuid,
    after: i64,
) -> Result<Vec<CallMove>> {
    const MOVES: &str = "/* ledger.moves_of_transaction */
        SELECT p.call_id, pub.name, sum(p.revenue_delta_cents)::int8, sum(p.credit_delta_cents)::int8
          FROM postings p
          LEFT JOIN publishers pub ON pub.id = p.publisher_id
         WHERE p.seq > $2 AND p.account_id = $1 AND p.xmin = pg_current_xact_id()::xid
         GROUP BY p.call_id, p.publisher_id, pub.name
        HAVING sum(p.revenue_delta_cents) <> 0 OR sum(p.credit_delta_cents) <> 0
         ORDER BY min(p.seq) LIMIT $3";
    let rows = statement::query_rows(client, MOVES, &[&account_id, &after, &MOVES_AT_MOST]).await?;
    Ok(rows
        .iter()
        .map(|row| CallMove {
            call_id: row.get(0),
            publisher: row.get(1),
            revenue_delta_cents: row.get(2),
            credit_delta_cents: row.get(3),
        })
        .collect())
}
