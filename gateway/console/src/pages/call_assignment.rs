//! The first assignment of a call that came without one: offered on the call's page, asked about before money
//! moves (V9).

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use trueup_store::archive::Archivable;
use trueup_store::webhook_activity::{self, NamedEntity};
use trueup_store::{Client, IdPage, StoreError, assignments};
use uuid::Uuid;

use super::archive::retain_in_use;
use super::event_actions::{MoveLines, move_lines};
use super::form::Form;
use super::layout::{PageLayout, PageResult, page, redirect_to};
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::operations::call_assignment::{AssignCall, assign_call, preview_assignment};

/// Assignments that a form offers, the newest first.
const OFFERED: i64 = 200;

#[derive(Template)]
#[template(path = "confirm_call_assignment.html")]
struct ConfirmCallAssignment {
    look: PageLayout,
    call: Uuid,
    assignment: Uuid,
    name: String,
    moves: MoveLines,
}

/// Those in use, each by its campaign and publisher.
pub async fn offered_assignments(
    client: &Client,
    account: Uuid,
) -> Result<Vec<(Uuid, String)>, StoreError> {
    let names = async |what| -> Result<HashMap<Uuid, String>, StoreError> {
        let found = webhook_activity::load_names(client, account, what).await?;
        Ok(found.into_iter().collect())
    };
    let campaigns = names(NamedEntity::Campaigns).await?;
    let publishers = names(NamedEntity::Publishers).await?;
    let name_of = |of: &HashMap<Uuid, String>, id| of.get(&id).cloned().unwrap_or_default();
    let newest = IdPage {
        below: None,
        limit: OFFERED,
    };
    let found = assignments::list_assignments(client, account, newest).await?;
    let label = |it: assignments::Assignment| {
        let campaign = name_of(&campaigns, it.campaign_id);
        let publisher = name_of(&publishers, it.publisher_id);
        (it.id, format!("{campaign}: {publisher}"))
    };
    let mut offered = found.into_iter().map(label).collect();
    retain_in_use(client, account, Archivable::Assignment, &mut offered, None).await?;
    Ok(offered)
}

/// Asks first: what was understood and what would be posted is shown.
pub async fn assign_call_page(
    State(app): State<App>,
    viewer: Viewer,
    Id(call): Id,
    form: Form,
) -> PageResult {
    let AssignCall { assignment_id } = form.read_fields(&["assignment_id"])?;
    let operator = viewer.auth_context();
    if form.is_on("confirmed") {
        assign_call(&app, &operator, call, assignment_id).await?;
        return redirect_to(&format!("/calls/{call}?done=call-assigned"));
    }
    let moves = preview_assignment(&app, &operator, call, assignment_id).await?;
    let client = app.pool.get().await?;
    let offered = offered_assignments(&client, viewer.account.id).await?;
    let chosen = offered.into_iter().find(|(id, _)| *id == assignment_id);
    page(&ConfirmCallAssignment {
        look: PageLayout::signed_in(&viewer, "Give the call its assignment", "/calls"),
        call,
        assignment: assignment_id,
        name: chosen.map(|(_, name)| name).unwrap_or_default(),
        moves: move_lines(moves, &viewer),
    })
}
