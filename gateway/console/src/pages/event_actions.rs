//! What a person does with one event, and the question that stands before money moves: what was understood
//! and what would be posted is shown, and nothing is done before it is confirmed.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use trueup_domain::decision::Decision;
use trueup_domain::reason_text::{explain_reason, format_cents};
use trueup_store::ledger::{CallMove, MOVES_AT_MOST};
use uuid::Uuid;

use super::event::{not_found, page_with_fault};
use super::form::Form;
use super::formatting::{self, StatusBadge};
use super::layout::{PageError, PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::event_actions::{self, ActionPreview, Apply, Assign, PreviewedAction};
use crate::problem::Problem;
use crate::request_fields::{BadFields, Cents};

/// After an action: to the row it made or changed, or the page again with why it could not be done.
async fn show_outcome(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
    done: &str,
    result: Result<Uuid, Problem>,
) -> PageResult {
    match result {
        Ok(row) => redirect_to(&format!("/events/{row}?done={done}")),
        Err(problem)
            if matches!(
                problem.status(),
                StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
            ) =>
        {
            let fault = problem.detail().to_owned();
            page_with_fault(app, viewer, id, problem.status(), fault).await
        }
        Err(problem) => Err(not_found(problem)),
    }
}

pub async fn replay_event(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    if let Some(question) = ask_of_money(&app, &viewer, id, &form, PreviewedAction::Replay).await? {
        return Ok(question);
    }
    let result = event_actions::replay_event(&app, &viewer.auth_context(), id).await;
    show_outcome(&app, &viewer, id, "replayed", result.map(|()| id)).await
}

pub async fn assign_event(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let assign: Result<Assign, BadFields> = form.read_fields(&["call_id"]);
    if let Ok(Assign { call_id }) = assign
        && !form.is_on("confirmed")
    {
        let action = PreviewedAction::Assign(call_id);
        return ask_first(&app, &viewer, id, action).await;
    }
    let result = match assign {
        Ok(assign) => event_actions::assign_event(&app, &viewer.auth_context(), id, assign).await,
        Err(bad) => Err(bad.into()),
    };
    let done = match result {
        Ok(true) => "assigned",
        _ => "assigned-in-vain",
    };
    show_outcome(&app, &viewer, id, done, result.map(|_| id)).await
}

#[derive(Template)]
#[template(path = "confirm_action.html")]
struct ConfirmAction {
    look: PageLayout,
    id: Uuid,
    /// Such as `apply`: the end of the address that does it.
    action: &'static str,
    title: String,
    call: Option<Uuid>,
    pill: StatusBadge,
    sentence: String,
    moves: MoveLines,
    fields: Vec<(&'static str, String)>,
}

/// What an action would do, in a sentence.
pub fn explain_decision(decision: &Decision, viewer: &Viewer) -> String {
    let currency = viewer.account_currency();
    explain_reason(&decision.detail, currency)
}

/// One call's part of what would be posted.
pub struct MoveLine {
    pub call: Uuid,
    /// What the buyer pays more or less.
    pub revenue: String,
    pub publisher: String,
    pub credit: String,
}

/// What would be posted, for a page that asks.
pub struct MoveLines {
    pub lines: Vec<MoveLine>,
    /// There may be others, which are not shown.
    pub more: bool,
}

pub fn move_lines(moves: Vec<CallMove>, viewer: &Viewer) -> MoveLines {
    let currency = viewer.account_currency();
    let line = |it: CallMove| MoveLine {
        call: it.call_id,
        revenue: formatting::format_signed_money(it.revenue_delta_cents, currency),
        publisher: it.publisher.unwrap_or_else(|| "nobody".to_owned()),
        credit: formatting::format_signed_money(it.credit_delta_cents, currency),
    };
    MoveLines {
        more: i64::try_from(moves.len()).is_ok_and(|count| count >= MOVES_AT_MOST),
        lines: moves.into_iter().map(line).collect(),
    }
}

/// Shows what was understood and what it would do; nothing is done before it is confirmed.
async fn ask_first(app: &App, viewer: &Viewer, id: Uuid, action: PreviewedAction) -> PageResult {
    match event_actions::preview_action(app, &viewer.auth_context(), id, action).await {
        Ok(preview) => question(viewer, id, action, preview),
        Err(problem) => show_outcome(app, viewer, id, "", Err(problem)).await,
    }
}

/// The question for an action that would move money and is not confirmed; none for any other, which may
/// be done at once.
async fn ask_of_money(
    app: &App,
    viewer: &Viewer,
    id: Uuid,
    form: &Form,
    action: PreviewedAction,
) -> Result<Option<Response>, PageError> {
    if form.is_on("confirmed") {
        return Ok(None);
    }
    match event_actions::preview_action(app, &viewer.auth_context(), id, action).await {
        Ok(preview) if preview.moves.is_empty() => Ok(None),
        Ok(preview) => question(viewer, id, action, preview).map(Some),
        Err(problem) => show_outcome(app, viewer, id, "", Err(problem))
            .await
            .map(Some),
    }
}

fn question(
    viewer: &Viewer,
    id: Uuid,
    action: PreviewedAction,
    preview: ActionPreview,
) -> PageResult {
    let Some(decision) = preview.settled.decision else {
        return Err(PageError::NotFound("event"));
    };
    let currency = viewer.account_currency();
    let plain = |name: &'static str, title: &str| (name, title.to_owned(), Vec::new());
    let (name, title, fields) = match action {
        PreviewedAction::Apply(cents) => (
            "apply",
            format!("Apply {}", format_cents(cents, currency)),
            vec![("amount", formatting::plain_amount(cents))],
        ),
        PreviewedAction::Assign(call_id) => (
            "assign",
            "Assign to this call".to_owned(),
            vec![("call_id", call_id.to_string())],
        ),
        PreviewedAction::Replay => plain("replay", "Replay this event"),
        PreviewedAction::Unignore => plain("unignore", "Open this event again"),
        PreviewedAction::Undo => plain("undo", "Take it back"),
    };
    page(&ConfirmAction {
        look: PageLayout::signed_in(viewer, title.clone(), "/events"),
        id,
        action: name,
        title,
        call: decision.call_id,
        pill: StatusBadge::for_status(decision.status()),
        sentence: explain_decision(&decision, viewer),
        moves: move_lines(preview.moves, viewer),
        fields,
    })
}

pub async fn apply_event(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let amount = formatting::parse_amount(form.text("amount"), viewer.account_currency());
    let cents = match amount {
        Ok(cents) => cents,
        Err(why) => {
            let fault = format!("The amount {why}.");
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return page_with_fault(&app, &viewer, id, status, fault).await;
        }
    };
    if !form.is_on("confirmed") {
        return ask_first(&app, &viewer, id, PreviewedAction::Apply(cents)).await;
    }
    let apply = Apply {
        payout_cents: Some(
            Cents::new(cents)
                .map_err(|why| PageError::from(Problem::invalid_field("payout_cents", why)))?,
        ),
    };
    let result = event_actions::apply_event(&app, &viewer.auth_context(), id, apply).await;
    show_outcome(&app, &viewer, id, "applied", result).await
}

pub async fn unignore_event(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let action = PreviewedAction::Unignore;
    if let Some(question) = ask_of_money(&app, &viewer, id, &form, action).await? {
        return Ok(question);
    }
    let result = event_actions::unignore_event(&app, &viewer.auth_context(), id).await;
    show_outcome(&app, &viewer, id, "unignored", result.map(|()| id)).await
}

pub async fn undo_event(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    if let Some(question) = ask_of_money(&app, &viewer, id, &form, PreviewedAction::Undo).await? {
        return Ok(question);
    }
    let result = event_actions::undo_event(&app, &viewer.auth_context(), id).await;
    show_outcome(&app, &viewer, id, "undone", result.map(|()| id)).await
}

pub async fn ignore_event(State(app): State<App>, viewer: Viewer, Id(id): Id) -> PageResult {
    let result = event_actions::ignore_event(&app, &viewer.auth_context(), id).await;
    show_outcome(&app, &viewer, id, "ignored", result.map(|()| id)).await
}
