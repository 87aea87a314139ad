//! "Why is it unmatched?": the reasons of the last 24 hours, each with its fix, and field names that
//! senders really use and we do not know, with a button that sets them.

use askama::Template;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use trueup_domain::reason_text::explain_reason;
use trueup_event::reason::{Reason, Status};
use trueup_event::verdict::Detail;
use trueup_store::webhook_activity::{self, ReasonGroup};
use uuid::Uuid;

use super::events::reason_words;
use super::formatting::{self, LocalTime, StatusBadge};
use super::layout::{PageLayout, PageResult, page};
use super::unknown_fields::{MAX_FIELDS, Proposal, find_proposals};
use super::viewer::Viewer;
use super::webhook_head::{Head, not_found};
use crate::api::Id;
use crate::app_state::App;
use crate::operations::webhooks::show_webhook;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Raw requests that are learnt from.
const SAMPLES: i64 = 200;

struct UnmatchedGroup {
    pill: StatusBadge,
    code: &'static str,
    words: String,
    requests: String,
    sentence: String,
    last: LocalTime,
    example: Uuid,
    status: &'static str,
    /// Its rows hold reports that the rules may decide again.
    can_replay: bool,
}

fn make_group(group: ReasonGroup, viewer: &Viewer) -> UnmatchedGroup {
    let (status, reason) = (group.status, group.reason);
    let detail = Detail::of_row(status, Some(reason), group.example_detail.as_deref());
    UnmatchedGroup {
        pill: StatusBadge::for_status(status),
        code: reason.code(),
        words: reason_words(Some(reason)),
        requests: formatting::format_count(group.requests),
        sentence: detail.map_or_else(
            |_| reason_words(Some(reason)),
            |detail| explain_reason(&detail, viewer.account_currency()),
        ),
        last: viewer.clock.local_time(group.last_at),
        example: group.example,
        status: status.code(),
        can_replay: status != Status::Refused || reason == Reason::EndpointDisabled,
    }
}

#[derive(Template)]
#[template(path = "why.html")]
struct Why {
    look: PageLayout,
    head: Head,
    groups: Vec<UnmatchedGroup>,
    proposals: Vec<Proposal>,
    samples: usize,
    fields: usize,
    since: String,
    /// Something was reported at some time.
    any_report: bool,
}

pub async fn unmatched_page(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let webhook = show_webhook(&app, &viewer.auth_context(), id, None)
        .await
        .map_err(not_found)?;
    let since = Timestamp::now()
        .checked_sub(DAY)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let client = app.long_pool.get().await?;
    let account = viewer.account.id;
    let groups = webhook_activity::count_reasons(&client, account, id, since).await?;
    let requests =
        webhook_activity::unmatched_requests(&client, account, id, since, SAMPLES).await?;
    drop(client);
    let samples = requests.len();
    let proposals = find_proposals(&app, &viewer, requests, &webhook.settings.field_names).await?;
    let groups = groups
        .into_iter()
        .map(|group| make_group(group, &viewer))
        .collect();
    page(&Why {
        look: PageLayout::signed_in(
            &viewer,
            format!("{}: why is it unmatched?", webhook.settings.name),
            "/webhooks",
        ),
        head: Head::from_webhook(&webhook, &viewer, "why"),
        groups,
        proposals,
        samples,
        fields: MAX_FIELDS,
        since: since.to_string(),
        any_report: webhook.last_event_at.is_some(),
    })
}
