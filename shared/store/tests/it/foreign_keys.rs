//! What the books name stays: calls and publishers that a report or a posting points at (V0004).

use trueup_testkit::builders;
use trueup_testkit::database::TestDatabase;
use uuid::Uuid;

#[tokio::test]
async fn calls_and_publishers_that_the_books_name_cannot_be_removed_or_renamed() {
    let database = TestDatabase::fresh().await;
    let client = database.client().await;
    let account = builders::account(&client).await;
    let [named, free] = [Uuid::new_v4(), Uuid::new_v4()];
    for id in [named, free] {
        let publisher = "INSERT INTO publishers (id, account_id, name) VALUES ($1, $2, 'p')";
        client
            .execute(publisher, &[&id, &account])
            .await
            .expect("a publisher");
        let call = "INSERT INTO calls (account_id, id, duration_seconds, started_at, ended_at) VALUES ($1, $2, 9, now(), now())";
        client
            .execute(call, &[&account, &id])
            .await
            .expect("a call");
    }
    let posting = "INSERT INTO postings (id, account_id, call_id, publisher_id, actor, kind, revenue_delta_cents, credit_delta_cents)
                   VALUES ($1, $2, $1, $1, 'key', 'estimate', 1, 1)";
    client
        .execute(posting, &[&named, &account])
        .await
        .expect("a posting");
    for change in [
        "DELETE FROM calls WHERE id = $1",
        "DELETE FROM publishers WHERE id = $1",
        "UPDATE calls SET id = gen_random_uuid() WHERE id = $1",
        "UPDATE publishers SET id = gen_random_uuid() WHERE id = $1",
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
            &[&free],
        )
        .await
        .expect("nothing names it");
    client
        .execute("DELETE FROM publishers WHERE id = $1", &[&free])
        .await
        .expect("nothing names it");
}
