//! What the books name stays: calls and publishers that a report or a posting points at (V0004).

use trueup_testkit::builders::{self, Call};
use trueup_testkit::database::TestDatabase;
use uuid::Uuid;

#[tokio::test]
async fn calls_and_publishers_that_the_books_name_cannot_be_removed_or_renamed() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account = builders::account(&client).await;
    let mut calls = Vec::new();
    let mut publishers = Vec::new();
    for _ in 0..2 {
        publishers.push(builders::publisher(&client, account, "p").await);
        calls.push(builders::call(&client, account, &Call::default()).await);
    }
    let posting = "INSERT INTO postings (id, account_id, call_id, publisher_id, actor, kind, revenue_delta_cents, credit_delta_cents)
                   VALUES ($3, $1, $2, $3, 'key', 'estimate', 1, 1)";
    client
        .execute(posting, &[&account, &calls[0], &publishers[0]])
        .await
        .expect("a posting");
    for (change, named) in [
        ("DELETE FROM calls WHERE id = $1", calls[0]),
        ("DELETE FROM publishers WHERE id = $1", publishers[0]),
        (
            "UPDATE calls SET id = gen_random_uuid() WHERE id = $1",
            calls[0],
        ),
        (
            "UPDATE publishers SET id = gen_random_uuid() WHERE id = $1",
            publishers[0],
        ),
    ] {
        let refused = client.execute(change, &[&named]).await.expect_err(change);
        assert_eq!(refused.code().map(|c| c.code()), Some("23503"), "{change}");
    }
    for table in ["calls", "publishers"] {
        client
            .batch_execute(&format!("TRUNCATE {table} CASCADE"))
            .await
            .expect_err(table);
    }
    client
        .execute(
            "UPDATE calls SET id = gen_random_uuid() WHERE id = $1",
            &[&calls[1]],
        )
        .await
        .expect("nothing names it");
    client
        .execute("DELETE FROM publishers WHERE id = $1", &[&publishers[1]])
        .await
        .expect("nothing names it");
}

#[tokio::test]
async fn the_database_refuses_what_the_program_would_not_write() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account = builders::account(&client).await;
    let webhook = Uuid::new_v4();
    let call = builders::call(&client, account, &Call::default()).await;
    let row = |columns: &str, values: &str| {
        format!(
            "INSERT INTO events (received_at, id, account_id, webhook_id, {columns})
             VALUES (now(), '{call}', '{account}', '{webhook}', {values})"
        )
    };
    // What a column is not given for, it has as a posting needs it.
    let posting = |columns: &str, values: &str| {
        let mut sql = format!(
            "INSERT INTO postings (id, account_id, call_id, revenue_delta_cents, {columns}"
        );
        let mut values = format!("gen_random_uuid(), '{account}', '{call}', 1, {values}");
        if !columns.contains("credit_delta_cents") {
            sql.push_str(", credit_delta_cents");
            values.push_str(", 0");
        }
        if !columns.contains("actor") {
            sql.push_str(", actor");
            values.push_str(", 'key'");
        }
        format!("{sql}) VALUES ({values})")
    };
    let refusals = [
        ("a call that ends before it began",
         format!("UPDATE calls SET ended_at = started_at - interval '1 s' WHERE id = '{call}'")),
        ("terms without their figure",
         format!("UPDATE calls SET terms_publisher_id = '{call}', terms_kind = 'flat' WHERE id = '{call}'")),
        ("terms of nobody",
         format!("UPDATE calls SET terms_kind = 'flat', terms_amount_cents = 5 WHERE id = '{call}'")),
        ("a share of more than all",
         format!("UPDATE calls SET terms_publisher_id = '{call}', terms_kind = 'rev_share', terms_percent_e4 = 1000001 WHERE id = '{call}'")),
        ("a flat amount below nothing",
         format!("UPDATE calls SET terms_publisher_id = '{call}', terms_kind = 'flat', terms_amount_cents = -1 WHERE id = '{call}'")),
        ("terms of two kinds",
         format!("UPDATE calls SET terms_publisher_id = '{call}', terms_kind = 'flat', terms_amount_cents = 5, terms_percent_e4 = 5 WHERE id = '{call}'")),
        ("terms of no known kind",
         format!("UPDATE calls SET terms_publisher_id = '{call}', terms_kind = 'gift' WHERE id = '{call}'")),
        ("a value below nothing", format!("UPDATE calls SET value_cents = -1 WHERE id = '{call}'")),
        ("a credit below nothing", format!("UPDATE calls SET publisher_payout_cents = -1 WHERE id = '{call}'")),
        ("a posting of no known kind", posting("kind", "'gift'")),
        ("a posting of nobody", posting("kind, actor", "'estimate', NULL")),
        ("a posting whose terms have no figure", posting("kind, actor, terms_kind", "'estimate', 'key', 'flat'")),
        ("a posting whose terms have no kind", posting("kind, actor, terms_amount_cents", "'estimate', 'key', 5")),
        ("credit for nobody", posting("kind, actor, credit_delta_cents", "'estimate', 'key', 5")),
        ("an unknown strategy of a row", row("status, strategy", "'matched', 'guess'")),
        ("an unknown status", row("status", "'lost'")),
        ("an unknown part in a fold",
         format!("INSERT INTO call_reports (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role, payout_cents)
                  VALUES ('{account}', '{call}', now(), 0, '{call}', '{webhook}', 'ref_id', 'watched', 1)")),
        ("an unknown strategy",
         format!("INSERT INTO call_reports (account_id, call_id, received_at, position, event_id, webhook_id, strategy, role, payout_cents)
                  VALUES ('{account}', '{call}', now(), 0, '{call}', '{webhook}', 'guess', 'folded', 1)")),
        ("an unknown reason",
         row("status, reason", "'held', 'because'")),
        ("another currency", format!("UPDATE accounts SET currency = 'EUR' WHERE id = '{account}'")),
        ("another region", format!("UPDATE accounts SET default_region = 'DE' WHERE id = '{account}'")),
    ];
    for (what, sql) in refusals {
        let refused = client.batch_execute(&sql).await.expect_err(what);
        assert_eq!(
            refused.code().map(|c| c.code()),
            Some("23514"),
            "{what}: {refused}"
        );
    }
    // With what is right in place of what was wrong, the same statements are taken.
    for sql in [
        posting("kind", "'estimate'"),
        row("status, reason, strategy", "'held', 'ambiguous', 'ref_id'"),
    ] {
        client.batch_execute(&sql).await.expect("a sound row");
    }
    let posting = "INSERT INTO postings (id, account_id, call_id, event_id, kind, revenue_delta_cents, credit_delta_cents)
                   VALUES (gen_random_uuid(), $1, $2, $2, 'report', 5000, 0)";
    client
        .execute(posting, &[&account, &call])
        .await
        .expect("the first");
    let twice = client
        .execute(posting, &[&account, &call])
        .await
        .expect_err("paid twice");
    assert_eq!(twice.code().map(|c| c.code()), Some("23505"));
    // Nor under another round, unless all that the event stood for on the call was taken back.
    let again = "INSERT INTO postings (id, account_id, call_id, event_id, kind, round, revenue_delta_cents, credit_delta_cents)
                 VALUES (gen_random_uuid(), $1, $2, $2, 'report', 1, 5000, 0)";
    let twice = client
        .execute(again, &[&account, &call])
        .await
        .expect_err("paid twice");
    assert_eq!(twice.code().map(|c| c.code()), Some("23514"));
    // Withdrawal and return may stand in one statement, in their order.
    let back = "INSERT INTO postings (id, account_id, call_id, event_id, kind, round, revenue_delta_cents, credit_delta_cents)
                SELECT gen_random_uuid(), $1, $2, $2, kind, round, cents, 0
                  FROM unnest($3::text[], $4::int2[], $5::int8[]) WITH ORDINALITY AS row (kind, round, cents, n) ORDER BY n";
    client
        .execute(
            back,
            &[
                &account,
                &call,
                &vec!["moved", "report"],
                &vec![0_i16, 1],
                &vec![-5000_i64, 5000],
            ],
        )
        .await
        .expect("away and back");
}
