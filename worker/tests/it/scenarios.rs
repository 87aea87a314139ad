//! Scenarios from a table (`scenarios.jsonl`): calls, the reports that come in, the outcome of each,
//! the money at the end. Each runs in an account of its own, on one worker, through the broker.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use trueup_testkit::builders::{self, Webhook, WebhookSpec};
use trueup_testkit::eventually;
use uuid::Uuid;

use crate::harness::{CallSpec, Money, PATIENCE, Terms, World};

#[derive(Deserialize)]
struct Scenario {
    id: String,
    why: String,
    calls: Vec<Call>,
    events: Vec<Event>,
    expect: Vec<Expected>,
    #[serde(rename = "final")]
    money: BTreeMap<String, Final>,
    /// Set on every webhook of the scenario.
    #[serde(default)]
    webhook: Map<String, Value>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    ref_id: Option<String>,
    caller_e164: Option<String>,
    duration_seconds: i32,
    ended_at: Timestamp,
    publisher: Option<String>,
    terms: Option<Value>,
    buyer: Option<String>,
    /// Recorded only then; otherwise before the first report.
    inserted_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Event {
    received_at: Timestamp,
    webhook: String,
    ref_id: Option<String>,
    call_id: Option<String>,
    caller_e164: Option<String>,
    duration_seconds: Option<i64>,
    payout_cents: Option<i64>,
    /// Other fields of the body, as they are.
    #[serde(default)]
    fields: Map<String, Value>,
}

#[derive(Deserialize)]
struct Expected {
    status: String,
    call_id: Option<String>,
    strategy: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Final {
    value_cents: Option<i64>,
    publisher_credit_cents: i64,
    qualified: Option<bool>,
    value_from_webhook: bool,
}

/// What a scenario has put into its account so far.
#[derive(Default)]
struct Cast {
    calls: BTreeMap<String, Uuid>,
    webhooks: BTreeMap<String, Webhook>,
    buyers: BTreeMap<String, Uuid>,
    events: Vec<Uuid>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_ends_as_the_rules_say() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let mut wrong = Vec::new();
    for line in include_str!("scenarios.jsonl").lines() {
        let scenario: Scenario =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        world.next_account().await;
        if let Err(what) = play(&mut world, &scenario).await {
            wrong.push(format!("{} ({}): {what}", scenario.id, scenario.why));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.reconcile().await;
}

async fn play(world: &mut World, scenario: &Scenario) -> Result<(), String> {
    let mut cast = Cast::default();
    cast.calls.extend(
        scenario
            .calls
            .iter()
            .map(|c| (c.id.clone(), Uuid::new_v4())),
    );
    for call in scenario.calls.iter().filter(|c| c.inserted_at.is_none()) {
        record(world, &mut cast, call).await;
    }
    let mut later: Vec<&Call> = scenario
        .calls
        .iter()
        .filter(|c| c.inserted_at.is_some())
        .collect();
    later.sort_by_key(|c| c.inserted_at);
    let mut later = later.into_iter().peekable();
    for event in &scenario.events {
        while let Some(call) =
            later.next_if(|c| c.inserted_at.is_some_and(|at| at <= event.received_at))
        {
            record(world, &mut cast, call).await;
            settle_waiting(world).await;
        }
        send(world, &mut cast, scenario, event).await;
    }
    for call in later {
        record(world, &mut cast, call).await;
    }
    settle_waiting(world).await;
    for (n, expected) in scenario.expect.iter().enumerate() {
        let row = world.row(cast.events[n]).await;
        let call_id = expected.call_id.as_ref().map(|name| cast.calls[name]);
        let is = (
            row.status.as_str(),
            row.reason.as_deref(),
            row.strategy.as_deref(),
            row.call_id,
        );
        let should = (
            expected.status.as_str(),
            expected.reason.as_deref(),
            expected.strategy.as_deref(),
            call_id,
        );
        if is != should {
            return Err(format!(
                "event {n} is {is:?}, should be {should:?}; {}",
                row.detail
            ));
        }
    }
    for (name, expected) in &scenario.money {
        let is = world.money(cast.calls[name]).await;
        let should = Money {
            value: expected.value_cents,
            from_webhook: expected.value_from_webhook,
            qualified: expected.qualified,
            credit: expected.publisher_credit_cents,
        };
        if is != should {
            return Err(format!("{name} has {is:?}, should have {should:?}"));
        }
    }
    Ok(())
}

/// Until the worker has taken the notes of recorded calls and nothing is due.
async fn settle_waiting(world: &World) {
    eventually("no note, and no report that is due", PATIENCE, || async {
        let notes = world.count("call_recorded_outbox").await;
        let due = world
            .count("pending_reports WHERE next_try_at <= now()")
            .await;
        (notes + due == 0).then_some(())
    })
    .await;
}

fn leak(text: &str) -> &'static str {
    // A test's few names live as long as the test.
    Box::leak(text.to_owned().into_boxed_str())
}

async fn record(world: &mut World, cast: &mut Cast, call: &Call) {
    let terms = match &call.terms {
        Some(terms) if terms["kind"] == "flat" => {
            let cents = ["flat", "amount_cents", "cents"]
                .iter()
                .find_map(|key| terms[key].as_i64());
            Terms::Flat(cents.expect("an amount"))
        }
        // Basis points: percent × 10².
        Some(terms) => {
            Terms::Share(i32::try_from(terms["bps"].as_i64().expect("bps") * 100).expect("a share"))
        }
        None => Terms::Flat(0),
    };
    let buyer_id = match &call.buyer {
        Some(name) => Some(buyer(world, cast, name).await),
        None => None,
    };
    let spec = CallSpec {
        ref_id: call.ref_id.as_deref().map(leak),
        caller: call.caller_e164.as_deref().map(leak),
        duration: call.duration_seconds,
        ended_at: call.ended_at,
        publisher: call.publisher.as_deref().map(leak),
        terms,
        buyer_id,
    };
    world.call_as(cast.calls[&call.id], &spec).await;
}

async fn buyer(world: &World, cast: &mut Cast, name: &str) -> Uuid {
    if let Some(id) = cast.buyers.get(name) {
        return *id;
    }
    let id = builders::buyer(&world.client, world.account_id, name).await;
    cast.buyers.insert(name.to_owned(), id);
    id
}

async fn webhook(world: &World, cast: &mut Cast, scenario: &Scenario, name: &str) -> Webhook {
    if let Some(webhook) = cast.webhooks.get(name) {
        return webhook.clone();
    }
    let webhook = builders::webhook(&world.client, world.account_id, &WebhookSpec::open()).await;
    for (column, value) in &scenario.webhook {
        let value = match (column.as_str(), value) {
            ("buyer", Value::String(name)) => {
                format!("buyer_id = '{}'", buyer(world, cast, name).await)
            }
            (_, Value::String(text)) => format!("{column} = '{text}'"),
            (_, other) => format!("{column} = {other}"),
        };
        let update = format!("UPDATE webhooks SET {value} WHERE id = '{}'", webhook.id);
        world
            .client
            .batch_execute(&update)
            .await
            .expect("a setting");
    }
    cast.webhooks.insert(name.to_owned(), webhook.clone());
    webhook
}

async fn send(world: &World, cast: &mut Cast, scenario: &Scenario, event: &Event) {
    let mut body = event.fields.clone();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("ref_id", event.ref_id.as_ref().map(|v| json!(v)));
    let call_id = event
        .call_id
        .as_ref()
        .map(|name| cast.calls.get(name).map_or(name.clone(), Uuid::to_string));
    put("call_id", call_id.map(|v| json!(v)));
    put("caller_id", event.caller_e164.as_ref().map(|v| json!(v)));
    put("duration", event.duration_seconds.map(|v| json!(v)));
    let dollars = |cents: i64| {
        let sign = if cents < 0 { "-" } else { "" };
        format!(
            "{sign}{}.{:02}",
            cents.unsigned_abs() / 100,
            cents.unsigned_abs() % 100
        )
    };
    put(
        "payout",
        event.payout_cents.map(|cents| json!(dollars(cents))),
    );
    let webhook = webhook(world, cast, scenario, &event.webhook).await;
    let raw = world.event_of(&webhook, event.received_at, Value::Object(body));
    cast.events.push(raw.id);
    let id = raw.id;
    world.publish(vec![raw]).await;
    world.row(id).await;
}
