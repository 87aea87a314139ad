//! The buyers' reports about the sample network's calls, settled by the product's own code at the times
//! at which they would have come: most of them good, and some with everything that goes wrong in life.

use jiff::{Timestamp, ToSpan};
use trueup_domain::batch_decision::SettleJob;
use trueup_event::ids;
use trueup_event::raw_event::{RawEvent, RawRequest, Refusal};
use trueup_event::reason::Reason;
use trueup_settlement::settle_batch;
use trueup_store::{Pool, PoolSettings, TransactionName, run_tx};
use trueup_testkit::services::seeded_rng::SeededRng;
use uuid::Uuid;

use crate::sample_account::{AMBIGUOUS_CALLER, Call, Network};

/// Reports settled in one transaction.
const BATCH: usize = 200;

struct Sender<'a> {
    network: &'a Network,
    dice: SeededRng,
    events: Vec<RawEvent>,
}

/// Settles a month of reports.
pub async fn send(network: &Network) -> anyhow::Result<()> {
    let mut sender = Sender {
        network,
        dice: SeededRng::new(7),
        events: Vec::new(),
    };
    let calls = &network.calls;
    for (n, call) in calls.iter().enumerate() {
        sender.about(n, call)?;
    }
    sender.strays()?;
    let mut events = sender.events;
    let now = Timestamp::now();
    events.retain(|event| event.received_at < now);
    events.sort_by_key(|event| event.received_at);
    let pool = Pool::new(
        &network.database.url,
        &PoolSettings::for_application("pictures", 2),
    )?;
    for batch in events.chunks(BATCH) {
        let works: Vec<SettleJob> = batch.iter().cloned().map(SettleJob::Fresh).collect();
        run_tx(&pool, TransactionName::Other, move |tx| {
            let works = works.clone();
            Box::pin(async move { settle_batch(tx, works).await })
        })
        .await?;
    }
    backdate(network).await
}

/// The ledger's times are those of the settling; a month of it in one second would look odd.
async fn backdate(network: &Network) -> anyhow::Result<()> {
    let client = network.database.client().await;
    client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE postings p SET created_at = e.received_at + interval '40 milliseconds' FROM events e WHERE e.id = p.event_id;
             UPDATE postings p SET created_at = c.ended_at + interval '2 seconds' FROM calls c
              WHERE p.event_id IS NULL AND c.account_id = p.account_id AND c.id = p.call_id;
             UPDATE events SET processed_at = received_at + interval '31 milliseconds';
             ANALYZE;",
        )
        .await?;
    Ok(())
}

impl Sender<'_> {
    fn push(
        &mut self,
        side: usize,
        received_at: Timestamp,
        request: Option<RawRequest>,
        refusal: Option<Refusal>,
    ) {
        let received_at = ids::to_microseconds(received_at);
        let mut random = [0_u8; 10];
        random.fill_with(|| u8::try_from(self.dice.below(256)).unwrap_or(0));
        let last = [17, 18, 44][self.dice.below(3)];
        self.events.push(RawEvent {
            id: ids::event_id(received_at, &random),
            received_at,
            account_id: self.network.account,
            webhook_id: self.network.webhooks[side],
            position: 0,
            source_ip: std::net::Ipv4Addr::new(198, 51, 100, last).into(),
            request,
            refusal,
        });
    }

    fn query(&mut self, side: usize, at: Timestamp, query: String) {
        self.push(
            side,
            at,
            Some(RawRequest {
                method: "GET".into(),
                query: query.into(),
                ..RawRequest::default()
            }),
            None,
        );
    }

    fn json(&mut self, side: usize, at: Timestamp, body: String) {
        let request = RawRequest {
            method: "POST".into(),
            content_type: Some("application/json".into()),
            body: body.into_bytes(),
            ..RawRequest::default()
        };
        self.push(side, at, Some(request), None);
    }

    /// What the buyer says of one call, if anything: nothing yet of some of the newest.
    fn about(&mut self, n: usize, call: &Call) -> anyhow::Result<()> {
        let at = call
            .ended
            .checked_add((self.dice.between(4, 95) as i64).seconds())?;
        let theirs = call.seconds.saturating_sub(self.dice.between(22, 38));
        let dollars = match call.side {
            0 => self.dice.between(38, 56),
            1 => self.dice.between(30, 44),
            2 => self.dice.between(85, 140),
            _ => self.dice.between(52, 74),
        };
        let cents = [0, 0, 0, 50, 25][self.dice.below(5)];
        let caller = call.caller.replace('+', "%2B");
        let (side, ref_id) = (call.side, call.ref_id.clone());
        if !call.qualified {
            // Short calls are mostly reported as rejected; some senders leave the payout blank.
            match self.dice.below(4) {
                0 => self.query(
                    side,
                    at,
                    format!("ref_id={ref_id}&caller_id={caller}&duration={theirs}&payout=0"),
                ),
                1 => self.query(
                    side,
                    at,
                    format!("ref_id={ref_id}&caller_id={caller}&duration={theirs}&payout="),
                ),
                _ => {}
            }
            return Ok(());
        }
        let good = match side {
            2 => format!(
                "{{\"pub_id\":\"{ref_id}\",\"caller_id\":\"{}\",\"duration\":{theirs},\"price\":{dollars}.{cents:02},\"currency\":\"USD\",\"state\":\"accepted\"}}",
                call.caller
            ),
            3 => format!(
                "ref_id={ref_id}&caller={caller}&duration={theirs}&payout_or_blank={dollars}.{cents:02}"
            ),
            _ => format!(
                "caller_id={caller}&duration={theirs}&payout={dollars}.{cents:02}&ref_id={ref_id}"
            ),
        };
        match n % 41 {
            // A retry a little later.
            3 | 19 => {
                self.say(side, at, &good);
                self.say(side, at.checked_add(41.seconds())?, &good);
            }
            // A correction some hours later.
            7 => {
                self.say(side, at, &good);
                let later = at.checked_add(5.hours())?;
                self.query(
                    side,
                    later,
                    format!(
                        "ref_id={ref_id}&caller_id={caller}&payout={}.{cents:02}",
                        dollars - 6
                    ),
                );
            }
            // Rejected after all.
            11 => {
                self.say(side, at, &good);
                self.query(
                    side,
                    at.checked_add(3.hours())?,
                    format!("ref_id={ref_id}&payout=0"),
                );
            }
            // Without the id: found by caller and duration.
            13 | 17 | 29 => {
                self.query(
                    side,
                    at,
                    format!("caller_id={caller}&duration={theirs}&payout={dollars}.{cents:02}"),
                );
            }
            // No report yet.
            5 | 23 | 31 | 37 => {}
            // What goes wrong.
            35 => self.query(
                side,
                at,
                format!("ref_id={ref_id}&caller_id={caller}&payout={dollars}&status=rejected"),
            ),
            38 => self.query(
                side,
                at,
                format!(
                    "caller_id={caller}&duration={}&payout={dollars}",
                    call.seconds + 190
                ),
            ),
            _ => self.say(side, at, &good),
        }
        Ok(())
    }

    fn say(&mut self, side: usize, at: Timestamp, text: &str) {
        if text.starts_with('{') {
            self.json(side, at, text.to_owned())
        } else {
            self.query(side, at, text.to_owned())
        }
    }

    /// Reports about nothing we know, and requests that were refused: all of the last day.
    fn strays(&mut self) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let ago = |minutes: i64| now.checked_sub((minutes * 60 + minutes % 53).seconds());
        // The solar buyer changed a name last night: the ids are right, the field is not.
        let ids: Vec<(String, u64, String)> = self
            .network
            .calls
            .iter()
            .rev()
            .filter(|c| c.side == 3 && c.qualified)
            .take(9)
            .map(|c| (c.ref_id.clone(), c.seconds, c.caller.clone()))
            .collect();
        for (n, (id, seconds, _)) in ids.iter().enumerate() {
            let talked = seconds.saturating_sub(30);
            self.query(
                3,
                ago(6 + 31 * i64::try_from(n)?)?,
                format!("lead_ref={id}&secs_talked={talked}&payout_or_blank=61.00"),
            );
        }
        for n in 0..4_i64 {
            self.query(
                0,
                ago(12 + 97 * n)?,
                format!("caller_id=%2B1305555019{n}&duration=94&payout=45&ref_id="),
            );
        }
        self.query(
            1,
            ago(19)?,
            "caller_id=anonymous&duration=122&payout=36.00".into(),
        );
        self.query(1, ago(233)?, "ref_id=ls-889120&payout=36.00".into());
        self.query(
            2,
            ago(47)?,
            "pub_id=[tag:User:pub_id]&caller_id=%2B16175550188&duration=210&price=12,500.00".into(),
        );
        self.json(
            2,
            ago(141)?,
            "{\"pub_id\": \"nl-0\", \"price\": \"110.00\", \"currency\": \"EUR\"".into(),
        );
        for (minutes, count) in [(4, 3), (88, 11), (300, 2)] {
            let refusal = Refusal {
                reason: Reason::SecretMissing,
                count,
            };
            self.push(1, ago(minutes)?, None, Some(refusal));
        }
        self.ambiguous(now)?;
        Ok(())
    }

    /// One caller, two calls of different publishers, one report: nobody is credited by a guess.
    fn ambiguous(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let caller = AMBIGUOUS_CALLER.replace('+', "%2B");
        self.query(
            0,
            now.checked_sub(9.minutes())?,
            format!("caller_id={caller}&duration=151&payout=52.00"),
        );
        Ok(())
    }
}

/// The webhook that a picture is of.
pub fn webhook(network: &Network, side: usize) -> Uuid {
    network.webhooks[side]
}
