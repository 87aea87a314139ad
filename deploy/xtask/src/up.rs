//! `cargo xtask up`: from a clone to a running system with something in it. Run again, it changes
//! only what is not as it should be, and says the same at the end.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::api::{Api, text};
use crate::demo_account;
use crate::layout::Layout;
use crate::processes::{self, System};
use crate::progress::step;
use crate::services::{self, Choice};

pub fn run(layout: &Layout, choice: Choice) -> Result<()> {
    let services = services::ensure(layout, choice)?;
    processes::build(layout)?;
    processes::migrate(layout, &services)?;
    let mut state = processes::open_state(layout);
    let admin_key = match state.text("admin_key") {
        Some(key) => key.to_owned(),
        None => {
            let key = random_key()?;
            state.set("admin_key", key.as_str())?;
            key
        }
    };
    let system = processes::start_all(layout, &services, &mut state, &admin_key)?;
    let known = state.get("account").cloned();
    let opens = |account: &Value| {
        let key = account.get("api_key").and_then(Value::as_str).unwrap_or_default().to_owned();
        Api { base: system.console.clone(), key }.opens()
    };
    let account = match known.filter(opens) {
        Some(account) => {
            println!("ok   the demo account is there");
            account
        }
        None => {
            let admin = Api { base: system.console.clone(), key: admin_key.clone() };
            let made = step("making the demo account", |note| demo_account::make(&admin, &system.gateway, note))?;
            state.set("account", made.clone())?;
            made
        }
    };
    tell(layout, &system, &account, &admin_key)
}

/// Nobody guesses it: 24 bytes of the kernel's randomness.
fn random_key() -> Result<String> {
    let mut bytes = [0_u8; 24];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).context("no randomness")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn tell(layout: &Layout, system: &System, account: &Value, admin_key: &str) -> Result<()> {
    let (open, closed) = (part(account, "open")?, part(account, "closed")?);
    let key = text(account, "api_key")?;
    println!();
    println!("Trueup is up.");
    println!();
    println!("  public door    {}", system.gateway);
    println!("  console        {}   (operator API: {}/api/v1)", system.console, system.console);
    for (name, url) in &system.ops {
        println!("  {name:<14} {url}/ready   {url}/metrics");
    }
    println!("  logs           {}/*.log", layout.show(&layout.trueup()));
    println!();
    println!("  admin key      {admin_key}");
    println!("  account key    {key}   ({})", text(account, "name")?);
    println!("  webhook        {}   ({}, no secret)", text(open, "url")?, text(open, "name")?);
    println!("  webhook        {}   ({})", text(closed, "url")?, text(closed, "name")?);
    println!("      its secret {}", text(closed, "secret")?);
    println!();
    println!("For the README's examples:");
    println!();
    println!("  URL='{}'; KEY='{key}'; WEBHOOK='{}'", text(open, "url")?, text(open, "id")?);
    println!();
    println!("A buyer reports $50 for a call of 90 seconds (paste it):");
    println!();
    println!("  curl '{}?caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123'", text(open, "url")?);
    println!();
    println!("What became of it:");
    println!();
    println!(
        "  curl -H 'Authorization: Bearer {key}' '{}/api/v1/webhooks/{}/events?limit=1'",
        system.console,
        text(open, "id")?
    );
    println!();
    println!("Next: `cargo xtask demo` shows what reports do to the money; `cargo xtask down` stops it all.");
    Ok(())
}

pub fn part<'a>(value: &'a Value, name: &str) -> Result<&'a Value> {
    value.get(name).with_context(|| format!("the state of `up` names no {name}; run `cargo xtask up` again"))
}
