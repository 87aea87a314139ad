//! The pages in a real browser: the setup from signing in to the first matched event, each trouble
//! found by clicking, the keyboard alone, a narrow screen, and what a person who cannot see well needs.

use std::time::Duration;

use serde_json::{Value, json};
use trueup_testkit::eventually;
use trueup_testkit::webdriver::Browser;

use crate::console_events::Scene;
use crate::pages::{PASSWORD, add_user};

const ANN: &str = "ann@example.test";
pub const SOON: Duration = Duration::from_secs(30);
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

pub async fn scene() -> (Scene, Browser) {
    let scene = Scene::set().await;
    add_user(&scene.console, &scene.account.to_string(), ANN, "owner").await;
    let browser = Browser::open(scene.console.address).await;
    (scene, browser)
}

pub async fn sign_in(browser: &Browser) {
    browser.go("/sign-in").await;
    browser.fill("E-mail", ANN).await;
    browser.fill("Password", PASSWORD).await;
    browser.click("Sign in").await;
    browser.sees("New webhook").await;
}

pub async fn no_complaints(browser: &Browser) {
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn from_signing_in_to_the_first_matched_event() {
    let (scene, browser) = scene().await;
    scene
        .call(json!({ "ref_id": "abc123", "tracking_number": "+18005550100" }))
        .await;
    sign_in(&browser).await;
    browser.click("New webhook").await;
    browser.fill("Name", "Ringba: HVAC Buyer").await;
    // A secret is required unless it is switched off.
    browser.click_at("//input[@name='require_secret']").await;
    browser.click("Save").await;
    browser.sees("Copy the URL").await;
    let url = browser
        .run("return document.getElementById('url').textContent")
        .await;
    let url = url.as_str().expect("a url");
    assert!(
        url.starts_with("https://reports.example.test/api/v1/ppc/inbound-webhooks/"),
        "{url}"
    );
    for template in [
        "Ringba",
        "TrackDrive",
        "MarketCall",
        "Arroyo",
        "Anything else (JSON)",
    ] {
        browser.sees(template).await;
    }
    let ringba = browser
        .run("return document.getElementById('template-ringba').textContent")
        .await;
    assert!(
        ringba
            .as_str()
            .is_some_and(|t| t.starts_with(url) && t.contains("[Call:ConversionPayout]")),
        "{ringba}"
    );
    browser.sees("Waiting for the first event").await;
    browser.run("window.same_page = true").await;

    let id = browser
        .path()
        .await
        .split('/')
        .nth(2)
        .expect("an id")
        .to_owned();
    scene
        .report_to(
            &id,
            "caller_id=%2B13055551234&duration=90&payout=50&ref_id=abc123",
        )
        .await;
    browser.sees("matched").await;
    browser.sees("went from nothing to $50.00").await;
    assert_eq!(
        browser.run("return window.same_page").await,
        Value::Bool(true),
        "without loading the page again"
    );
    browser.click("To the recent events").await;
    browser.sees("+18005550100").await;
    browser.sees("+$30.00").await;

    // The next one appears in the panel by itself.
    browser.run("window.same_page = true").await;
    scene.report_to(&id, "ref_id=nobody-knows&payout=7").await;
    browser.sees("ref_id not found").await;
    assert_eq!(
        browser.run("return window.same_page").await,
        Value::Bool(true)
    );
    no_complaints(&browser).await;
}

#[tokio::test]
async fn each_trouble_is_found_and_mended_by_clicking() {
    let (scene, browser) = scene().await;
    scene
        .call(json!({ "ref_id": "ref-1", "caller": "+13055550101" }))
        .await;
    let long = scene
        .call(json!({ "caller": "+13055550102", "duration_seconds": 200 }))
        .await;
    let other = scene
        .call(json!({ "caller": "+13055550103", "ref_id": "ref-3" }))
        .await;
    scene.report("their_ref=ref-1&payout=40").await;
    scene
        .report("caller_id=%2B13055550102&duration=90&payout=41")
        .await;
    let wrong = scene
        .report("caller_id=%2B13055550199&duration=90&payout=42")
        .await;
    sign_in(&browser).await;

    // "The buyer's ref_id field name isn't in the auto-detect list": the name that is really used is offered.
    browser.click_at("//table//a[normalize-space(.)='3']").await;
    browser.click("Why is it unmatched?").await;
    browser.sees("Field names we do not read yet").await;
    browser.sees("their_ref").await;
    browser.click("Read ref_id from their_ref").await;
    browser.sees("The field name is set").await;
    browser
        .click_at("//tr[contains(., 'nothing to match')]//a[normalize-space(.)='Replay…']")
        .await;
    browser.sees("Replay 1 events").await;
    browser.click_at("//button[contains(., 'Replay 1')]").await;
    browser.sees("Replaying…").await;
    scene.work_off_replays().await;
    browser.sees("Done.").await;
    assert_eq!(balance(&scene).await, 2_400, "60 % of $40");

    // "If duration is the issue, raise Match duration tolerance."
    browser
        .go(&format!("/webhooks/{}/why", scene.webhook))
        .await;
    browser
        .click_at("//tr[contains(., 'duration mismatch')]//a[normalize-space(.)='An example']")
        .await;
    browser.sees("110 s off").await;
    let event = browser.path().await;
    browser
        .go(&format!("/webhooks/{}/settings", scene.webhook))
        .await;
    browser.fill("Match duration tolerance", "-5").await;
    browser.click("Save").await;
    browser.sees("Not saved").await;
    let complaints = browser.complaints().await;
    assert!(
        complaints.iter().all(|c| c.contains("422")),
        "a refused form is all: {complaints:?}"
    );
    browser.fill("Match duration tolerance", "120").await;
    browser.click("Save").await;
    browser.sees("Saved.").await;
    browser.go(&event).await;
    browser.click("Replay").await;
    browser.sees("Nothing has been done yet").await;
    browser.sees("+$24.60").await;
    browser.click("Replay this event").await;
    browser.sees("Replayed under the rules").await;
    browser
        .click_at(&format!("//a[@href='/calls/{long}']"))
        .await;
    browser.sees("$41.00").await;
    browser.sees("real").await;

    // A caller that does not match: the right call is searched for and assigned; then the amount put right.
    let paid = balance(&scene).await;
    browser.go(&format!("/events/{wrong}")).await;
    browser.sees("caller not found").await;
    browser.fill("Find a call", "(305) 555-0103").await;
    browser.click("Find").await;
    browser
        .click_at(&format!("//tr[.//a[@href='/calls/{other}']]//button"))
        .await;
    browser.sees("Nothing has been done yet").await;
    assert_eq!(balance(&scene).await, paid, "it is asked first");
    browser.click("Assign to this call").await;
    browser.sees("Assigned to the call.").await;
    // A decimal comma is one; what was understood is shown before money moves (X7).
    browser.fill("Amount", "45,50").await;
    browser.click("Apply").await;
    browser.sees("Apply $45.50").await;
    browser.click("Apply $45.50").await;
    browser.sees("Applied.").await;
    browser.sees("$45.50").await;
    let money = scene.key.get(&format!("/api/v1/calls/{other}")).await.ok();
    assert_eq!(money["value_cents"], 4_550);
    assert_eq!(money["reported_by_webhook_id"], json!(null));
    browser.go(&format!("/calls/{other}")).await;
    browser.sees("Value set by").await;
    browser.go(&format!("/events/{wrong}")).await;
    browser.click("Undo").await;
    browser.sees("Nothing has been done yet").await;
    browser.click("Take it back").await;
    browser.sees("Taken back.").await;
    let money = scene.key.get(&format!("/api/v1/calls/{other}")).await.ok();
    assert_ne!(money["value_cents"], 4_550, "the apply is undone");

    // "Returning 401?": a secret is made and shown once; "Webhook disabled?": the toggle.
    browser
        .go(&format!("/webhooks/{}/settings", scene.webhook))
        .await;
    browser.click("Generate a secret").await;
    browser.sees("whsec_").await;
    browser.click("I have copied it").await;
    browser.sees("it is rotated").await;
    browser
        .click_at("//form[contains(@action,'/secret/remove')]//button")
        .await;
    browser.accept_question().await;
    browser.sees("The secret is removed").await;
    browser.go("/webhooks").await;
    browser.click_at("//button[@role='switch']").await;
    browser.sees("Paused.").await;
    browser
        .click_at("//button[@role='switch'][@aria-checked='false']")
        .await;
    browser.sees("Switched on.").await;
    no_complaints(&browser).await;
}

async fn balance(scene: &Scene) -> i64 {
    let shown = scene
        .key
        .get(&format!("/api/v1/publishers/{}", scene.publisher))
        .await
        .ok();
    shown["pending_balance_cents"].as_i64().expect("cents")
}

#[tokio::test]
async fn the_keyboard_alone_is_enough() {
    let (scene, browser) = scene().await;
    scene.call(json!({ "ref_id": "abc" })).await;
    let event = scene.report("ref_id=abc&payout=50").await;
    browser.go("/sign-in").await;
    browser.press(ANN).await;
    browser.press(TAB).await;
    browser.press(PASSWORD).await;
    browser.press(ENTER).await;
    browser.sees("New webhook").await;

    browser.press(TAB).await;
    let focused = || {
        browser.run(
            "const f = document.activeElement; return f === document.body ? '|' : f.textContent.trim() + '|' + getComputedStyle(f).outlineStyle",
        )
    };
    assert_eq!(
        focused().await,
        "Skip to the content|solid",
        "the first stop, and it can be seen"
    );
    browser.press(ENTER).await;
    eventually("the content has the focus", SOON, || async {
        (browser.run("return document.activeElement.id").await == "main").then_some(())
    })
    .await;
    browser.press("j").await;
    assert_eq!(focused().await, "Ringba|solid");
    browser.press(ENTER).await;
    browser.sees("Credit moved").await;
    browser.press("j").await;
    browser.press(ENTER).await;
    browser.sees("How it was read").await;
    assert_eq!(browser.path().await, format!("/events/{event}"));
    browser.go("/events").await;
    browser.press("/").await;
    browser.press("abc").await;
    browser.press(ENTER).await;
    eventually("the search is in the address", SOON, || async {
        browser.path().await.contains("q=abc").then_some(())
    })
    .await;
    browser.sees("+$30.00").await;
    // Every stop of a page can be seen, and the way goes through all of it.
    browser.go("/revenue").await;
    let mut stops = Vec::new();
    for _ in 0..50 {
        browser.press(TAB).await;
        let at = focused().await.as_str().unwrap_or_default().to_owned();
        assert!(
            !at.ends_with("|none") || at.starts_with('|'),
            "{at} shows no focus"
        );
        stops.push(at);
    }
    for wanted in ["Webhooks|", "By publisher|", "Show|"] {
        assert!(
            stops.iter().any(|stop| stop.starts_with(wanted)),
            "{wanted} is never reached: {stops:?}"
        );
    }
    no_complaints(&browser).await;
}

/// Run in the page: what a person who uses it without eyes, or with weak ones, would stumble over.
const STUMBLES: &str = r#"
const out = [], seen = (e) => { const b = e.getBoundingClientRect(), s = getComputedStyle(e);
  return b.width > 0 && b.height > 0 && s.visibility !== 'hidden' && s.display !== 'none' && !e.closest('.hidden-text'); };
const say = (e, why) => out.push(why + ': ' + e.outerHTML.slice(0, 120));
const name = (e) => (e.getAttribute('aria-label') || e.textContent || e.title || '').trim();
if (!document.documentElement.lang) out.push('no language');
if (!document.title) out.push('no title');
if (document.querySelectorAll('main').length !== 1) out.push('not one main');
const ids = new Set();
for (const e of document.querySelectorAll('[id]')) { if (ids.has(e.id)) say(e, 'the id is there twice'); ids.add(e.id); }
for (const e of document.querySelectorAll('input, select, textarea')) {
  if (e.type === 'hidden' || e.hidden) continue;
  if (!(e.labels && e.labels.length) && !e.getAttribute('aria-label')) say(e, 'no label'); }
for (const e of document.querySelectorAll('button, a[href]')) if (!name(e)) say(e, 'no name');
for (const e of document.querySelectorAll('svg')) if (e.getAttribute('aria-hidden') !== 'true' && !e.getAttribute('aria-label')) say(e, 'a picture without words');
let level = 0;
const heads = [...document.querySelectorAll('h1, h2, h3, h4')];
if (heads.filter((h) => h.tagName === 'H1').length !== 1) out.push('not one h1');
for (const h of heads) { const n = Number(h.tagName[1]); if (n > level + 1) say(h, 'a heading skips a level'); level = n; if (!name(h)) say(h, 'an empty heading'); }
for (const t of document.querySelectorAll('table')) {
  const ths = [...t.querySelectorAll('thead th')];
  if (!ths.length) say(t, 'a table without headers');
  for (const th of ths) { if (!th.scope) say(th, 'no scope'); if (!name(th)) say(th, 'an empty header'); } }
const parse = (c) => { const m = c.match(/[\d.]+/g).map(Number); if (c.startsWith('color(srgb')) return [m[0]*255, m[1]*255, m[2]*255, m[3] ?? 1]; return [m[0], m[1], m[2], m[3] ?? 1]; };
const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
const back = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255, 1]; };
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || !seen(e) || e.closest('[disabled], script, svg, option')) continue;
  const s = getComputedStyle(e), size = parseFloat(s.fontSize), bold = Number(s.fontWeight) >= 700;
  const a = light(parse(s.color)), b = light(back(e));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < (size >= 24 || (bold && size >= 18.6) ? 3 : 4.5)) say(e, 'contrast ' + ratio.toFixed(2));
}
return out;
"#;

#[tokio::test]
async fn nobody_stumbles_on_any_page_dark_or_light_wide_or_narrow() {
    let (scene, browser) = scene().await;
    let call = scene
        .call(json!({ "ref_id": "abc", "qualified": true, "value_cents": 4_000 }))
        .await;
    let matched = scene
        .report("ref_id=abc&payout=50&caller_id=anonymous")
        .await;
    let unmatched = scene
        .report("caller_id=%2B13055551234&duration=300&payout=50")
        .await;
    scene
        .report("their_ref=abc&phone_no=13055551234&payout=50")
        .await;
    scene.report("ref_id=abc&payout=12000").await;
    browser.go("/sign-in").await;
    assert_eq!(browser.run(STUMBLES).await, json!([]), "/sign-in");
    // The check itself is checked: it sees what is planted for it.
    browser.run("document.querySelector('main').insertAdjacentHTML('beforeend', '<h4>x</h4><input><table><tr><td>y</td></tr></table><p id=grey>pale</p>'); const s = new CSSStyleSheet(); s.replaceSync('#grey { color: #ccc }'); document.adoptedStyleSheets = [s]").await;
    let planted = browser.run(STUMBLES).await.to_string();
    for fault in [
        "a heading skips a level",
        "no label",
        "a table without headers",
        "contrast",
    ] {
        assert!(planted.contains(fault), "{fault} is not seen: {planted}");
    }
    sign_in(&browser).await;
    let webhook = format!("/webhooks/{}", scene.webhook);
    let pages = [
        "/webhooks".to_owned(),
        "/webhooks/new".to_owned(),
        "/webhooks?archived=1".to_owned(),
        webhook.clone(),
        format!("{webhook}/setup"),
        format!("{webhook}/why"),
        format!("{webhook}/settings"),
        "/events".to_owned(),
        "/events?status=held&q=nothing".to_owned(),
        format!("/events/{matched}"),
        format!("/events/{unmatched}"),
        "/events/replay?status=unmatched".to_owned(),
        "/inbox".to_owned(),
        "/calls".to_owned(),
        format!("/calls/{call}"),
        "/publishers".to_owned(),
        format!("/publishers/{}", scene.publisher),
        "/buyers".to_owned(),
        "/campaigns".to_owned(),
        "/assignments".to_owned(),
        "/revenue".to_owned(),
        "/revenue?group=publisher".to_owned(),
        "/try".to_owned(),
        "/keys".to_owned(),
        "/users".to_owned(),
        "/account".to_owned(),
        "/audit".to_owned(),
    ];
    for (width, scheme) in [(1360, "light"), (360, "dark")] {
        browser.width(width).await;
        browser.scheme(scheme).await;
        for page in &pages {
            browser.go(page).await;
            assert_eq!(
                browser.run(STUMBLES).await,
                json!([]),
                "{page}, {scheme}, {width} px"
            );
            let over = browser
                .run("return document.documentElement.scrollWidth - innerWidth")
                .await;
            assert!(
                over.as_i64().is_some_and(|over| over <= 0),
                "{page} is {over} px wider than {width} px"
            );
            no_complaints(&browser).await;
        }
    }
}

#[tokio::test]
async fn the_pages_work_without_their_script() {
    // What the script adds is left out: forms are sent and addresses followed as a plain client does.
    let scene = Scene::set().await;
    add_user(&scene.console, &scene.account.to_string(), ANN, "owner").await;
    let mut ann = crate::pages::PageUser::signed_in(&scene.console, ANN).await;
    scene.call(json!({ "ref_id": "abc" })).await;
    let event = scene.report("their_id=abc&payout=50").await;
    let field = [("slot", "ref_id"), ("field", "their_id")];
    assert_eq!(
        ann.post(&format!("/webhooks/{}/field-name", scene.webhook), &field)
            .await
            .status,
        303
    );
    let answer = ann
        .post(&format!("/events/{event}/replay"), &[("confirmed", "yes")])
        .await;
    let location = answer.header("location").expect("goes on").to_owned();
    let page = ann.get(&location).await.text();
    assert!(
        page.contains("Replayed under the rules") && page.contains("pill-matched"),
        "{page}"
    );
    let sample = [
        ("webhook", scene.webhook.as_str()),
        ("text", "curl 'https://x.test/?ref_id=abc&payout=70'"),
    ];
    let tried = ann.post("/try", &sample).await.text();
    assert!(
        tried.contains("$50.00 to $70.00") && tried.contains("ref_id"),
        "{tried}"
    );
    assert_eq!(balance(&scene).await, 3_000, "a try moves nothing");
    let panel = ann
        .get(&format!(
            "/webhooks/{}?status=matched&amount=50",
            scene.webhook
        ))
        .await
        .text();
    assert!(panel.contains(&event), "filters are plain addresses");
    let none = ann
        .get(&format!("/webhooks/{}?status=held", scene.webhook))
        .await
        .text();
    assert!(none.contains("Nothing found") && !none.contains(&event));
    let csv = ann
        .get(&format!("/events.csv?webhook={}", scene.webhook))
        .await;
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(csv.text().starts_with("\"event_id\",\"received_at\"") && csv.text().contains(&event));
    let ledger = ann
        .get(&format!("/publishers/{}/ledger.csv", scene.publisher))
        .await
        .text();
    assert!(ledger.contains("\"30.00\""), "{ledger}");
}
