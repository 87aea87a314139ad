//! Publishers: what is owed to each, and the ledger as a statement that explains every cent of it.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use trueup_store::archive::{Archivable, archived_ids};
use trueup_store::calls::{self, CallBrief};
use trueup_store::ledger::{self, Posting};
use trueup_store::publishers::{self, Publisher};
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{Client, IdPage, StoreError};
use uuid::Uuid;

use super::bulk_replay::{csv_answer, csv_line};
use super::export_file::{ExportParts, stream_export};
use super::form::Form;
use super::formatting::{self, LocalTime};
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::named_records::{RefusedName, create_named, twin_of, wants_archived};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::named_records::rename_record;
use crate::work_shares::WorkPlace;

const MOST: i64 = 500;
const ROWS: i64 = 50;
/// Postings fetched at a time for the file.
const CHUNK: i64 = 1_000;

struct PublisherRow {
    id: Uuid,
    name: String,
    balance: String,
    owes: bool,
    made: LocalTime,
}

#[derive(Template)]
#[template(path = "publishers.html")]
struct PublisherList {
    look: PageLayout,
    rows: Vec<PublisherRow>,
    total: String,
    archived: bool,
    refused: RefusedName,
}

async fn build_list(
    app: &App,
    viewer: &Viewer,
    archived: bool,
    refused: RefusedName,
) -> Result<PublisherList, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let all = IdPage {
        below: None,
        limit: MOST,
    };
    let gone = archived_ids(&client, Archivable::Publisher, account).await?;
    let mut found = publishers::list_publishers(&client, account, all).await?;
    found.retain(|publisher| gone.contains(&publisher.id) == archived);
    let currency = viewer.account_currency();
    let total: i64 = found.iter().map(|p| p.pending_balance_cents).sum();
    let rows = found
        .into_iter()
        .map(|p| PublisherRow {
            id: p.id,
            name: p.name,
            balance: formatting::format_money(Some(p.pending_balance_cents), currency),
            owes: p.pending_balance_cents < 0,
            made: viewer.clock.local_time(p.created_at),
        })
        .collect();
    Ok(PublisherList {
        look: PageLayout::signed_in(viewer, "Publishers", "/publishers"),
        rows,
        total: formatting::format_money(Some(total), currency),
        archived,
        refused,
    })
}

pub async fn publishers_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let archived = wants_archived(&uri);
    page(&build_list(&app, &viewer, archived, RefusedName::default()).await?)
}

struct StatementLine {
    at: LocalTime,
    kind: String,
    call: Uuid,
    caller: String,
    /// ref_id and campaign.
    of: String,
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
    look: PageLayout,
    id: Uuid,
    name: String,
    balance: String,
    lines: Vec<StatementLine>,
    next: Option<i64>,
    first: bool,
}

fn statement_line(posting: Posting, brief: CallBrief, viewer: &Viewer) -> StatementLine {
    let currency = viewer.account_currency();
    let of = [brief.ref_id, brief.campaign];
    let of: Vec<String> = of.into_iter().flatten().collect();
    StatementLine {
        at: viewer.clock.local_time(posting.created_at),
        kind: posting.kind,
        call: posting.call_id,
        caller: brief.caller.unwrap_or_else(|| "withheld".to_owned()),
        of: of.join(" · "),
        event: posting.event_id,
        actor: posting.actor.unwrap_or_default(),
        terms: posting
            .terms
            .map(|t| formatting::format_terms(t, currency))
            .unwrap_or_default(),
        revenue: formatting::format_signed_money(posting.revenue_delta_cents, currency),
        credit: formatting::format_signed_money(posting.credit_delta_cents, currency),
        balance: formatting::format_money(posting.balance_after_cents, currency),
    }
}

pub async fn publisher_page(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    uri: Uri,
) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let below = form.text("before").parse::<i64>().ok();
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let publisher = publishers::get_publisher(&client, account, id)
        .await?
        .ok_or(PageError::NotFound("publisher"))?;
    let mut found = ledger::of_publisher(&client, account, id, below, ROWS + 1).await?;
    let rows = usize::try_from(ROWS).unwrap_or(50);
    let more = found.len() > rows;
    found.truncate(rows);
    let next = found.last().filter(|_| more).map(|posting| posting.seq);
    let mut briefs = briefs_of(&client, account, &found).await?;
    page(&Statement {
        look: PageLayout::signed_in(&viewer, publisher.name.clone(), "/publishers"),
        id,
        name: publisher.name,
        balance: formatting::format_money(
            Some(publisher.pending_balance_cents),
            viewer.account_currency(),
        ),
        lines: found
            .into_iter()
            .map(|posting| {
                let brief = briefs.remove(&posting.seq).unwrap_or_default();
                statement_line(posting, brief, &viewer)
            })
            .collect(),
        next,
        first: below.is_none(),
    })
}

/// What the lines say of their calls, by posting.
async fn briefs_of(
    client: &Client,
    account: Uuid,
    postings: &[Posting],
) -> Result<HashMap<i64, CallBrief>, StoreError> {
    let ids: Vec<Uuid> = postings.iter().map(|posting| posting.call_id).collect();
    let of_calls = calls::load_briefs(client, account, &ids).await?;
    let brief = |posting: &Posting| of_calls.get(&posting.call_id).cloned().unwrap_or_default();
    Ok(postings
        .iter()
        .map(|posting| (posting.seq, brief(posting)))
        .collect())
}

struct StatementExport {
    app: App,
    account: Uuid,
    id: Uuid,
    below: Option<i64>,
    begun: bool,
    over: bool,
}

impl ExportParts for StatementExport {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.over {
            return Ok(None);
        }
        let client = self.app.long_pool.get().await?;
        let found = ledger::of_publisher(&client, self.account, self.id, self.below, CHUNK).await?;
        let mut briefs = briefs_of(&client, self.account, &found).await?;
        drop(client);
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
                "caller",
                "ref_id",
                "campaign",
            ];
            text.push_str(&csv_line(&columns.map(str::to_owned)));
            self.begun = true;
        }
        for p in found {
            let brief = briefs.remove(&p.seq).unwrap_or_default();
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
                brief.caller.unwrap_or_default(),
                brief.ref_id.unwrap_or_default(),
                brief.campaign.unwrap_or_default(),
            ]));
        }
        Ok(Some(Bytes::from(text)))
    }
}

pub async fn export_statement(
    State(app): State<App>,
    place: WorkPlace,
    viewer: Viewer,
    Id(id): Id,
) -> PageResult {
    let account = viewer.account.id;
    publishers::get_publisher(&app.pool.get().await?, account, id)
        .await?
        .ok_or(PageError::NotFound("publisher"))?;
    let export = StatementExport {
        app,
        account,
        id,
        below: None,
        begun: false,
        over: false,
    };
    Ok(csv_answer("ledger.csv", stream_export(export, place)))
}

pub async fn create_publisher(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let known = webhook_activity::load_names(&client, account, NamedEntity::Publishers).await?;
    drop(client);
    let names = known.iter().map(|(_, name)| name.as_str());
    let refused = match twin_of(&form, "publisher", names) {
        Some(refused) => refused,
        None => match create_named::<Publisher>(&app, &viewer, &form).await? {
            Ok(made) => {
                return redirect_to(&format!("/publishers/{}?done=publisher-created", made.id));
            }
            Err(refused) => refused,
        },
    };
    let list = build_list(&app, &viewer, false, refused).await?;
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
}

pub async fn rename_publisher(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let body = form.read_fields(&["name"])?;
    rename_record::<Publisher>(&app, &viewer.auth_context(), id, body).await?;
    redirect_to(&format!("/publishers/{id}?done=saved"))
}
