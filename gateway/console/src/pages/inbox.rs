//! The inbox: every row that waits for somebody, whatever its day, and what can be done with several of them
//! at once. Each row is acted on by itself, as on its own page: what one cannot do keeps no other back.
//!
//! It moves no money unasked: what an action would do is shown for each row before it is done.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use trueup_domain::reason_text::format_cents;
use trueup_event::reason::Status;
use trueup_store::bulk_replays::{self, NewReplay};
use trueup_store::calls::{self, CallFilter, TimePage};
use trueup_store::open_events::{self, OpenCounts};
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{Client, event_search};
use uuid::Uuid;

use super::bulk_replay::replay_under_way;
use super::event_actions::{MoveLine, explain_decision, move_lines};
use super::events::EventLine;
use super::filter::{cursor_of, cursor_text};
use super::form::Form;
use super::formatting::{self, LocalTime, StatusBadge, count_text};
use super::layout::{PageError, PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
use crate::app_state::App;
use crate::operations::event_actions::{self, PreviewedAction};
use crate::problem::Problem;

/// Rows on a page, and so the most that are acted on at once.
const ROWS: usize = 50;
/// Rows of one webhook that its counts look at.
const COUNTED: i64 = 1_000;

/// The kinds of open rows, as they stand in the address, and the status that each has.
const KINDS: [(&str, &str, Option<Status>); 4] = [
    ("", "Everything", None),
    ("held", "Held", Some(Status::Held)),
    ("unmatched", "Unmatched", Some(Status::Unmatched)),
    ("no_payout", "No payout", Some(Status::Matched)),
];

struct KindLink {
    label: String,
    href: String,
    current: bool,
}

/// What was done just now and can be taken back.
struct Undoable {
    said: String,
    ids: Vec<Uuid>,
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct Inbox {
    look: PageLayout,
    kinds: Vec<KindLink>,
    webhook: Option<Uuid>,
    webhooks: Vec<(Uuid, String)>,
    kind: String,
    lines: Vec<EventLine>,
    next: Option<String>,
    first_page: bool,
    undoable: Option<Undoable>,
    fault: Option<&'static str>,
}

/// Which open rows are shown.
struct InboxFilter {
    webhook: Option<Uuid>,
    kind: String,
    status: Option<Status>,
}

impl InboxFilter {
    fn parse_query(form: &Form) -> InboxFilter {
        let kind = KINDS.iter().find(|(code, ..)| *code == form.text("kind"));
        let (code, _, status) = kind.unwrap_or(&KINDS[0]);
        InboxFilter {
            webhook: Uuid::try_parse(form.text("webhook")).ok(),
            kind: (*code).to_owned(),
            status: *status,
        }
    }

    fn address(&self, kind: &str, before: Option<&str>) -> String {
        let mut writer = form_urlencoded::Serializer::new(String::new());
        let webhook = self.webhook.map(|id| id.to_string());
        for (name, value) in [
            ("webhook", webhook.as_deref()),
            ("kind", Some(kind)),
            ("before", before),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                writer.append_pair(name, value);
            }
        }
        match writer.finish() {
            query if query.is_empty() => "/inbox".to_owned(),
            query => format!("/inbox?{query}"),
        }
    }
}

/// The webhooks whose rows are wanted: the one that is named, if it is the account's, or all.
async fn webhooks_of(
    client: &Client,
    viewer: &Viewer,
    wanted: Option<Uuid>,
) -> Result<Vec<Uuid>, PageError> {
    let all = event_search::webhooks_of(client, viewer.account.id).await?;
    match wanted {
        None => Ok(all),
        Some(id) if all.contains(&id) => Ok(vec![id]),
        Some(_) => Err(PageError::NotFound("webhook")),
    }
}

fn sum_counts(counts: impl Iterator<Item = OpenCounts>) -> OpenCounts {
    counts.fold(OpenCounts::default(), |sum, of| OpenCounts {
        held: sum.held.saturating_add(of.held),
        unmatched: sum.unmatched.saturating_add(of.unmatched),
        no_payout: sum.no_payout.saturating_add(of.no_payout),
        more: sum.more || of.more,
    })
}

fn kind_links(filter: &InboxFilter, counts: OpenCounts) -> Vec<KindLink> {
    KINDS
        .iter()
        .map(|(code, label, status)| {
            let count = status.map_or(counts.total(), |status| counts.of_status(status));
            KindLink {
                label: format!("{label} {}", count_text(count, counts.more)),
                href: filter.address(code, None),
                current: *code == filter.kind,
            }
        })
        .collect()
}

pub async fn inbox_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let filter = InboxFilter::parse_query(&form);
    let below = cursor_of(form.text("before"));
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    let webhooks = webhooks_of(&client, &viewer, filter.webhook).await?;
    let names = webhook_activity::load_names(&client, account, NamedEntity::Webhooks).await?;
    let counts =
        open_events::count_by_webhook(&client, account, &webhooks, counted(webhooks.len())).await?;
    let (events, next) =
        open_events::list_open(&client, account, &webhooks, filter.status, below, ROWS).await?;
    drop(client);
    let by_id = names.iter().cloned().collect();
    page(&Inbox {
        look: PageLayout::signed_in(&viewer, "Inbox", "/inbox"),
        kinds: kind_links(&filter, sum_counts(counts.into_values())),
        next: next.map(|key| filter.address(&filter.kind, Some(&cursor_text(key)))),
        webhook: filter.webhook,
        webhooks: names,
        kind: filter.kind,
        lines: events
            .into_iter()
            .map(|event| EventLine::load_for(event, &viewer, &by_id))
            .collect(),
        first_page: below.is_none(),
        undoable: undoable_of(&form),
        fault: fault_of(form.text("fault")),
    })
}

/// Many webhooks share what is looked at.
fn counted(webhooks: usize) -> i64 {
    let webhooks = i64::try_from(webhooks).unwrap_or(i64::MAX).max(1);
    (20 * COUNTED / webhooks).clamp(50, COUNTED)
}

fn undoable_of(form: &Form) -> Option<Undoable> {
    let ids = parse_ids(form.text("ids").split('.'));
    let count = ids.len();
    let done = match form.text("did") {
        "ignored" => "ignored",
        "assigned" => "assigned",
        _ => return None,
    };
    let number = |name| form.text(name).parse::<usize>().unwrap_or(0);
    let failed = match number("failed") {
        0 => String::new(),
        n => format!(" {n} could not be: they stand for money, or were decided meanwhile."),
    };
    let (effective, in_vain) = match number("vain").min(count) {
        0 => (count, String::new()),
        1 => (
            count.saturating_sub(1),
            " 1 moves no money there: its row says why.".to_owned(),
        ),
        n => (
            count.saturating_sub(n),
            format!(" {n} move no money there: their rows say why."),
        ),
    };
    Some(Undoable {
        said: format!("{effective} {} {done}.{in_vain}{failed}", plural(effective)),
        ids,
    })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "row is" } else { "rows are" }
}

fn fault_of(code: &str) -> Option<&'static str> {
    match code {
        "none" => Some("Select some rows first."),
        "no_call" => Some("No call has this id or ref_id."),
        "calls" => Some("Several calls have this ref_id: give the id of the one that is meant."),
        _ => None,
    }
}

/// The rows that are named, each once, the oldest first (M10): an id begins with its time.
fn parse_ids<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = texts
        .filter_map(|text| Uuid::try_parse(text).ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.truncate(ROWS);
    ids
}

fn selected(form: &Form) -> Vec<Uuid> {
    parse_ids(form.all("event"))
}

/// What cannot be done with this row, whatever becomes of the others.
fn is_of_the_row(problem: &Problem) -> bool {
    matches!(
        problem.status(),
        StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// What became of the rows that were acted on.
#[derive(Default)]
struct Tally {
    done: Vec<Uuid>,
    /// Of them, those that stand for no money all the same.
    in_vain: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, id: Uuid, result: Result<(), Problem>) -> Result<(), PageError> {
        match result {
            Ok(()) => self.done.push(id),
            Err(problem) if is_of_the_row(&problem) => self.failed = self.failed.saturating_add(1),
            Err(problem) => return Err(problem.into()),
        }
        Ok(())
    }

    fn to_inbox(&self, did: &str) -> PageResult {
        let ids: Vec<String> = self.done.iter().map(|id| id.simple().to_string()).collect();
        let (ids, failed, vain) = (ids.join("."), self.failed, self.in_vain);
        redirect_to(&format!(
            "/inbox?did={did}&failed={failed}&vain={vain}&ids={ids}"
        ))
    }
}

pub async fn ignore_selected(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let ids = selected(&form);
    if ids.is_empty() {
        return redirect_to("/inbox?fault=none");
    }
    let mut tally = Tally::default();
    for id in ids {
        let result = event_actions::ignore_event(&app, &viewer.auth_context(), id).await;
        tally.add(id, result)?;
    }
    tally.to_inbox("ignored")
}

/// As any replay of many rows: the workers work it off, the oldest first.
pub async fn replay_selected(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let ids = selected(&form);
    if ids.is_empty() {
        return redirect_to("/inbox?fault=none");
    }
    if let Some(question) =
        ask_of_money(&app, &viewer, &form, &ids, PreviewedAction::Replay).await?
    {
        return Ok(question);
    }
    let id = Uuid::now_v7();
    let new = NewReplay {
        id,
        account_id: viewer.account.id,
        actor: &viewer.actor_name(),
        filter: "",
        event_ids: &ids,
    };
    if !bulk_replays::insert_replay(&app.pool.get().await?, &new).await? {
        return Err(replay_under_way());
    }
    redirect_to(&format!("/events/replays/{id}"))
}

/// What an action would make of one row.
struct PreviewLine {
    id: Uuid,
    pill: StatusBadge,
    sentence: String,
    moves: Vec<MoveLine>,
}

/// What an action would make of each row, alone, and how many it cannot be done with.
#[derive(Default)]
struct RowPreviews {
    lines: Vec<PreviewLine>,
    refused: usize,
}

impl RowPreviews {
    fn move_money(&self) -> bool {
        self.lines.iter().any(|line| !line.moves.is_empty())
    }
}

async fn preview_rows(
    app: &App,
    viewer: &Viewer,
    ids: &[Uuid],
    action: PreviewedAction,
) -> Result<RowPreviews, PageError> {
    let mut rows = RowPreviews::default();
    for id in ids {
        let preview = event_actions::preview_action(app, &viewer.auth_context(), *id, action).await;
        match preview {
            Ok(preview) => match preview.settled.decision {
                Some(decision) => rows.lines.push(PreviewLine {
                    id: *id,
                    pill: StatusBadge::for_status(decision.status()),
                    sentence: explain_decision(&decision, viewer),
                    moves: move_lines(preview.moves, viewer).lines,
                }),
                None => rows.refused = rows.refused.saturating_add(1),
            },
            Err(problem) if is_of_the_row(&problem) => {
                rows.refused = rows.refused.saturating_add(1);
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    Ok(rows)
}

#[derive(Template)]
#[template(path = "inbox_ask.html")]
struct AskRows {
    look: PageLayout,
    title: &'static str,
    /// The end of the address that does it.
    action: &'static str,
    /// What its button says before the count.
    verb: &'static str,
    /// The call that the rows would be assigned to, when it started, and what else it is known by.
    call: Option<(Uuid, LocalTime, String)>,
    rows: RowPreviews,
}

/// The question for an action that would move money and is not confirmed; none for any other, which may
/// be done at once.
async fn ask_of_money(
    app: &App,
    viewer: &Viewer,
    form: &Form,
    ids: &[Uuid],
    action: PreviewedAction,
) -> Result<Option<Response>, PageError> {
    if form.is_on("confirmed") {
        return Ok(None);
    }
    let rows = preview_rows(app, viewer, ids, action).await?;
    if !rows.move_money() {
        return Ok(None);
    }
    let (title, action, verb) = match action {
        PreviewedAction::Undo => ("Take it back", "undo", "Take back"),
        _ => ("Replay", "replay", "Replay"),
    };
    page(&AskRows {
        look: PageLayout::signed_in(viewer, title, "/inbox"),
        title,
        action,
        verb,
        call: None,
        rows,
    })
    .map(Some)
}

/// The call that the text names: by its id, or by a ref_id that it alone has.
async fn find_call(
    app: &App,
    viewer: &Viewer,
    text: &str,
) -> Result<Result<calls::Call, &'static str>, PageError> {
    let client = app.pool.get().await?;
    let account = viewer.account.id;
    if let Ok(id) = Uuid::try_parse(text) {
        let found = calls::get_call(&client, account, id, 0).await?;
        return Ok(found.ok_or("no_call"));
    }
    let filter = CallFilter {
        ref_id: Some(text.to_owned()),
        ..CallFilter::default()
    };
    let two = TimePage {
        below: None,
        limit: 2,
    };
    let mut found = calls::list_calls(&client, account, &filter, two, 0).await?;
    Ok(match found.len() {
        0 => Err("no_call"),
        1 => found.pop().ok_or("no_call"),
        _ => Err("calls"),
    })
}

pub async fn assign_selected(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let ids = selected(&form);
    if ids.is_empty() {
        return redirect_to("/inbox?fault=none");
    }
    let call = match find_call(&app, &viewer, form.text("call")).await? {
        Ok(call) => call,
        Err(fault) => return redirect_to(&format!("/inbox?fault={fault}")),
    };
    if !form.is_on("confirmed") {
        return ask_assign(&app, &viewer, &ids, call).await;
    }
    let operator = viewer.auth_context();
    let mut tally = Tally::default();
    for id in ids {
        let assign = event_actions::Assign { call_id: call.id };
        let result = event_actions::assign_event(&app, &operator, id, assign).await;
        if matches!(result, Ok(false)) {
            tally.in_vain = tally.in_vain.saturating_add(1);
        }
        tally.add(id, result.map(drop))?;
    }
    tally.to_inbox("assigned")
}

/// Shows what each row would become, alone; nothing is done before it is confirmed.
async fn ask_assign(app: &App, viewer: &Viewer, ids: &[Uuid], call: calls::Call) -> PageResult {
    let rows = preview_rows(app, viewer, ids, PreviewedAction::Assign(call.id)).await?;
    let value = call.value_cents.map_or_else(
        || "no value yet".to_owned(),
        |cents| format_cents(cents, viewer.account_currency()),
    );
    let caller = call
        .caller
        .or(call.caller_raw)
        .unwrap_or_else(|| "a withheld caller".to_owned());
    let call_says = format!(
        "{caller}, {}, {value}",
        formatting::format_duration(Some(call.duration_seconds))
    );
    let title = "Assign to one call";
    page(&AskRows {
        look: PageLayout::signed_in(viewer, title, "/inbox"),
        title,
        action: "assign",
        verb: "Assign",
        call: Some((call.id, viewer.clock.local_time(call.started_at), call_says)),
        rows,
    })
}

/// Takes back what was done to these rows last, the newest first.
pub async fn undo_selected(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let ids = selected(&form);
    if let Some(question) = ask_of_money(&app, &viewer, &form, &ids, PreviewedAction::Undo).await? {
        return Ok(question);
    }
    let mut tally = Tally::default();
    for id in ids.into_iter().rev() {
        let result = event_actions::undo_event(&app, &viewer.auth_context(), id).await;
        tally.add(id, result)?;
    }
    redirect_to("/inbox?done=undone")
}
