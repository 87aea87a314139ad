//! Many rows replayed at once: in the order in which they were received, whatever the panel's.

use jiff::{Timestamp, ToSpan};
use serde_json::json;
use trueup_event::raw_event::Refusal;
use trueup_event::reason::Reason;

use crate::console_events::Scene;
use crate::pages::{PageUser, add_user};

#[tokio::test]
async fn m10_a_bulk_replay_decides_the_oldest_first() {
    let scene = Scene::set().await;
    let account = scene.account.to_string();
    add_user(&scene.console, &account, "ann@example.com", "owner").await;
    let mut user = PageUser::signed_in(&scene.console, "ann@example.com").await;
    // One call that both reports fit, and one that only the second does.
    let started = Timestamp::now().checked_sub(10.minutes()).expect("a time");
    let call = |seconds: i64| json!({ "caller": "+13055551234", "duration_seconds": seconds, "started_at": started.to_string() });
    let short = scene.call(call(100)).await;
    let long = scene.call(call(150)).await;
    let paused = || Refusal {
        reason: Reason::EndpointDisabled,
        count: 1,
    };
    let first = "caller_id=%2B13055551234&duration=70&payout=50";
    let second = "caller_id=%2B13055551234&duration=100&payout=60";
    let first = scene.refuse(Some(first), paused()).await;
    let second = scene.refuse(Some(second), paused()).await;
    let begun = user
        .post("/events/replay", &[("filter", "status=refused")])
        .await;
    assert_eq!(begun.status, 303, "{}", begun.text());
    scene.work_off_replays().await;
    assert_eq!(over(&scene).await, 1);
    let (first, second) = (scene.event(&first).await, scene.event(&second).await);
    assert_eq!(first["matched_call"]["id"], json!(short), "{first}");
    assert_eq!(second["matched_call"]["id"], json!(long), "{second}");
}

#[tokio::test]
async fn a_bulk_replay_that_is_stopped_leaves_the_rest_as_it_is() {
    let scene = Scene::set().await;
    let account = scene.account.to_string();
    add_user(&scene.console, &account, "ann@example.com", "owner").await;
    let mut user = PageUser::signed_in(&scene.console, "ann@example.com").await;
    let refusal = Refusal {
        reason: Reason::EndpointDisabled,
        count: 1,
    };
    let report = "caller_id=%2B13055551234&duration=70&payout=50";
    let event = scene.refuse(Some(report), refusal).await;
    let begun = user
        .post("/events/replay", &[("filter", "status=refused")])
        .await;
    let page = begun.header("location").expect("its page").to_owned();
    assert!(user.get(&page).await.text().contains("Replaying…"));

    let stopped = user.post(&format!("{page}/stop"), &[]).await;
    assert_eq!(stopped.status, 303, "{}", stopped.text());
    assert!(user.get(&page).await.text().contains("Stopped."));
    scene.work_off_replays().await;
    assert_eq!(scene.event(&event).await["status"], json!("refused"));
    assert_eq!(over(&scene).await, 1);
}

async fn over(scene: &Scene) -> i64 {
    scene
        .count("bulk_replays WHERE finished_at IS NOT NULL")
        .await
}
