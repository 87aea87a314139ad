//! A migration, or a pooler in between, takes prepared statements away from a session that goes on: the next call
//! prepares them anew, and nobody sees an error.

use trueup_postgres::{
    Pool, PoolProfile, PoolSettings, StoreError, TransactionName, run_tx, statement,
};
use trueup_testkit::database::TestDatabase;

const FIGURE: &str = "/* test_figure */ SELECT figure FROM figures";
/// What a session's statements are taken away with, in ways that Postgres answers 26000 and 0A000.
const TAKEN_AWAY: [&str; 2] = [
    "DEALLOCATE ALL",
    "ALTER TABLE figures ALTER COLUMN figure TYPE bigint",
];

/// A pool of one session, so that the next call has the same.
async fn pool_of_one(profile: PoolProfile) -> (TestDatabase, Pool) {
    let database = TestDatabase::fresh().await;
    let settings = PoolSettings {
        profile,
        ..PoolSettings::for_application("test", 1)
    };
    let pool = Pool::new(&database.url, &settings).expect("a pool");
    execute(
        &pool,
        "CREATE TABLE figures (figure int); INSERT INTO figures VALUES (7)",
    )
    .await;
    (database, pool)
}

async fn execute(pool: &Pool, sql: &str) {
    let client = pool.get().await.expect("a session");
    client.batch_execute(sql).await.expect("as superuser");
}

async fn read_rows(pool: &Pool) -> Result<usize, StoreError> {
    let client = pool.get().await?;
    Ok(statement::query_rows(&client, FIGURE, &[]).await?.len())
}

async fn read_in_transaction(pool: &Pool) -> Result<usize, StoreError> {
    run_tx(pool, TransactionName::Settle, |tx| {
        Box::pin(async move { Ok(statement::query_rows(tx, FIGURE, &[]).await?.len()) })
    })
    .await
}

#[tokio::test]
async fn a_read_prepares_anew_what_was_taken_away() {
    for profile in [PoolProfile::Console, PoolProfile::Settlement] {
        let (_database, pool) = pool_of_one(profile).await;
        assert_eq!(read_rows(&pool).await.expect("rows"), 1);
        for taken_away in TAKEN_AWAY {
            execute(&pool, taken_away).await;
            assert_eq!(read_rows(&pool).await.expect(taken_away), 1);
            assert_eq!(read_rows(&pool).await.expect("and from then on"), 1);
        }
    }
}

#[tokio::test]
async fn a_transaction_is_run_again_with_statements_prepared_anew() {
    for profile in [PoolProfile::Console, PoolProfile::Settlement] {
        let (_database, pool) = pool_of_one(profile).await;
        assert_eq!(read_in_transaction(&pool).await.expect("rows"), 1);
        for taken_away in TAKEN_AWAY {
            execute(&pool, taken_away).await;
            assert_eq!(read_in_transaction(&pool).await.expect(taken_away), 1);
        }
    }
}

/// Statements that do not go through this crate's functions fail once, and not again.
#[tokio::test]
async fn a_session_forgets_the_statements_that_failed_it() {
    let (_database, pool) = pool_of_one(PoolProfile::Settlement).await;
    let read = async || -> Result<usize, StoreError> {
        let client = pool.get().await?;
        let statement = client.prepare_cached(FIGURE).await?;
        Ok(client.query(&statement, &[]).await?.len())
    };
    assert_eq!(read().await.expect("rows"), 1);
    execute(&pool, "DEALLOCATE ALL").await;
    let error = read().await.expect_err("it was taken away");
    assert!(error.is_environment_error(), "{error}");
    assert_eq!(read().await.expect("prepared anew"), 1);
}
