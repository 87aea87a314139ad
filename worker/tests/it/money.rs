//! Money on real services: terms (V9), the ledger (V10), estimates (V11).

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trueup_domain::call_record::CallRecord;
use trueup_settlement::call_recording::record_calls;
use trueup_store::{TransactionName, run_tx};
use uuid::Uuid;

use crate::harness::{CallSpec, Terms, World, at};

fn minute(n: i64) -> Timestamp {
    at("2026-03-14T12:00:00Z") + SignedDuration::from_mins(n)
}

fn report(ref_id: &str, payout: &str) -> serde_json::Value {
    json!({"ref_id": ref_id, "payout": payout})
}

#[tokio::test(flavor = "multi_thread")]
async fn v9_a_call_keeps_the_terms_of_its_first_report() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let first = world.call(&CallSpec::default()).await;
    let assignment = world.assignment_of(first).await;
    let second = world
        .call(&CallSpec {
            ref_id: Some("R2"),
            ..CallSpec::default()
        })
        .await;
    let same = "UPDATE calls SET assignment_id = $1 WHERE id = $2";
    world
        .client
        .execute(same, &[&assignment, &second])
        .await
        .expect("an assignment for both");

    world.report(minute(3), report("R1", "50")).await;
    let change = "UPDATE assignments SET percent_e4 = 500000 WHERE id = $1";
    world
        .client
        .execute(change, &[&assignment])
        .await
        .expect("new terms");
    world.report(minute(30), report("R1", "60")).await;
    assert_eq!(
        world.money(first).await.credit,
        3600,
        "60 % of it, as when its first report was applied"
    );
    world.report(minute(31), report("R2", "60")).await;
    assert_eq!(
        world.money(second).await.credit,
        3000,
        "50 %, as it stands now"
    );

    world.report(minute(60), report("R1", "0")).await;
    world.report(minute(90), report("R1", "10")).await;
    assert_eq!(
        world.money(first).await.credit,
        600,
        "a zero in between fixes nothing anew"
    );
    assert_eq!(world.balance("pubA").await, 3600);
    let moved = world
        .client
        .execute(
            "UPDATE assignments SET publisher_id = $1",
            &[&Uuid::new_v4()],
        )
        .await;
    assert!(moved.is_err(), "an assignment's publisher cannot change");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v10_the_ledger_refuses_every_change() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    world.call(&CallSpec::default()).await;
    let (event, _) = world.report(minute(3), report("R1", "50")).await;
    for statement in [
        "UPDATE postings SET credit_delta_cents = 1",
        "DELETE FROM postings",
        "TRUNCATE postings",
    ] {
        let refused = world
            .client
            .batch_execute(statement)
            .await
            .expect_err(statement);
        let text = refused.as_db_error().expect("Postgres says so").message();
        assert!(
            text.contains("the ledger only grows"),
            "{statement}: {text}"
        );
    }
    let select = "SELECT event_id, revenue_delta_cents, credit_delta_cents, balance_after_cents, terms_kind, terms_percent_e4 FROM postings";
    let posting = world
        .client
        .query_one(select, &[])
        .await
        .expect("one posting");
    assert_eq!(
        posting.get::<_, Option<Uuid>>(0),
        Some(event),
        "it names its cause"
    );
    let figures: [i64; 3] = [posting.get(1), posting.get(2), posting.get(3)];
    assert_eq!(figures, [5000, 3000, 3000]);
    assert_eq!(
        (posting.get::<_, &str>(4), posting.get::<_, i32>(5)),
        ("rev_share", 600_000)
    );
}

fn copy(id: Uuid, assignment: Uuid, value: Option<i64>, qualified: Option<bool>) -> CallRecord {
    CallRecord {
        id,
        ref_id: Some(Some("R1".to_owned())),
        caller: None,
        tracking_number: None,
        duration_seconds: 120,
        started_at: minute(0),
        ended_at: minute(2),
        buyer_id: None,
        assignment_id: Some(Some(assignment)),
        value_cents: Some(value),
        qualified: Some(qualified),
    }
}

async fn record(world: &World, copy: CallRecord) {
    let account_id = world.account_id;
    let refused = run_tx(&world.pool(), TransactionName::Other, |tx| {
        let copies = vec![copy.clone()];
        Box::pin(async move { record_calls(tx, account_id, "key test", &copies).await })
    })
    .await
    .expect("recorded");
    assert_eq!(refused, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn v11_an_estimate_is_trued_up_by_its_report() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    // Lends its assignment to the call of this test.
    let lender = world
        .call(&CallSpec {
            ref_id: None,
            caller: None,
            ..CallSpec::default()
        })
        .await;
    let assignment = world.assignment_of(lender).await;
    let call = Uuid::new_v4();
    record(&world, copy(call, assignment, Some(4000), Some(true))).await;
    assert_eq!(
        world.balance("pubA").await,
        2400,
        "the estimate is credited"
    );
    record(&world, copy(call, assignment, Some(3000), Some(true))).await;
    record(&world, copy(call, assignment, Some(3000), Some(true))).await;
    assert_eq!(
        world.balance("pubA").await,
        1800,
        "a changed copy posts the difference, an equal one nothing"
    );
    assert_eq!(world.count("postings WHERE kind = 'estimate'").await, 2);

    // New terms alone re-price nothing, and neither does a report that is held.
    let change = "UPDATE assignments SET percent_e4 = 500000 WHERE id = $1";
    world
        .client
        .execute(change, &[&assignment])
        .await
        .expect("new terms");
    let (_, held) = world.report(minute(3), report("R1", "-7")).await;
    assert_eq!((held.status.as_str(), held.credit), ("held", 0));
    assert_eq!(world.balance("pubA").await, 1800);
    // It was weighed against this estimate, so the estimate stands (V11: after a report).
    record(&world, copy(call, assignment, Some(9000), Some(true))).await;
    assert_eq!(world.balance("pubA").await, 1800);

    let (_, matched) = world.report(minute(30), report("R1", "50")).await;
    assert_eq!(
        (matched.status.as_str(), matched.credit),
        ("matched", 700),
        "50 % of $50, less the estimate's"
    );
    assert_eq!(
        world.balance("pubA").await,
        2500,
        "an estimate fixes no terms (V9)"
    );
    record(&world, copy(call, assignment, Some(1), Some(false))).await;
    let money = world.money(call).await;
    assert_eq!(
        (money.value, money.qualified, money.credit),
        (Some(5000), Some(true), 2500),
        "undone by no copy"
    );

    world.report(minute(60), report("R1", "0")).await;
    assert_eq!(
        world.balance("pubA").await,
        0,
        "a rejected call takes back the estimate, too"
    );
    let revenue = "SELECT sum(revenue_delta_cents)::int8 FROM postings";
    assert_eq!(
        world
            .client
            .query_one(revenue, &[])
            .await
            .expect("a sum")
            .get::<_, i64>(0),
        0
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v11_a_flat_estimate_is_confirmed_by_a_report_of_the_same_value() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let spec = CallSpec {
        ref_id: None,
        caller: None,
        terms: Terms::Flat(1800),
        ..CallSpec::default()
    };
    let lender = world.call(&spec).await;
    let assignment = world.assignment_of(lender).await;
    let call = Uuid::new_v4();
    record(&world, copy(call, assignment, Some(5000), Some(true))).await;
    let (_, row) = world.report(minute(3), report("R1", "50")).await;
    assert_eq!(
        (row.status.as_str(), row.reason.as_deref(), row.credit),
        ("matched", Some("no_change"), 0)
    );
    assert!(
        world.money(call).await.from_webhook,
        "it is real revenue now"
    );
    let (_, reversed) = world.report(minute(30), report("R1", "-50")).await;
    assert_eq!(
        (reversed.reason.as_deref(), reversed.credit),
        (Some("reversal"), -1800)
    );
    world.reconcile().await;
}
