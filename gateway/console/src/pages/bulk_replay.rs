//! Many rows at once: their export, streamed row by row, and their replay, counted first.
//!
//! A replay is worked off by the workers, one row after the other under the rules of a single one. How far
//! it is stands in the database: any console shows it, and it goes on whichever process ends.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use askama::Template;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, Uri, header};
use axum::response::{AppendHeaders, IntoResponse};
use bytes::Bytes;
use jiff::Timestamp;
use trueup_domain::reason_text::explain_reason;
use trueup_event::reason::{Reason, Status};
use trueup_ops::metrics::{self, LimitedWork};
use trueup_store::StoreError;
use trueup_store::bulk_replays::{self, BulkReplay, NewReplay};
use trueup_store::event_search::{self, EventPage, Search, SearchKey};
use trueup_store::events::Event;
use trueup_store::webhook_activity::{self, NamedEntity};
use uuid::Uuid;

use super::events::webhooks_of;
use super::export_file::{ExportParts, stream_export};
use super::filter::EventFilter;
use super::form::Form;
use super::formatting;
use super::layout::{PageError, PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::problem::Problem;
use crate::work_shares::WorkPlace;

/// Rows fetched at a time.
const CHUNK: i64 = 500;
/// A replay of more is cut into several by its filters (rows).
const MOST: usize = 10_000;
/// Rows that are looked at for them.
const MOST_SEARCHED: usize = 50_000;
/// How long they are looked for; the answer comes before its request is given up.
const SEARCH_TIME: Duration = Duration::from_secs(30);
/// The times between which an export's rows lie.
const OLDEST: HeaderName = HeaderName::from_static("x-oldest");
const NEWEST: HeaderName = HeaderName::from_static("x-newest");

/// A text of a spreadsheet: quoted, and never a formula.
pub fn csv_cell(text: &str) -> String {
    let plain_number = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-. ".contains(&b));
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !plain_number {
        "'"
    } else {
        ""
    };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

pub fn csv_line(cells: &[String]) -> String {
    let mut line = cells
        .iter()
        .map(|c| csv_cell(c))
        .collect::<Vec<_>>()
        .join(",");
    line.push_str("\r\n");
    line
}

/// A file that arrives as it is written.
pub fn csv_answer(name: &str, body: Body) -> axum::response::Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    (
        [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ],
        body,
    )
        .into_response()
}

const COLUMNS: [&str; 17] = [
    "event_id",
    "received_at",
    "webhook",
    "status",
    "reason",
    "reason_text",
    "caller",
    "duration_seconds",
    "ref_id",
    "call_id",
    "payout_as_sent",
    "payout",
    "matched_call_id",
    "strategy",
    "revenue_moved",
    "credit_moved",
    "requests",
];

fn line_of(event: &Event, names: &HashMap<Uuid, String>, currency: &str) -> String {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    csv_line(&[
        event.id.to_string(),
        event.received_at.to_string(),
        names.get(&event.webhook_id).cloned().unwrap_or_default(),
        event.status.to_string(),
        event.reason.map(|r| r.to_string()).unwrap_or_default(),
        explain_reason(&event.detail, currency),
        event
            .caller
            .clone()
            .or_else(|| event.caller_raw.clone())
            .unwrap_or_default(),
        event
            .duration_seconds
            .map(|s| s.to_string())
            .unwrap_or_default(),
        text(&event.ref_id),
        text(&event.call_id),
        text(&event.payout_raw),
        event
            .payout_cents
            .map(formatting::plain_amount)
            .unwrap_or_default(),
        event
            .matched_call
            .as_ref()
            .map(|c| c.id.to_string())
            .unwrap_or_default(),
        text(&event.strategy),
        formatting::plain_amount(event.revenue_delta_cents),
        formatting::plain_amount(event.credit_delta_cents),
        event.count.to_string(),
    ])
}

struct EventExport {
    app: App,
    account: Uuid,
    currency: String,
    names: HashMap<Uuid, String>,
    search: Search,
    below: Option<SearchKey>,
    begun: bool,
    over: bool,
}

impl ExportParts for EventExport {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.over {
            return Ok(None);
        }
        let client = self.app.long_pool.get().await?;
        let EventPage { events, next, .. } =
            event_search::search_page(&client, self.account, &self.search, self.below, CHUNK)
                .await?;
        drop(client);
        self.below = next;
        self.over = next.is_none();
        let mut text = String::new();
        if !self.begun {
            text.push_str(&csv_line(&COLUMNS.map(str::to_owned)));
            self.begun = true;
        }
        for event in &events {
            text.push_str(&line_of(event, &self.names, &self.currency));
        }
        Ok(Some(Bytes::from(text)))
    }
}

pub async fn export_events(
    State(app): State<App>,
    place: WorkPlace,
    viewer: Viewer,
    uri: Uri,
) -> PageResult {
    let mut filter = EventFilter::parse_query(uri.query().unwrap_or_default());
    let webhooks = webhooks_of(&app, &viewer, &filter).await?;
    let search = filter.build_search(&viewer, webhooks);
    let client = app.long_pool.get().await?;
    let names =
        webhook_activity::load_names(&client, viewer.account.id, NamedEntity::Webhooks).await?;
    let newest = search
        .until
        .map_or(Timestamp::now(), |until| until.min(Timestamp::now()));
    let oldest = event_search::oldest_event(&client, &search.webhooks)
        .await?
        .max(search.since)
        .unwrap_or(newest);
    drop(client);
    let export = EventExport {
        account: viewer.account.id,
        currency: viewer.account.currency.clone(),
        names: names.into_iter().collect(),
        search,
        below: None,
        begun: false,
        over: false,
        app,
    };
    // Rows come newest first: whoever knows both ends knows how far the file is.
    let ends = [(OLDEST, oldest.to_string()), (NEWEST, newest.to_string())];
    Ok((
        AppendHeaders(ends),
        csv_answer("events.csv", stream_export(export, place)),
    )
        .into_response())
}

#[derive(Template)]
#[template(path = "bulk_replay.html")]
struct Ask {
    look: PageLayout,
    filter: EventFilter,
    query: String,
    count: String,
    none: bool,
    more: bool,
}

/// The rows that a replay would be tried on, the oldest first (M10), and whether newer ones are left for the
/// next; those that moved money or hold no report refuse it.
async fn replayable_rows(
    app: &App,
    account: Uuid,
    search: &Search,
) -> Result<(Vec<Uuid>, bool), PageError> {
    let deadline = Instant::now() + SEARCH_TIME;
    let (mut oldest, mut below) = (VecDeque::new(), None);
    let (mut found, mut searched) = (0, 0);
    loop {
        let client = app.long_pool.get().await?;
        let EventPage { events, next, .. } =
            event_search::search_page(&client, account, search, below, CHUNK).await?;
        drop(client);
        searched += events.len();
        let replayable = events.iter().filter(|e| may_be_replayed(e)).map(|e| e.id);
        found += keep_oldest(&mut oldest, replayable);
        match next {
            None => return Ok((oldest.into(), found > MOST)),
            Some(_) if searched >= MOST_SEARCHED => {
                return Err(Problem::too_large(format!(
                    "this filter finds more than {MOST_SEARCHED} events, and a replay begins with the oldest: narrow it by time"
                ))
                .into());
            }
            Some(_) if Instant::now() > deadline => {
                return Err(Problem::unavailable(
                    "the events of this filter could not be found in time: narrow it by time",
                )
                .into());
            }
            Some(key) => below = Some(key),
        }
    }
}

/// What is found comes newest first; of more than `MOST` the newest are let go. Returns how many came.
fn keep_oldest(oldest: &mut VecDeque<Uuid>, newest_first: impl Iterator<Item = Uuid>) -> usize {
    let mut came = 0;
    for id in newest_first {
        oldest.push_front(id);
        oldest.truncate(MOST);
        came += 1;
    }
    came
}

fn may_be_replayed(event: &Event) -> bool {
    let moved = event.revenue_delta_cents != 0 || event.credit_delta_cents != 0;
    let stands = match event.status {
        // Without a payout it moved nothing: with another setting it may have one.
        Status::Matched => event.reason != Some(Reason::NoPayout),
        Status::Duplicate | Status::Superseded => true,
        Status::Held | Status::Unmatched | Status::Refused => false,
    };
    !moved && !stands && event.ignored_at.is_none()
}

async fn read_search(
    app: &App,
    viewer: &Viewer,
    query: &str,
) -> Result<(EventFilter, Search), PageError> {
    let mut filter = EventFilter::parse_query(query);
    let webhooks = webhooks_of(app, viewer, &filter).await?;
    let search = filter.build_search(viewer, webhooks);
    Ok((filter, search))
}

pub async fn confirm_replay(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let (filter, search) = read_search(&app, &viewer, uri.query().unwrap_or_default()).await?;
    let (ids, more) = replayable_rows(&app, viewer.account.id, &search).await?;
    page(&Ask {
        look: PageLayout::signed_in(&viewer, "Replay", "/events"),
        query: filter.query(),
        count: formatting::format_count(i64::try_from(ids.len()).unwrap_or(0)),
        none: ids.is_empty(),
        more,
        filter,
    })
}

pub async fn begin_replay(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    if bulk_replays::is_under_way(&app.pool.get().await?, viewer.account.id).await? {
        return Err(replay_under_way());
    }
    let (filter, search) = read_search(&app, &viewer, form.text("filter")).await?;
    let (event_ids, _) = replayable_rows(&app, viewer.account.id, &search).await?;
    let id = Uuid::now_v7();
    let new = NewReplay {
        id,
        account_id: viewer.account.id,
        actor: &viewer.actor_name(),
        filter: &filter.query(),
        event_ids: &event_ids,
    };
    if !bulk_replays::insert_replay(&app.pool.get().await?, &new).await? {
        return Err(replay_under_way());
    }
    redirect_to(&format!("/events/replays/{id}"))
}

pub fn replay_under_way() -> PageError {
    metrics::console().refused_busy.inc(LimitedWork::Replay);
    Problem::busy("a bulk replay of this account is running; wait until it is done, or stop it")
        .into()
}

/// What is done stays done; its other rows are left as they are.
pub async fn stop_replay(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let replay = replay_of(&app, &viewer, id).await?;
    bulk_replays::stop_replay(&app.pool.get().await?, viewer.account.id, replay.id).await?;
    redirect_to(&format!("/events/replays/{id}"))
}

#[derive(Template)]
#[template(path = "bulk_progress.html")]
struct Progress {
    look: PageLayout,
    part: ProgressPart,
}

#[derive(Template)]
#[template(path = "bulk_progress_part.html")]
struct ProgressPart {
    replay: BulkReplay,
}

async fn replay_of(app: &App, viewer: &Viewer, id: Uuid) -> Result<BulkReplay, PageError> {
    let found = bulk_replays::get_replay(&app.pool.get().await?, viewer.account.id, id).await?;
    found.ok_or(PageError::NotFound("replay"))
}

pub async fn progress_page(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let part = ProgressPart {
        replay: replay_of(&app, &viewer, id).await?,
    };
    page(&Progress {
        look: PageLayout::signed_in(&viewer, "Replaying", "/events"),
        part,
    })
}

pub async fn progress_part(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    page(&ProgressPart {
        replay: replay_of(&app, &viewer, id).await?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m10_of_too_many_the_oldest_are_kept_oldest_first() {
        let id = |age: usize| Uuid::from_u128(age as u128);
        let mut oldest = VecDeque::new();
        assert_eq!(keep_oldest(&mut oldest, (0..5).map(id)), 5);
        assert_eq!(keep_oldest(&mut oldest, (5..MOST + 2).map(id)), MOST - 3);
        assert_eq!(oldest.len(), MOST);
        assert_eq!(oldest.front(), Some(&id(MOST + 1)), "came last: the oldest");
        assert_eq!(oldest.back(), Some(&id(2)), "the two newest are let go");
    }

    #[test]
    fn a_cell_is_never_a_formula() {
        assert_eq!(csv_cell("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(csv_cell("@SUM(A1)"), "\"'@SUM(A1)\"");
        assert_eq!(csv_cell("-cmd|x"), "\"'-cmd|x\"");
        assert_eq!(csv_cell("+13055551234"), "\"+13055551234\"");
        assert_eq!(csv_cell("-12.50"), "\"-12.50\"");
        assert_eq!(csv_cell("abc,1"), "\"abc,1\"");
    }
}
