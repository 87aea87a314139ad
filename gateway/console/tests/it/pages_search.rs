//! One box finds a report or a call by what an operator has at hand: the caller as it is written, a part of
//! an id in any case, an id of ours, an amount.

use serde_json::json;

use crate::pages::{PageUser, scene_with_owner};

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn finds(ann: &mut PageUser, list: &str, text: &str, id: &str) {
    let path = format!("{list}?q={}", encoded(text));
    let mut answer = ann.get(&path).await;
    // One that can be meant alone is gone to.
    if answer.status == 303 {
        let place = answer.header("location").expect("a place").to_owned();
        answer = ann.get(&place).await;
    }
    assert_eq!(answer.status, 200, "{path}");
    assert!(
        answer.text().contains(id),
        "{path} does not find it: {}",
        answer.text()
    );
}

#[tokio::test]
async fn what_is_at_hand_is_found() {
    let (scene, mut ann) = scene_with_owner().await;
    let call = scene
        .call(json!({ "caller": "+17865551033", "ref_id": "RW-Alpha-77", "value_cents": 1250, "qualified": true }))
        .await;
    scene.call(json!({ "caller": "+17865559999", "ref_id": "other", "value_cents": 4, "qualified": true })).await;
    let by_caller = scene
        .report("caller_id=7865551033&duration=91&payout=9")
        .await;
    let by_id = scene.report("ref_id=RW-Alpha-77&payout=12.50").await;
    for written in [
        "(786) 555-1033",
        "786-555-1033",
        "786.555.1033",
        "1 786 555 1033",
        "+17865551033",
        "7865551033",
    ] {
        finds(&mut ann, "/events", written, &by_caller).await;
        finds(&mut ann, "/calls", written, &call).await;
        // The matched call's caller, though the report named it by its ref_id.
        finds(&mut ann, "/events", written, &by_id).await;
    }
    for written in ["RW-Alpha-77", "rw-alpha-77", "RW-AL", "rw-a"] {
        finds(&mut ann, "/events", written, &by_id).await;
        finds(&mut ann, "/calls", written, &call).await;
    }
    for amount in ["12.50", "$12.50", "12,50"] {
        finds(&mut ann, "/events", amount, &by_id).await;
        finds(&mut ann, "/calls", amount, &call).await;
    }
    finds(&mut ann, "/events", &by_id, &by_id).await;
    finds(&mut ann, "/events", &call, &by_id).await;
    finds(&mut ann, "/calls", &call, &call).await;
    finds(&mut ann, "/calls", &by_id, &call).await;
    let none = ann.get("/calls?q=rw-b").await.text();
    assert!(none.contains("No call found"), "{none}");

    // The one box of every page.
    finds(&mut ann, "/search", &call, &call).await;
    finds(&mut ann, "/search", &by_id, &by_id).await;
    finds(&mut ann, "/search", "(786) 555-1033", &by_caller).await;
    let found = ann.get(&format!("/search?q={}", encoded("rw-alpha"))).await;
    let page = ann
        .get(found.header("location").expect("a place"))
        .await
        .text();
    assert!(
        page.contains("/calls?q=rw-alpha"),
        "calls are one click away: {page}"
    );
}

#[tokio::test]
async fn what_no_search_can_be_about_is_told_and_breaks_nothing() {
    let (_scene, mut ann) = scene_with_owner().await;
    for path in [
        "/events?q=%00",
        "/calls?q=a%00b",
        "/events?caller=%00",
        "/search?q=%00",
    ] {
        assert_eq!(ann.get(path).await.status, 400, "{path}");
    }
    for path in [
        "/events?since=-004800-01-01T00:00:00Z",
        "/events?until=9999-12-31",
        "/calls?before=-99999999999999.0",
        "/events?before=-210000000000000000.00000000000000000000000000000000",
        "/inbox?before=-210000000000000000.00000000000000000000000000000000",
    ] {
        assert_eq!(ann.get(path).await.status, 200, "{path}");
    }
    let mut stranger = PageUser::nobody(ann.address);
    stranger.get("/sign-in").await;
    let csrf = stranger.csrf.clone();
    let answer = stranger
        .post_bare(
            "/sign-in",
            &[("csrf", &csrf), ("email", "a\0b"), ("password", "x")],
        )
        .await;
    assert_eq!(answer.status, 400);
}
