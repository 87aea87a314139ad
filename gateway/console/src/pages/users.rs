//! The account's users, the account itself, one's own password, and the audit log.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use trueup_store::users::{self, User, UserRole};
use trueup_store::{IdPage, audit_log};
use uuid::Uuid;

use super::form::Form;
use super::formatting::LocalTime;
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::session;
use super::viewer::Viewer;
use crate::api::Id;
use crate::app_state::App;
use crate::client_network::over_tls;
use crate::operations::accounts::set_time_zone;
use crate::operations::users::{self as operations, NewUser};
use crate::passwords::{self, SignInAttempt};
use crate::problem::Problem;

/// Entries of the log on a page.
const ENTRIES: i64 = 100;

struct UserRow {
    id: Uuid,
    email: String,
    role: &'static str,
    made: LocalTime,
    signed_in: Option<LocalTime>,
    out: bool,
    is_self: bool,
}

#[derive(Template)]
#[template(path = "users.html")]
struct UserList {
    look: PageLayout,
    rows: Vec<UserRow>,
    roles: Vec<&'static str>,
    fault: Option<String>,
    /// What was typed and not taken; the role that is offered first.
    email: String,
    role: String,
}

async fn build_list(
    app: &App,
    viewer: &Viewer,
    fault: Option<String>,
) -> Result<UserList, PageError> {
    let found = users::list_users(&app.pool.get().await?, viewer.account.id).await?;
    let when = |at| viewer.clock.local_time(at);
    let row = |user: User| UserRow {
        is_self: user.id == viewer.user.id,
        id: user.id,
        email: user.email,
        role: user.role.code(),
        made: when(user.created_at),
        signed_in: user.last_signed_in_at.map(when),
        out: user.disabled_at.is_some(),
    };
    Ok(UserList {
        look: PageLayout::signed_in(viewer, "Users", "/users"),
        rows: found.into_iter().map(row).collect(),
        roles: UserRole::ALL.iter().map(|role| role.code()).collect(),
        fault,
        email: String::new(),
        role: UserRole::Operator.code().to_owned(),
    })
}

pub async fn users_page(State(app): State<App>, viewer: Viewer) -> PageResult {
    page(&build_list(&app, &viewer, None).await?)
}

async fn page_with_fault(
    app: &App,
    viewer: &Viewer,
    fault: impl Into<String>,
    form: &Form,
) -> PageResult {
    let list = UserList {
        email: form.text("email").to_owned(),
        role: form.text("role").to_owned(),
        ..build_list(app, viewer, Some(fault.into())).await?
    };
    page_with(StatusCode::UNPROCESSABLE_ENTITY, &list)
}

/// What a person can mend is said on the page; anything else is a page of its own.
async fn show_outcome(
    app: &App,
    viewer: &Viewer,
    result: Result<(), Problem>,
    done: &str,
    form: &Form,
) -> PageResult {
    match result {
        Ok(()) => redirect_to(&format!("/users?done={done}")),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            page_with_fault(app, viewer, problem.detail(), form).await
        }
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => {
            Err(PageError::NotFound("user"))
        }
        Err(problem) => Err(problem.into()),
    }
}

pub async fn add_user(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let Some(role) = UserRole::from_code(form.text("role")) else {
        return page_with_fault(&app, &viewer, "Choose a role.", &form).await;
    };
    let new = NewUser {
        email: form.text("email").to_owned(),
        password: form.raw_text("password").to_owned(),
        role,
    };
    let result = operations::add_user(&app, &viewer.auth_context(), new).await;
    show_outcome(&app, &viewer, result, "user-added", &form).await
}

pub async fn set_role_or_disabled(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let Some(role) = UserRole::from_code(form.text("role")) else {
        return page_with_fault(&app, &viewer, "Choose a role.", &form).await;
    };
    let (operator, is_out) = (viewer.auth_context(), form.is_on("out"));
    let result = operations::set_role_or_disabled(&app, &operator, id, role, is_out).await;
    show_outcome(&app, &viewer, result, "standing", &form).await
}

#[derive(Template)]
#[template(path = "account.html")]
struct Own {
    look: PageLayout,
    name: String,
    id: Uuid,
    region: String,
    currency: String,
    time_zone: String,
    fault: Option<String>,
}

fn own_page(viewer: &Viewer, fault: Option<String>) -> Own {
    Own {
        look: PageLayout::signed_in(viewer, "Your account", "/account"),
        name: viewer.account.name.clone(),
        id: viewer.account.id,
        region: viewer.account.default_region.clone(),
        currency: viewer.account.currency.clone(),
        time_zone: viewer.account.time_zone.clone(),
        fault,
    }
}

pub async fn account(viewer: Viewer) -> PageResult {
    page(&own_page(&viewer, None))
}

pub async fn save_account(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let time_zone = form.text("time_zone").to_owned();
    match set_time_zone(&app, &viewer.auth_context(), time_zone).await {
        Ok(()) => redirect_to("/account?done=saved"),
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let own = own_page(&viewer, Some(problem.detail().to_owned()));
            page_with(StatusCode::UNPROCESSABLE_ENTITY, &own)
        }
        Err(problem) => Err(problem.into()),
    }
}

/// One's own password; every other session of the user ends.
pub async fn set_password(
    State(app): State<App>,
    viewer: Viewer,
    form: Form,
    headers: axum::http::HeaderMap,
) -> PageResult {
    let new = form.raw_text("new").to_owned();
    let refuse = |fault: String| {
        page_with(
            StatusCode::UNPROCESSABLE_ENTITY,
            &own_page(&viewer, Some(fault)),
        )
    };
    // Whoever is signed in is known; strangers' attempts do not count against them.
    let own = viewer.user.id.to_string();
    if !app
        .attempts
        .check_rate(&SignInAttempt::Known { browser: &own })
    {
        return Err(PageError::TooMany);
    }
    if let Some(fault) = passwords::password_fault(&new) {
        return refuse(fault);
    }
    let known = users::by_email(&app.pool.get().await?, &viewer.user.email)
        .await?
        .map(|(_, hash)| hash);
    if !passwords::verify_password(form.raw_text("old").to_owned(), known).await? {
        return refuse("The old password is not right.".to_owned());
    }
    let (operator, user) = (viewer.auth_context(), viewer.user.id);
    let id = operations::set_password(&app, &operator, user, new).await?;
    let mut response = redirect_to("/account?done=password")?;
    session::set_session_cookie(&mut response, &id, over_tls(&headers));
    Ok(response)
}

struct UserEntry {
    at: LocalTime,
    actor: String,
    what: String,
    detail: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    look: PageLayout,
    entries: Vec<UserEntry>,
    next: Option<Uuid>,
}

pub async fn audit_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    let below = Uuid::try_parse(form.text("before")).ok();
    let page_of = IdPage {
        below,
        limit: ENTRIES + 1,
    };
    let mut found =
        audit_log::list_changes(&app.pool.get().await?, viewer.account.id, page_of).await?;
    let most = usize::try_from(ENTRIES).unwrap_or(100);
    let more = found.len() > most;
    found.truncate(most);
    let next = found.last().filter(|_| more).map(|entry| entry.id);
    let entries = found
        .into_iter()
        .map(|entry| UserEntry {
            at: viewer.clock.local_time(entry.created_at),
            actor: entry.actor,
            what: format!(
                "{} {}",
                entry.action.replace('_', " "),
                entry.object_kind.replace('_', " ")
            ),
            detail: entry
                .detail
                .filter(|d| d.as_object().is_none_or(|o| !o.is_empty()))
                .map(|d| d.to_string())
                .unwrap_or_default(),
        })
        .collect();
    page(&AuditPage {
        look: PageLayout::signed_in(&viewer, "Audit log", "/audit"),
        entries,
        next,
    })
}
