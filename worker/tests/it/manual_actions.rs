//! What persons do with rows (M8), and what they find in the rows of refused requests.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use trueup_domain::batch_decision::SettleResult;
use trueup_event::raw_event::Refusal;
use trueup_event::reason::{Reason, Status};
use trueup_settlement::manual_actions::{self, ActionError, ActionRequest};
use uuid::Uuid;

use crate::harness::{CallSpec, World, at, event_id};

fn minute(n: i64) -> Timestamp {
    at("2026-03-14T12:00:00Z") + SignedDuration::from_mins(n)
}

fn asked(world: &World, event_id: Uuid) -> ActionRequest {
    ActionRequest {
        account_id: world.account_id,
        event_id,
        actor: "anna@example.com".to_owned(),
    }
}

fn outcome(
    settled: Result<SettleResult, ActionError>,
) -> Result<(Status, Option<Reason>), ActionError> {
    settled.map(|s| {
        s.decision
            .map(|d| (d.status(), d.reason()))
            .expect("decided")
    })
}

async fn replay(world: &World, event: Uuid) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(
        manual_actions::replay_event(&world.pool(), &asked(world, event))
            .await
            .expect("Postgres"),
    )
}

async fn assign(
    world: &World,
    event: Uuid,
    call: Uuid,
) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(
        manual_actions::assign_event(&world.pool(), &asked(world, event), call)
            .await
            .expect("Postgres"),
    )
}

async fn apply(
    world: &World,
    event: Uuid,
    cents: Option<i64>,
) -> Result<(Status, Option<Reason>), ActionError> {
    outcome(
        manual_actions::apply_event(&world.pool(), &asked(world, event), cents)
            .await
            .expect("Postgres"),
    )
}

const MATCHED: Result<(Status, Option<Reason>), ActionError> = Ok((Status::Matched, None));

#[tokio::test(flavor = "multi_thread")]
async fn m8_assign_and_replay_move_money_at_most_once() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let (event, row) = world
        .report(minute(3), json!({"ref_id": "NOPE", "payout": 50}))
        .await;
    assert_eq!(row.status, "unmatched");
    assert_eq!(world.count("pending_reports").await, 1);
    assert_eq!(
        assign(&world, event, Uuid::new_v4()).await,
        Err(ActionError::NoSuchCall)
    );
    assert_eq!(assign(&world, event, call).await, MATCHED);
    assert_eq!(world.count("pending_reports").await, 0, "it waits no more");
    let row = world.row(event).await;
    assert_eq!(
        (row.status.as_str(), row.strategy.as_deref(), row.credit),
        ("matched", Some("person"), 3000)
    );
    assert_eq!(
        assign(&world, event, call).await,
        Err(ActionError::HasPosting)
    );
    assert_eq!(replay(&world, event).await, Err(ActionError::HasPosting));
    assert_eq!(
        assign(&world, Uuid::new_v4(), call).await,
        Err(ActionError::NoSuchEvent)
    );
    let stranger = ActionRequest {
        account_id: Uuid::new_v4(),
        ..asked(&world, event)
    };
    let theirs = manual_actions::replay_event(&world.pool(), &stranger)
        .await
        .expect("Postgres");
    assert_eq!(
        theirs.err(),
        Some(ActionError::NoSuchEvent),
        "another account's row is none"
    );
    assert_eq!(world.balance("pubA").await, 3000);
    let actions = world
        .client
        .query("SELECT action, actor, outcome FROM event_actions", &[])
        .await
        .expect("rows");
    assert_eq!(
        actions.len(),
        1,
        "what was not done is not recorded as done"
    );
    assert_eq!(actions[0].get::<_, &str>(1), "anna@example.com");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_of_persons_who_act_on_one_row_at_once_one_moves_money() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let (event, _) = world
        .report(minute(3), json!({"ref_id": "NOPE", "payout": 50}))
        .await;
    let outcomes =
        futures_util::future::join_all((0..8).map(|_| assign(&world, event, call))).await;
    assert_eq!(
        outcomes.iter().filter(|o| **o == MATCHED).count(),
        1,
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|o| **o == Err(ActionError::HasPosting))
            .count(),
        7,
        "{outcomes:?}"
    );
    let row = world.row(event).await;
    assert_eq!(
        (row.status.as_str(), row.credit),
        ("matched", 3000),
        "its row stays its posting's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_a_held_report_is_replayed_under_new_settings() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let (event, row) = world
        .report(minute(3), json!({"ref_id": "R1", "payout": 20_000}))
        .await;
    assert_eq!(
        (row.reason.as_deref(), row.call_id),
        (Some("payout_over_cap"), Some(call))
    );
    assert_eq!(
        replay(&world, event).await,
        Ok((Status::Held, Some(Reason::PayoutOverCap)))
    );
    world
        .client
        .execute("UPDATE webhooks SET payout_cap_cents = 3000000", &[])
        .await
        .expect("a higher cap");
    // A later report has been applied meanwhile: the replayed one takes its place before it.
    world
        .report(minute(30), json!({"ref_id": "R1", "payout": 50}))
        .await;
    assert_eq!(
        replay(&world, event).await,
        Ok((Status::Superseded, Some(Reason::OlderThanApplied)))
    );
    assert_eq!(world.money(call).await.value, Some(5000));
    assert_eq!(
        apply(&world, event, None).await,
        MATCHED,
        "the row's own amount, as of now"
    );
    assert_eq!(world.money(call).await.value, Some(2_000_000));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m8_an_apply_is_a_report_of_its_own_and_never_a_duplicate() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let now = Timestamp::now();
    let (first, _) = world
        .report(
            now - SignedDuration::from_secs(60),
            json!({"ref_id": "R1", "payout": 50}),
        )
        .await;
    world
        .report(
            now - SignedDuration::from_secs(50),
            json!({"ref_id": "R1", "payout": 70}),
        )
        .await;
    let (repeat, row) = world
        .report(
            now - SignedDuration::from_secs(40),
            json!({"ref_id": "R1", "payout": 50}),
        )
        .await;
    assert_eq!(
        (
            row.status.as_str(),
            row.detail["value_changed_to_cents"].as_i64()
        ),
        ("duplicate", Some(7000))
    );
    assert_eq!(
        replay(&world, repeat).await,
        Ok((Status::Duplicate, Some(Reason::SamePayoutWithin15m)))
    );
    assert_eq!(
        apply(&world, repeat, None).await,
        MATCHED,
        "by hand it counts (V2)"
    );
    assert_eq!(world.money(call).await.value, Some(5000));
    assert_eq!(apply(&world, first, Some(0)).await, MATCHED);
    assert_eq!(
        apply(&world, first, Some(0)).await,
        Ok((Status::Matched, Some(Reason::NoChange)))
    );
    assert_eq!(
        apply(&world, first, Some(-1)).await,
        Err(ActionError::NegativeAmount)
    );
    assert_eq!(world.balance("pubA").await, 0);
    assert_eq!(
        world.row(first).await.credit,
        3000,
        "the row that it was made from is as it was"
    );
    assert_eq!(world.count("postings WHERE kind = 'apply'").await, 2);

    let (lost, _) = world
        .report(now, json!({"ref_id": "NOPE", "payout": 50}))
        .await;
    assert_eq!(apply(&world, lost, None).await, Err(ActionError::NoCall));
    let (blank, _) = world.report(now, json!({"ref_id": "R1"})).await;
    assert_eq!(apply(&world, blank, None).await, Err(ActionError::NoAmount));
    manual_actions::ignore_event(&world.pool(), &asked(&world, lost))
        .await
        .expect("Postgres")
        .expect("fit");
    assert_eq!(
        world.count("pending_reports").await,
        0,
        "an ignored row waits no more"
    );
    assert_eq!(
        world
            .count("events WHERE ignored_by = 'anna@example.com'")
            .await,
        1
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_a_displaced_report_stands_for_no_money_whatever_persons_do_with_it() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let named = world.call(&CallSpec::default()).await;
    let other = world
        .call(&CallSpec {
            ref_id: Some("R2"),
            caller: None,
            ..CallSpec::default()
        })
        .await;
    let taken = world
        .call(&CallSpec {
            ref_id: Some("R3"),
            caller: None,
            ..CallSpec::default()
        })
        .await;
    let guess = json!({"caller_id": "+13055550142", "duration": 90, "payout": 50});
    let (guess, _) = world.report(minute(3), guess).await;
    world
        .report(minute(4), json!({"ref_id": "R3", "payout": 50}))
        .await;
    world
        .report(minute(30), json!({"ref_id": "R1", "payout": 70}))
        .await;
    let row = world.row(guess).await;
    assert_eq!(
        (row.status.as_str(), row.reason.as_deref(), row.credit),
        ("held", Some("replaced_heuristic_match"), 0)
    );
    assert_eq!(world.money(named).await.credit, 4200);
    assert_eq!(world.balance("pubA").await, 4200 + 3000);
    assert_eq!(world.count("postings WHERE kind = 'displaced'").await, 1);
    world.reconcile().await;

    // There it comes before the report of the same amount and changes nothing.
    assert_eq!(
        assign(&world, guess, taken).await,
        Ok((Status::Duplicate, Some(Reason::SamePayoutWithin15m)))
    );
    world.reconcile().await;
    assert_eq!(
        replay(&world, guess).await,
        Ok((Status::Unmatched, Some(Reason::AlreadyReported)))
    );
    world.reconcile().await;
    assert_eq!(assign(&world, guess, other).await, MATCHED);
    assert_eq!(world.money(other).await.credit, 3000);
    assert_eq!(world.balance("pubA").await, 4200 + 3000 + 3000);
    assert_eq!(replay(&world, guess).await, Err(ActionError::HasPosting));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_a_persons_assignment_outranks_older_matches() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let same = CallSpec {
        ref_id: None,
        ..CallSpec::default()
    };
    let first = world.call(&same).await;
    let report = |ref_id: &str| json!({"ref_id": ref_id, "caller_id": "+13055550142", "duration": 90, "payout": 50});
    world.report(minute(3), report("X1")).await;
    let (unclear, row) = world.report(minute(4), report("X2")).await;
    assert_eq!(row.reason.as_deref(), Some("already_reported"));
    let second = world
        .call(&CallSpec {
            caller: None,
            ..same
        })
        .await;
    assert_eq!(assign(&world, unclear, second).await, MATCHED);
    let plain = json!({"caller_id": "+13055550142", "duration": 90, "payout": 50});
    let (_, row) = world.report(minute(5), plain).await;
    assert_eq!(
        (row.status.as_str(), row.call_id),
        ("duplicate", Some(second))
    );
    assert_eq!(world.money(first).await.credit, 3000);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_have_rows_and_a_paused_webhooks_become_reports() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let mut paused = world.event(minute(3), json!({"ref_id": "R1", "payout": 50}));
    paused.refusal = Some(Refusal {
        reason: Reason::EndpointDisabled,
        count: 1,
    });
    let paused_id = paused.id;
    let mut rows = Vec::new();
    let mut refused = vec![paused];
    for reason in [
        // Sent without the secret, or beyond the limit: counted, not kept.
        Reason::EndpointDisabled,
        Reason::SecretMissing,
        Reason::SecretMismatch,
        Reason::RateLimitedIp,
        Reason::RateLimitedToken,
        Reason::BodyTooLarge,
    ] {
        let mut event = world.event(minute(4), json!({}));
        event.id = event_id(minute(4));
        event.request = None;
        event.refusal = Some(Refusal { reason, count: 17 });
        rows.push((event.id, reason));
        refused.push(event);
    }
    world.publish(refused).await;
    for (id, reason) in rows {
        let row = world.row(id).await;
        assert_eq!(
            (row.status.as_str(), row.reason.as_deref()),
            ("refused", Some(reason.code()))
        );
        assert_eq!(replay(&world, id).await, Err(ActionError::NotAReport));
        assert_eq!(assign(&world, id, call).await, Err(ActionError::NotAReport));
    }
    assert_eq!(world.count("events WHERE count = 17").await, 6);
    assert_eq!(
        world.requests_kept().await,
        1,
        "only the paused webhook's request is kept"
    );
    assert_eq!(
        world.row(paused_id).await.reason.as_deref(),
        Some("endpoint_disabled")
    );
    assert_eq!(world.money(call).await.value, None, "it moved nothing");
    assert_eq!(world.count("pending_reports").await, 0);

    assert_eq!(replay(&world, paused_id).await, MATCHED);
    let row = world.row(paused_id).await;
    assert_eq!(
        (row.status.as_str(), row.call_id, row.credit),
        ("matched", Some(call), 3000)
    );
    assert_eq!(
        replay(&world, paused_id).await,
        Err(ActionError::HasPosting)
    );
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_stores_nothing_and_says_what_would_be() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let call = world.call(&CallSpec::default()).await;
    let sample = world.event(minute(3), json!({"ref_id": "R1", "payout": 50}));
    let settled = trueup_settlement::dry_run::try_sample(&world.pool(), sample)
        .await
        .expect("Postgres");
    let decision = settled.decision.expect("decided");
    assert_eq!(
        (decision.status(), decision.call_id),
        (Status::Matched, Some(call))
    );
    let change = decision.detail.change().expect("folded");
    assert_eq!(change.credit_after_cents, 3000);
    assert_eq!(
        world.count("events").await
            + world.count("postings").await
            + world.count("call_reports").await,
        0
    );
    assert_eq!(world.money(call).await.value, None);
}
