//! The revenue report: what calls brought in and what they cost, real and estimated apart.
//!
//! It is reckoned over the calls that started in a time, as they stand now: a correction changes the
//! day of its call, not the day on which it came.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use uuid::Uuid;

use trueup_postgres::statement::{self, Result};

/// By what the calls are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevenueGroup {
    /// Of the account's time zone.
    Day,
    Buyer,
    Publisher,
    /// The webhook whose report the value is.
    Webhook,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevenueSums {
    /// A day or an id; absent: the calls that have none.
    pub key: Option<String>,
    /// Of the buyer, publisher or webhook.
    pub name: Option<String>,
    pub calls: i64,
    pub reported_calls: i64,
    pub qualified_calls: i64,
    pub real_revenue_cents: i64,
    pub estimated_revenue_cents: i64,
    pub real_credits_cents: i64,
    pub estimated_credits_cents: i64,
}

/// `$1` account, `$2` from, `$3` to, `$4` time zone. An estimate of a call that is not qualified is no
/// revenue, as in the ledger.
macro_rules! sums {
    ($name:literal, $key:literal, $label:literal, $join:literal) => {
        concat!(
            "/* ",
            $name,
            " */
            SELECT s.key, ",
            $label,
            " AS name, s.calls, s.reported_calls, s.qualified_calls, s.real_revenue, s.estimated_revenue,
                   s.real_credits, s.estimated_credits
              FROM (SELECT ",
            $key,
            " AS key, count(*) AS calls,
                           count(*) FILTER (WHERE c.value_from_webhook) AS reported_calls,
                           count(*) FILTER (WHERE c.qualified) AS qualified_calls,
                           COALESCE(sum(c.value_cents) FILTER (WHERE c.value_from_webhook), 0)::bigint AS real_revenue,
                           COALESCE(sum(c.value_cents) FILTER (WHERE NOT c.value_from_webhook AND c.qualified), 0)::bigint
                               AS estimated_revenue,
                           COALESCE(sum(c.publisher_payout_cents) FILTER (WHERE c.value_from_webhook), 0)::bigint
                               AS real_credits,
                           COALESCE(sum(c.publisher_payout_cents) FILTER (WHERE NOT c.value_from_webhook), 0)::bigint
                               AS estimated_credits
                      FROM calls c LEFT JOIN assignments a ON a.id = c.assignment_id
                     WHERE c.account_id = $1 AND c.started_at >= $2 AND c.started_at < $3 AND $4::text IS NOT NULL
                     GROUP BY 1) s ",
            $join,
            " ORDER BY s.key NULLS LAST"
        )
    };
}

pub async fn sum_revenue(
    client: &impl GenericClient,
    account_id: Uuid,
    group: RevenueGroup,
    from: Timestamp,
    to: Timestamp,
    time_zone: &str,
) -> Result<Vec<RevenueSums>> {
    const BY_DAY: &str = sums!(
        "revenue.by_day",
        "to_char(c.started_at AT TIME ZONE $4, 'YYYY-MM-DD')",
        "NULL::text",
        ""
    );
    const BY_BUYER: &str = sums!(
        "revenue.by_buyer",
        "c.buyer_id::text",
        "b.name",
        "LEFT JOIN buyers b ON b.id::text = s.key AND b.account_id = $1"
    );
    const BY_PUBLISHER: &str = sums!(
        "revenue.by_publisher",
        "COALESCE(c.terms_publisher_id, a.publisher_id)::text",
        "p.name",
        "LEFT JOIN publishers p ON p.id::text = s.key AND p.account_id = $1"
    );
    const BY_WEBHOOK: &str = sums!(
        "revenue.by_webhook",
        "CASE WHEN c.value_from_webhook THEN c.reported_by_webhook_id END::text",
        "w.name",
        "LEFT JOIN webhooks w ON w.id::text = s.key AND w.account_id = $1"
    );
    let statement = match group {
        RevenueGroup::Day => BY_DAY,
        RevenueGroup::Buyer => BY_BUYER,
        RevenueGroup::Publisher => BY_PUBLISHER,
        RevenueGroup::Webhook => BY_WEBHOOK,
    };
    let rows =
        statement::rows_planned(client, statement, &[&account_id, &from, &to, &time_zone]).await?;
    Ok(rows
        .iter()
        .map(|row| RevenueSums {
            key: row.get("key"),
            name: row.get("name"),
            calls: row.get("calls"),
            reported_calls: row.get("reported_calls"),
            qualified_calls: row.get("qualified_calls"),
            real_revenue_cents: row.get("real_revenue"),
            estimated_revenue_cents: row.get("estimated_revenue"),
            real_credits_cents: row.get("real_credits"),
            estimated_credits_cents: row.get("estimated_credits"),
        })
        .collect())
}
