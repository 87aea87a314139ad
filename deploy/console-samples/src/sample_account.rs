//! A sample network to look at: buyers, publishers, campaigns, webhooks, and a month of calls, made
//! over the operator API. The same dice each time, so that two pictures differ only by what changed.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use trueup_testkit::database::TestDatabase;
use trueup_testkit::http;
use trueup_testkit::process::{Process, Start};
use trueup_testkit::services::seeded_rng::SeededRng;
use uuid::Uuid;

const ADMIN_KEY: &str = "an-admin-key-for-the-pictures-0123456789";
pub const EMAIL: &str = "maya@northline.example";
pub const PASSWORD: &str = "a long enough password";
/// No other call of the network comes from here.
pub const AMBIGUOUS_CALLER: &str = "+13055550242";
/// What the webhooks' URLs begin with.
const PUBLIC_URL: &str = "https://reports.northline.example";
const DAYS: i64 = 30;
/// Where the sample network may be: a picture is of an afternoon, whenever it is taken.
const ZONES: [&str; 6] = [
    "America/New_York",
    "America/Los_Angeles",
    "Europe/Berlin",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Pacific/Auckland",
];
/// The hour that the afternoon is nearest to.
const AFTERNOON: i8 = 16;
/// A user is made within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A recorded call, as far as a report about it needs to know.
pub struct Call {
    pub ref_id: String,
    pub caller: String,
    pub seconds: u64,
    pub ended: Timestamp,
    /// The place of its buyer, and of the webhook that reports for them.
    pub side: usize,
    pub qualified: bool,
}

pub struct Network {
    // Before the database: it goes first.
    _console: Process,
    pub address: SocketAddr,
    pub database: TestDatabase,
    pub zone: &'static str,
    pub account: Uuid,
    key: String,
    /// One a side, in the order of [`SIDES`].
    pub webhooks: Vec<Uuid>,
    pub publishers: Vec<Uuid>,
    pub calls: Vec<Call>,
}

struct Side {
    buyer: &'static str,
    campaign: &'static str,
    publisher: &'static str,
    webhook: &'static str,
    /// Of the payout, or a flat amount.
    percent: Option<&'static str>,
    flat_cents: i64,
    estimate_cents: i64,
    secret: bool,
}

const fn side(
    names: [&'static str; 4],
    percent: Option<&'static str>,
    flat_cents: i64,
    estimate_cents: i64,
    secret: bool,
) -> Side {
    let [buyer, campaign, publisher, webhook] = names;
    Side {
        buyer,
        campaign,
        publisher,
        webhook,
        percent,
        flat_cents,
        estimate_cents,
        secret,
    }
}

const SIDES: [Side; 4] = [
    side(
        [
            "Summit Air",
            "HVAC, Florida",
            "Lakeside Media",
            "Ringba: HVAC buyer",
        ],
        Some("60"),
        0,
        4_500,
        false,
    ),
    side(
        [
            "Lone Star Roofing",
            "Roofing, Texas",
            "Prairie Leads",
            "TrackDrive: roofing",
        ],
        None,
        1_800,
        3_800,
        true,
    ),
    side(
        [
            "Harbor Legal",
            "Injury, Northeast",
            "Blue Heron Ads",
            "MarketCall: legal",
        ],
        Some("55"),
        0,
        11_000,
        false,
    ),
    side(
        [
            "Evergreen Solar",
            "Solar, Southwest",
            "Copperline",
            "Arroyo: solar",
        ],
        Some("62.5"),
        0,
        6_200,
        false,
    ),
];

impl Network {
    pub async fn make(console: &Path) -> anyhow::Result<Network> {
        let database = TestDatabase::fresh().await;
        let binary = console.display().to_string();
        let start = || {
            Start::new(&binary)
                .env("TRUEUP_POSTGRES_URL", &database.url)
                .env("TRUEUP_ADMIN_KEY", ADMIN_KEY)
                .env("TRUEUP_PUBLIC_URL", PUBLIC_URL)
        };
        let mut process = start().ready().await;
        let address = process.address("console").await;
        let zone = zone_of_afternoon();
        let account = json!({ "name": "Northline Calls", "time_zone": zone });
        let account = post(address, ADMIN_KEY, "/api/v1/accounts", &account).await?;
        let key = account["api_key"].as_str().context("a key")?.to_owned();
        let id = id_of(&account)?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), format!("{PASSWORD}\n"))?;
        let mut adding = start()
            .arg("user")
            .arg("add")
            .arg("--email")
            .arg(EMAIL)
            .arg("--account")
            .arg(id)
            .arg("--password-file")
            .arg(file.path().display())
            .spawn();
        if adding.exit_code(PATIENCE).await != 0 {
            bail!("no user could be made: {}", adding.log());
        }
        let mut network = Network {
            _console: process,
            address,
            database,
            zone,
            account: id,
            key,
            webhooks: Vec::new(),
            publishers: Vec::new(),
            calls: Vec::new(),
        };
        let assignments = network.sides().await?;
        network.record_calls(&assignments).await?;
        Ok(network)
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        post(self.address, &self.key, path, body).await
    }

    async fn sides(&mut self) -> anyhow::Result<Vec<(Uuid, Uuid)>> {
        let (mut made, mut campaigns) = (Vec::new(), Vec::new());
        for side in &SIDES {
            let named = |path: &'static str, name: &'static str| {
                let network = &*self;
                async move { id_of(&network.post(path, &json!({ "name": name })).await?) }
            };
            let buyer = named("/api/v1/buyers", side.buyer).await?;
            let publisher = named("/api/v1/publishers", side.publisher).await?;
            let campaign = named("/api/v1/campaigns", side.campaign).await?;
            let payout = match side.percent {
                Some(percent) => json!({ "kind": "rev_share", "percent": percent }),
                None => json!({ "kind": "flat", "amount_cents": side.flat_cents }),
            };
            let terms =
                json!({ "campaign_id": campaign, "publisher_id": publisher, "payout": payout });
            let assignment = id_of(&self.post("/api/v1/assignments", &terms).await?)?;
            let webhook =
                json!({ "name": side.webhook, "buyer_id": buyer, "require_secret": side.secret });
            let webhook = id_of(&self.post("/api/v1/webhooks", &webhook).await?)?;
            self.webhooks.push(webhook);
            self.publishers.push(publisher);
            made.push((buyer, assignment));
            campaigns.push(campaign);
        }
        // A second publisher of the first campaign.
        let payout = json!({ "kind": "rev_share", "percent": "50" });
        let terms = json!({ "campaign_id": campaigns[0], "publisher_id": self.publishers[3], "payout": payout });
        made.push((
            made[0].0,
            id_of(&self.post("/api/v1/assignments", &terms).await?)?,
        ));
        Ok(made)
    }

    /// One caller, two calls of a like length for two publishers: a report that names no id could be for either.
    async fn twins(&self, buyer: Uuid, assignments: [Uuid; 2]) -> anyhow::Result<()> {
        let now = Timestamp::now();
        for (assignment, seconds, minutes) in
            [(assignments[0], 178_i64, 24_i64), (assignments[1], 181, 41)]
        {
            let ended = now.checked_sub((minutes * 60).seconds())?;
            let call = json!({
                "ref_id": format!("nl-5{minutes}017"), "caller": AMBIGUOUS_CALLER, "duration_seconds": seconds,
                "tracking_number": "+18885550120", "buyer_id": buyer, "assignment_id": assignment,
                "started_at": ended.checked_sub(seconds.seconds())?, "ended_at": ended,
            });
            self.post("/api/v1/calls", &call).await?;
        }
        Ok(())
    }

    /// A month of calls: more by day than by night, more on working days, a little more each week.
    async fn record_calls(&mut self, sides: &[(Uuid, Uuid)]) -> anyhow::Result<()> {
        const AREAS: [&str; 8] = ["305", "786", "407", "512", "214", "617", "602", "480"];
        let mut dice = SeededRng::new(20_260_314);
        let mut bodies = Vec::new();
        let now = Timestamp::now();
        for day in (0..DAYS).rev() {
            let weekend = [5, 6].contains(&((now.as_second() / 86_400 - day + 3) % 7));
            let grown = u64::try_from(DAYS - day).unwrap_or(0);
            let calls = dice.between(76, 112) + grown - if weekend { 40 } else { 0 };
            for _ in 0..calls {
                // Two dice: most calls come in the middle of the day.
                let second = (dice.below(43_200) + dice.below(43_200)) as i64;
                let ended = now.checked_sub((day * 86_400 + second).seconds())?;
                let at = [0, 0, 0, 1, 1, 2, 2, 3][dice.below(8)];
                let seconds = dice.between(15, 110) + dice.between(0, 3) * dice.between(0, 159);
                let n = bodies.len();
                let call = Call {
                    ref_id: format!("nl-{:06}", 410_233 + n * 7),
                    caller: format!("+1{}555{:04}", AREAS[dice.below(8)], 100 + dice.below(99)),
                    seconds,
                    ended,
                    side: at,
                    qualified: seconds >= 60,
                };
                let value = if call.qualified {
                    json!(SIDES[at].estimate_cents)
                } else {
                    Value::Null
                };
                bodies.push(json!({
                    "ref_id": call.ref_id, "caller": call.caller, "duration_seconds": seconds,
                    "tracking_number": format!("+1888555{:04}", 120 + at * 11), "buyer_id": sides[at].0,
                    "started_at": ended.checked_sub((seconds as i64).seconds())?, "ended_at": ended,
                    "assignment_id": sides[at].1, "qualified": call.qualified, "value_cents": value,
                }));
                self.calls.push(call);
            }
        }
        let said = self.post("/api/v1/calls", &Value::from(bodies)).await?;
        anyhow::ensure!(said["errors"] == json!([]), "calls were refused: {said}");
        self.calls.sort_by_key(|call| call.ended);
        self.twins(sides[0].0, [sides[0].1, sides[4].1]).await
    }
}

fn zone_of_afternoon() -> &'static str {
    let off = |zone: &&'static str| {
        let hour = Timestamp::now().in_tz(zone).map_or(0, |at| at.hour());
        (hour - AFTERNOON).abs()
    };
    ZONES.into_iter().min_by_key(off).unwrap_or("UTC")
}

async fn post(address: SocketAddr, key: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let bearer = format!("Bearer {key}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let answer = http::send(address, "POST", path, &headers, body.to_string().as_bytes()).await;
    let answer = answer.map_err(|e| anyhow::anyhow!("the console does not answer: {e}"))?;
    if !(200..300).contains(&answer.status) {
        bail!("POST {path}: {} {}", answer.status, answer.text());
    }
    Ok(answer.json())
}

fn id_of(made: &Value) -> anyhow::Result<Uuid> {
    Ok(made["id"].as_str().context("an id")?.parse()?)
}
