//! An account's users: added, given a role, shut out; their passwords and sessions.

use serde_json::json;
use trueup_store::TransactionName;
use trueup_store::audit_log;
use trueup_store::ceilings::CountedKind;
use trueup_store::users::{self, User, UserRole};
use uuid::Uuid;

use super::commit_change;
use crate::app_state::App;
use crate::auth_context::AuthContext;
use crate::problem::Problem;
use crate::{passwords, secrets, user_command};

/// Somebody who is to sign in.
pub struct NewUser {
    pub email: String,
    pub password: String,
    pub role: UserRole,
}

/// A fault that says itself what it is about.
fn refusal(fault: impl Into<String>) -> Problem {
    Problem::invalid_field("", fault)
}

pub async fn add_user(app: &App, operator: &AuthContext, new: NewUser) -> Result<(), Problem> {
    let NewUser {
        email,
        password,
        role,
    } = new;
    let fault = user_command::email_fault(&email).or_else(|| passwords::password_fault(&password));
    if let Some(fault) = fault {
        return Err(refusal(fault));
    }
    let hash = passwords::hash(password).await?;
    let input = (app.clone(), operator.clone(), email, hash);
    commit_change(
        &app.pool,
        TransactionName::UsersAdd,
        input,
        move |tx, input| {
            Box::pin(async move {
                let (app, operator, email, hash) = input;
                let (account_id, id) = (operator.account_id(), Uuid::now_v7());
                app.ceilings
                    .check_room(tx, account_id, CountedKind::Users)
                    .await??;
                if !users::insert_user(tx, account_id, id, &email, &hash, role).await? {
                    let fault = "Somebody signs in with this e-mail address already.";
                    return Err(refusal(fault).into());
                }
                let detail = json!({ "email": email, "role": role.code() });
                audit_log::record_change(tx, operator.change("create", "user", id, detail)).await?;
                Ok(())
            })
        },
    )
    .await
}

/// Gives a role, and shuts the user out or lets them in again; the last owner stays.
pub async fn set_role_or_disabled(
    app: &App,
    operator: &AuthContext,
    id: Uuid,
    role: UserRole,
    is_out: bool,
) -> Result<(), Problem> {
    let input = (app.clone(), operator.clone());
    let name = TransactionName::UsersSetRoleOrDisabled;
    commit_change(&app.pool, name, input, move |tx, (app, operator)| {
        Box::pin(async move {
            let account_id = operator.account_id();
            let before = users::get_user(tx, account_id, id)
                .await?
                .ok_or_else(|| Problem::not_found("user"))?;
            if before.disabled_at.is_some() && !is_out {
                app.ceilings
                    .check_room(tx, account_id, CountedKind::Users)
                    .await??;
            }
            if !users::set_role_or_disabled(tx, account_id, id, role, is_out).await? {
                let fault = "This is the last owner: the account would be left without one.";
                return Err(refusal(fault).into());
            }
            let detail = json!({ "role": role.code(), "shut_out": is_out });
            audit_log::record_change(tx, operator.change("update", "user", id, detail)).await?;
            Ok(())
        })
    })
    .await
}

/// Every other session of the user ends; the id of the one that begins.
pub async fn set_password(
    app: &App,
    operator: &AuthContext,
    user: Uuid,
    password: String,
) -> Result<String, Problem> {
    let hash = passwords::hash(password).await?;
    let session = secrets::new_session_id();
    let input = (operator.clone(), hash, session.clone());
    commit_change(
        &app.pool,
        TransactionName::UsersSetPassword,
        input,
        move |tx, input| {
            Box::pin(async move {
                let (operator, hash, session) = input;
                users::set_password(tx, user, &hash).await?;
                users::end_sessions(tx, user).await?;
                users::begin_session(tx, user, &session).await?;
                let change = operator.change("set_password", "user", user, json!({}));
                audit_log::record_change(tx, change).await?;
                Ok(())
            })
        },
    )
    .await?;
    Ok(session)
}

/// A session of somebody whose password was right, in a browser that knows them from now on; its id.
pub async fn begin_session(app: &App, user: User, browser: &str) -> Result<String, Problem> {
    let session = secrets::new_session_id();
    let input = (user, session.clone(), browser.to_owned());
    commit_change(
        &app.pool,
        TransactionName::UsersSignIn,
        input,
        |tx, (user, session, browser)| {
            Box::pin(async move {
                users::begin_session(tx, user.id, &session).await?;
                users::remember_browser(tx, user.id, &browser).await?;
                let change = audit_log::Change {
                    account_id: user.account_id,
                    actor: &user.email,
                    action: "sign_in",
                    object_kind: "user",
                    object_id: user.id,
                    detail: json!({}),
                };
                audit_log::record_change(tx, change).await?;
                Ok(())
            })
        },
    )
    .await?;
    Ok(session)
}
