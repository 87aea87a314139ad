//! Recent events: the panel of a webhook, or of all of them, live and filtered by its address.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use jiff::Timestamp;
use trueup_event::reason::{Reason, Status};
use trueup_store::event_search::{self, EventPage};
use trueup_store::events::Event;
use trueup_store::open_events;
use trueup_store::webhook_activity::{self, NamedEntity};
use uuid::Uuid;

use super::chart;
use super::filter::{EventFilter, cursor_of, cursor_text};
use super::form::Form;
use super::formatting::{self, LocalTime, Markup, StatusBadge, count_text, format_figure};
use super::layout::{PageError, PageLayout, PageResult, page};
use super::viewer::Viewer;
use super::webhook_head::{Head, not_found};
use crate::api::Id;
use crate::app_state::App;
use crate::operations::events::reason_text;
use crate::operations::webhooks::show_webhook;
use crate::work_shares::WorkPlace;

/// Rows on a page.
const ROWS: i64 = 50;
/// Open rows that a webhook's figures count.
const OPEN_COUNTED: i64 = 1_000;

/// One row of the panel.
pub struct EventLine {
    pub id: Uuid,
    pub at: LocalTime,
    pub webhook: String,
    pub pill: StatusBadge,
    pub caller: String,
    pub duration: String,
    pub ref_id: String,
    pub payout: String,
    pub call: Option<(Uuid, String)>,
    pub reason: String,
    pub sentence: String,
    pub moved: String,
    pub count: i32,
    pub ignored: bool,
    /// Changes when the row must be drawn again.
    pub state: String,
}

/// A reason's code as words.
pub fn reason_words(reason: Option<Reason>) -> String {
    reason
        .map(|r| {
            let words = r.code().replace('_', " ");
            // The names of fields stay as they are written.
            words
                .replace("ref id", "ref_id")
                .replace("call id", "call_id")
        })
        .unwrap_or_default()
}

/// The payout as it was reported, or what is known of it.
pub fn payout_text(raw: Option<&str>, cents: Option<i64>, currency: &str) -> String {
    match (raw, cents) {
        (Some(raw), _) => raw.chars().take(40).collect(),
        (None, Some(cents)) => formatting::format_money(Some(cents), currency),
        (None, None) => "–".to_owned(),
    }
}

impl EventLine {
    pub fn load_for(event: Event, viewer: &Viewer, names: &HashMap<Uuid, String>) -> EventLine {
        let currency = viewer.account_currency();
        let sentence = reason_text(&event, currency, &viewer.clock.time_zone());
        let call = event.matched_call.map(|call| {
            let label = call
                .tracking_number
                .or(call.caller)
                .unwrap_or_else(|| call.id.to_string());
            (call.id, label)
        });
        EventLine {
            id: event.id,
            at: viewer.clock.local_time(event.received_at),
            webhook: names.get(&event.webhook_id).cloned().unwrap_or_default(),
            pill: StatusBadge::for_status(event.status),
            caller: event.caller.or(event.caller_raw).unwrap_or_default(),
            duration: formatting::format_duration(event.duration_seconds),
            ref_id: event.ref_id.or(event.call_id).unwrap_or_default(),
            payout: payout_text(event.payout_raw.as_deref(), event.payout_cents, currency),
            call,
            reason: reason_words(event.reason),
            sentence,
            moved: formatting::format_signed_money(event.credit_delta_cents, currency),
            count: event.count,
            ignored: event.ignored_at.is_some(),
            state: format!(
                "{}{}{}",
                event.status,
                reason_words(event.reason),
                event.ignored_at.is_some()
            ),
        }
    }
}

/// What a line is called where only its name is said.
impl EventLine {
    pub fn caller_words(&self) -> &str {
        match (self.caller.as_str(), self.ref_id.as_str()) {
            ("", "") => "an unknown caller",
            ("", ref_id) => ref_id,
            (caller, _) => caller,
        }
    }
}

#[derive(Template)]
#[template(path = "event_rows.html")]
struct Rows<'a> {
    lines: &'a [EventLine],
    all: bool,
}

/// A filter as a link: one that sets it, or one that takes it away.
struct FilterLink {
    label: String,
    href: String,
    current: bool,
}

/// What a webhook did today, and what waits there whatever its day, above its rows.
#[derive(Template)]
#[template(path = "day.html")]
struct Day {
    webhook: Uuid,
    today: String,
    matched: String,
    unmatched: String,
    held: String,
    no_payout: String,
    refused: String,
    /// Something is unmatched.
    stuck: bool,
    chart: Markup,
}

impl Day {
    async fn load_for(app: &App, viewer: &Viewer, webhook: Uuid) -> Result<Day, PageError> {
        let now = Timestamp::now();
        let client = app.pool.get().await?;
        let today = viewer.clock.day_start(now);
        let mut found =
            webhook_activity::load_activity(&client, viewer.account.id, &[webhook], now, today)
                .await?;
        let activity = found.remove(&webhook).unwrap_or_default();
        let account = viewer.account.id;
        let open =
            open_events::count_by_webhook(&client, account, &[webhook], OPEN_COUNTED).await?;
        let open = open.get(&webhook).copied().unwrap_or_default();
        Ok(Day {
            webhook,
            today: viewer.clock.today().to_string(),
            matched: format_figure(&activity, Status::Matched),
            unmatched: count_text(open.unmatched, open.more),
            held: count_text(open.held, open.more),
            no_payout: count_text(open.no_payout, open.more),
            refused: format_figure(&activity, Status::Refused),
            stuck: open.unmatched > 0,
            chart: chart::hours_chart(&activity.hours, |ago| viewer.clock.hour_label(now, ago)),
        })
    }
}

#[derive(Template)]
#[template(path = "events.html")]
struct Panel {
    look: PageLayout,
    /// The webhook's head, where the panel is of one.
    head: Option<Head>,
    filter: EventFilter,
    lines: Vec<EventLine>,
    webhooks: Vec<(Uuid, String)>,
    /// Of the page itself, without a query.
    path: String,
    poll: Option<String>,
    next: Option<String>,
    looked_back_to: Option<LocalTime>,
    first_page: bool,
    exportable: String,
    day: Option<Day>,
}

impl Panel {
    fn filter_link(&self, query: String) -> String {
        if query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{query}", self.path)
        }
    }

    fn status_segments(&self) -> Vec<FilterLink> {
        let all = std::iter::once(("", "All"));
        all.chain(Status::ALL.iter().map(|s| (s.code(), s.code())))
            .map(|(status, label)| FilterLink {
                label: label.to_owned(),
                href: self.filter_link(self.filter.query_with("status", status)),
                current: self.filter.status == status,
            })
            .collect()
    }

    /// What narrows the rows now, each with the way back.
    fn filter_chips(&self) -> Vec<FilterLink> {
        let names: HashMap<String, &String> = self
            .webhooks
            .iter()
            .map(|(id, name)| (id.to_string(), name))
            .collect();
        let label = |name: &str, value: &str| match name {
            "webhook" => names
                .get(value)
                .map_or_else(|| value.to_owned(), |name| (*name).clone()),
            "q" => format!("\u{201C}{value}\u{201D}"),
            "reason" => value.replace('_', " "),
            "status" => value.to_owned(),
            "amount" => format!("payout {value}"),
            _ => format!("{name} {value}"),
        };
        let set = self.filter.without_field("");
        set.into_iter()
            .map(|(name, value)| FilterLink {
                label: label(name, value),
                href: self.filter_link(self.filter.query_with(name, "")),
                current: false,
            })
            .collect()
    }

    fn reason_choices(&self) -> Vec<(&'static str, String)> {
        Reason::ALL
            .iter()
            .map(|r| (r.code(), reason_words(Some(*r))))
            .collect()
    }

    fn is_unfiltered(&self) -> bool {
        self.head.is_none()
    }
}

/// The webhooks that a filter is about: the one that it names, if it is the account's, or all.
pub async fn webhooks_of(
    app: &App,
    viewer: &Viewer,
    filter: &EventFilter,
) -> Result<Vec<Uuid>, PageError> {
    let all = event_search::webhooks_of(&app.pool.get().await?, viewer.account.id).await?;
    if filter.webhook.is_empty() {
        return Ok(all);
    }
    let wanted = Uuid::try_parse(&filter.webhook).map_err(|_| PageError::NotFound("webhook"))?;
    if all.contains(&wanted) {
        Ok(vec![wanted])
    } else {
        Err(PageError::NotFound("webhook"))
    }
}

async fn render_panel(
    app: &App,
    place: &WorkPlace,
    viewer: &Viewer,
    head: Option<Head>,
    uri: &Uri,
    headers: &HeaderMap,
) -> PageResult {
    let query = uri.query().unwrap_or_default();
    let mut filter = EventFilter::parse_query(query);
    let webhooks = match &head {
        Some(head) => {
            filter.webhook = head.id.to_string();
            vec![head.id]
        }
        None => webhooks_of(app, viewer, &filter).await?,
    };
    let search = filter.build_search(viewer, webhooks);
    let below = cursor_of(Form::parse(query.as_bytes()).text("before"));
    let client = place.pool.get().await?;
    let account = viewer.account.id;
    let names = webhook_activity::load_names(&client, account, NamedEntity::Webhooks).await?;
    let EventPage {
        events,
        next,
        looked_back_to,
    } = event_search::search_page(&client, account, &search, below, ROWS).await?;
    drop(client);
    let by_id: HashMap<Uuid, String> = names.iter().cloned().collect();
    let lines: Vec<EventLine> = events
        .into_iter()
        .map(|event| EventLine::load_for(event, viewer, &by_id))
        .collect();
    let all = head.is_none();
    let day = match &head {
        Some(head) if !headers.contains_key("x-fragment") => {
            Some(Day::load_for(app, viewer, head.id).await?)
        }
        _ => None,
    };
    if headers.contains_key("x-fragment") {
        return page(&Rows { lines: &lines, all });
    }
    let exportable = filter.query();
    // A webhook's own panel has it in its path.
    let mut local = filter.clone();
    let path = match &head {
        Some(head) => {
            local.webhook = String::new();
            format!("/webhooks/{}", head.id)
        }
        None => "/events".to_owned(),
    };
    let title = head.as_ref().map_or_else(
        || "Recent events".to_owned(),
        |h| format!("{}: recent events", h.name),
    );
    page(&Panel {
        look: PageLayout::signed_in(viewer, title, if all { "/events" } else { "/webhooks" }),
        poll: below.is_none().then(|| format!("{path}?{}", local.query())),
        next: next.map(|key| format!("{path}?{}", local.query_with("before", &cursor_text(key)))),
        looked_back_to: looked_back_to.map(|at| viewer.clock.local_time(at)),
        first_page: below.is_none(),
        head,
        filter: local,
        lines,
        webhooks: names,
        path,
        exportable,
        day,
    })
}

pub async fn all(
    State(app): State<App>,
    place: WorkPlace,
    viewer: Viewer,
    uri: Uri,
    headers: HeaderMap,
) -> PageResult {
    render_panel(&app, &place, &viewer, None, &uri, &headers).await
}

pub async fn of_webhook(
    State(app): State<App>,
    place: WorkPlace,
    viewer: Viewer,
    Id(id): Id,
    uri: Uri,
    headers: HeaderMap,
) -> PageResult {
    let webhook = show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let head = Head::from_webhook(&webhook, &viewer, "events");
    render_panel(&app, &place, &viewer, Some(head), &uri, &headers).await
}

/// The figures above the rows, as they are now.
pub async fn day_fragment(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    page(&Day::load_for(&app, &viewer, id).await?)
}

/// The newest row of a webhook, for the page that waits for the first.
pub async fn newest_line(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
) -> Result<Option<EventLine>, PageError> {
    let client = app.pool.get().await?;
    let all = event_search::webhooks_of(&client, viewer.account.id).await?;
    if !all.contains(&id) {
        return Err(PageError::NotFound("webhook"));
    }
    let search = event_search::Search {
        webhooks: vec![id],
        ..event_search::Search::default()
    };
    let found = event_search::search_page(&client, viewer.account.id, &search, None, 1).await?;
    Ok(found
        .events
        .into_iter()
        .next()
        .map(|event| EventLine::load_for(event, viewer, &HashMap::new())))
}
