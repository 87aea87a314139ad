//! `cargo xtask demo`: sends eight requests about one fresh call and shows what each did, as the
//! operator API tells it. It says so, and fails, if one did something else than it should.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use trueup_services::process;

use crate::demo_account::{
    EXAMPLE_CALLER, EXAMPLE_SECONDS, UNKNOWN_CALLER, record_calls, wait_for_row,
};
use crate::http::{self, Answer, Request};
use crate::layout::Layout;
use crate::operator_client::{Api, door, money, part, text};
use crate::progress::step;
use crate::{clock, system};

struct DemoRequest {
    what: &'static str,
    method: &'static str,
    content_type: &'static str,
    query: String,
    body: String,
    /// Status, reason, call value and balance (in cents) that it must come to.
    expected: (&'static str, Option<&'static str>, i64, i64),
}

struct Scene<'a> {
    api: Api,
    gateway: String,
    account: &'a Value,
    publisher: String,
    ref_id: String,
    began: String,
}

pub fn run(layout: &Layout) -> Result<()> {
    let state = system::open_state(layout);
    let (Some(system), Some(account)) = (system::running(&state), state.get("account")) else {
        bail!("nothing is running; start with `cargo xtask up`");
    };
    let millis = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let scene = Scene {
        api: Api {
            base: system.console,
            key: text(account, "api_key")?,
        },
        gateway: system.gateway,
        publisher: text(account, "publisher_id")?,
        ref_id: format!("demo-{millis}"),
        began: clock::ago(0),
        account,
    };
    let call = scene.fresh_call()?;
    let started = scene.balance()?;
    println!(
        "One call, recorded just now: {EXAMPLE_CALLER}, {EXAMPLE_SECONDS} s, ref_id {}; its publisher gets 60 %.",
        scene.ref_id
    );
    println!();
    let mut rows = vec![
        [
            "request",
            "answer",
            "row",
            "reason",
            "call value",
            "publisher's balance",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut wrong = Vec::new();
    for shot in shots(&scene.ref_id) {
        let (row, outcome) = step(shot.what, |_| scene.fire(&shot, &call))?;
        let (status, reason, value, balance) = shot.expected;
        let expected = (
            status.to_owned(),
            reason.map(str::to_owned),
            value,
            started + balance,
        );
        if outcome != expected {
            wrong.push(format!(
                "{}: {outcome:?} instead of {expected:?}",
                shot.what
            ));
        }
        rows.push(row);
    }
    let row = step("a wrong secret", |note| {
        note.set("refusals are bundled for some seconds before their row shows");
        scene.wrong_secret()
    })?;
    rows.push(row);
    println!();
    print_table(&rows);
    println!();
    if !wrong.is_empty() {
        bail!("not as it should be:\n  {}", wrong.join("\n  "));
    }
    println!(
        "Credited once for four reports of $50, moved by the difference when the buyer corrected it, taken back when"
    );
    println!("the buyer rejected the call. Every request left a row that says why.");
    Ok(())
}

/// The seed's three example requests about `ref_id`, then what senders do next.
fn shots(ref_id: &str) -> Vec<DemoRequest> {
    let form = |payout: &str| {
        format!("caller_id=%2B13055551234&duration=90&payout={payout}&ref_id={ref_id}")
    };
    let json =
        json!({ "caller_id": EXAMPLE_CALLER, "duration": 90, "payout": 50, "ref_id": ref_id })
            .to_string();
    let by_form = |what, payout: &str, expected| DemoRequest {
        what,
        method: "POST",
        content_type: "application/x-www-form-urlencoded",
        query: String::new(),
        body: form(payout),
        expected,
    };
    let repeated = ("duplicate", Some("same_payout_within_15m"), 5000, 3000);
    vec![
        DemoRequest {
            what: "$50, query string",
            method: "GET",
            content_type: "",
            query: form("50"),
            body: String::new(),
            expected: ("matched", None, 5000, 3000),
        },
        by_form("$50, form", "50", repeated),
        DemoRequest {
            what: "$50, JSON",
            method: "POST",
            content_type: "application/json",
            query: String::new(),
            body: json,
            expected: repeated,
        },
        by_form("a retry of it", "50", repeated),
        by_form(
            "a correction to $42.50",
            "42.50",
            ("matched", None, 4250, 2550),
        ),
        by_form("$0: the buyer rejected it", "0", ("matched", None, 0, 0)),
        DemoRequest {
            what: "an unknown caller",
            method: "GET",
            content_type: "",
            query: format!(
                "caller_id={}&duration=90&payout=50",
                UNKNOWN_CALLER.replace('+', "%2B")
            ),
            body: String::new(),
            expected: ("unmatched", Some("caller_not_found"), 0, 0),
        },
    ]
}

impl Scene<'_> {
    /// A call of its own for each run, so that every run shows the same.
    fn fresh_call(&self) -> Result<String> {
        let started = clock::ago(120 + EXAMPLE_SECONDS);
        record_calls(
            &self.api,
            &[json!({
                "ref_id": self.ref_id, "caller": EXAMPLE_CALLER, "tracking_number": "+18885550100",
                "duration_seconds": EXAMPLE_SECONDS, "started_at": started,
                "buyer_id": text(self.account, "buyer_id")?, "assignment_id": text(self.account, "assignment_id")?,
            })],
        )?;
        let found = self.api.get(&format!("/calls?ref_id={}", self.ref_id))?;
        let call = found
            .get("data")
            .and_then(|data| data.get(0))
            .context("the call was recorded, and is not found")?;
        text(call, "id")
    }

    fn balance(&self) -> Result<i64> {
        let publisher = self.api.get(&format!("/publishers/{}", self.publisher))?;
        publisher
            .get("pending_balance_cents")
            .and_then(Value::as_i64)
            .context("a publisher has a balance")
    }

    #[allow(
        clippy::type_complexity,
        reason = "a line of the table, and the same in values"
    )]
    fn fire(
        &self,
        shot: &DemoRequest,
        call: &str,
    ) -> Result<(Vec<String>, (String, Option<String>, i64, i64))> {
        let webhook = part(self.account, "open")?;
        let answer = self.send(&text(webhook, "token")?, shot, None)?;
        let said = short(&answer);
        if answer.status != 200 {
            bail!(
                "{}: the door answers {} {}",
                shot.what,
                answer.status,
                answer.text()
            );
        }
        let row = wait_for_row(&self.api, &text(&answer.json()?, "event_id")?)?;
        let call = self.api.get(&format!("/calls/{call}"))?;
        let value = call.get("value_cents").and_then(Value::as_i64).unwrap_or(0);
        let balance = self.balance()?;
        let status = text(&row, "status")?;
        let reason = row.get("reason").and_then(Value::as_str).map(str::to_owned);
        let unqualified = call.get("qualified").and_then(Value::as_bool) == Some(false);
        let shown_value = format!(
            "{}{}",
            money(value),
            if unqualified { " unqualified" } else { "" }
        );
        let line = vec![
            shot.what.to_owned(),
            said,
            status.clone(),
            reason.clone().unwrap_or_default(),
            shown_value,
            money(balance),
        ];
        Ok((line, (status, reason, value, balance)))
    }

    fn wrong_secret(&self) -> Result<Vec<String>> {
        let webhook = part(self.account, "closed")?;
        let shot = shots(&self.ref_id).remove(0);
        let answer = self.send(&text(webhook, "token")?, &shot, Some("not-the-secret"))?;
        if answer.status != 401 {
            bail!(
                "a wrong secret is answered {} {}",
                answer.status,
                answer.text()
            );
        }
        let path = format!(
            "/webhooks/{}/events?status=refused&limit=5&since={}",
            text(webhook, "id")?,
            self.began
        );
        let mut found = None;
        process::wait(Duration::from_secs(30), || {
            found = self
                .api
                .get(&path)
                .ok()
                .and_then(|list| list.get("data")?.get(0).cloned());
            found.is_some()
        });
        let row = found.context("the refusal's row does not show")?;
        let reason = text(&row, "reason")?;
        if reason != "secret_mismatch" {
            bail!("the refusal's row says {reason}");
        }
        Ok(vec![
            "a wrong secret".into(),
            short(&answer),
            text(&row, "status")?,
            reason,
            String::new(),
            money(self.balance()?),
        ])
    }

    /// Sends, and if the door says "later", does as it says.
    fn send(&self, token: &str, shot: &DemoRequest, secret: Option<&str>) -> Result<Answer> {
        let query = if shot.query.is_empty() {
            String::new()
        } else {
            format!("?{}", shot.query)
        };
        let url = format!("{}{query}", door(&self.gateway, token));
        let mut headers = Vec::new();
        if !shot.content_type.is_empty() {
            headers.push(("Content-Type", shot.content_type));
        }
        if let Some(secret) = secret {
            headers.push(("X-Webhook-Secret", secret));
        }
        loop {
            let request = Request {
                method: shot.method,
                url: &url,
                headers: &headers,
                body: shot.body.as_bytes(),
            };
            let answer = http::send(&request)?;
            if answer.status != 429 {
                return Ok(answer);
            }
            let seconds: u64 = answer
                .header("Retry-After")
                .and_then(|s| s.parse().ok())
                .unwrap_or(1);
            step(
                &format!("over the limit of a minute; waiting {seconds} s as told"),
                |_| {
                    std::thread::sleep(Duration::from_secs(seconds));
                    Ok(())
                },
            )?;
        }
    }
}

fn short(answer: &Answer) -> String {
    let body = answer.text();
    let what = if body.contains("\"ok\":true") {
        "ok"
    } else {
        "not ok"
    };
    format!("{} {what}", answer.status)
}

fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| {
        rows.iter()
            .filter_map(|row| row.get(i))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (n, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            // The last two are money: aligned to the right.
            .map(|(i, (cell, width))| {
                if i + 2 >= columns {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        println!("{}", cells.join("  ").trim_end());
        if n == 0 {
            println!(
                "{}",
                widths
                    .iter()
                    .map(|w| "-".repeat(*w))
                    .collect::<Vec<_>>()
                    .join("  ")
            );
        }
    }
}
