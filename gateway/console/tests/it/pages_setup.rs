//! Setting up: what a page tells the buyer follows the settings, what is archived looks so and comes back, twins
//! are asked about, and a form that is refused keeps what was typed and says why in words.

use serde_json::json;

use crate::console::id;
use crate::pages::{PageUser, scene_with_owner};

async fn setup(ann: &mut PageUser, webhook: &str) -> String {
    ann.get(&format!("/webhooks/{webhook}/setup")).await.text()
}

#[tokio::test]
async fn the_setup_page_follows_the_settings() {
    let (scene, mut ann) = scene_with_owner().await;
    let path = format!("/api/v1/webhooks/{}", scene.webhook);
    scene
        .key
        .patch(&path, json!({ "require_secret": true }))
        .await
        .ok();
    let page = setup(&mut ann, &scene.webhook).await;
    assert!(
        page.contains("X-Webhook-Secret: &#60;the secret&#62;"),
        "{page}"
    );
    assert!(
        page.contains("cannot send headers"),
        "networks that only know URLs are told what to do: {page}"
    );
    scene
        .key
        .patch(&path, json!({ "secret_query_param": "key" }))
        .await
        .ok();
    let page = setup(&mut ann, &scene.webhook).await;
    for text in [
        "?key=&#60;the secret&#62;&#38;caller_id=[tag:InboundNumber:Number]",
        "?key=&#60;the secret&#62;&#38;pub_id={pub_id}",
        "?key=&#60;the secret&#62;&#38;caller_id=%2B13055551234",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(
        !page.contains("Every request must carry the secret in <code>X-Webhook-Secret</code>;"),
        "{page}"
    );
}

#[tokio::test]
async fn an_archived_webhook_looks_so_and_comes_back() {
    let (scene, mut ann) = scene_with_owner().await;
    let webhook = &scene.webhook;
    assert_eq!(
        ann.post(&format!("/webhooks/{webhook}/archive"), &[])
            .await
            .status,
        303
    );
    let list = ann.get("/webhooks?archived=1").await.text();
    assert!(
        list.contains(webhook.as_str()) && !list.contains("waiting for the first"),
        "{list}"
    );
    assert!(list.contains(">archived<"), "{list}");
    let page = setup(&mut ann, webhook).await;
    assert!(
        page.contains("answers 404") && !page.contains("Waiting for the first event"),
        "{page}"
    );
    let shown = ann
        .post_and_follow(&format!("/webhooks/{webhook}/restore"), &[])
        .await
        .text();
    assert!(shown.contains("Restored."), "{shown}");
    let it = scene
        .key
        .get(&format!("/api/v1/webhooks/{webhook}"))
        .await
        .ok();
    assert_eq!(it["archived_at"], json!(null));
    assert!(ann.get("/webhooks").await.text().contains(webhook.as_str()));
}

#[tokio::test]
async fn a_refused_form_keeps_its_input_and_says_why() {
    let (scene, mut ann) = scene_with_owner().await;
    for (path, heading) in [
        ("/buyers", "Buyers"),
        ("/campaigns", "Campaigns"),
        ("/publishers", "Publishers"),
    ] {
        let answer = ann.post(path, &[("name", "   ")]).await;
        let page = answer.text();
        assert_eq!(answer.status, 422, "{path}");
        assert!(
            page.contains(&format!("<h1>{heading}</h1>")) && page.contains("must not be blank"),
            "{page}"
        );
        // Twins are made knowingly or not at all.
        assert_eq!(ann.post(path, &[("name", "Summit")]).await.status, 303);
        let answer = ann.post(path, &[("name", "summit ")]).await;
        let page = answer.text();
        assert_eq!(answer.status, 422, "{path}");
        assert!(
            page.contains("of this name already") && page.contains("value=\"summit\""),
            "{page}"
        );
        assert_eq!(
            ann.post(path, &[("name", "summit"), ("twin", "on")])
                .await
                .status,
            303
        );
    }
    let campaign = scene.key.named("campaigns", "Kept campaign").await;
    let fields = [
        ("campaign_id", campaign.as_str()),
        ("publisher_id", &scene.publisher),
        ("kind", "flat"),
        ("amount", "abc"),
    ];
    let answer = ann.post("/assignments", &fields).await;
    let page = answer.text();
    assert_eq!(answer.status, 422);
    for kept in [
        format!("<option value=\"{campaign}\" selected>"),
        format!("<option value=\"{}\" selected>", scene.publisher),
        "<option value=\"flat\" selected>".to_owned(),
        "value=\"abc\"".to_owned(),
    ] {
        assert!(page.contains(&kept), "{kept}: {page}");
    }
    let percent = [
        ("campaign_id", campaign.as_str()),
        ("publisher_id", &scene.publisher),
        ("kind", "rev_share"),
        ("amount", "120"),
    ];
    let page = ann.post("/assignments", &percent).await.text();
    assert!(
        page.contains("a percentage from 0 to 100") && !page.contains("payout.percent"),
        "{page}"
    );
    let answer = ann
        .post(
            "/users",
            &[
                ("email", "no-address"),
                ("role", "viewer"),
                ("password", "x"),
            ],
        )
        .await;
    let page = answer.text();
    assert_eq!(answer.status, 422);
    assert!(
        page.contains("value=\"no-address\"") && page.contains("<option selected>viewer</option>"),
        "{page}"
    );
    let path = format!("/webhooks/{}/field-name", scene.webhook);
    let answer = ann
        .post(&path, &[("slot", "nonsense"), ("field", "x")])
        .await;
    assert_eq!(answer.status, 422);
    assert!(
        !answer.text().contains("Unprocessable"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn what_is_no_longer_used_leaves_the_lists_and_comes_back() {
    let (scene, mut ann) = scene_with_owner().await;
    let buyer = scene.key.named("buyers", "Gone buyer").await;
    let campaign = scene.key.named("campaigns", "Gone campaign").await;
    let publisher = scene.key.named("publishers", "Gone publisher").await;
    let body = json!({ "campaign_id": campaign, "publisher_id": publisher, "payout": { "kind": "flat", "amount_cents": 5 } });
    let assignment = id(&scene.key.post("/api/v1/assignments", body).await.created());
    for (noun, it, offered, name) in [
        ("buyers", &buyer, "/webhooks/new", "Gone buyer"),
        ("campaigns", &campaign, "/assignments", "Gone campaign"),
        ("publishers", &publisher, "/assignments", "Gone publisher"),
        ("assignments", &assignment, "", ""),
    ] {
        let option = format!("<option value=\"{it}\"");
        if !offered.is_empty() {
            assert!(ann.get(offered).await.text().contains(&option), "{noun}");
        }
        let answer = ann.post(&format!("/{noun}/{it}/archive"), &[]).await;
        assert_eq!(answer.status, 303, "{noun}: {}", answer.text());
        let page = ann.get(&format!("/{noun}")).await.text();
        assert!(
            !page.contains(&format!("/{noun}/{it}/archive")),
            "{noun}: {page}"
        );
        if !offered.is_empty() {
            assert!(
                !ann.get(offered).await.text().contains(&option),
                "{noun} is offered though archived"
            );
        }
        let page = ann.get(&format!("/{noun}?archived=1")).await.text();
        assert!(
            page.contains(&format!("/{noun}/{it}/restore")) && page.contains(name),
            "{noun}: {page}"
        );
        let answer = ann.post(&format!("/{noun}/{it}/restore"), &[]).await;
        assert_eq!(answer.status, 303, "{noun}");
        let page = ann.get(&format!("/{noun}")).await.text();
        assert!(
            page.contains(&format!("/{noun}/{it}/archive")),
            "{noun}: {page}"
        );
    }
    let log = scene
        .key
        .get("/api/v1/audit-log?limit=500")
        .await
        .ok()
        .to_string();
    assert_eq!(log.matches("\"restore\"").count(), 4, "{log}");
}
