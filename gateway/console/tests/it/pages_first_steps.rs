//! From an empty account to the first credited match by the pages alone.

use serde_json::json;
use trueup_testkit::webdriver::Browser;

use crate::console_events::Scene;
use crate::pages::{ANN, add_user};
use crate::pages_browser::{no_complaints, sign_in};

#[tokio::test]
async fn an_empty_account_comes_to_its_first_credited_match_by_the_pages_alone() {
    let scene = Scene::empty().await;
    add_user(&scene.console, &scene.account.to_string(), ANN, "owner").await;
    let browser = Browser::open(scene.console.address).await;
    sign_in(&browser).await;
    browser.sees("To the first credited report").await;

    browser
        .click("Make a webhook: the URL that a buyer reports to")
        .await;
    browser.fill("Name", "Ringba").await;
    browser.click_at("//input[@name='require_secret']").await;
    browser.click("Save").await;
    browser.sees("Copy the URL").await;
    let webhook = browser
        .path()
        .await
        .split('/')
        .nth(2)
        .expect("an id")
        .to_owned();

    browser.go("/webhooks").await;
    browser
        .click("Say what a publisher earns from a campaign")
        .await;
    browser.fill("Publisher", "LeadRiver").await;
    browser.fill("Campaign", "HVAC Florida").await;
    browser.fill("Percent or amount", "60").await;
    browser.click("Save").await;
    browser.sees("Assignment created.").await;
    browser.sees("60 % of the payout").await;

    browser.go("/webhooks").await;
    browser.click("Record a test call").await;
    browser.click("Record").await;
    browser.sees("Call recorded.").await;
    browser.sees("HVAC Florida").await;
    let call = browser.path().await.replace("?done=call-recorded", "");
    // The line that the page gives, with the account's real URL; what a shell would send is sent.
    let line = browser
        .run("return document.getElementById('curl-1').textContent")
        .await;
    let line = line.as_str().expect("a line").to_owned();
    assert!(
        line.starts_with("curl 'https://reports.example.test/api/v1/ppc/inbound-webhooks/"),
        "{line}"
    );
    let query = line
        .split_once('?')
        .expect("a query")
        .1
        .trim_end_matches('\'')
        .to_owned();
    scene.report_to(&webhook, &query).await;
    browser.go(&call).await;
    browser.sees("+$50.00").await;
    browser.sees("+$30.00").await;
    browser.sees("LeadRiver").await;
    browser.go("/webhooks").await;
    assert!(
        !browser
            .text()
            .await
            .contains("To the first credited report"),
        "it is done"
    );

    // The statement says whose call it was; the event gives itself as a line for a shell.
    let id = call.rsplit('/').next().expect("an id");
    let shown = scene.key.get(&format!("/api/v1/calls/{id}")).await.ok();
    let publishers = scene.key.get("/api/v1/publishers").await.ok();
    let publisher = publishers["data"][0]["id"].as_str().expect("an id");
    browser.go(&format!("/publishers/{publisher}")).await;
    browser.sees("+13055550142").await;
    browser.sees("HVAC Florida").await;
    let event = shown["reports"][0]["event_id"].as_str().expect("an id");
    browser.go(&format!("/events/{event}")).await;
    browser.click("As curl").await;
    browser
        .sees("curl -g -X GET 'https://reports.example.test")
        .await;
    assert_eq!(shown["value_cents"], json!(5_000));
    no_complaints(&browser).await;
}
