//! Operators at the console meanwhile: they record calls late, correct estimates, and replay, assign,
//! apply, ignore, open again or undo rows, one by one or many at once. A 200 to a recorded call is a
//! promise like the door's.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use trueup_store::bulk_replays::{self, NewReplay};
use trueup_store::{Pool, PoolSettings};
use trueup_testkit::http;
use uuid::Uuid;

use crate::fixtures::{
    API_KEY, Account, CALLS, LATE_CALLS, late_caller, late_ref_id, ref_id, seconds,
};
use crate::topology::Cluster;

/// Operators are slower than machines.
const PAUSE: Duration = Duration::from_millis(25);
/// The console may wait for Postgres, but not for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(45);

#[derive(Default)]
pub struct Done {
    /// Calls whose recording was answered 200.
    pub recorded: HashSet<Uuid>,
    pub answers: BTreeMap<u16, u64>,
    pub bulk_replays: u64,
    /// Answers that the contract does not have.
    pub strange: Vec<String>,
}

pub struct SimulatedOperators {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Done>,
}

impl SimulatedOperators {
    pub fn start(scene: &Cluster, seed: u64) -> anyhow::Result<SimulatedOperators> {
        let settings = PoolSettings::for_application("trueup-faults", 1);
        let pool = Pool::new(&scene.ground.database.url, &settings)?;
        let stop = Arc::new(AtomicBool::new(false));
        let operator = SimulatedOperator {
            random: StdRng::seed_from_u64(seed ^ 0x5EED),
            desk: scene.desk,
            account: scene.account.clone(),
            pool,
            late: (0..LATE_CALLS).map(|_| Uuid::new_v4()).collect(),
            rows: Vec::new(),
            done: Done::default(),
        };
        Ok(SimulatedOperators {
            task: tokio::spawn(operator.run(Arc::clone(&stop))),
            stop,
        })
    }

    pub async fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_default()
    }
}

struct SimulatedOperator {
    random: StdRng,
    desk: SocketAddr,
    account: Account,
    pool: Pool,
    /// The ids under which late calls are recorded.
    late: Vec<Uuid>,
    /// Rows that were seen last.
    rows: Vec<Uuid>,
    done: Done,
}

impl SimulatedOperator {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Done {
        while !stop.load(Ordering::Relaxed) {
            match self.random.random_range(0..20) {
                0..6 => self.record_calls().await,
                6..8 => self.load_rows().await,
                8..10 => self.replay_many().await,
                _ => self.act().await,
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.done
    }

    /// A few calls: late ones for the first time, or again with another estimate.
    async fn record_calls(&mut self) {
        let mut copies = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            let known = self.random.random_bool(0.3);
            let n = self
                .random
                .random_range(0..if known { CALLS } else { LATE_CALLS });
            let id = if known {
                self.account.calls[n]
            } else {
                self.late[n]
            };
            let caller = if known {
                crate::fixtures::caller(n)
            } else {
                late_caller(n)
            };
            let value = [1_000, 2_500, 4_000][self.random.random_range(0..3)];
            let ended = Timestamp::now() - SignedDuration::from_mins(2);
            copies.push(json!({
                "id": id,
                "ref_id": if known { ref_id(n) } else { late_ref_id(n) },
                "caller": caller,
                "duration_seconds": seconds(n),
                "started_at": (ended - SignedDuration::from_secs(seconds(n).into())).to_string(),
                "assignment_id": self.account.assignments[n % self.account.assignments.len()],
                "value_cents": value,
                "qualified": self.random.random_bool(0.7),
            }));
            ids.push(id);
        }
        let (status, answer) = self
            .ask("POST", "/api/v1/calls", &Value::Array(copies))
            .await;
        if status == 200 {
            let failed: HashSet<usize> = answer["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|error| usize::try_from(error["index"].as_u64()?).ok())
                .collect();
            let kept = ids
                .into_iter()
                .enumerate()
                .filter(|(at, _)| !failed.contains(at))
                .map(|(_, id)| id);
            self.done.recorded.extend(kept);
        }
    }

    async fn load_rows(&mut self) {
        let path = format!(
            "/api/v1/webhooks/{}/events?limit=100",
            self.account.webhook.id
        );
        let (status, answer) = self.ask("GET", &path, &Value::Null).await;
        if status == 200 {
            let rows = answer["data"].as_array().into_iter().flatten();
            self.rows = rows
                .filter_map(|row| row["id"].as_str()?.parse().ok())
                .collect();
        }
    }

    async fn act(&mut self) {
        if self.rows.is_empty() {
            return self.load_rows().await;
        }
        let row = self.rows[self.random.random_range(0..self.rows.len())];
        let call = self.account.calls[self.random.random_range(0..CALLS)];
        let (action, body) = match self.random.random_range(0..14) {
            0..4 => ("replay", json!({})),
            4..6 => ("assign", json!({ "call_id": call })),
            6 => ("apply", json!({})),
            7 => (
                "apply",
                json!({ "payout_cents": self.random.random_range(0..9_000) }),
            ),
            8..10 => ("ignore", json!({})),
            10 => ("unignore", json!({})),
            _ => ("undo", json!({})),
        };
        self.ask("POST", &format!("/api/v1/events/{row}/{action}"), &body)
            .await;
    }

    /// Begins a bulk replay of the rows seen last, as the console's page does, and sometimes stops it
    /// again. Nothing happens where Postgres is away or another replay is under way.
    async fn replay_many(&mut self) {
        let Ok(client) = self.pool.get().await else {
            return;
        };
        let mut event_ids = self.rows.clone();
        // Ids are made in the order of reception (M10).
        event_ids.sort_unstable();
        let replay = NewReplay {
            id: Uuid::now_v7(),
            account_id: self.account.webhook.account_id,
            actor: "operator@example.test",
            filter: "",
            event_ids: &event_ids,
        };
        let begun = bulk_replays::insert_replay(&client, &replay).await;
        self.done.bulk_replays += u64::from(begun.unwrap_or(false));
        if self.random.random_bool(0.2) {
            // A lost connection leaves it under way: both ends are right.
            let _ = bulk_replays::stop_replay(&client, replay.account_id, replay.id).await;
        }
    }

    /// Status 0: no answer.
    async fn ask(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {API_KEY}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let asking = http::send(self.desk, method, path, &headers, text.as_bytes());
        let (status, answer) = match tokio::time::timeout(ANSWER_WITHIN, asking).await {
            Ok(Ok(answer)) => (
                answer.status,
                serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
            ),
            Ok(Err(_)) | Err(_) => (0, Value::Null),
        };
        *self.done.answers.entry(status).or_default() += 1;
        // 404: a row that is not there yet; 409, 422: what cannot be done to it.
        if !matches!(status, 0 | 200 | 404 | 409 | 422 | 503) {
            self.done
                .strange
                .push(format!("{method} {path}: {status} with {answer}"));
        }
        (status, answer)
    }
}
