//! The statements that every batch runs, and a check of how Postgres means to run them.
//!
//! The plans looked at are generic ones, as a worker's sessions come to use: made without knowing the
//! arrays. None may read a table that grows otherwise than through an index, with a condition that says
//! more than the account.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use serde_json::Value;

use trueup_store::settlement::{
    candidates, loading, pending_reports, postings, stored_events, writes,
};
use trueup_store::{Client, StoreError, stored_requests};

/// What every batch runs. These go through their indexes whatever the statistics say.
const HOT: &[&str] = &[
    loading::SETTLED_IDS,
    loading::LOCK_CALLS,
    loading::REPORTS,
    loading::ASSIGNMENTS,
    loading::WEBHOOKS,
    loading::OPEN_ROWS,
    candidates::BY_REF_ID,
    candidates::BY_SHARED_REF_ID,
    candidates::BY_CALL_ID,
    candidates::BY_CALLER,
    candidates::BY_SIGNATURE,
    postings::LOCK_PUBLISHERS,
    postings::POSTED,
    writes::WAKE_FOR_CALLS,
    pending_reports::WAKE_GUESSES,
    writes::DELETE_PENDING,
    pending_reports::WAKE,
    pending_reports::WAKE_AGAIN,
    pending_reports::DUE,
    pending_reports::RESCHEDULE,
    pending_reports::STOP_WAITING,
];

/// What is run now and then, or only once there are rows. A plan made while their table was small reads it whole, and
/// is made anew within seconds (`Pool`).
fn warm() -> [&'static str; 12] {
    [
        stored_events::STORED_ROWS,
        stored_requests::REQUESTS,
        stored_requests::BLOCKS,
        &writes::UPDATE_CALLS,
        &writes::UPDATE_REPORTS,
        &writes::UPDATE_ROWS,
        &writes::MARK_DISPLACED,
        &writes::ADJUST_ROWS,
        &writes::DELETE_REPORTS,
        writes::DELETE_OPEN,
        postings::UPDATE_PUBLISHERS,
        pending_reports::GIVE_UP,
    ]
}

/// Tables that grow with the business. Partitions bear their parent's name and a number.
const GROWING: [&str; 9] = [
    "calls",
    "call_reports",
    "events",
    "event_requests",
    "event_request_blocks",
    "postings",
    "publishers",
    "pending_reports",
    "open_reports",
];

/// Tables of one page at most: to read it is what an index would cost.
const SMALL: &str = "/* plans_small_tables */
    SELECT relname::text FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) <= 8192";

/// Explains every hot statement in the session given and returns what is wrong with any plan: statement by
/// statement, one line for each table that would be read whole.
pub async fn unindexed(client: &Client) -> Result<Vec<String>, StoreError> {
    let mut wrong = Vec::new();
    client
        .batch_execute("SET plan_cache_mode = force_generic_plan")
        .await?;
    let small = client.query(SMALL, &[]).await?;
    let small: HashSet<&str> = small.iter().map(|row| row.get(0)).collect();
    let none = HashSet::new();
    let hot = HOT.iter().map(|sql| (*sql, &none));
    for (sql, exempt) in hot.chain(warm().into_iter().map(|sql| (sql, &small))) {
        let name = sql
            .split("/*")
            .nth(1)
            .and_then(|s| s.split("*/").next())
            .map_or("?", str::trim);
        client
            .batch_execute(&format!("PREPARE hot AS {sql}"))
            .await?;
        let nulls = vec!["NULL"; parameters(sql)].join(", ");
        let row = client
            .query_one(&format!("EXPLAIN (FORMAT JSON) EXECUTE hot ({nulls})"), &[])
            .await?;
        let plan: Value = row.get(0);
        check_plan_node(&plan, name, exempt, &mut wrong);
        client.batch_execute("DEALLOCATE hot").await?;
    }
    client.batch_execute("RESET plan_cache_mode").await?;
    Ok(wrong)
}

/// How many parameters a statement has: the highest `$n` in it.
fn parameters(sql: &str) -> usize {
    let digits = |part: &str| {
        part.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    };
    sql.split('$')
        .skip(1)
        .filter_map(|part| digits(part).parse().ok())
        .max()
        .unwrap_or(0)
}

/// Whether a condition such as `((account_id = q.account_id) AND (ref_id = q.ref_id))` picks out more than
/// an account.
fn narrows(condition: &str) -> bool {
    condition
        .split(" AND ")
        .any(|part| !part.trim_start_matches('(').starts_with("account_id "))
}

/// Goes through a plan's nodes, whatever they are called that hold others.
fn check_plan_node(node: &Value, statement: &str, exempt: &HashSet<&str>, wrong: &mut Vec<String>) {
    if let (Some(kind), Some(table)) = (node["Node Type"].as_str(), node["Relation Name"].as_str())
    {
        let is_partition = |parent: &str| {
            table
                .strip_prefix(parent)
                .is_some_and(|rest| rest.starts_with('_'))
        };
        let grows = GROWING.iter().any(|parent| {
            table == *parent || (parent.starts_with("event") && is_partition(parent))
        });
        let reads = kind.ends_with("Scan");
        let has_condition = (kind.contains("Index")
            && node["Index Cond"].as_str().is_some_and(narrows))
            || (kind == "Tid Scan" && node.get("TID Cond").is_some());
        // A bitmap's condition stands on the scan of the index below it.
        if grows && reads && !has_condition && !exempt.contains(table) && kind != "Bitmap Heap Scan"
        {
            wrong.push(format!(
                "{statement}: {kind} on {table} without a condition that an index narrows down"
            ));
        }
    }
    match node {
        Value::Array(nodes) => nodes
            .iter()
            .for_each(|node| check_plan_node(node, statement, exempt, wrong)),
        Value::Object(fields) => fields
            .values()
            .for_each(|node| check_plan_node(node, statement, exempt, wrong)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_as_many_parameters_as_its_highest_number() {
        assert_eq!(parameters("SELECT $1::text, $12::int8, $2"), 12);
        assert_eq!(parameters("SELECT 1"), 0);
    }

    #[test]
    fn an_account_alone_narrows_nothing_down() {
        assert!(narrows(
            "((account_id = q.account_id) AND (ref_id = q.ref_id))"
        ));
        assert!(narrows("(id = ANY ($1))"));
        assert!(!narrows("(account_id = q.account_id)"));
    }
}
