//! `cargo xtask up`: from a clone to a running system with something in it. Run again, it changes
//! only what is not as it should be, and says the same at the end.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trueup_services::process::output;

use crate::demo_account;
use crate::layout::Layout;
use crate::operator_client::{Api, door, part, text};
use crate::progress::step;
use crate::services::{self, Purpose, ServiceMode, Services};
use crate::system::{self, Build, System};

pub fn run(layout: &Layout, choice: ServiceMode, build: Build) -> Result<()> {
    let services = services::ensure(layout, choice, Purpose::System)?;
    system::build(layout, build)?;
    system::migrate(layout, build, &services)?;
    let mut state = system::open_state(layout);
    let admin_key = match state.text("admin_key") {
        Some(key) => key.to_owned(),
        None => {
            let key = random_key(24)?;
            state.set("admin_key", key.as_str())?;
            key
        }
    };
    let system = system::start_all(layout, build, &services, &mut state, &admin_key)?;
    let known = state.get("account").cloned();
    let opens = |account: &Value| {
        let key = account
            .get("api_key")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Api {
            base: system.console.clone(),
            key,
        }
        .key_is_valid()
    };
    let mut account = match known.filter(opens) {
        Some(account) => {
            println!("ok   the demo account is there");
            account
        }
        None => {
            let admin = Api {
                base: system.console.clone(),
                key: admin_key.clone(),
            };
            let made = step("making the demo account", |note| {
                demo_account::make(&admin, &system.gateway, note)
            })?;
            state.set("account", made.clone())?;
            made
        }
    };
    let user = match account.get("user") {
        Some(user) => user.clone(),
        None => {
            let made = step("making a user", |_| {
                make_user(layout, build, &services, &text(&account, "id")?)
            })?;
            if let Some(account) = account.as_object_mut() {
                account.insert("user".to_owned(), made.clone());
            }
            state.set("account", account.clone())?;
            made
        }
    };
    print_endpoints(layout, &system, &account, &user, &admin_key)
}

/// Somebody for the console's pages, by the same command that makes the first one in production.
fn make_user(
    layout: &Layout,
    build: Build,
    services: &Services,
    account_id: &str,
) -> Result<Value> {
    let password = random_key(8)?;
    let file = layout.trueup().join("password");
    std::fs::write(&file, format!("{password}\n"))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let add = |email: &str| {
        let mut command = system::command(layout, build, "trueup-console", services);
        command
            .args([
                "user",
                "add",
                "--email",
                email,
                "--account",
                account_id,
                "--password-file",
            ])
            .arg(&file);
        output(command)
    };
    let mut email = "demo@example.com".to_owned();
    // An earlier demo account in the same database may have this user.
    let added = add(&email).or_else(|_| {
        email = format!(
            "demo-{}@example.com",
            account_id.chars().rev().take(6).collect::<String>()
        );
        add(&email)
    });
    std::fs::remove_file(&file)?;
    added?;
    Ok(json!({ "email": email, "password": password }))
}

/// Nobody guesses it: so many bytes of the kernel's randomness.
fn random_key(bytes: usize) -> Result<String> {
    let mut bytes = vec![0_u8; bytes];
    File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("no randomness")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn print_endpoints(
    layout: &Layout,
    system: &System,
    account: &Value,
    user: &Value,
    admin_key: &str,
) -> Result<()> {
    let (open, closed) = (part(account, "open")?, part(account, "closed")?);
    // Built from where the gateway is now: it may have had another port when the account was made.
    let url = |webhook| Ok::<_, anyhow::Error>(door(&system.gateway, &text(webhook, "token")?));
    let (open_url, closed_url) = (url(open)?, url(closed)?);
    let key = text(account, "api_key")?;
    println!();
    println!("Trueup is up.");
    println!();
    println!("  public door    {}", system.gateway);
    println!(
        "  console        {}   (operator API: {}/api/v1)",
        system.console, system.console
    );
    println!(
        "  sign in as     {} with {}",
        text(user, "email")?,
        text(user, "password")?
    );
    for (name, url) in &system.ops {
        println!("  {name:<14} {url}/ready   {url}/metrics");
    }
    println!("  logs           {}/*.log", layout.show(&layout.trueup()));
    println!();
    println!("  admin key      {admin_key}");
    println!("  account key    {key}   ({})", text(account, "name")?);
    println!(
        "  webhook        {open_url}   ({}, no secret)",
        text(open, "name")?
    );
    println!(
        "  webhook        {closed_url}   ({})",
        text(closed, "name")?
    );
    println!("      its secret {}", text(closed, "secret")?);
    println!();
    println!("For the README's examples:");
    println!();
    println!(
        "  URL='{open_url}'; KEY='{key}'; WEBHOOK='{}'; CONSOLE='{}'",
        text(open, "id")?,
        system.console
    );
    println!();
    println!("A buyer reports $50 for a call of 90 seconds (paste it):");
    println!();
    println!("  curl '{open_url}?caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123'");
    println!();
    println!("What became of it:");
    println!();
    println!(
        "  curl -H 'Authorization: Bearer {key}' '{}/api/v1/webhooks/{}/events?limit=1'",
        system.console,
        text(open, "id")?
    );
    println!();
    println!(
        "Next: `cargo xtask demo` shows what reports do to the money; `cargo xtask down` stops it all."
    );
    Ok(())
}
