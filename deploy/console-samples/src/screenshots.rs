//! Takes the pictures: signs in as a user would, goes to each page, and writes what is shown as PNG.

use std::path::Path;

use anyhow::{Context, ensure};
use trueup_testkit::webdriver::Browser;

use crate::sample_account::{EMAIL, Network, PASSWORD};
use crate::sample_reports;

/// Wide enough for every column, small enough for a README (pixels).
const WIDTH: u32 = 1280;
const NARROW: u32 = 360;
/// A long page is cut off here (pixels).
const MOST_HIGH: u32 = 1_000;
const MOST_HIGH_WHOLE: u32 = 4_000;

struct Picture {
    name: &'static str,
    path: String,
    look: Look,
}

/// How a page is shown in the documents, or that it is only looked at.
#[derive(Clone, Copy, PartialEq)]
enum Look {
    Light,
    Dark,
    Narrow,
    Unprinted,
}

pub async fn run(to: &Path, console: &Path, all: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("{} cannot be made", to.display()))?;
    println!("making a sample network");
    let network = Network::make(console).await?;
    sample_reports::send(&network).await?;
    let pictures = pictures(&network).await?;
    let browser = Browser::open(network.address).await;
    browser.zone(network.zone).await;
    browser.go("/sign-in").await;
    if all {
        take_screenshot(&browser, to, "sign-in", WIDTH, MOST_HIGH).await?;
    }
    browser.fill("E-mail", EMAIL).await;
    browser.fill("Password", PASSWORD).await;
    browser.click("Sign in").await;
    browser.sees("New webhook").await;
    for Picture { name, path, look } in &pictures {
        let width = if *look == Look::Narrow { NARROW } else { WIDTH };
        let page = async |suffix: &str, width: u32, scheme: &str, most: u32| {
            browser.scheme(scheme).await;
            browser.width(width).await;
            browser.go(path).await;
            take_screenshot(&browser, to, &format!("{name}{suffix}"), width, most).await
        };
        if *look != Look::Unprinted || all {
            page(
                "",
                width,
                if *look == Look::Dark { "dark" } else { "light" },
                MOST_HIGH,
            )
            .await?;
        }
        if all && !matches!(look, Look::Dark | Look::Narrow) {
            page("-whole", WIDTH, "light", MOST_HIGH_WHOLE).await?;
            page("-narrow", NARROW, "light", MOST_HIGH_WHOLE).await?;
            page("-dark", WIDTH, "dark", MOST_HIGH).await?;
        }
    }
    let complaints = browser.complaints().await;
    ensure!(
        complaints.is_empty(),
        "the pages' console complains: {complaints:?}"
    );
    Ok(())
}

async fn take_screenshot(
    browser: &Browser,
    to: &Path,
    name: &str,
    width: u32,
    most: u32,
) -> anyhow::Result<()> {
    let high = browser
        .run("return document.documentElement.scrollHeight")
        .await
        .as_u64()
        .unwrap_or(0);
    let high = u32::try_from(high).unwrap_or(most).clamp(480, most);
    let png = browser.picture(width, high).await;
    let file = to.join(format!("{name}.png"));
    std::fs::write(&file, &png).with_context(|| format!("{} cannot be written", file.display()))?;
    println!(
        "{} {width} x {high}, {} KiB",
        file.display(),
        png.len() / 1024
    );
    Ok(())
}

/// The main pages, each with something on it.
async fn pictures(network: &Network) -> anyhow::Result<Vec<Picture>> {
    let client = network.database.client().await;
    let newest = async |condition: &str| -> anyhow::Result<String> {
        let sql =
            format!("SELECT id FROM events WHERE {condition} ORDER BY received_at DESC LIMIT 1");
        let row = client
            .query_opt(&sql, &[])
            .await?
            .with_context(|| format!("no event where {condition}"))?;
        Ok(format!("/events/{}", row.get::<_, uuid::Uuid>(0)))
    };
    let most_reported = client.query_one(
        "SELECT call_id FROM call_reports GROUP BY call_id ORDER BY count(*) DESC, call_id LIMIT 1",
        &[],
    );
    let call: uuid::Uuid = most_reported.await?.get(0);
    let webhook = |side: usize| format!("/webhooks/{}", sample_reports::webhook(network, side));
    let picture = |look| move |name, path: String| Picture { name, path, look };
    let (page, only) = (picture(Look::Light), picture(Look::Unprinted));
    Ok(vec![
        page("webhooks", "/webhooks".to_owned()),
        page("events", webhook(0)),
        picture(Look::Dark)("events-dark", "/events".to_owned()),
        picture(Look::Narrow)("events-narrow", webhook(0)),
        page("event", newest("reason = 'ambiguous'").await?),
        page("why-unmatched", format!("{}/why", webhook(3))),
        page("setup", format!("{}/setup", webhook(0))),
        page("revenue", "/revenue".to_owned()),
        page(
            "statement",
            format!("/publishers/{}", network.publishers[0]),
        ),
        only("all-events", "/events".to_owned()),
        only(
            "event-unmatched",
            newest("reason = 'duration_mismatch'").await?,
        ),
        only(
            "event-matched",
            newest("strategy = 'caller_duration' AND status = 'matched'").await?,
        ),
        only("settings", format!("{}/settings", webhook(1))),
        only(
            "revenue-by-publisher",
            "/revenue?group=publisher".to_owned(),
        ),
        only("calls", "/calls".to_owned()),
        only("call", format!("/calls/{call}")),
        only("publishers", "/publishers".to_owned()),
        only("buyers", "/buyers".to_owned()),
        only("assignments", "/assignments".to_owned()),
        only("new-webhook", "/webhooks/new".to_owned()),
        only(
            "filtered",
            "/events?status=unmatched&reason=caller_not_found&since=2026-01-01".to_owned(),
        ),
        only("try", "/try".to_owned()),
        only("replay", "/events/replay?status=unmatched".to_owned()),
        only("keys", "/keys".to_owned()),
        only("users", "/users".to_owned()),
        only("account", "/account".to_owned()),
        only("audit", "/audit".to_owned()),
    ])
}
