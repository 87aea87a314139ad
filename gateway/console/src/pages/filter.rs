//! The panel's filters, as they stand in the address: read, and written back for links, cursors and forms.
//! What cannot be read is said and not silently dropped.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use trueup_domain::phone;
use trueup_event::reason::{Reason, Status};
use trueup_store::event_search::{Search, SearchKey, last_time};
use uuid::Uuid;

use super::form::Form;
use super::formatting;
use super::viewer::Viewer;
use crate::operations::events::search_text;

/// What is typed into a filter is short (characters).
const MAX_TEXT: usize = 256;
/// Filters that are set beside the form of the others.
const BROAD: [&str; 2] = ["status", "q"];

/// The texts as typed; each is a field of the form.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub webhook: String,
    pub status: String,
    pub reason: String,
    pub caller: String,
    pub ref_id: String,
    pub amount: String,
    pub q: String,
    pub since: String,
    pub until: String,
    /// What cannot be read, in sentences.
    pub faults: Vec<String>,
}

impl EventFilter {
    pub fn parse_query(query: &str) -> EventFilter {
        let form = Form::parse(query.as_bytes());
        let text = |name: &str| form.text(name).chars().take(MAX_TEXT).collect::<String>();
        EventFilter {
            webhook: text("webhook"),
            status: text("status"),
            reason: text("reason"),
            caller: text("caller"),
            ref_id: text("ref_id"),
            amount: text("amount"),
            q: text("q"),
            since: text("since"),
            until: text("until"),
            faults: Vec::new(),
        }
    }

    fn named_values(&self) -> [(&'static str, &str); 9] {
        [
            ("webhook", &self.webhook),
            ("status", &self.status),
            ("reason", &self.reason),
            ("caller", &self.caller),
            ("ref_id", &self.ref_id),
            ("amount", &self.amount),
            ("q", &self.q),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    /// For links: only what is set.
    pub fn query(&self) -> String {
        let mut writer = form_urlencoded::Serializer::new(String::new());
        for (name, value) in self.named_values() {
            if !value.is_empty() {
                writer.append_pair(name, value);
            }
        }
        writer.finish()
    }

    pub fn query_with(&self, name: &str, value: &str) -> String {
        let mut writer = form_urlencoded::Serializer::new(String::new());
        writer.extend_pairs(self.without_field(name));
        if !value.is_empty() {
            writer.append_pair(name, value);
        }
        writer.finish()
    }

    /// What is set, but this one: for links and forms that change it alone.
    pub fn without_field(&self, but: &str) -> Vec<(&'static str, &str)> {
        self.named_values()
            .into_iter()
            .filter(|(name, value)| *name != but && !value.is_empty())
            .collect()
    }

    /// What is set outside of the form of the finer filters.
    pub fn broad_values(&self) -> Vec<(&'static str, &str)> {
        self.named_values()
            .into_iter()
            .filter(|(name, value)| BROAD.contains(name) && !value.is_empty())
            .collect()
    }

    /// Is one of the finer filters set?
    pub fn is_narrow(&self) -> bool {
        self.named_values()
            .iter()
            .any(|(name, value)| !BROAD.contains(name) && !value.is_empty())
    }

    /// The kind of field that can show this edge of the time: a day, or text for anything finer.
    pub fn input_kind(&self, edge: &str) -> &'static str {
        if edge.is_empty() || edge.parse::<Date>().is_ok() {
            "date"
        } else {
            "text"
        }
    }

    /// Is anything filtered but by webhook?
    pub fn is_set(&self) -> bool {
        self.named_values()
            .iter()
            .any(|(name, value)| *name != "webhook" && !value.is_empty())
    }

    /// What is searched for, among these webhooks. Faults are noted in `self`.
    pub fn build_search(&mut self, viewer: &Viewer, webhooks: Vec<Uuid>) -> Search {
        let mut faults = Vec::new();
        let region = &viewer.account.default_region;
        let caller = none_if_blank(&self.caller).map(|text| {
            phone::normalise_caller(text, region).unwrap_or_else(|_| {
                faults.push(format!(
                    "{text:?} is no phone number; nothing can come from it"
                ));
                text.to_owned()
            })
        });
        let amount_cents = none_if_blank(&self.amount).and_then(|text| {
            formatting::parse_amount(text, viewer.account_currency())
                .map_err(|why| faults.push(format!("the amount {why}")))
                .ok()
        });
        let mut edge = |name: &str, text: &str, end: bool| {
            none_if_blank(text).and_then(|text| {
                let read = parse_moment(text, viewer, end);
                if read.is_none() {
                    faults.push(format!(
                        "{name} {text:?} is no day such as 2026-03-14 and no time"
                    ));
                }
                read
            })
        };
        let (since, until) = (
            edge("since", &self.since, false),
            edge("until", &self.until, true),
        );
        let status = none_if_blank(&self.status).and_then(Status::from_code);
        let reason = none_if_blank(&self.reason).and_then(Reason::from_code);
        for (text, known) in [
            (&self.status, status.is_some()),
            (&self.reason, reason.is_some()),
        ] {
            if !text.is_empty() && !known {
                faults.push(format!("{text:?} is no status or reason"));
            }
        }
        self.faults = faults;
        let mut search = Search {
            webhooks,
            statuses: status.into_iter().collect(),
            reasons: reason.into_iter().collect(),
            caller,
            ref_id: none_if_blank(&self.ref_id).map(str::to_owned),
            amount_cents,
            since,
            until,
            ..Search::default()
        };
        if let Some(text) = none_if_blank(&self.q) {
            search_text(&mut search, text, &viewer.account);
        }
        search
    }
}

fn none_if_blank(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// No row is older or newer, and Postgres can compare it.
fn storable(at: Timestamp) -> Option<Timestamp> {
    (Timestamp::UNIX_EPOCH..=last_time())
        .contains(&at)
        .then_some(at)
}

/// A day (for the end: its last moment), or a local time as a form's field gives it, or an exact one.
fn parse_moment(text: &str, viewer: &Viewer, end: bool) -> Option<Timestamp> {
    if let Ok(day) = text.parse::<Date>() {
        let day = if end { day.tomorrow().ok()? } else { day };
        return storable(day.to_zoned(viewer.clock.time_zone()).ok()?.timestamp());
    }
    if let Ok(exact) = text.parse::<Timestamp>() {
        return storable(exact);
    }
    let local: DateTime = text.parse().ok()?;
    storable(local.to_zoned(viewer.clock.time_zone()).ok()?.timestamp())
}

/// Where a page begins, as text: microseconds and id.
pub fn cursor_text((at, id): SearchKey) -> String {
    format!("{}.{}", at.as_microsecond(), id.simple())
}

pub fn cursor_of(text: &str) -> Option<SearchKey> {
    let (at, id) = text.split_once('.')?;
    Some((
        storable(Timestamp::from_microsecond(at.parse().ok()?).ok()?)?,
        Uuid::try_parse(id).ok()?,
    ))
}
