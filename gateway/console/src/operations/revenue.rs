//! The revenue report: real and estimated revenue apart, credits, margin.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use trueup_store::revenue::{self, RevenueGroup, RevenueSums};
use utoipa::{IntoParams, ToSchema};

use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::{FieldError, Problem};

/// What is shown if no time is named.
const DEFAULT_DAYS: i64 = 30;
/// Ten years: a report is something that a person reads.
const MAX_DAYS: i64 = 3_660;

#[derive(Debug, Serialize, ToSchema)]
pub struct RevenueReport {
    /// Calls that started at or after.
    pub from: Timestamp,
    /// And before.
    pub to: Timestamp,
    /// `day`, `buyer`, `publisher` or `webhook`.
    #[schema(value_type = String)]
    pub group: Grouping,
    pub time_zone: String,
    pub currency: String,
    pub data: Vec<Revenue>,
    pub totals: Revenue,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Revenue {
    /// A day of the account's time zone, or an id; null: the calls that have none, and the totals.
    pub key: Option<String>,
    /// Of the buyer, publisher or webhook.
    pub name: Option<String>,
    pub calls: i64,
    /// Calls whose value a buyer reported.
    pub reported_calls: i64,
    pub qualified_calls: i64,
    pub real_revenue_cents: i64,
    pub estimated_revenue_cents: i64,
    /// Both.
    pub revenue_cents: i64,
    pub real_credits_cents: i64,
    pub estimated_credits_cents: i64,
    /// What publishers earn, both.
    pub credits_cents: i64,
    /// Revenue minus credits.
    pub margin_cents: i64,
}

impl From<RevenueSums> for Revenue {
    fn from(it: RevenueSums) -> Self {
        let revenue_cents = it
            .real_revenue_cents
            .saturating_add(it.estimated_revenue_cents);
        let credits_cents = it
            .real_credits_cents
            .saturating_add(it.estimated_credits_cents);
        Revenue {
            key: it.key,
            name: it.name,
            calls: it.calls,
            reported_calls: it.reported_calls,
            qualified_calls: it.qualified_calls,
            real_revenue_cents: it.real_revenue_cents,
            estimated_revenue_cents: it.estimated_revenue_cents,
            revenue_cents,
            real_credits_cents: it.real_credits_cents,
            estimated_credits_cents: it.estimated_credits_cents,
            credits_cents,
            margin_cents: revenue_cents.saturating_sub(credits_cents),
        }
    }
}

fn sum_rows(rows: &[RevenueSums]) -> RevenueSums {
    rows.iter()
        .fold(RevenueSums::default(), |sum, row| RevenueSums {
            key: None,
            name: None,
            calls: sum.calls.saturating_add(row.calls),
            reported_calls: sum.reported_calls.saturating_add(row.reported_calls),
            qualified_calls: sum.qualified_calls.saturating_add(row.qualified_calls),
            real_revenue_cents: sum
                .real_revenue_cents
                .saturating_add(row.real_revenue_cents),
            estimated_revenue_cents: sum
                .estimated_revenue_cents
                .saturating_add(row.estimated_revenue_cents),
            real_credits_cents: sum
                .real_credits_cents
                .saturating_add(row.real_credits_cents),
            estimated_credits_cents: sum
                .estimated_credits_cents
                .saturating_add(row.estimated_credits_cents),
        })
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RevenueParams {
    /// A day of the account's time zone, or a time; by default 30 days before `to`.
    #[param(example = "2026-03-01")]
    pub from: Option<String>,
    /// A day, which is included whole, or a time, which is not; by default today.
    #[param(example = "2026-03-31")]
    pub to: Option<String>,
    /// `day` (default), `buyer`, `publisher` or `webhook`.
    #[param(value_type = Option<String>, default = "day")]
    pub group: Option<Grouping>,
}

/// What the sums are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    #[default]
    Day,
    Buyer,
    Publisher,
    Webhook,
}

impl From<Grouping> for RevenueGroup {
    fn from(group: Grouping) -> Self {
        match group {
            Grouping::Day => RevenueGroup::Day,
            Grouping::Buyer => RevenueGroup::Buyer,
            Grouping::Publisher => RevenueGroup::Publisher,
            Grouping::Webhook => RevenueGroup::Webhook,
        }
    }
}

/// A day's beginning (for `to`: its end), or a time as it is.
fn parse_edge(text: &str, zone: &TimeZone, whole_day: bool) -> Option<Timestamp> {
    if text.len() > "2026-03-14".len() {
        return text.parse().ok();
    }
    edge_of(text.parse().ok()?, zone, whole_day)
}

fn edge_of(day: Date, zone: &TimeZone, end: bool) -> Option<Timestamp> {
    let day = if end {
        day.checked_add(1.day()).ok()?
    } else {
        day
    };
    Some(
        day.to_zoned(zone.clone())
            .ok()?
            .start_of_day()
            .ok()?
            .timestamp(),
    )
}

/// The time that is asked for, from its beginning to its end.
fn read_period(params: &RevenueParams, zone: &TimeZone) -> Result<(Timestamp, Timestamp), Problem> {
    let mut faults = Vec::new();
    let mut read = |name: &str, given: &Option<String>, whole_day| {
        let text = given.as_deref()?;
        let edge = parse_edge(text, zone, whole_day);
        if edge.is_none() {
            let form = "must be a day such as 2026-03-14, or a time such as 2026-03-14T12:00:00Z";
            faults.push(FieldError::new(name, form));
        }
        edge
    };
    let (from, to) = (
        read("from", &params.from, false),
        read("to", &params.to, true),
    );
    let now = Timestamp::now();
    let to = to
        .or_else(|| edge_of(now.to_zoned(zone.clone()).date(), zone, true))
        .unwrap_or(now);
    let from = from.unwrap_or_else(|| {
        to.checked_sub(SignedDuration::from_hours(24 * DEFAULT_DAYS))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    });
    if from >= to {
        faults.push(FieldError::new("to", "must be after from"));
    } else if to.duration_since(from) > SignedDuration::from_hours(24 * MAX_DAYS) {
        let message = format!("is more than {MAX_DAYS} days before to");
        faults.push(FieldError::new("from", message));
    }
    if faults.is_empty() {
        return Ok((from, to));
    }
    Err(Problem::invalid_fields(faults, Vec::new()))
}

/// Of the calls that started in that time, as they stand now.
pub async fn sum_revenue(
    app: &App,
    operator: &AuthContext,
    params: RevenueParams,
) -> Result<RevenueReport, Problem> {
    let time_zone = operator.account.time_zone.clone();
    let zone = TimeZone::get(&time_zone).unwrap_or(TimeZone::UTC);
    let (from, to) = read_period(&params, &zone)?;
    let group = params.group.unwrap_or_default();
    let client = app.long_pool.get().await?;
    let account_id = operator.account_id();
    let rows =
        revenue::sum_revenue(&client, account_id, group.into(), from, to, &time_zone).await?;
    let totals = sum_rows(&rows).into();
    let data = rows.into_iter().map(Into::into).collect();
    Ok(RevenueReport {
        from,
        to,
        group,
        time_zone,
        currency: operator.account.currency.clone(),
        data,
        totals,
    })
}
