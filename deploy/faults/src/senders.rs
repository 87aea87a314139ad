//! Senders that never stop: mixed reports, some sent again, some in batches; they note every answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use trueup_testkit::http::Client;
use uuid::Uuid;

use crate::fixtures::{self, CALLS, LATE_CALLS, caller, late_caller, late_ref_id, ref_id};
use crate::topology::Cluster;

const SENDERS: u64 = 8;
/// A sender's own pause between two reports, so that two cores are left for the faults.
const PAUSE: Duration = Duration::from_millis(4);
/// Slower than any answer that the door promises.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What the senders saw.
#[derive(Default)]
pub struct Sent {
    /// Every id that was answered 200.
    pub accepted: Vec<Uuid>,
    /// How often each status was answered; 0: no answer (refused, reset).
    pub answers: BTreeMap<u16, u64>,
    /// When each 200 came, and after how many milliseconds.
    pub taken: Vec<(Instant, u64)>,
    /// Answers that the contract does not have.
    pub strange: Vec<String>,
}

impl Sent {
    /// The 99th of a hundred 200s took this long (ms).
    pub fn p99(&self) -> u64 {
        let mut millis: Vec<u64> = self.taken.iter().map(|(_, millis)| *millis).collect();
        millis.sort_unstable();
        millis
            .get(millis.len() * 99 / 100)
            .copied()
            .unwrap_or_default()
    }

    /// The longest time after `since` in which nobody was answered 200.
    pub fn longest_pause(&self, since: Instant) -> Duration {
        let mut times: Vec<Instant> = self
            .taken
            .iter()
            .map(|(at, _)| *at)
            .filter(|at| *at >= since)
            .collect();
        times.push(since);
        times.sort_unstable();
        times
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }
}

pub struct Senders {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Sent>>,
}

impl Senders {
    pub fn start(scene: &Cluster, seed: u64) -> Senders {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..SENDERS)
            .map(|n| {
                let sender = Sender {
                    random: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(n)),
                    doors: scene.doors.clone(),
                    path: scene.account.webhook.path(),
                    client: None,
                    sent: Sent::default(),
                };
                tokio::spawn(sender.run(Arc::clone(&stop)))
            })
            .collect();
        Senders { stop, tasks }
    }

    pub async fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for task in self.tasks {
            let Ok(sent) = task.await else { continue };
            all.accepted.extend(sent.accepted);
            all.taken.extend(sent.taken);
            all.strange.extend(sent.strange);
            for (status, count) in sent.answers {
                *all.answers.entry(status).or_default() += count;
            }
        }
        all
    }
}

struct Sender {
    random: StdRng,
    doors: Vec<SocketAddr>,
    path: String,
    client: Option<Client>,
    sent: Sent,
}

impl Sender {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Sent {
        let mut last = Value::Null;
        while !stop.load(Ordering::Relaxed) {
            let again = last != Value::Null && self.random.random_bool(0.15);
            let report = if again { last.clone() } else { self.draw() };
            self.send(&report).await;
            last = report;
            tokio::time::sleep(PAUSE).await;
        }
        self.sent
    }

    fn draw(&mut self) -> Value {
        if self.random.random_bool(0.08) {
            let n = self.random.random_range(1..30);
            return Value::Array((0..n).map(|_| self.one()).collect());
        }
        self.one()
    }

    fn one(&mut self) -> Value {
        let call = self.random.random_range(0..CALLS);
        let late = self.random.random_range(0..LATE_CALLS);
        let payout = ["0.00", "12.50", "42.00", "50.00", "99.99", "-50.00", ""]
            [self.random.random_range(0..7)];
        match self.random.random_range(0..20) {
            0..10 => json!({"ref_id": ref_id(call), "payout": payout}),
            10..15 => json!({"caller_id": caller(call), "duration": 60 + call, "payout": payout}),
            15..17 => json!({"ref_id": late_ref_id(late), "payout": payout}),
            17 => json!({"caller_id": late_caller(late), "duration": 60 + late, "payout": payout}),
            18 => json!({"ref_id": ref_id(call), "payout": "no amount"}),
            _ => json!({"ref_id": "nobody's", "payout": payout}),
        }
    }

    async fn send(&mut self, report: &Value) {
        let body = report.to_string();
        let started = Instant::now();
        match tokio::time::timeout(ANSWER_WITHIN, self.try_send(body.as_bytes())).await {
            Ok(Ok((status, answer))) => {
                *self.sent.answers.entry(status).or_default() += 1;
                self.record_response(status, &answer, started);
            }
            Ok(Err(_)) => {
                self.client = None;
                *self.sent.answers.entry(0).or_default() += 1;
            }
            Err(_) => {
                self.client = None;
                self.sent
                    .strange
                    .push(format!("no answer within {ANSWER_WITHIN:?}"));
            }
        }
    }

    async fn try_send(&mut self, body: &[u8]) -> std::io::Result<(u16, Value)> {
        let client = match &mut self.client {
            Some(client) => client,
            None => {
                let door = self.doors[self.random.random_range(0..self.doors.len())];
                self.client.insert(Client::connect(door).await?)
            }
        };
        let headers = [
            ("content-type", "application/json"),
            ("x-webhook-secret", fixtures::SECRET),
        ];
        let answer = client.send("POST", &self.path, &headers, body).await?;
        let json = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.header("connection") == Some("close") {
            self.client = None;
        }
        Ok((answer.status, json))
    }

    fn record_response(&mut self, status: u16, answer: &Value, started: Instant) {
        match status {
            200 => {
                let one = answer["event_id"].as_str().into_iter();
                let many = answer["event_ids"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let ids: Vec<Uuid> = one.chain(many).filter_map(|id| id.parse().ok()).collect();
                if ids.is_empty() || answer["ok"] != true {
                    self.sent.strange.push(format!("200 with {answer}"));
                }
                self.sent.accepted.extend(ids);
                let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.sent.taken.push((Instant::now(), millis));
            }
            503 => {}
            _ => self.sent.strange.push(format!("{status} with {answer}")),
        }
    }
}
