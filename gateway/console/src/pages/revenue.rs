//! Revenue: what buyers really paid against what was only estimated, by day, buyer, publisher or
//! webhook, in the account's time zone. The figures are the API's report; here they are drawn.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use jiff::ToSpan;
use trueup_domain::reason_text::format_cents;

use super::chart::{self, Column};
use super::form::Form;
use super::formatting::{self, Markup, PageClock};
use super::layout::{PageLayout, PageResult, page};
use super::viewer::Viewer;
use crate::app_state::App;
use crate::operations::revenue::{self as operations, Revenue as Sums};
use crate::request_fields::RequestFields;

/// Days shown if none are named.
const DAYS: i64 = 30;
const GROUPS: [(&str, &str); 4] = [
    ("day", "By day"),
    ("buyer", "By buyer"),
    ("publisher", "By publisher"),
    ("webhook", "By webhook"),
];

struct RevenueRow {
    name: String,
    calls: String,
    reported: String,
    real: String,
    estimated: String,
    credits: String,
    margin: String,
    bar: Markup,
}

#[derive(Template)]
#[template(path = "revenue.html")]
struct RevenuePage {
    look: PageLayout,
    group: String,
    groups: Vec<(&'static str, &'static str)>,
    from: String,
    to: String,
    zone: String,
    fault: Option<String>,
    rows: Vec<RevenueRow>,
    total: RevenueRow,
    chart: Option<Markup>,
    reported_share: String,
}

fn make_row(sums: &Sums, name: String, most: i64, currency: &str) -> RevenueRow {
    let text = |cents| format_cents(cents, currency);
    RevenueRow {
        name,
        calls: formatting::format_count(sums.calls),
        reported: formatting::format_count(sums.reported_calls),
        real: text(sums.real_revenue_cents),
        estimated: text(sums.estimated_revenue_cents),
        credits: text(sums.credits_cents),
        margin: text(sums.margin_cents),
        bar: chart::split_bar(sums.real_revenue_cents, sums.estimated_revenue_cents, most),
    }
}

fn name_of(sums: &Sums, group: &str) -> String {
    match (&sums.name, &sums.key, group) {
        (Some(name), _, _) => name.clone(),
        (None, Some(day), "day") => day_name(day),
        (None, Some(key), _) => key.clone(),
        (None, None, "webhook") => "not reported (estimates)".to_owned(),
        (None, None, _) => "none".to_owned(),
    }
}

/// `Mon, Nov 23, 2026`.
fn day_name(key: &str) -> String {
    let day = key.parse::<jiff::civil::Date>();
    day.map_or_else(
        |_| key.to_owned(),
        |day| day.strftime("%a, %b %-d, %Y").to_string(),
    )
}

/// Whole units, short: `$1,200`.
fn axis_label(cents: i64, currency: &str) -> String {
    let text = format_cents(cents, currency);
    text.strip_suffix(".00")
        .map_or_else(|| text.replace(".00 ", " "), str::to_owned)
}

fn make_column(label: String, sums: &Sums, currency: &str) -> Column {
    let text = |cents| format_cents(cents, currency);
    let title = format!(
        "{label}: {} real, {} estimated, {} credits",
        text(sums.real_revenue_cents),
        text(sums.estimated_revenue_cents),
        text(sums.credits_cents)
    );
    let (real, estimate) = (sums.real_revenue_cents, sums.estimated_revenue_cents);
    Column {
        label,
        title,
        real,
        estimate,
        credit: sums.credits_cents,
    }
}

/// Every day of the time, also those without a call.
fn day_columns(report: &[Sums], from: &str, to: &str, currency: &str) -> Vec<Column> {
    let (Ok(first), Ok(last)) = (
        from.parse::<jiff::civil::Date>(),
        to.parse::<jiff::civil::Date>(),
    ) else {
        return Vec::new();
    };
    let none = Sums::default();
    first
        .series(1.day())
        .take_while(|day| *day <= last)
        .map(|day| {
            let key = day.to_string();
            let sums = report
                .iter()
                .find(|s| s.key.as_deref() == Some(&key))
                .unwrap_or(&none);
            make_column(day.strftime("%b %-d").to_string(), sums, currency)
        })
        .collect()
}

pub async fn revenue_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    // The books' days are the account's, whatever clock the page has.
    let today = PageClock::choose(None, &viewer.account.time_zone).today();
    let given = |name: &str, otherwise: jiff::civil::Date| {
        let text = form.text(name);
        if text.is_empty() {
            otherwise.to_string()
        } else {
            text.to_owned()
        }
    };
    let to = given("to", today);
    let from = given(
        "from",
        today.checked_sub((DAYS - 1).days()).unwrap_or(today),
    );
    let group = GROUPS
        .iter()
        .map(|(g, _)| *g)
        .find(|g| *g == form.text("group"))
        .unwrap_or("day");
    let texts = [("from", from.as_str()), ("to", &to), ("group", group)];
    let asked = match RequestFields::of_texts(texts).read_params() {
        Ok(params) => operations::sum_revenue(&app, &viewer.auth_context(), params).await,
        Err(bad) => Err(bad.into()),
    };
    let currency = viewer.account_currency();
    let (data, totals, fault) = match asked {
        Ok(report) => (report.data, report.totals, None),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => (
            Vec::new(),
            Sums::default(),
            Some(problem.detail().to_owned()),
        ),
        Err(problem) => return Err(problem.into()),
    };
    let most = data.iter().map(|s| s.revenue_cents).max().unwrap_or(0);
    let chart = (!data.is_empty()).then(|| {
        let says = format!(
            "Revenue by {group}: {} real and {} estimated in all; the table below has every figure",
            format_cents(totals.real_revenue_cents, currency),
            format_cents(totals.estimated_revenue_cents, currency)
        );
        if group == "day" {
            return chart::columns_chart(
                &day_columns(&data, &from, &to, currency),
                &says,
                |cents| axis_label(cents, currency),
            );
        }
        let rows: Vec<Column> = data
            .iter()
            .map(|sums| make_column(name_of(sums, group), sums, currency))
            .collect();
        chart::ranks_chart(&rows, &says, |cents| format_cents(cents, currency))
    });
    let share = if totals.calls == 0 {
        0
    } else {
        totals.reported_calls * 100 / totals.calls
    };
    let mut rows: Vec<RevenueRow> = data
        .iter()
        .map(|s| make_row(s, name_of(s, group), most, currency))
        .collect();
    if group == "day" {
        rows.reverse();
    }
    page(&RevenuePage {
        look: PageLayout::signed_in(&viewer, "Revenue", "/revenue"),
        group: group.to_owned(),
        groups: GROUPS.to_vec(),
        from,
        to,
        zone: viewer.account.time_zone.clone(),
        fault,
        rows,
        total: make_row(&totals, String::new(), most, currency),
        chart,
        reported_share: format!("{share} %"),
    })
}
