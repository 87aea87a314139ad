//! The demo account that `up` makes, through the operator API like any user: buyers, publishers,
//! campaigns, assignments, two webhooks, a few hundred calls, and some days' worth of reports.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use trueup_services::process;
use trueup_services::seeded_rng::SeededRng;

use crate::clock::ago;
use crate::http::{self, Request};
use crate::operator_client::{Api, door, text};
use crate::progress::Note;

/// Calls of the demo account, spread over the last week.
const CALLS: u64 = 300;
/// Reports that fill the panel; far below what a webhook takes in a minute (200).
const REPORTS: u64 = 60;
const WEEK_MINUTES: u64 = 7 * 24 * 60;
/// The seed's example: a report of 90 s, of a leg some 30 s shorter than ours.
pub const EXAMPLE_CALLER: &str = "+13055551234";
pub const EXAMPLE_SECONDS: u64 = 120;
/// No call of the demo account comes from here.
pub const UNKNOWN_CALLER: &str = "+13055550199";

/// Makes everything and gives what must be remembered of it.
pub fn make(admin: &Api, gateway: &str, note: &Note) -> Result<Value> {
    note.set("account, buyers, publishers");
    let account = admin.post("/accounts", &json!({ "name": "Demo network" }))?;
    let api = Api {
        base: admin.base.clone(),
        key: text(&account, "api_key")?,
    };
    let made = |path: &str, body: Value| -> Result<String> { text(&api.post(path, &body)?, "id") };
    let hvac_buyer = made("/buyers", json!({ "name": "Summit Air (HVAC)" }))?;
    let roofing_buyer = made("/buyers", json!({ "name": "Lone Star Roofing" }))?;
    let share_publisher = made("/publishers", json!({ "name": "Lakeside Media" }))?;
    let flat_publisher = made("/publishers", json!({ "name": "Prairie Leads" }))?;
    let demo_publisher = made(
        "/publishers",
        json!({ "name": "Demo publisher (of `cargo xtask demo`)" }),
    )?;
    let hvac = made("/campaigns", json!({ "name": "HVAC, Florida" }))?;
    let roofing = made("/campaigns", json!({ "name": "Roofing, Texas" }))?;
    let assign = |campaign: &str, publisher: &str, payout: Value| {
        made(
            "/assignments",
            json!({ "campaign_id": campaign, "publisher_id": publisher, "payout": payout }),
        )
    };
    let share = assign(
        &hvac,
        &share_publisher,
        json!({ "kind": "rev_share", "percent": "60" }),
    )?;
    let flat = assign(
        &roofing,
        &flat_publisher,
        json!({ "kind": "flat", "amount_cents": 1800 }),
    )?;
    let demo = assign(
        &hvac,
        &demo_publisher,
        json!({ "kind": "rev_share", "percent": "60" }),
    )?;
    let open = api.post(
        "/webhooks",
        &json!({ "name": "Ringba: HVAC buyer", "buyer_id": hvac_buyer }),
    )?;
    let closed = api.post(
        "/webhooks",
        &json!({ "name": "TrackDrive: roofing buyer", "buyer_id": roofing_buyer, "require_secret": true }),
    )?;
    note.set("calls");
    let calls = calls(&[(&hvac_buyer, &share), (&roofing_buyer, &flat)]);
    record_calls(&api, &calls)?;
    note.set("reports");
    report(&api, gateway, &text(&open, "token")?, &calls)?;
    Ok(json!({
        "name": "Demo network", "id": text(&account, "id")?, "api_key": api.key,
        "buyer_id": hvac_buyer, "assignment_id": demo, "publisher_id": demo_publisher,
        "open": webhook(&open)?, "closed": webhook(&closed)?,
    }))
}

fn webhook(made: &Value) -> Result<Value> {
    Ok(json!({
        "id": text(made, "id")?, "name": text(made, "name")?, "token": text(made, "token")?,
        "url": text(made, "url")?, "secret": made.get("secret"),
    }))
}

pub fn record_calls(api: &Api, calls: &[Value]) -> Result<()> {
    let answer = api.post("/calls", &Value::from(calls))?;
    let accepted = answer.get("accepted").and_then(Value::as_u64).unwrap_or(0);
    if usize::try_from(accepted) == Ok(calls.len()) {
        return Ok(());
    }
    bail!(
        "{accepted} of {} calls were accepted: {answer}",
        calls.len()
    )
}

/// The seed's example call, and a week of others. `sides`: buyer and assignment.
fn calls(sides: &[(&String, &String); 2]) -> Vec<Value> {
    // A fixed sequence: every demo account looks the same.
    let mut dice = SeededRng::new(20_260_314);
    let mut calls = vec![json!({
        "ref_id": "abc123", "caller": EXAMPLE_CALLER, "tracking_number": "+18885550100",
        "duration_seconds": EXAMPLE_SECONDS, "started_at": ago(20 * 60), "buyer_id": sides[0].0, "assignment_id": sides[0].1,
    })];
    for n in 0..CALLS {
        let (buyer, assignment) = if n % 3 == 2 { sides[1] } else { sides[0] };
        let area = ["305", "786", "407", "512", "214", "713"][dice.below(6)];
        let seconds = dice.between(12, 611);
        let qualified = seconds >= 90;
        // Numbers from 555-0100 to 555-0198 belong to nobody; 0199 stays free for the unmatched example.
        calls.push(json!({
            "ref_id": format!("net-{}", 40_000 + n), "caller": format!("+1{area}5550{}", dice.between(100, 198)),
            "tracking_number": format!("+1888555{:04}", 101 + n % 3), "duration_seconds": seconds,
            "started_at": ago((15 + n * WEEK_MINUTES / CALLS + dice.between(0, 19)) * 60),
            "buyer_id": buyer, "assignment_id": assignment,
            "qualified": qualified, "value_cents": if qualified { json!(4500) } else { Value::Null },
        }));
    }
    calls
}

/// Reports as buyers send them: most good, some rejected, some with what goes wrong in real life.
fn report(api: &Api, gateway: &str, token: &str, calls: &[Value]) -> Result<()> {
    let url = door(gateway, token);
    let mut dice = SeededRng::new(7);
    let mut last = String::new();
    let of_this_buyer = calls
        .iter()
        .skip(1)
        .enumerate()
        .filter(|(n, _)| n % 3 != 2)
        .map(|(_, call)| call);
    for (n, call) in of_this_buyer.take(usize::try_from(REPORTS)?).enumerate() {
        let ref_id = text(call, "ref_id")?;
        let caller = text(call, "caller")?.replace('+', "%2B");
        let seconds = call
            .get("duration_seconds")
            .and_then(Value::as_u64)
            .unwrap_or(0)
            .saturating_sub(28);
        let dollars = dice.between(30, 69);
        let cents = dice.below(4) * 25;
        let query = match n % 15 {
            3 => format!("ref_id={ref_id}&caller_id={caller}&duration={seconds}&payout=0"),
            6 => {
                format!(
                    "ref_id=%5Btag%3AUser%3Asub%5D&caller_id={caller}&duration={}&payout={dollars}",
                    seconds + 400
                )
            }
            9 => format!(
                "caller_id=%2B1305555019{}&duration={seconds}&payout={dollars}",
                dice.below(9)
            ),
            12 => format!("ref_id={ref_id}&caller_id={caller}&duration={seconds}&payout="),
            _ => format!(
                "ref_id={ref_id}&caller_id={caller}&duration={seconds}&payout={dollars}.{cents:02}"
            ),
        };
        let sender = format!("198.51.100.{}", 1 + n % 6);
        let headers = [
            ("X-Forwarded-For", sender.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let request = Request {
            method: "POST",
            url: &url,
            headers: &headers,
            body: query.as_bytes(),
        };
        let mut answer = http::send(&request)?;
        // A new webhook reaches the gateway within 2 s.
        process::wait(Duration::from_secs(10), || {
            if answer.status == 404
                && let Ok(again) = http::send(&request)
            {
                answer = again;
            }
            answer.status != 404
        });
        if answer.status != 200 {
            bail!("a report was answered {}: {}", answer.status, answer.text());
        }
        last = text(&answer.json()?, "event_id")?;
    }
    wait_for_row(api, &last).map(|_| ())
}

/// The row of an accepted report; it follows the answer within moments.
pub fn wait_for_row(api: &Api, event_id: &str) -> Result<Value> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut row = None;
    let mut failed = None;
    process::wait(PATIENCE, || {
        match api.find(&format!("/events/{event_id}")) {
            Ok(found) => row = found,
            Err(error) => failed = Some(error),
        }
        row.is_some() || failed.is_some()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    row.with_context(|| {
        format!(
            "event {event_id} has no row yet; is the worker running? (target/trueup/worker.log)"
        )
    })
}
