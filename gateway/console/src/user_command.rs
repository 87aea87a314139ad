//! `trueup-console user add`: makes a user, the first one above all.
#![allow(
    clippy::print_stdout,
    reason = "a command talks to its user by printing"
)]

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use trueup_event::ids;
use trueup_ops::shutdown::{ExitReason, Failure};
use trueup_store::accounts::{self, Account};
use trueup_store::users::{self, UserRole};
use trueup_store::{Pool, StoreError, TransactionName, audit_log, run_tx};
use uuid::Uuid;

use crate::passwords;

/// An address is shorter (characters).
pub const MAX_EMAIL: usize = 254;
/// A password's file is a line (bytes).
const MAX_FILE: u64 = 4_096;
/// How the audit log names the command line.
const ACTOR: &str = "command line";

#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Make a user, who may sign in to the console
    Add(Add),
}

#[derive(Debug, Clone, Args)]
pub struct Add {
    /// What they sign in with
    #[arg(long)]
    email: String,
    /// The account's id or its exact name
    #[arg(long)]
    account: String,
    /// owner (also keys and users), operator (settings and events) or viewer (looks)
    #[arg(long, default_value = "owner", value_parser = ["owner", "operator", "viewer"])]
    role: String,
    /// Make the account if there is none of this name
    #[arg(long)]
    new_account: bool,
    /// The new account's time zone: what a day is in its reports
    #[arg(long, default_value = "UTC", requires = "new_account")]
    time_zone: String,
    /// Read the password from this file instead of asking for it
    #[arg(long)]
    password_file: Option<PathBuf>,
}

/// An address has a name, an @ and a host; whether it is somebody's, only a letter could tell.
pub fn email_fault(email: &str) -> Option<String> {
    let whole = email
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
    let plain = email.chars().all(|c| !c.is_whitespace() && !c.is_control());
    (!whole || !plain || email.chars().count() > MAX_EMAIL)
        .then(|| format!("{email:?} is no e-mail address; give one such as ann@example.com"))
}

fn bad_usage(text: impl Into<String>) -> Failure {
    Failure::new(ExitReason::BadConfig, text.into())
}

fn database_down(error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitReason::Unavailable, error.to_string())
}

pub async fn run(command: UserCommand, pool: Pool) -> Result<ExitReason, Failure> {
    let UserCommand::Add(add) = command;
    if let Some(fault) = email_fault(&add.email) {
        return Err(bad_usage(fault));
    }
    if jiff::tz::TimeZone::get(&add.time_zone).is_err() {
        return Err(bad_usage(
            "--time-zone must be one of the IANA database, such as America/New_York",
        ));
    }
    let role = UserRole::from_code(&add.role)
        .ok_or_else(|| bad_usage("--role is owner, operator or viewer"))?;
    let client = pool.get().await.map_err(database_down)?;
    let known = users::accounts_called(&client, &add.account)
        .await
        .map_err(database_down)?;
    drop(client);
    let (account, is_new) = match known.as_slice() {
        [account] => (account.clone(), false),
        [] if add.new_account => (new_account(&add), true),
        [] => {
            let text = format!(
                "no account has the id or name {:?}; add --new-account to make it",
                add.account
            );
            return Err(bad_usage(text));
        }
        _ => {
            return Err(bad_usage(format!(
                "several accounts are called {:?}; give the id",
                add.account
            )));
        }
    };
    let password = read_password(add.password_file.as_deref())
        .map_err(|error| bad_usage(error.to_string()))?;
    if let Some(fault) = passwords::password_fault(password.expose_secret()) {
        return Err(bad_usage(fault));
    }
    let hash = passwords::hash(password.expose_secret().to_owned())
        .await
        .map_err(|e| bad_usage(e.to_string()))?;
    let (email, id) = (add.email.clone(), Uuid::now_v7());
    let of = account.clone();
    let made = run_tx(&pool, TransactionName::UsersAdd, move |tx| {
        let (account, email, hash) = (of.clone(), email.clone(), hash.clone());
        Box::pin(async move {
            if is_new {
                accounts::insert_account(tx, &account).await?;
            }
            if !users::insert_user(tx, account.id, id, &email, &hash, role).await? {
                return Err(StoreError::Abandoned);
            }
            let change = audit_log::Change {
                account_id: account.id,
                actor: ACTOR,
                action: "create",
                object_kind: "user",
                object_id: id,
                detail: json!({ "email": email, "role": role.code() }),
            };
            audit_log::record_change(tx, change).await
        })
    })
    .await;
    match made {
        Ok(()) => {}
        Err(StoreError::Abandoned) => {
            return Err(bad_usage(format!(
                "{} can sign in already; nothing was changed",
                add.email
            )));
        }
        Err(error) => return Err(database_down(error)),
    }
    println!(
        "{} may sign in as {} of {:?} ({}).",
        add.email,
        role.code(),
        account.name,
        account.id
    );
    Ok(ExitReason::Drained)
}

fn new_account(add: &Add) -> Account {
    Account {
        id: Uuid::now_v7(),
        name: add.account.clone(),
        default_region: "US".to_owned(),
        currency: "USD".to_owned(),
        time_zone: add.time_zone.clone(),
        created_at: ids::to_microseconds(jiff::Timestamp::now()),
    }
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
enum PasswordInputError {
    #[error("--password-file: {0}")]
    File(io::Error),
    #[error("the password: {0}")]
    Input(io::Error),
    /// The terminal cannot be told to show nothing.
    #[error(transparent)]
    Terminal(#[from] nix::Error),
    #[error("the two are not the same; nothing was made")]
    NotTheSame,
}

/// From the file, else asked for at a terminal (twice, unseen), else the first line of the input.
fn read_password(file: Option<&Path>) -> Result<SecretString, PasswordInputError> {
    if let Some(path) = file {
        let open = std::fs::File::open(path).map_err(PasswordInputError::File)?;
        let mut text = String::new();
        open.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(PasswordInputError::File)?;
        return Ok(text.lines().next().unwrap_or_default().to_owned().into());
    }
    let input = io::stdin();
    if !input.is_terminal() {
        return read_line().map(Into::into);
    }
    let first = read_unseen("Password: ")?;
    if first != read_unseen("Again: ")? {
        return Err(PasswordInputError::NotTheSame);
    }
    Ok(first.into())
}

fn read_line() -> Result<String, PasswordInputError> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(MAX_FILE)
        .read_line(&mut text)
        .map_err(PasswordInputError::Input)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_unseen(prompt: &str) -> Result<String, PasswordInputError> {
    use std::io::Write;
    print!("{prompt}");
    let _ = io::stdout().flush();
    let input = io::stdin();
    let before = tcgetattr(&input)?;
    let mut quiet = before.clone();
    quiet.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&input, SetArg::TCSANOW, &quiet)?;
    let read = read_line();
    let _ = tcsetattr(&input, SetArg::TCSANOW, &before);
    println!();
    read
}
