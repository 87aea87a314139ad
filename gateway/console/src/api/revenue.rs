//! The revenue report: real and estimated revenue apart, credits, margin.

use axum::Json;
use axum::extract::State;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use serde::Serialize;
use serde_json::Value;
use trueup_store::revenue::{self, RevenueGroup, Sums};
use utoipa::{IntoParams, ToSchema};

use super::field_reader::FieldReader;
use super::request::Query;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;

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
    pub group: String,
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

impl From<Sums> for Revenue {
    fn from(it: Sums) -> Self {
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

fn sum_rows(rows: &[Sums]) -> Sums {
    rows.iter().fold(Sums::default(), |sum, row| Sums {
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

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub struct RevenueParams {
    /// A day of the account's time zone, or a time; by default 30 days before `to`.
    #[param(example = "2026-03-01")]
    from: Option<String>,
    /// A day, which is included whole, or a time, which is not; by default today.
    #[param(example = "2026-03-31")]
    to: Option<String>,
    /// `day` (default), `buyer`, `publisher` or `webhook`.
    #[param(default = "day")]
    group: Option<String>,
}

/// A day's beginning (for `to`: its end), or a time as it is.
fn read_edge(
    fields: &mut FieldReader,
    name: &'static str,
    zone: &TimeZone,
    whole_day: bool,
) -> Option<Timestamp> {
    let zone = zone.clone();
    let given = fields.read_with(name, |value| {
        const FORM: &str =
            "must be a day such as 2026-03-14, or a time such as 2026-03-14T12:00:00Z";
        let Value::String(text) = &value else {
            return Err(FORM.to_owned());
        };
        let text = text.trim();
        if text.len() > "2026-03-14".len() {
            return text.parse::<Timestamp>().map_err(|_| FORM.to_owned());
        }
        let day: Date = text.parse().map_err(|_| FORM.to_owned())?;
        edge_of(day, &zone, whole_day).ok_or_else(|| FORM.to_owned())
    });
    given.value()
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

#[utoipa::path(get, path = "/api/v1/reports/revenue", tag = "reports", params(RevenueParams),
    responses((status = 200, description = "Of the calls that started in that time, as they stand now", body = RevenueReport)))]
pub async fn sum_revenue(
    State(app): State<App>,
    operator: AuthContext,
    Query(mut fields): Query,
) -> Result<Json<RevenueReport>, Problem> {
    let time_zone = operator.account.time_zone.clone();
    let zone = TimeZone::get(&time_zone).unwrap_or(TimeZone::UTC);
    let from = read_edge(&mut fields, "from", &zone, false);
    let to = read_edge(&mut fields, "to", &zone, true);
    let group = fields
        .read_choice("group", &["day", "buyer", "publisher", "webhook"])
        .value()
        .unwrap_or("day");
    let to = to.or_else(|| edge_of(Timestamp::now().to_zoned(zone.clone()).date(), &zone, true));
    let to = to.unwrap_or_else(Timestamp::now);
    let from = from.unwrap_or_else(|| {
        to.checked_sub(SignedDuration::from_hours(24 * DEFAULT_DAYS))
            .unwrap_or(Timestamp::UNIX_EPOCH)
    });
    if from >= to {
        fields.add_fault("to", "must be after from");
    } else if to.duration_since(from) > SignedDuration::from_hours(24 * MAX_DAYS) {
        fields.add_fault("from", format!("is more than {MAX_DAYS} days before to"));
    }
    fields.finish_reading()?;
    let by = match group {
        "buyer" => RevenueGroup::Buyer,
        "publisher" => RevenueGroup::Publisher,
        "webhook" => RevenueGroup::Webhook,
        _ => RevenueGroup::Day,
    };
    let client = app.long_pool.get().await?;
    let rows =
        revenue::sum_revenue(&client, operator.account_id(), by, from, to, &time_zone).await?;
    let totals = sum_rows(&rows).into();
    let data = rows.into_iter().map(Into::into).collect();
    let currency = operator.account.currency;
    Ok(Json(RevenueReport {
        from,
        to,
        group: group.to_owned(),
        time_zone,
        currency,
        data,
        totals,
    }))
}
