//! Users, who sign in, and their sessions. A password is kept as argon2id text made elsewhere; of a
//! session's random id only the SHA-256 is kept, so a stolen table opens nothing.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::accounts::Account;
use trueup_postgres::statement::{self, Result};

/// A session nobody used for this long has ended (seconds): a working day, not a forgotten laptop.
pub const IDLE_SECONDS: f64 = 12.0 * 3_600.0;
/// A session ends after this however busy it is (seconds).
pub const ABSOLUTE_SECONDS: f64 = 7.0 * 86_400.0;
/// `last_seen_at` is written at most this often (seconds): a click must not always be a write.
const SEEN_GRAIN_SECONDS: f64 = 60.0;

/// What a user may do. Each may do all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserRole {
    /// Looks.
    Viewer,
    /// Sets webhooks, records, and acts on events.
    Operator,
    /// Also keys and users.
    Owner,
}

impl UserRole {
    pub const ALL: [UserRole; 3] = [UserRole::Owner, UserRole::Operator, UserRole::Viewer];

    pub const fn code(self) -> &'static str {
        match self {
            UserRole::Viewer => "viewer",
            UserRole::Operator => "operator",
            UserRole::Owner => "owner",
        }
    }

    pub fn from_code(code: &str) -> Option<UserRole> {
        UserRole::ALL.into_iter().find(|role| role.code() == code)
    }
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: Uuid,
    pub account_id: Uuid,
    pub email: String,
    pub role: UserRole,
    pub created_at: Timestamp,
    pub last_signed_in_at: Option<Timestamp>,
    pub disabled_at: Option<Timestamp>,
}

impl User {
    fn from_row(row: &Row) -> Self {
        User {
            id: row.get("user_id"),
            account_id: row.get("user_account_id"),
            email: row.get("email"),
            role: UserRole::from_code(row.get("role"))
                .expect("the table's CHECK lets only these in"),
            created_at: row.get("user_created_at"),
            last_signed_in_at: row.get("last_signed_in_at"),
            disabled_at: row.get("disabled_at"),
        }
    }
}

macro_rules! columns {
    () => {
        "u.id AS user_id, u.account_id AS user_account_id, u.email, u.role, u.created_at AS user_created_at,
         u.last_signed_in_at, u.disabled_at"
    };
}

/// False if somebody has this e-mail address already, in whatever case.
pub async fn insert_user(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    email: &str,
    password_hash: &str,
    role: UserRole,
) -> Result<bool> {
    const INSERT: &str = "/* users.insert */
        INSERT INTO users (id, account_id, email, password_hash, role) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING";
    Ok(statement::run(
        client,
        INSERT,
        &[&id, &account_id, &email, &password_hash, &role.code()],
    )
    .await?
        == 1)
}

/// The user and the password's hash; nothing for one who is unknown or was shut out.
pub async fn by_email(client: &impl GenericClient, email: &str) -> Result<Option<(User, String)>> {
    const BY_EMAIL: &str = concat!(
        "/* users.by_email */ SELECT u.password_hash, ",
        columns!(),
        " FROM users u WHERE lower(u.email) = lower($1) AND u.disabled_at IS NULL"
    );
    let row = statement::query_opt(client, BY_EMAIL, &[&email]).await?;
    Ok(row.map(|row| (User::from_row(&row), row.get("password_hash"))))
}

pub async fn list_users(client: &impl GenericClient, account_id: Uuid) -> Result<Vec<User>> {
    const LIST: &str = concat!(
        "/* users.list */ SELECT ",
        columns!(),
        " FROM users u WHERE u.account_id = $1 ORDER BY u.disabled_at IS NOT NULL, u.id LIMIT 500"
    );
    Ok(statement::query_rows(client, LIST, &[&account_id])
        .await?
        .iter()
        .map(User::from_row)
        .collect())
}

pub async fn get_user(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
) -> Result<Option<User>> {
    const GET: &str = concat!(
        "/* users.get */ SELECT ",
        columns!(),
        " FROM users u WHERE u.account_id = $1 AND u.id = $2"
    );
    Ok(statement::query_opt(client, GET, &[&account_id, &id])
        .await?
        .map(|row| User::from_row(&row)))
}

/// Changes what the user may do; shut out or let in again. Locks the account's owners, so that two
/// changes at once cannot leave it without one; false if this would.
pub async fn set_role_or_disabled(
    client: &impl GenericClient,
    account_id: Uuid,
    id: Uuid,
    role: UserRole,
    disabled: bool,
) -> Result<bool> {
    const OWNERS: &str = "/* users.lock_owners */
        SELECT id FROM users WHERE account_id = $1 AND role = 'owner' AND disabled_at IS NULL ORDER BY id FOR UPDATE";
    const SET: &str = "/* users.set_role_or_disabled */
        UPDATE users SET role = $3, disabled_at = CASE WHEN $4 THEN COALESCE(disabled_at, now()) END
         WHERE account_id = $1 AND id = $2";
    let owners = statement::query_rows(client, OWNERS, &[&account_id]).await?;
    let stays_owner = role == UserRole::Owner && !disabled;
    if !stays_owner && owners.len() == 1 && owners[0].get::<_, Uuid>(0) == id {
        return Ok(false);
    }
    statement::run(client, SET, &[&account_id, &id, &role.code(), &disabled]).await?;
    if disabled {
        end_sessions(client, id).await?;
    }
    Ok(true)
}

pub async fn set_password(
    client: &impl GenericClient,
    id: Uuid,
    password_hash: &str,
) -> Result<()> {
    const SET_PASSWORD: &str =
        "/* users.set_password */ UPDATE users SET password_hash = $2 WHERE id = $1";
    statement::run(client, SET_PASSWORD, &[&id, &password_hash]).await?;
    Ok(())
}

fn digest_session(session: &str) -> Vec<u8> {
    Sha256::digest(session.as_bytes()).to_vec()
}

/// Begins a session, notes the signing in, and sweeps away what has expired.
pub async fn begin_session(
    client: &impl GenericClient,
    user_id: Uuid,
    session: &str,
) -> Result<()> {
    const SWEEP: &str = "/* users.sweep_sessions */
        DELETE FROM sessions WHERE user_id = $1
           AND (last_seen_at < now() - make_interval(secs => $2) OR created_at < now() - make_interval(secs => $3))";
    const BEGIN: &str =
        "/* users.begin_session */ INSERT INTO sessions (digest, user_id) VALUES ($1, $2)";
    const SIGNED_IN: &str =
        "/* users.signed_in */ UPDATE users SET last_signed_in_at = now() WHERE id = $1";
    statement::run(client, SWEEP, &[&user_id, &IDLE_SECONDS, &ABSOLUTE_SECONDS]).await?;
    statement::run(client, BEGIN, &[&digest_session(session), &user_id]).await?;
    statement::run(client, SIGNED_IN, &[&user_id]).await?;
    Ok(())
}

/// A user signs in with so many browsers; the one unused for longest is forgotten.
const KNOWN_BROWSERS: i64 = 20;

/// Has this user signed in with this browser before?
pub async fn is_known_browser(
    client: &impl GenericClient,
    browser: &str,
    email: &str,
) -> Result<bool> {
    const KNOWN: &str = "/* users.is_known_browser */
        SELECT 1 FROM known_browsers b JOIN users u ON u.id = b.user_id
         WHERE b.digest = $1 AND lower(u.email) = lower($2) AND u.disabled_at IS NULL";
    let found = statement::query_opt(client, KNOWN, &[&digest_session(browser), &email]).await?;
    Ok(found.is_some())
}

pub async fn remember_browser(
    client: &impl GenericClient,
    user_id: Uuid,
    browser: &str,
) -> Result<()> {
    const REMEMBER: &str = "/* users.remember_browser */
        INSERT INTO known_browsers (digest, user_id) VALUES ($1, $2)
            ON CONFLICT (digest) DO UPDATE SET user_id = EXCLUDED.user_id, last_used_at = now()";
    const FORGET: &str = "/* users.forget_browsers */
        DELETE FROM known_browsers WHERE digest IN (
               SELECT digest FROM known_browsers WHERE user_id = $1 ORDER BY last_used_at DESC OFFSET $2)";
    statement::run(client, REMEMBER, &[&digest_session(browser), &user_id]).await?;
    statement::run(client, FORGET, &[&user_id, &KNOWN_BROWSERS]).await?;
    Ok(())
}

/// Whose session it is, if it still stands.
pub async fn find_session(
    client: &impl GenericClient,
    session: &str,
) -> Result<Option<(User, Account)>> {
    const HOLDER: &str = concat!(
        "/* users.session */ SELECT s.last_seen_at < now() - make_interval(secs => $4) AS stale, ",
        columns!(),
        ", a.id AS account_id, a.name AS account_name, a.default_region, a.currency, a.time_zone,
           a.created_at AS account_created_at
          FROM sessions s JOIN users u ON u.id = s.user_id JOIN accounts a ON a.id = u.account_id
         WHERE s.digest = $1 AND u.disabled_at IS NULL
           AND s.last_seen_at >= now() - make_interval(secs => $2) AND s.created_at >= now() - make_interval(secs => $3)"
    );
    // Of many requests at once one writes, and no other waits for it.
    const SEEN: &str = "/* users.seen */
        UPDATE sessions SET last_seen_at = now()
         WHERE digest = (SELECT digest FROM sessions WHERE digest = $1
                            AND last_seen_at < now() - make_interval(secs => $2)
                            FOR UPDATE SKIP LOCKED)";
    let digest = digest_session(session);
    let found = statement::query_opt(
        client,
        HOLDER,
        &[
            &digest,
            &IDLE_SECONDS,
            &ABSOLUTE_SECONDS,
            &SEEN_GRAIN_SECONDS,
        ],
    )
    .await?;
    let Some(row) = found else { return Ok(None) };
    if row.get("stale") {
        statement::run(client, SEEN, &[&digest, &SEEN_GRAIN_SECONDS]).await?;
    }
    Ok(Some((User::from_row(&row), Account::from_row(&row))))
}

pub async fn end_session(client: &impl GenericClient, session: &str) -> Result<()> {
    const END: &str = "/* users.end_session */ DELETE FROM sessions WHERE digest = $1";
    statement::run(client, END, &[&digest_session(session)]).await?;
    Ok(())
}

pub async fn end_sessions(client: &impl GenericClient, user_id: Uuid) -> Result<()> {
    const END: &str = "/* users.end_sessions */ DELETE FROM sessions WHERE user_id = $1";
    statement::run(client, END, &[&user_id]).await?;
    Ok(())
}

/// Accounts of this id or exactly this name, for the command line; two are enough to know that a name
/// is not unique.
pub async fn accounts_called(
    client: &impl GenericClient,
    id_or_name: &str,
) -> Result<Vec<Account>> {
    const CALLED: &str = "/* users.accounts_called */
        SELECT id AS account_id, name AS account_name, default_region, currency, time_zone,
               created_at AS account_created_at
          FROM accounts WHERE id::text = $1 OR name = $1 ORDER BY id LIMIT 2";
    Ok(statement::query_rows(client, CALLED, &[&id_or_name])
        .await?
        .iter()
        .map(Account::from_row)
        .collect())
}
