//! Publishers: what is owed to each, and the ledger as a statement that explains every cent of it.

use askama::Template;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use bytes::Bytes;
use futures_util::stream;
use trueup_store::ledger::{self, Posting};
use trueup_store::{IdPage, StoreError, publishers};
use uuid::Uuid;

use super::bulk::{csv_answer, csv_line};
use super::form::{Form, Setting};
use super::formatting::{self, When};
use super::layout::{Fault, Look, Shown, go, page};
use super::session::Viewer;
use crate::api::handlers::{self, Id};
use crate::app_state::App;

const MOST: i64 = 500;
const ROWS: i64 = 50;
/// Postings fetched at a time for the file.
const CHUNK: i64 = 1_000;

struct Row {
    id: Uuid,
    name: String,
    balance: String,
    owes: bool,
    made: When,
}

#[derive(Template)]
#[template(path = "publishers.html")]
struct List {
    look: Look,
    rows: Vec<Row>,
    total: String,
}

pub async fn list(State(app): State<App>, viewer: Viewer) -> Shown {
    let found = publishers::list(
        &app.pool.get().await?,
        viewer.account.id,
        IdPage {
            below: None,
            limit: MOST,
        },
    )
    .await?;
    let currency = viewer.currency();
    let total: i64 = found.iter().map(|p| p.pending_balance_cents).sum();
    let rows = found
        .into_iter()
        .map(|p| Row {
            id: p.id,
            name: p.name,
            balance: formatting::money(Some(p.pending_balance_cents), currency),
            owes: p.pending_balance_cents < 0,
            made: viewer.zone.when(p.created_at),
        })
        .collect();
    let total = formatting::money(Some(total), currency);
    page(&List {
        look: Look::of(&viewer, "Publishers", "/publishers"),
        rows,
        total,
    })
}

struct Line {
    at: When,
    kind: String,
    call: Uuid,
    event: Option<Uuid>,
    actor: String,
    terms: String,
    revenue: String,
    credit: String,
    balance: String,
}

#[derive(Template)]
#[template(path = "publisher.html")]
struct Statement {
    look: Look,
    id: Uuid,
    name: String,
    balance: String,
    lines: Vec<Line>,
    next: Option<i64>,
    first: bool,
}

fn line(posting: Posting, viewer: &Viewer) -> Line {
    let currency = viewer.currency();
    Line {
        at: viewer.zone.when(posting.created_at),
        kind: posting.kind,
        call: posting.call_id,
        event: posting.event_id,
        actor: posting.actor.unwrap_or_default(),
        terms: posting
            .terms
            .map(|t| formatting::terms(t, currency))
            .unwrap_or_default(),
        revenue: formatting::moved(posting.revenue_delta_cents, currency),
        credit: formatting::moved(posting.credit_delta_cents, currency),
        balance: formatting::money(posting.balance_after_cents, currency),
    }
}

pub async fn show(State(app): State<App>, viewer: Viewer, Id(id): Id, uri: Uri) -> Shown {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let below = form.text("before").parse::<i64>().ok();
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let publisher = publishers::get(&client, account, id)
        .await?
        .ok_or(Fault::NotFound("publisher"))?;
    let mut found = ledger::of_publisher(&client, account, id, below, ROWS + 1).await?;
    let rows = usize::try_from(ROWS).unwrap_or(50);
    let more = found.len() > rows;
    found.truncate(rows);
    let next = found.last().filter(|_| more).map(|posting| posting.seq);
    page(&Statement {
        look: Look::of(&viewer, publisher.name.clone(), "/publishers"),
        id,
        name: publisher.name,
        balance: formatting::money(Some(publisher.pending_balance_cents), viewer.currency()),
        lines: found
            .into_iter()
            .map(|posting| line(posting, &viewer))
            .collect(),
        next,
        first: below.is_none(),
    })
}

struct Export {
    app: App,
    account: Uuid,
    id: Uuid,
    below: Option<i64>,
    begun: bool,
    over: bool,
}

impl Export {
    async fn chunk(&mut self) -> Result<Bytes, StoreError> {
        let client = self.app.pool.get().await?;
        let found = ledger::of_publisher(&client, self.account, self.id, self.below, CHUNK).await?;
        self.over = found.len() < usize::try_from(CHUNK).unwrap_or(usize::MAX);
        self.below = found.last().map(|posting| posting.seq);
        let mut text = String::new();
        if !self.begun {
            let columns = [
                "posted_at",
                "kind",
                "call_id",
                "event_id",
                "by",
                "revenue_moved",
                "credit_moved",
                "balance_after",
            ];
            text.push_str(&csv_line(&columns.map(str::to_owned)));
            self.begun = true;
        }
        for p in found {
            text.push_str(&csv_line(&[
                p.created_at.to_string(),
                p.kind,
                p.call_id.to_string(),
                p.event_id.map(|id| id.to_string()).unwrap_or_default(),
                p.actor.unwrap_or_default(),
                formatting::plain_amount(p.revenue_delta_cents),
                formatting::plain_amount(p.credit_delta_cents),
                p.balance_after_cents
                    .map(formatting::plain_amount)
                    .unwrap_or_default(),
            ]));
        }
        Ok(Bytes::from(text))
    }
}

pub async fn export(State(app): State<App>, viewer: Viewer, Id(id): Id) -> Shown {
    let account = viewer.account.id;
    publishers::get(&app.pool.get().await?, account, id)
        .await?
        .ok_or(Fault::NotFound("publisher"))?;
    let export = Export {
        app,
        account,
        id,
        below: None,
        begun: false,
        over: false,
    };
    let chunks = stream::unfold(export, |mut export| async move {
        if export.over {
            return None;
        }
        let chunk = export.chunk().await;
        export.over |= chunk.is_err();
        Some((chunk, export))
    });
    Ok(csv_answer("ledger.csv", Body::from_stream(chunks)))
}

pub async fn create(State(app): State<App>, viewer: Viewer, form: Form) -> Shown {
    let setting = Setting::default().put("name", form.text("name"));
    let (_, Json(made)) =
        handlers::create_publisher(State(app), viewer.operator(), setting.into()).await?;
    go(&format!("/publishers/{}?done=made", made.id))
}

pub async fn rename(State(app): State<App>, viewer: Viewer, Id(id): Id, form: Form) -> Shown {
    let setting = Setting::default().put("name", form.text("name"));
    let _ =
        handlers::rename_publisher(State(app), viewer.operator(), Id(id), setting.into()).await?;
    go(&format!("/publishers/{id}?done=saved"))
}
