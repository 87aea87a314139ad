//! The revenue report: what is real and what is estimated, by the account's days.

use serde_json::{Value, json};

use crate::console::{Console, Key};
use crate::console_events::Scene;

#[tokio::test]
async fn the_revenue_report_keeps_real_and_estimated_apart() {
    let scene = Scene::set().await;
    let buyer = scene.key.named("buyers", "Bo").await;
    scene
        .call(
            json!({ "ref_id": "real", "buyer_id": buyer, "value_cents": 4000, "qualified": true }),
        )
        .await;
    scene
        .call(json!({ "value_cents": 1000, "qualified": true }))
        .await;
    scene.call(json!({ "value_cents": 9999 })).await;
    scene
        .call(json!({ "value_cents": 700, "qualified": true, "assignment_id": null }))
        .await;
    scene.report("ref_id=real&payout=50").await;
    let report = async |query: &str| {
        scene
            .key
            .get(&format!("/api/v1/reports/revenue?{query}"))
            .await
            .ok()
    };

    let by_day = report("").await;
    let totals = &by_day["totals"];
    for (name, value) in [
        ("calls", 4),
        ("reported_calls", 1),
        ("qualified_calls", 3),
        ("real_revenue_cents", 5000),
        ("estimated_revenue_cents", 1700),
        ("revenue_cents", 6700),
        ("real_credits_cents", 3000),
        ("estimated_credits_cents", 600),
        ("credits_cents", 3600),
        ("margin_cents", 3100),
    ] {
        assert_eq!(totals[name], value, "{name}");
    }
    assert_eq!(
        scene.balance().await,
        3600,
        "credits are what publishers are owed"
    );
    assert_eq!(
        [&by_day["group"], &by_day["currency"], &by_day["time_zone"]],
        ["day", "USD", "UTC"]
    );
    for (group, key, name, revenue) in [
        ("buyer", json!(buyer), json!("Bo"), 5000),
        ("publisher", json!(scene.publisher), json!("Ann"), 6000),
        ("webhook", json!(scene.webhook), json!("Ringba"), 5000),
    ] {
        let rows = report(&format!("group={group}")).await;
        assert_eq!(
            [&rows["data"][0]["key"], &rows["data"][0]["name"]],
            [&key, &name],
            "{group}"
        );
        assert_eq!(rows["data"][0]["revenue_cents"], revenue, "{group}");
        assert_eq!(
            rows["data"][1]["key"],
            Value::Null,
            "{group}: those that have none"
        );
        assert_eq!(&rows["totals"], totals, "{group}");
    }
    for (query, field) in [
        ("group=month", "group"),
        ("from=yesterday", "from"),
        ("from=2026-03-02&to=2026-03-01", "to"),
        ("from=1990-01-01&to=2026-03-01", "from"),
    ] {
        scene
            .key
            .get(&format!("/api/v1/reports/revenue?{query}"))
            .await
            .problem(422, Some(field));
    }
}

#[tokio::test]
async fn a_day_is_one_of_the_accounts_time_zone() {
    let console = Console::start().await;
    let body = json!({ "name": "NY", "time_zone": "America/New_York" });
    let made = console
        .admin()
        .post("/api/v1/accounts", body)
        .await
        .created();
    let key = Key {
        address: console.address,
        key: made["api_key"].as_str().expect("a key").to_owned(),
    };
    // 23:30 and 00:30 in New York, the night before its clocks go forward.
    let call = |at: &str| json!({ "caller": null, "duration_seconds": 1, "started_at": at, "value_cents": 100, "qualified": true });
    key.post(
        "/api/v1/calls",
        json!([call("2026-03-08T04:30:00Z"), call("2026-03-08T05:30:00Z")]),
    )
    .await
    .ok();
    let rows = key
        .get("/api/v1/reports/revenue?from=2026-03-07&to=2026-03-08")
        .await
        .ok();
    let days: Vec<_> = rows["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|r| r["key"].clone())
        .collect();
    assert_eq!(days, ["2026-03-07", "2026-03-08"]);
    assert_eq!(
        [&rows["from"], &rows["to"]],
        ["2026-03-07T05:00:00Z", "2026-03-09T04:00:00Z"]
    );
    let one = key
        .get("/api/v1/reports/revenue?from=2026-03-08&to=2026-03-08")
        .await
        .ok();
    assert_eq!(one["totals"]["calls"], 1, "a day as `to` is included whole");
}
