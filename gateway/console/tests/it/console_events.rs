//! Recent events, persons' actions, samples, and the revenue report, over reports settled for real.

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use trueup_domain::batch_decision::SettleJob;
use trueup_event::ids;
use trueup_event::raw_event::{RawEvent, RawRequest, Refusal};
use trueup_settlement::{bulk_replay, settle_batch};
use trueup_store::{Pool, PoolSettings, TransactionName, run_tx};
use uuid::Uuid;

use crate::console::{Console, Key, id};

/// An account with a webhook and a rev-share publisher, and reports that come in without a gateway.
pub struct Scene {
    pub console: Console,
    pub key: Key,
    pub account: Uuid,
    pub webhook: String,
    pub assignment: String,
    pub publisher: String,
    pool: Pool,
}

impl Scene {
    /// An account in which nothing has been made.
    pub async fn empty() -> Scene {
        let console = Console::start().await;
        let key = console.account().await;
        let account = id(&key.get("/api/v1/account").await.ok())
            .parse()
            .expect("an id");
        let pool = Pool::new(
            &console.database.url,
            &PoolSettings::for_application("test", 2),
        )
        .expect("a pool");
        Scene {
            console,
            key,
            account,
            webhook: String::new(),
            assignment: String::new(),
            publisher: String::new(),
            pool,
        }
    }

    pub async fn set() -> Scene {
        let scene = Scene::empty().await;
        let key = &scene.key;
        let webhook = id(&key
            .post("/api/v1/webhooks", json!({ "name": "Ringba" }))
            .await
            .created());
        let (assignment, publisher) = key
            .assignment(json!({ "kind": "rev_share", "percent": "60" }))
            .await;
        Scene {
            webhook,
            assignment,
            publisher,
            ..scene
        }
    }

    /// Records a call that ended a minute ago.
    pub async fn call(&self, fields: Value) -> String {
        let started = Timestamp::now().checked_sub(150.seconds()).expect("a time");
        let mut call = json!({ "id": Uuid::now_v7(), "caller": "+13055551234", "duration_seconds": 90,
            "started_at": started.to_string(), "assignment_id": self.assignment });
        let (Value::Object(all), Value::Object(fields)) = (&mut call, fields) else {
            unreachable!("objects")
        };
        all.extend(fields);
        let said = self.key.post("/api/v1/calls", json!(call)).await.ok();
        assert_eq!(said["errors"], json!([]));
        id(&call)
    }

    /// A report comes in and is settled; gives the event's id.
    pub async fn report(&self, query: &str) -> String {
        self.report_to(&self.webhook, query).await
    }

    pub async fn report_to(&self, webhook: &str, query: &str) -> String {
        self.settle(webhook, Some(query), None, Timestamp::now())
            .await
    }

    /// One that came so many hours ago.
    pub async fn report_before(&self, hours: i64, query: &str) -> String {
        let received_at = Timestamp::now().checked_sub(hours.hours()).expect("a time");
        self.settle(&self.webhook, Some(query), None, received_at)
            .await
    }

    /// Requests that the door refused; gives the row's id. What was sent is kept of one to a paused webhook.
    pub async fn refuse(&self, query: Option<&str>, refusal: Refusal) -> String {
        self.settle(&self.webhook, query, Some(refusal), Timestamp::now())
            .await
    }

    async fn settle(
        &self,
        webhook: &str,
        query: Option<&str>,
        refusal: Option<Refusal>,
        received_at: Timestamp,
    ) -> String {
        let received_at = ids::to_microseconds(received_at);
        let mut random = [0; 10];
        rand::fill(&mut random);
        let request = query.map(|query| RawRequest {
            method: "GET".to_owned(),
            query: query.into(),
            ..RawRequest::default()
        });
        let event = RawEvent {
            id: ids::event_id(received_at, &random),
            received_at,
            account_id: self.account,
            webhook_id: webhook.parse().expect("an id"),
            position: 0,
            source_ip: "203.0.113.7".parse().expect("an address"),
            request,
            refusal,
        };
        let event_id = event.id.to_string();
        run_tx(&self.pool, TransactionName::Other, move |tx| {
            let event = event.clone();
            Box::pin(async move { settle_batch(tx, vec![SettleJob::Fresh(event)]).await })
        })
        .await
        .expect("settles");
        event_id
    }

    /// What a worker does of the replays that were begun.
    pub async fn work_off_replays(&self) {
        while bulk_replay::replay_piece(&self.pool)
            .await
            .expect("replays")
        {}
    }

    pub async fn event(&self, event: &str) -> Value {
        self.key.get(&format!("/api/v1/events/{event}")).await.ok()
    }

    async fn rows(&self, query: &str) -> Vec<Value> {
        let page = self
            .key
            .get(&format!("/api/v1/webhooks/{}/events?{query}", self.webhook))
            .await
            .ok();
        page["data"].as_array().expect("rows").clone()
    }

    pub async fn balance(&self) -> i64 {
        let shown = self
            .key
            .get(&format!("/api/v1/publishers/{}", self.publisher))
            .await
            .ok();
        shown["pending_balance_cents"].as_i64().expect("cents")
    }

    pub async fn act(&self, event: &str, action: &str, body: Value) -> crate::console::Said {
        self.key
            .post(&format!("/api/v1/events/{event}/{action}"), body)
            .await
    }

    pub async fn count(&self, table: &str) -> i64 {
        let client = self.console.database.client().await;
        client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await
            .expect("counts")
            .get(0)
    }
}

#[tokio::test]
async fn an_event_tells_what_came_how_it_was_read_and_what_it_moved() {
    let scene = Scene::set().await;
    let call = scene
        .call(json!({ "ref_id": "abc123", "tracking_number": "+18005550100" }))
        .await;
    let event = scene
        .report("caller_id=%2B13055551234&duration=90&payout=%2450.00&ref_id=abc123")
        .await;
    let shown = scene.event(&event).await;
    for (name, value) in [
        ("id", json!(event)),
        ("webhook_id", json!(scene.webhook)),
        ("source_ip", json!("203.0.113.7")),
        ("caller", json!("+13055551234")),
        ("duration_seconds", json!(90)),
        ("ref_id", json!("abc123")),
        ("call_id", Value::Null),
        ("payout_raw", json!("$50.00")),
        ("payout_cents", json!(5000)),
        ("status", json!("matched")),
        ("reason", Value::Null),
        ("strategy", json!("ref_id")),
        (
            "matched_call",
            json!({ "id": call, "caller": "+13055551234", "tracking_number": "+18005550100" }),
        ),
        ("revenue_delta_cents", json!(5000)),
        ("credit_delta_cents", json!(3000)),
        ("count", json!(1)),
        ("actions", json!([])),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    assert!(shown["processed_at"].is_string() && shown["received_at"].is_string());
    assert!(
        shown["reason_text"]
            .as_str()
            .is_some_and(|t| t.contains("$50.00") && t.contains("$30.00")),
        "{shown}"
    );
    assert_eq!(shown["request"]["method"], "GET");
    assert_eq!(
        shown["request"]["query"],
        "caller_id=%2B13055551234&duration=90&payout=%2450.00&ref_id=abc123"
    );
    let payout = shown["reading"]
        .as_array()
        .expect("slots")
        .iter()
        .find(|s| s["slot"] == "payout")
        .expect("read");
    assert_eq!(
        [&payout["name"], &payout["raw"]],
        [&json!("payout"), &json!("$50.00")]
    );
    assert_eq!(shown["postings"][0]["credit_delta_cents"], 3000);
    assert_eq!(
        shown["postings"][0]["balance_after_cents"],
        scene.balance().await
    );

    let shown = scene.key.get(&format!("/api/v1/calls/{call}")).await.ok();
    assert_eq!(
        [&shown["value_cents"], &shown["value_from_webhook"]],
        [&json!(5000), &json!(true)]
    );
    assert_eq!(shown["reported_by_webhook_id"], json!(scene.webhook));
    let report = &shown["reports"][0];
    assert_eq!(
        [&report["event_id"], &report["status"], &report["role"]],
        [&json!(event), &json!("matched"), &json!("folded")]
    );

    let list = scene.key.get("/api/v1/webhooks").await.ok();
    assert!(list["data"][0]["last_event_at"].is_string());
    scene
        .key
        .get(&format!("/api/v1/events/{}", Uuid::now_v7()))
        .await
        .problem(404, None);
    scene
        .key
        .get(&format!("/api/v1/events/{}", Uuid::new_v4()))
        .await
        .problem(404, None);
}

#[tokio::test]
async fn recent_events_are_filtered_searched_and_cut_by_cursor() {
    let scene = Scene::set().await;
    scene.call(json!({ "ref_id": "abc" })).await;
    let matched = scene.report("ref_id=abc&payout=50").await;
    let repeated = scene.report("ref_id=abc&payout=50").await;
    let unmatched = scene.report("ref_id=Zebra_7&payout=12").await;
    let nothing = scene.report("hello=world").await;
    let all = [&nothing, &unmatched, &repeated, &matched].map(Clone::clone);
    let ids = async |query: &str| scene.rows(query).await.iter().map(id).collect::<Vec<_>>();
    assert_eq!(ids("").await, all, "newest first");
    assert_eq!(
        ids("status=duplicate").await,
        std::slice::from_ref(&repeated)
    );
    assert_eq!(
        ids("status=matched,duplicate").await,
        [repeated.clone(), matched.clone()]
    );
    assert_eq!(
        ids("reason=ref_id_not_found").await,
        std::slice::from_ref(&unmatched)
    );
    assert_eq!(
        ids("reason=nothing_to_match&status=matched").await,
        [] as [String; 0]
    );
    assert_eq!(ids("q=zebra").await, std::slice::from_ref(&unmatched));
    assert_eq!(
        ids(&format!("q={matched}")).await,
        std::slice::from_ref(&matched)
    );
    let since = scene.event(&unmatched).await["received_at"]
        .as_str()
        .expect("a time")
        .to_owned();
    assert_eq!(ids(&format!("since={since}")).await, all[..2]);
    assert_eq!(ids(&format!("until={since}")).await, all[2..]);
    for (query, field) in [
        ("status=matchd", "status"),
        ("reason=because", "reason"),
        ("since=x", "since"),
        ("sinc=x", "sinc"),
    ] {
        let path = format!("/api/v1/webhooks/{}/events?{query}", scene.webhook);
        scene.key.get(&path).await.problem(422, Some(field));
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/webhooks/{}/events?limit=1{cursor}", scene.webhook);
        let page = scene.key.get(&path).await.ok();
        seen.extend(page["data"].as_array().expect("rows").iter().map(id));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, all);
    let rows = scene.rows("status=unmatched").await;
    assert!(
        rows.iter()
            .all(|row| row["matched_call"] == Value::Null && row["credit_delta_cents"] == 0)
    );
    assert!(rows.iter().all(|row| {
        row["reason_text"]
            .as_str()
            .is_some_and(|text| text.len() > 20)
    }));
}

#[tokio::test]
async fn m8_a_person_assigns_applies_and_ignores_and_each_is_told_with_its_doer() {
    let scene = Scene::set().await;
    let call = scene.call(json!({})).await;
    let lost = scene.report("ref_id=unknown&payout=40").await;
    scene
        .act(&lost, "assign", json!({}))
        .await
        .problem(422, Some("call_id"));
    scene
        .act(&lost, "assign", json!({ "call_id": Uuid::now_v7() }))
        .await
        .problem(422, Some("call_id"));
    scene
        .act(&lost, "apply", json!({}))
        .await
        .problem(409, None);
    let assigned = scene
        .act(&lost, "assign", json!({ "call_id": call }))
        .await
        .ok();
    assert_eq!(
        [&assigned["status"], &assigned["strategy"]],
        [&json!("matched"), &json!("person")]
    );
    assert_eq!(assigned["matched_call"]["id"], json!(call));
    assert_eq!(scene.balance().await, 2400);
    for action in ["assign", "replay"] {
        scene
            .act(
                &lost,
                action,
                if action == "assign" {
                    json!({ "call_id": call })
                } else {
                    json!({})
                },
            )
            .await
            .problem(409, None);
    }

    scene
        .act(&lost, "apply", json!({ "payout_cents": -1 }))
        .await
        .problem(422, Some("payout_cents"));
    scene
        .act(&lost, "apply", json!({ "payout_cent": 1 }))
        .await
        .problem(422, Some("payout_cent"));
    let applied = scene
        .act(&lost, "apply", json!({ "payout_cents": 1000 }))
        .await
        .ok();
    assert_eq!(
        [&applied["applied_from"], &applied["payout_cents"]],
        [&json!(lost), &json!(1000)]
    );
    assert_eq!(applied["postings"][0]["kind"], "apply");
    assert_eq!(scene.balance().await, 600);

    scene
        .act(&lost, "ignore", json!({}))
        .await
        .problem(409, None);
    let undone = scene.act(&lost, "undo", json!({})).await.ok();
    assert_eq!(undone["id"], json!(lost));
    assert_eq!(scene.balance().await, 2400, "the apply is taken back");
    let undone = scene.act(&lost, "undo", json!({})).await.ok();
    assert_eq!(
        [&undone["status"], &undone["reason"]],
        [&json!("unmatched"), &json!("ref_id_not_found")]
    );
    assert_eq!(scene.balance().await, 0, "the assign is taken back");
    scene.act(&lost, "undo", json!({})).await.problem(409, None);
    let ignored = scene.act(&lost, "ignore", json!({})).await.ok();
    assert!(ignored["ignored_at"].is_string());
    let repeat = scene.report("ref_id=unknown&payout=40").await;
    let repeat = scene.event(&repeat).await;
    assert_eq!(
        [
            &repeat["status"],
            &repeat["reason"],
            &repeat["other_event_id"]
        ],
        [
            &json!("duplicate"),
            &json!("repeat_of_open_report"),
            &json!(lost)
        ]
    );
    let open = scene.act(&lost, "unignore", json!({})).await.ok();
    assert!(open["ignored_at"].is_null());
    let done: Vec<&str> = open["actions"]
        .as_array()
        .expect("history")
        .iter()
        .map(|a| a["action"].as_str().expect("text"))
        .collect();
    assert_eq!(
        done,
        ["assign", "apply", "undo", "undo", "ignore", "unignore"]
    );
    let actor = open["actions"][0]["actor"].as_str().expect("who");
    assert_eq!(open["decided_by"], json!(actor));
    assert!(
        open["postings"]
            .as_array()
            .is_some_and(|p| p.iter().all(|p| p["actor"] == json!(actor))),
        "{}",
        open["postings"]
    );
    assert!(
        scene
            .key
            .key
            .starts_with(actor.strip_prefix("key:").expect("a key"))
    );
    assert_eq!(open["actions"][0]["detail"]["call_id"], json!(call));
    let audit = scene.key.get("/api/v1/audit-log?limit=50").await.ok();
    let entries = audit["data"].as_array().expect("entries");
    let applied = entries
        .iter()
        .find(|entry| entry["action"] == "apply" && entry["object_id"] == json!(lost))
        .expect("the apply is in the audit log");
    assert_eq!(
        [
            &applied["detail"]["value_before_cents"],
            &applied["detail"]["value_after_cents"]
        ],
        [&json!(4000), &json!(1000)]
    );
    scene
        .act(&Uuid::now_v7().to_string(), "replay", json!({}))
        .await
        .problem(404, None);
}

#[tokio::test]
async fn m8_a_replay_runs_the_rules_again_as_they_stand_now() {
    let scene = Scene::set().await;
    let call = scene.call(json!({})).await;
    let event = scene
        .report("my_caller=%2B13055551234&my_length=90&payout=40")
        .await;
    assert_eq!(scene.event(&event).await["status"], "unmatched");
    let names = json!({ "field_names": { "caller": "my_caller", "duration": "my_length" } });
    scene
        .key
        .patch(&format!("/api/v1/webhooks/{}", scene.webhook), names)
        .await
        .ok();
    let replayed = scene.act(&event, "replay", json!({})).await.ok();
    assert_eq!(
        [&replayed["status"], &replayed["matched_call"]["id"]],
        [&json!("matched"), &json!(call)]
    );
    assert_eq!(replayed["actions"][0]["action"], "replay");
    assert_eq!(scene.balance().await, 2400);
}

#[tokio::test]
async fn x1b_an_event_tells_how_its_request_had_to_be_read_and_keeps_it_when_decided_again() {
    let scene = Scene::set().await;
    let mended = "payload=%7B'ref_id':'late1','payout':50,%7D";
    let event = scene.report(mended).await;
    let notes = json!(["mended", "trailing_comma", "single_quotes", "json_in_field"]);
    let shown = scene.event(&event).await;
    assert_eq!(shown["status"], "unmatched");
    assert_eq!(shown["reading_notes"], notes);
    let told = shown["reason_text"].as_str().expect("a text");
    assert!(told.contains("a trailing comma was dropped"), "{told}");
    assert!(told.contains("JSON inside a form field"), "{told}");

    scene.call(json!({ "ref_id": "late1" })).await;
    scene.act(&event, "replay", json!({})).await.ok();
    let shown = scene.event(&event).await;
    assert_eq!(shown["status"], "matched");
    assert_eq!(shown["reading_notes"], notes);

    let path = format!("/api/v1/webhooks/{}/try", scene.webhook);
    let sample = json!({ "method": "POST", "content_type": "text/xml",
        "body": "<call><ref_id>late1</ref_id><payout>50</payout></call>" });
    let tried = scene.key.post(&path, sample).await.ok();
    assert_eq!(tried["reading_notes"], json!(["xml"]));
    assert_eq!(tried["ref_id"], "late1");
    assert!(
        tried["reason_text"]
            .as_str()
            .is_some_and(|t| t.contains("it was XML"))
    );
}

#[tokio::test]
async fn m1_a_displaced_row_keeps_how_it_was_read() {
    let scene = Scene::set().await;
    scene.call(json!({ "ref_id": "own1" })).await;
    let guessed = scene
        .report("caller_id=%2B13055551234;duration=90;payout=40")
        .await;
    assert_eq!(scene.event(&guessed).await["status"], "matched");
    scene.report("ref_id=own1&payout=50").await;
    let shown = scene.event(&guessed).await;
    assert_eq!(
        [&shown["status"], &shown["reason"]],
        [&json!("held"), &json!("replaced_heuristic_match")]
    );
    assert_eq!(shown["reading_notes"], json!(["semicolons"]));
}

#[tokio::test]
async fn a_sample_is_read_and_matched_and_nothing_is_stored() {
    let scene = Scene::set().await;
    let call = scene.call(json!({ "ref_id": "abc" })).await;
    let path = format!("/api/v1/webhooks/{}/try", scene.webhook);
    let before = [
        scene.count("events").await,
        scene.count("postings").await,
        scene.count("call_reports").await,
    ];
    let form = json!({ "method": "POST", "query": "?ref_id=abc", "content_type": "application/x-www-form-urlencoded",
        "body": "payout=%2412.50&duration=01:30" });
    let tried = scene.key.post(&path, form).await.ok();
    assert_eq!(
        [&tried["status"], &tried["strategy"], &tried["elements"]],
        [&json!("matched"), &json!("ref_id"), &json!([])]
    );
    assert_eq!(tried["matched_call"]["id"], json!(call));
    assert_eq!(
        [&tried["payout_cents"], &tried["credit_delta_cents"]],
        [&json!(1250), &json!(750)]
    );
    assert_eq!(tried["duration_seconds"], 90);
    let ref_id = tried["reading"]
        .as_array()
        .expect("slots")
        .iter()
        .find(|s| s["slot"] == "ref_id")
        .expect("read");
    assert_eq!(ref_id["raw"], "abc");
    assert!(
        tried["reason_text"]
            .as_str()
            .is_some_and(|t| t.contains("$12.50"))
    );

    let batch = json!({ "body": [{ "ref_id": "abc", "payout": 5 }, 7, { "ref_id": "unknown1", "payout": 5 }] });
    let tried = scene.key.post(&path, batch).await.ok();
    let seen: Vec<_> = tried["elements"]
        .as_array()
        .expect("each")
        .iter()
        .map(|e| e["reason"].clone())
        .collect();
    assert_eq!(
        seen,
        [
            Value::Null,
            json!("unparseable_element"),
            json!("ref_id_not_found")
        ]
    );
    let broken = scene
        .key
        .post(&path, json!({ "body": "{\"payout\":" }))
        .await
        .ok();
    assert_eq!(broken["reason"], "unparseable_body");
    scene
        .key
        .post(&path, json!({ "method": "TRACE" }))
        .await
        .problem(422, Some("method"));
    scene
        .key
        .post(&path, json!({ "body": "x".repeat(70_000) }))
        .await
        .problem(422, Some("body"));

    let after = [
        scene.count("events").await,
        scene.count("postings").await,
        scene.count("call_reports").await,
    ];
    assert_eq!(before, after, "nothing is stored");
    assert_eq!(scene.balance().await, 0, "no money moves");
}
