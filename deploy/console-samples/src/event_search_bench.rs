//! What Recent events costs the database when one account has ten million of them: every statement of
//! the product that shows, filters, searches or pages them, run as the console runs it, with its time and
//! its plan. Fails if one takes longer than it may, or reads the whole table.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use jiff::{Timestamp, ToSpan};
use trueup_event::reason::{Reason, Status};
use trueup_store::event_search::{self, Search, SearchKey};
use trueup_store::{IdPage, webhook_activity, webhooks};
use trueup_testkit::database::TestDatabase;

use crate::auto_explain::{ExplainingClient, Run};
use crate::event_fixtures::{ACCOUNT, caller, fill, ref_id, webhook};

/// What a statement may take (milliseconds).
const MAY_TAKE: f64 = 100.0;
/// Postgres settles on a prepared statement's plan after five runs.
const RUNS: usize = 7;
const ROWS: i64 = 50;

#[derive(Args)]
pub struct Plan {
    /// Events of the one account
    #[arg(long, default_value_t = 10_000_000)]
    events: i64,
    /// Its webhooks; the first has nine tenths of the events
    #[arg(long, default_value_t = 10)]
    webhooks: i64,
    /// Fill a database, print its URL and leave it there, for `--database`
    #[arg(long)]
    fill_only: bool,
    /// Ask a database that was filled before, with the same numbers
    #[arg(long)]
    database: Option<String>,
    /// Write the figures and plans to this file, too
    #[arg(long)]
    report: Option<PathBuf>,
}

pub async fn run(plan: &Plan) -> anyhow::Result<()> {
    let database;
    let url = match &plan.database {
        Some(url) => url.clone(),
        None => {
            database = TestDatabase::fresh().await;
            fill(&database.client().await, plan.events, plan.webhooks).await?;
            let url = database.url.clone();
            if plan.fill_only {
                // Its guard would drop it.
                std::mem::forget(database);
                println!("{url}");
                return Ok(());
            }
            url
        }
    };
    let watched = ExplainingClient::open(&url).await?;
    let mut table = Table::default();
    for (name, search, below) in questions(plan) {
        for _ in 0..RUNS {
            event_search::search_page(&watched.client, ACCOUNT, &search, below, ROWS)
                .await
                .with_context(|| name.clone())?;
        }
        table.add(&name, watched.runs());
    }
    glances(plan, &watched, &mut table).await?;
    let text = table.text(plan);
    println!("{text}");
    if let Some(file) = &plan.report {
        std::fs::write(file, table.with_plans(&text))?;
    }
    table.verdict()
}

/// The webhooks' own tables: what they did today, why rows failed.
async fn glances(plan: &Plan, watched: &ExplainingClient, table: &mut Table) -> anyhow::Result<()> {
    let all: Vec<_> = (0..plan.webhooks).map(webhook).collect();
    let now = Timestamp::now();
    let day = now.checked_sub(24.hours())?;
    for _ in 0..RUNS {
        webhooks::list_webhooks(
            &watched.client,
            ACCOUNT,
            false,
            IdPage {
                below: None,
                limit: 200,
            },
        )
        .await?;
        webhook_activity::load_activity(&watched.client, ACCOUNT, &all, now, day).await?;
    }
    table.add("webhooks table", watched.runs());
    for _ in 0..RUNS {
        webhook_activity::count_reasons(&watched.client, ACCOUNT, webhook(0), day).await?;
        webhook_activity::unmatched_requests(&watched.client, ACCOUNT, webhook(0), day, 200)
            .await?;
    }
    table.add("why is it unmatched?", watched.runs());
    Ok(())
}

type Question = (String, Search, Option<SearchKey>);

/// Every filter, on one webhook and on all, on the first page and deep below.
fn questions(plan: &Plan) -> Vec<Question> {
    let middle = Timestamp::now()
        .checked_sub((180 * 24).hours())
        .ok()
        .map(|at| (at, uuid::Uuid::max()));
    let old = ref_id(plan.events / 50);
    let text = |text: &str| Search {
        text: Some(text.to_owned()),
        ..Search::default()
    };
    let kinds: Vec<(&str, Search)> = vec![
        ("no filter", Search::default()),
        (
            "status matched",
            Search {
                statuses: vec![Status::Matched],
                ..Search::default()
            },
        ),
        (
            "status unmatched",
            Search {
                statuses: vec![Status::Unmatched],
                ..Search::default()
            },
        ),
        (
            "status held (1 in 1,000)",
            Search {
                statuses: vec![Status::Held],
                ..Search::default()
            },
        ),
        (
            "status superseded (none)",
            Search {
                statuses: vec![Status::Superseded],
                ..Search::default()
            },
        ),
        (
            "reason ref_id_not_found",
            Search {
                reasons: vec![Reason::RefIdNotFound],
                ..Search::default()
            },
        ),
        (
            "reason ambiguous (none)",
            Search {
                reasons: vec![Reason::Ambiguous],
                ..Search::default()
            },
        ),
        (
            "a day half a year ago",
            Search {
                since: Timestamp::now().checked_sub((181 * 24).hours()).ok(),
                until: Timestamp::now().checked_sub((180 * 24).hours()).ok(),
                ..Search::default()
            },
        ),
        (
            "one caller",
            Search {
                caller: Some(caller(plan.events / 3)),
                ..Search::default()
            },
        ),
        (
            "a caller that never was",
            Search {
                caller: Some("+13055550100".into()),
                ..Search::default()
            },
        ),
        (
            "one ref_id, a year old",
            Search {
                ref_id: Some(old.clone()),
                ..Search::default()
            },
        ),
        (
            "an amount",
            Search {
                amount_cents: Some(2_727),
                ..Search::default()
            },
        ),
        (
            "an amount that never was",
            Search {
                amount_cents: Some(1),
                ..Search::default()
            },
        ),
        (
            "an amount, unmatched",
            Search {
                amount_cents: Some(2_727),
                statuses: vec![Status::Unmatched],
                ..Search::default()
            },
        ),
        ("search: a whole ref_id", text(&old)),
        ("search: a part, often", text("555")),
        ("search: a part that never was", text("no such text")),
        (
            "search and status",
            Search {
                statuses: vec![Status::Unmatched],
                ..text("ref-9")
            },
        ),
    ];
    let mut asked = Vec::new();
    for (name, search) in kinds {
        let one = Search {
            webhooks: vec![webhook(0)],
            ..search.clone()
        };
        let all = Search {
            webhooks: (0..plan.webhooks).map(webhook).collect(),
            ..search
        };
        asked.push((format!("{name}, one webhook"), one.clone(), None));
        asked.push((format!("{name}, all webhooks"), all.clone(), None));
        asked.push((
            format!("{name}, one webhook, a page half a year down"),
            one,
            middle,
        ));
        asked.push((
            format!("{name}, all webhooks, a page half a year down"),
            all,
            middle,
        ));
    }
    asked
}

#[derive(Default)]
struct Table {
    lines: Vec<Line>,
}

/// A question, and each of its statements.
struct Line {
    question: String,
    statement: String,
    first: f64,
    last: f64,
    most: f64,
    plan: Vec<String>,
}

impl Line {
    fn scans_all(&self) -> bool {
        // A partition that holds nothing is scanned at no cost; one with rows must not be.
        self.plan
            .iter()
            .any(|line| line.contains("Seq Scan on events") && !line.contains("rows=0 "))
    }
}

impl Table {
    fn add(&mut self, question: &str, runs: Vec<Run>) {
        let mut names: Vec<String> = Vec::new();
        for run in &runs {
            if !names.contains(&run.name) {
                names.push(run.name.clone());
            }
        }
        for name in names {
            let of: Vec<&Run> = runs.iter().filter(|run| run.name == name).collect();
            let (Some(first), Some(last)) = (of.first(), of.last()) else {
                continue;
            };
            self.lines.push(Line {
                question: question.to_owned(),
                statement: name,
                first: first.milliseconds,
                last: last.milliseconds,
                most: of
                    .iter()
                    .skip(1)
                    .map(|run| run.milliseconds)
                    .fold(0.0, f64::max),
                plan: last.plan.clone(),
            });
        }
    }

    fn text(&self, plan: &Plan) -> String {
        let mut text = format!(
            "{} events of one account, {} webhooks; milliseconds in the database\n\n| question | statement | first run | worst after | last |\n|---|---|--:|--:|--:|\n",
            plan.events, plan.webhooks
        );
        for line in &self.lines {
            text.push_str(&format!(
                "| {} | {} | {:.1} | {:.1} | {:.1} |\n",
                line.question, line.statement, line.first, line.most, line.last
            ));
        }
        text
    }

    fn with_plans(&self, table: &str) -> String {
        let mut text = format!("{table}\n");
        let mut told: Vec<String> = Vec::new();
        for line in &self.lines {
            text.push_str(&format!("\n## {}: {}\n\n", line.question, line.statement));
            let shape = line.plan.join("\n");
            if told.contains(&shape) {
                text.push_str("as above\n");
            } else {
                text.push_str(&format!("```text\n{shape}\n```\n"));
                told.push(shape);
            }
        }
        text
    }

    fn verdict(&self) -> anyhow::Result<()> {
        let slow: Vec<String> = self
            .lines
            .iter()
            .filter(|line| line.most > MAY_TAKE || line.scans_all())
            .map(|line| {
                format!(
                    "{} ({}): {:.1} ms",
                    line.question, line.statement, line.most
                )
            })
            .collect();
        if slow.is_empty() {
            println!("every statement within {MAY_TAKE} ms, by an index");
            return Ok(());
        }
        bail!(
            "too slow, or reading the whole table:\n  {}",
            slow.join("\n  ")
        )
    }
}
