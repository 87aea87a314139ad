//! The inbox asks an index that holds open rows alone: however many rows there are, it reads no others.

use serde_json::Value;
use trueup_store::open_events::{COUNT, COUNT_ALL, PAGE};
use trueup_testkit::database::TestDatabase;

/// Every scan of a partition of the events: what it is, and the index that it goes by.
fn scans<'a>(node: &'a Value, found: &mut Vec<(&'a str, &'a str)>) {
    let text = |name: &str| node[name].as_str();
    if let (Some(kind), Some(table)) = (text("Node Type"), text("Relation Name"))
        && table.starts_with("events")
    {
        found.push((kind, text("Index Name").unwrap_or_default()));
    }
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| scans(node, found)),
        Value::Object(fields) => fields.values().for_each(|node| scans(node, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_inbox_goes_by_the_index_of_open_rows() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    // Small tables are read whole unless that is refused.
    client
        .batch_execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off")
        .await
        .expect("set");
    let id = "gen_random_uuid()";
    for (statement, parameters) in [
        (COUNT, format!("{id}, ARRAY[{id}], 5")),
        (COUNT_ALL, format!("{id}, 5")),
        (PAGE, format!("{id}, ARRAY[{id}], now(), {id}, NULL, 5")),
    ] {
        client
            .batch_execute(&format!("PREPARE it AS {statement}"))
            .await
            .expect("is one");
        let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE it ({parameters})");
        let plan: Value = client
            .query_one(&explain, &[])
            .await
            .expect("a plan")
            .get(0);
        let mut found = Vec::new();
        scans(&plan, &mut found);
        assert!(!found.is_empty(), "{plan:#}");
        for (kind, index) in found {
            assert!(
                kind.starts_with("Index") && index.contains("account_id_webhook_id_received_at"),
                "{statement}: {kind} by {index:?}"
            );
        }
        client.batch_execute("DEALLOCATE it").await.expect("gone");
    }
}
