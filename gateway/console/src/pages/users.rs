//! The account's people, the account itself, one's own password, and the audit log.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::json;
use trueup_store::ceilings::CountedKind;
use trueup_store::users::{self, User, UserRole};
use trueup_store::{IdPage, StoreError, TransactionName, accounts, audit_log, run_tx};
use uuid::Uuid;

use super::form::Form;
use super::formatting::LocalTime;
use super::layout::{PageError, PageLayout, PageResult, page, page_with, redirect_to};
use super::session;
use super::viewer::Viewer;
use crate::api::handlers::Id;
use crate::app_state::App;
use crate::{passwords, secrets, user_command};

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
#[template(path = "people.html")]
struct UserList {
    look: PageLayout,
    rows: Vec<UserRow>,
    roles: Vec<&'static str>,
    fault: Option<String>,
}

async fn build_list(
    app: &App,
    viewer: &Viewer,
    fault: Option<String>,
) -> Result<UserList, PageError> {
    let found = users::list_users(&app.pool.get().await?, viewer.account.id).await?;
    let when = |at| viewer.zone.local_time(at);
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
        look: PageLayout::signed_in(viewer, "People", "/people"),
        rows: found.into_iter().map(row).collect(),
        roles: UserRole::ALL.iter().map(|role| role.code()).collect(),
        fault,
    })
}

pub async fn users_page(State(app): State<App>, viewer: Viewer) -> PageResult {
    page(&build_list(&app, &viewer, None).await?)
}

async fn page_with_fault(app: &App, viewer: &Viewer, fault: impl Into<String>) -> PageResult {
    page_with(
        StatusCode::UNPROCESSABLE_ENTITY,
        &build_list(app, viewer, Some(fault.into())).await?,
    )
}

pub async fn add_user(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let (email, password) = (
        form.text("email").to_owned(),
        form.raw_text("password").to_owned(),
    );
    let Some(role) = UserRole::from_code(form.text("role")) else {
        return page_with_fault(&app, &viewer, "Choose a role.").await;
    };
    if let Some(fault) =
        user_command::email_fault(&email).or_else(|| passwords::password_fault(&password))
    {
        return page_with_fault(&app, &viewer, fault).await;
    }
    let hash = passwords::hash(password).await?;
    let (id, operator) = (Uuid::now_v7(), viewer.auth_context());
    let ceilings = app.ceilings.clone();
    let made = run_tx(&app.pool, TransactionName::UsersAdd, move |tx| {
        let (ceilings, operator) = (ceilings.clone(), operator.clone());
        let (email, hash) = (email.clone(), hash.clone());
        Box::pin(async move {
            let account_id = operator.account_id();
            if let Err(problem) = ceilings
                .check_room(tx, account_id, CountedKind::Users)
                .await?
            {
                return Ok(Err(problem));
            }
            let made =
                users::insert_user(tx, operator.account_id(), id, &email, &hash, role).await?;
            if made {
                let detail = json!({ "email": email, "role": role.code() });
                audit_log::record_change(tx, operator.change("create", "user", id, detail)).await?;
            }
            Ok::<_, StoreError>(Ok(made))
        })
    })
    .await?;
    let made = match made {
        Ok(made) => made,
        Err(problem) => return page_with_fault(&app, &viewer, problem.detail()).await,
    };
    if !made {
        return page_with_fault(
            &app,
            &viewer,
            "Somebody signs in with this e-mail address already.",
        )
        .await;
    }
    redirect_to("/people?done=person-added")
}

pub async fn set_role_or_disabled(
    State(app): State<App>,
    viewer: Viewer,
    Id(id): Id,
    form: Form,
) -> PageResult {
    let Some(role) = UserRole::from_code(form.text("role")) else {
        return page_with_fault(&app, &viewer, "Choose a role.").await;
    };
    let (out, operator) = (form.is_on("out"), viewer.auth_context());
    let ceilings = app.ceilings.clone();
    let set = run_tx(
        &app.pool,
        TransactionName::UsersSetRoleOrDisabled,
        move |tx| {
            let (ceilings, operator) = (ceilings.clone(), operator.clone());
            Box::pin(async move {
                let account_id = operator.account_id();
                let Some(before) = users::get_user(tx, account_id, id).await? else {
                    return Ok(Ok(None));
                };
                if before.disabled_at.is_some()
                    && !out
                    && let Err(problem) = ceilings
                        .check_room(tx, account_id, CountedKind::Users)
                        .await?
                {
                    return Ok(Err(problem));
                }
                let set =
                    users::set_role_or_disabled(tx, operator.account_id(), id, role, out).await?;
                if set {
                    let detail = json!({ "role": role.code(), "shut_out": out });
                    audit_log::record_change(tx, operator.change("update", "user", id, detail))
                        .await?;
                }
                Ok::<_, StoreError>(Ok(Some(set)))
            })
        },
    )
    .await?;
    let set = match set {
        Ok(set) => set,
        Err(problem) => return page_with_fault(&app, &viewer, problem.detail()).await,
    };
    match set {
        None => Err(PageError::NotFound("person")),
        Some(false) => {
            page_with_fault(
                &app,
                &viewer,
                "This is the last owner: the account would be left without one.",
            )
            .await
        }
        Some(true) => redirect_to("/people?done=standing"),
    }
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
    if jiff::tz::TimeZone::get(&time_zone).is_err() {
        let fault =
            format!("{time_zone:?} is no time zone of the IANA database, such as America/New_York");
        return page_with(
            StatusCode::UNPROCESSABLE_ENTITY,
            &own_page(&viewer, Some(fault)),
        );
    }
    let operator = viewer.auth_context();
    run_tx(&app.pool, TransactionName::AccountsSetTimeZone, move |tx| {
        let (operator, time_zone) = (operator.clone(), time_zone.clone());
        Box::pin(async move {
            let id = operator.account_id();
            accounts::set_time_zone(tx, id, &time_zone).await?;
            audit_log::record_change(
                tx,
                operator.change("update", "account", id, json!({ "time_zone": time_zone })),
            )
            .await
        })
    })
    .await?;
    redirect_to("/account?done=saved")
}

/// One's own password; every other session of the person ends.
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
    if !app.attempts.check_rate(&viewer.user.email) {
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
    let hash = passwords::hash(new).await?;
    let (operator, user, id) = (
        viewer.auth_context(),
        viewer.user.id,
        secrets::new_session_id(),
    );
    let given = id.clone();
    run_tx(&app.pool, TransactionName::UsersSetPassword, move |tx| {
        let (operator, hash, id) = (operator.clone(), hash.clone(), given.clone());
        Box::pin(async move {
            users::set_password(tx, user, &hash).await?;
            users::end_sessions(tx, user).await?;
            users::begin_session(tx, user, &id).await?;
            audit_log::record_change(tx, operator.change("set_password", "user", user, json!({})))
                .await
        })
    })
    .await?;
    let mut response = redirect_to("/account?done=password")?;
    session::set_session_cookie(&mut response, &id, session::over_tls(&headers));
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
            at: viewer.zone.local_time(entry.created_at),
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
