//! Recording calls, the estimates they post, and searching them.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::console::{Console, Key, id};

const START: &str = "2026-03-14T12:00:00Z";

fn call(fields: Value) -> Value {
    let mut call = json!({ "id": Uuid::now_v7(), "caller": "+13055551234", "duration_seconds": 90, "started_at": START });
    let (Value::Object(call_fields), Value::Object(fields)) = (&mut call, fields) else {
        unreachable!("objects")
    };
    call_fields.extend(fields);
    call
}

async fn record(key: &Key, body: Value) -> Value {
    key.post("/api/v1/calls", body).await.ok()
}

async fn recorded(key: &Key, body: Value) -> Value {
    let said = record(key, body.clone()).await;
    assert_eq!(said["errors"], json!([]), "{said}");
    key.get(&format!("/api/v1/calls/{}", id(&body))).await.ok()
}

async fn balance(key: &Key, publisher: &str) -> i64 {
    let shown = key
        .get(&format!("/api/v1/publishers/{publisher}"))
        .await
        .ok();
    shown["pending_balance_cents"].as_i64().expect("cents")
}

async fn ledger(key: &Key, publisher: &str) -> Vec<Value> {
    let page = key
        .get(&format!("/api/v1/publishers/{publisher}/ledger?limit=500"))
        .await
        .ok();
    page["data"].as_array().expect("rows").clone()
}

fn deltas(ledger: &[Value]) -> Vec<(i64, i64, i64)> {
    let cents = |posting: &Value, name: &str| posting[name].as_i64().expect("cents");
    let of = |p| {
        (
            cents(p, "revenue_delta_cents"),
            cents(p, "credit_delta_cents"),
            cents(p, "balance_after_cents"),
        )
    };
    ledger.iter().map(of).collect()
}

#[tokio::test]
async fn a_call_without_an_id_that_is_sent_twice_is_one_call() {
    let console = Console::start().await;
    let key = console.account().await;
    let (assignment, publisher) = key
        .assignment(json!({ "kind": "rev_share", "percent": "60" }))
        .await;
    let call = json!({ "ref_id": "abc124", "caller": "+13055551234", "duration_seconds": 90, "started_at": START,
        "assignment_id": assignment, "qualified": true, "value_cents": 5000 });
    let first = record(&key, call.clone()).await;
    let written_otherwise = json!({ "caller": "(305) 555-1234" });
    let mut again = call.clone();
    again["caller"] = written_otherwise["caller"].clone();
    let second = record(&key, again).await;
    assert_eq!(first["ids"], second["ids"]);
    let found = key.get("/api/v1/calls?ref_id=abc124").await.ok();
    assert_eq!(found["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(ledger(&key, &publisher).await.len(), 1, "one estimate");
    for (name, other) in [
        ("ref_id", json!("abc125")),
        ("caller", json!("+13055551235")),
        ("tracking_number", json!("+18005550100")),
        ("started_at", json!("2026-03-14T12:00:01Z")),
    ] {
        let mut different = call.clone();
        different[name] = other;
        assert_ne!(record(&key, different).await["ids"], first["ids"], "{name}");
    }
    let stranger = console.account().await;
    let mut theirs = call.clone();
    theirs["assignment_id"] = Value::Null;
    assert_ne!(record(&stranger, theirs).await["ids"], first["ids"]);
}

#[tokio::test]
async fn a_call_is_recorded_and_shown_with_its_defaults() {
    let console = Console::start().await;
    let key = console.account().await;
    let body = json!({ "caller": "(305) 555-1234", "duration_seconds": 90, "started_at": "2026-03-14T08:00:00-04:00" });
    let said = record(&key, body).await;
    assert_eq!(
        [&said["accepted"], &said["errors"]],
        [&json!(1), &json!([])]
    );
    let made = said["ids"][0].as_str().expect("an id").to_owned();
    assert_eq!(Uuid::parse_str(&made).expect("a UUID").get_version_num(), 5);
    let shown = key.get(&format!("/api/v1/calls/{made}")).await.ok();
    for (name, value) in [
        ("caller", json!("+13055551234")),
        ("caller_raw", json!("(305) 555-1234")),
        ("started_at", json!(START)),
        ("ended_at", json!("2026-03-14T12:01:30Z")),
        ("value_cents", Value::Null),
        ("qualified", Value::Null),
        ("value_from_webhook", json!(false)),
        ("publisher_payout_cents", json!(0)),
        ("reports", json!([])),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    for withheld in [
        Value::Null,
        json!("anonymous"),
        json!("+266696687"),
        json!(""),
    ] {
        let shown = recorded(&key, call(json!({ "caller": withheld }))).await;
        assert_eq!(shown["caller"], Value::Null, "{withheld}");
    }
    let v4 = call(json!({ "id": Uuid::new_v4(), "ref_id": " abc " }));
    assert_eq!(recorded(&key, v4).await["ref_id"], "abc");
}

#[tokio::test]
async fn one_bad_call_never_spoils_its_neighbours() {
    let console = Console::start().await;
    let key = console.account().await;
    let stranger = Uuid::now_v7();
    let calls = json!([
        call(json!({})),
        call(json!({ "duration_seconds": -1, "started_at": "yesterday" })),
        call(json!({ "value_cents": 12.5 })),
        call(json!({ "buyer_id": stranger })),
        call(json!({ "assignment_id": stranger })),
        call(json!({ "calller": "x" })),
        "nonsense",
        call(json!({ "ended_at": "2026-03-14T11:00:00Z" })),
        call(json!({ "id": "not-a-uuid" })),
        call(json!({ "caller": 13_055_551_234_i64 })),
        call(json!({})),
    ]);
    let said = record(&key, calls).await;
    assert_eq!(said["accepted"], 2);
    let told: Vec<_> = said["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|e| {
            (
                e["index"].as_u64().expect("an index"),
                e["field"].as_str().expect("a field"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "duration_seconds"),
            (1, "started_at"),
            (2, "value_cents"),
            (3, "buyer_id"),
            (4, "assignment_id"),
            (5, "calller"),
            (6, ""),
            (7, "ended_at"),
            (8, "id"),
            (9, "caller")
        ]
    );
    assert!(
        said["errors"][6]["message"]
            .as_str()
            .is_some_and(|m| m.contains("an object"))
    );
    assert!(said.to_string().contains("did you mean caller"));
    assert_eq!(
        [&said["ids"][1], &said["ids"][3]],
        [&Value::Null, &Value::Null]
    );
    assert_eq!(
        key.get("/api/v1/calls").await.ok()["data"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );

    let lines = format!("{}\n\n{{broken\n{}\n", call(json!({})), call(json!({})));
    let said = key
        .send("POST", "/api/v1/calls", lines.as_bytes())
        .await
        .ok();
    assert_eq!(
        [&said["accepted"], &said["errors"][0]["index"]],
        [&json!(2), &json!(1)]
    );
    key.send("POST", "/api/v1/calls", b"{\"caller\":")
        .await
        .problem(400, None);
    let said = record(&key, json!([])).await;
    assert_eq!(said["accepted"], 0);
}

#[tokio::test]
async fn v11_estimates_are_posted_and_a_changed_copy_posts_the_difference() {
    let console = Console::start().await;
    let key = console.account().await;
    let (share, ann) = key
        .assignment(json!({ "kind": "rev_share", "percent": "33.33" }))
        .await;
    let (flat, bob) = key
        .assignment(json!({ "kind": "flat", "amount_cents": 1800 }))
        .await;

    let one = call(json!({ "assignment_id": share, "value_cents": 5050, "qualified": true }));
    let shown = recorded(&key, one.clone()).await;
    assert_eq!(
        shown["publisher_payout_cents"], 1683,
        "33.33 % of 50.50, half up"
    );
    assert_eq!(
        shown["terms"],
        json!({ "kind": "rev_share", "percent": "33.33" })
    );
    recorded(&key, one.clone()).await;
    let mut changed = one.clone();
    changed["value_cents"] = json!(4000);
    assert_eq!(
        recorded(&key, changed).await["publisher_payout_cents"],
        1333
    );
    let postings = ledger(&key, &ann).await;
    assert_eq!(
        deltas(&postings),
        [(-1050, -350, 1333), (5050, 1683, 1683)],
        "newest first; an equal copy posts nothing"
    );
    assert_eq!(
        [&postings[0]["kind"], &postings[0]["event_id"]],
        [&json!("estimate"), &Value::Null]
    );
    assert_eq!(postings[0]["publisher_id"], json!(ann));
    assert_eq!(postings[0]["terms"]["percent"], "33.33");
    assert!(
        postings[0]["actor"]
            .as_str()
            .is_some_and(|a| a.starts_with("key:"))
    );

    recorded(
        &key,
        call(json!({ "assignment_id": flat, "qualified": true })),
    )
    .await;
    recorded(
        &key,
        call(json!({ "assignment_id": flat, "value_cents": 100 })),
    )
    .await;
    assert_eq!(
        deltas(&ledger(&key, &bob).await),
        [(0, 1800, 1800)],
        "flat needs no value; unqualified earns nothing"
    );

    let mut moved = one.clone();
    moved["assignment_id"] = json!(flat);
    // V9; a single call that is refused is no success.
    key.post("/api/v1/calls", moved.clone())
        .await
        .problem(422, Some("assignment_id"));
    let said = record(&key, json!([moved])).await;
    assert_eq!(
        [&said["accepted"], &said["errors"][0]["field"]],
        [&json!(0), &json!("assignment_id")],
        "V9"
    );
    let mut cleared = one;
    cleared["qualified"] = Value::Null;
    assert_eq!(recorded(&key, cleared).await["publisher_payout_cents"], 0);
    assert_eq!(
        [balance(&key, &ann).await, balance(&key, &bob).await],
        [0, 1800]
    );
}

#[tokio::test]
async fn a_later_copy_never_undoes_what_a_webhook_reported() {
    let console = Console::start().await;
    let key = console.account().await;
    let (share, ann) = key
        .assignment(json!({ "kind": "rev_share", "percent": "60" }))
        .await;
    let first = call(
        json!({ "assignment_id": share, "value_cents": 5000, "qualified": true, "ref_id": "a" }),
    );
    recorded(&key, first.clone()).await;
    // As a report would leave it.
    let client = console.database.client().await;
    client
        .execute(
            "UPDATE calls SET value_from_webhook = true, value_cents = 0, qualified = false",
            &[],
        )
        .await
        .expect("a report");
    let mut later = first;
    later["value_cents"] = json!(9000);
    later["ref_id"] = json!("b");
    let shown = recorded(&key, later).await;
    assert_eq!(
        [&shown["value_cents"], &shown["qualified"]],
        [&json!(0), &json!(false)]
    );
    assert_eq!(
        [&shown["ref_id"], &shown["estimate_value_cents"]],
        [&json!("b"), &json!(5000)]
    );
    assert_eq!(ledger(&key, &ann).await.len(), 1);
}

#[tokio::test]
async fn m7_each_recorded_call_leaves_a_note() {
    let console = Console::start().await;
    let key = console.account().await;
    let one = call(json!({ "ref_id": "a" }));
    record(
        &key,
        json!([
            one,
            call(json!({ "caller": null })),
            call(json!({ "duration_seconds": "x" }))
        ]),
    )
    .await;
    recorded(&key, one.clone()).await;
    let client = console.database.client().await;
    let notes = client
        .query(
            "SELECT ref_id, caller FROM call_recorded_outbox ORDER BY id",
            &[],
        )
        .await
        .expect("notes");
    let notes: HashSet<(Option<String>, Option<String>)> =
        notes.iter().map(|n| (n.get(0), n.get(1))).collect();
    let caller = Some("+13055551234".to_owned());
    assert_eq!(
        notes,
        HashSet::from([(Some("a".to_owned()), caller), (None, None)])
    );
}

#[tokio::test]
async fn calls_are_found_by_caller_in_any_form_by_ref_id_and_by_time() {
    let console = Console::start().await;
    let key = console.account().await;
    let mut made = Vec::new();
    for n in 0..5 {
        let at = format!("2026-03-14T12:0{n}:00Z");
        made.push(call(
            json!({ "started_at": at, "ref_id": format!("r{}", n % 2), "caller": format!("+1305555000{}", n % 3) }),
        ));
    }
    record(&key, json!(made)).await;
    let find = async |query: &str| -> Vec<usize> {
        let page = key.get(&format!("/api/v1/calls?{query}")).await.ok();
        let rows = page["data"].as_array().expect("rows").clone();
        rows.iter()
            .map(|row| {
                made.iter()
                    .position(|m| m["id"] == row["id"])
                    .expect("one of ours")
            })
            .collect()
    };
    assert_eq!(find("").await, [4, 3, 2, 1, 0]);
    assert_eq!(find("caller=305-555-0001").await, [4, 1]);
    assert_eq!(find("caller=%2B13055550001&ref_id=r1").await, [1]);
    assert_eq!(
        find("caller=+13055550001").await,
        [4, 1],
        "an unescaped plus"
    );
    assert_eq!(find("ref_id=r0").await, [4, 2, 0]);
    assert_eq!(
        find("from=2026-03-14T12:01:00Z&to=2026-03-14T12:03:00Z").await,
        [2, 1]
    );
    assert_eq!(find("ref_id=none").await, [] as [usize; 0]);
    key.get("/api/v1/calls?caller=abc")
        .await
        .problem(422, Some("caller"));
    key.get("/api/v1/calls?calller=1")
        .await
        .problem(422, Some("calller"));

    for filter in ["", "&ref_id=r0", "&caller=3055550001"] {
        let (mut seen, mut path) = (Vec::new(), format!("/api/v1/calls?limit=1{filter}"));
        loop {
            let page = key.get(&path).await.ok();
            seen.extend(page["data"].as_array().expect("rows").iter().map(id));
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/api/v1/calls?limit=1{filter}&cursor={cursor}");
        }
        let all = key
            .get(&format!("/api/v1/calls?limit=500{filter}"))
            .await
            .ok();
        assert_eq!(
            seen,
            all["data"]
                .as_array()
                .expect("rows")
                .iter()
                .map(id)
                .collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn ten_thousand_calls_in_one_request_and_no_more() {
    let console = Console::start().await;
    let key = console.account().await;
    let (flat, bob) = key
        .assignment(json!({ "kind": "flat", "amount_cents": 3 }))
        .await;
    let calls: Vec<Value> = (0..10_000)
        .map(|_| call(json!({ "assignment_id": flat, "qualified": true })))
        .collect();
    let said = record(&key, json!(calls)).await;
    assert_eq!(said["accepted"], 10_000);
    assert_eq!(balance(&key, &bob).await, 30_000);
    let mut too_many = calls;
    too_many.push(call(json!({})));
    key.post("/api/v1/calls", json!(too_many))
        .await
        .problem(413, None);
}

/// The same calls recorded at once by many, whole and in part and in any order, in each other's way: the
/// books come out as if one had recorded them.
#[tokio::test]
async fn recording_at_once_neither_deadlocks_nor_counts_twice() {
    let console = Console::start().await;
    let key = console.account().await;
    let (share, ann) = key
        .assignment(json!({ "kind": "rev_share", "percent": "50" }))
        .await;
    let (flat, bob) = key
        .assignment(json!({ "kind": "flat", "amount_cents": 7 }))
        .await;
    let calls: Vec<Value> = (0..60)
        .map(|n| {
            let assignment = if n % 2 == 0 { &share } else { &flat };
            call(json!({ "assignment_id": assignment, "qualified": true, "value_cents": 100 }))
        })
        .collect();
    let mut tasks = Vec::new();
    for n in 0..12 {
        let (key, mut mine) = (key.clone(), calls.clone());
        mine.rotate_left(n * 5);
        if n % 2 == 1 {
            mine.reverse();
        }
        // Some say one thing first and another later in one request: the last word counts.
        let mut before = mine[0].clone();
        before["value_cents"] = json!(900);
        mine.insert(0, before);
        tasks.push(tokio::spawn(async move { record(&key, json!(mine)).await }));
    }
    for task in tasks {
        let said = task.await.expect("no panic");
        assert_eq!(
            [&said["accepted"], &said["errors"]],
            [&json!(61), &json!([])]
        );
    }
    assert_eq!(
        [balance(&key, &ann).await, balance(&key, &bob).await],
        [30 * 50, 30 * 7]
    );
    for publisher in [&ann, &bob] {
        let mut running = 0;
        for (_, credit, after) in deltas(&ledger(&key, publisher).await).into_iter().rev() {
            running += credit;
            assert_eq!(after, running, "balance_after runs through the ledger");
        }
        assert_eq!(running, balance(&key, publisher).await);
    }
    let client = console.database.client().await;
    let sums = client
        .query_one(
            "SELECT (SELECT sum(revenue_delta_cents) FROM postings)::bigint, (SELECT sum(value_cents) FROM calls)::bigint",
            &[],
        )
        .await
        .expect("sums");
    assert_eq!((sums.get::<_, i64>(0), sums.get::<_, i64>(1)), (6000, 6000));
}

#[tokio::test]
async fn the_ledger_is_cut_by_cursor() {
    let console = Console::start().await;
    let key = console.account().await;
    let (flat, bob) = key
        .assignment(json!({ "kind": "flat", "amount_cents": 5 }))
        .await;
    let calls: Vec<Value> = (0..5)
        .map(|_| call(json!({ "assignment_id": flat, "qualified": true })))
        .collect();
    record(&key, json!(calls)).await;
    let first = key
        .get(&format!("/api/v1/publishers/{bob}/ledger?limit=3"))
        .await
        .ok();
    let cursor = first["next_cursor"].as_str().expect("more");
    let rest = key
        .get(&format!(
            "/api/v1/publishers/{bob}/ledger?limit=3&cursor={cursor}"
        ))
        .await
        .ok();
    let balances: Vec<_> = [&first, &rest]
        .iter()
        .flat_map(|p| {
            p["data"]
                .as_array()
                .expect("rows")
                .iter()
                .map(|r| r["balance_after_cents"].clone())
        })
        .collect();
    assert_eq!(balances, [25, 20, 15, 10, 5]);
    assert_eq!(rest["next_cursor"], Value::Null);
}
